"""The study path: every chapter's snippets run, and what it points at is there."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
CHAPTERS = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_snippets_run(chapter, capsys):
    snippets = re.findall(r"^```python\n(.*?)^```$", chapter.read_text("utf-8"), re.M | re.S)
    assert snippets or chapter.stem == "README"
    names: dict = {"__name__": "__main__"}
    for i, snippet in enumerate(snippets, 1):
        exec(compile(snippet, f"{chapter.name}, snippet {i}", "exec"), names)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_what_a_chapter_points_at_is_there(chapter):
    text = chapter.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DOCS / target).exists(), target
    for file in re.findall(r"`((?:minitl|examples|benchmarks)/[\w/]+(?:\.py|/))`", text):
        assert (DOCS.parent / file).exists(), file


def test_every_chapter_is_in_the_list():
    contents = (DOCS / "README.md").read_text("utf-8")
    for chapter in CHAPTERS:
        assert chapter.name in contents or chapter.stem == "README"
