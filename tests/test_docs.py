"""The study path: every chapter's snippets run, and what it points at is there.

Where the site can be built (`test_site.py`), that runs the chapters, and they are not run twice.
"""

import ast
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minitl.study import all_texts
from tests import house

DOCS = Path(__file__).parent.parent / "docs"
CHAPTERS = sorted(DOCS.glob("*.md"))
LISTS = ("README", "index", "glossary", "scaling", "where", "measured")  # have no snippets
COURSE = sorted(DOCS.glob("[0-9]*.md"), key=lambda path: int(path.stem.split("-")[0]))
SITE = ("sphinx", "myst_nb", "furo", "jupytext", "ipykernel", "sklearn", "elpv_dataset")
CHINESE = sorted(DOCS.glob("zh/*.md"))
PAGES = [*CHAPTERS, *CHINESE, *(house.ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]


def snippets_of(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


@pytest.mark.weights
@pytest.mark.skipif(all(map(importlib.util.find_spec, SITE)), reason="the site's build runs them")
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_snippets_run(chapter, capsys):
    if chapter.stem == "extending":
        return  # see below
    assert snippets_of(chapter) or chapter.stem in LISTS
    names: dict = {"__name__": "__main__"}
    for i, snippet in enumerate(snippets_of(chapter), 1):
        exec(compile(snippet, f"{chapter.name}, snippet {i}", "exec"), names)


def test_the_whole_example_of_extending_runs(tmp_path):
    """Snippets that begin with a file's name are that file; the last one is run beside them."""
    *files, program = snippets_of(DOCS / "extending.md")
    for text in files:
        (tmp_path / text.split()[1]).write_text(text)
    (tmp_path / "main.py").write_text(f"import mine\n{program}")
    paths = os.pathsep.join([str(house.ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Did you mean 'alpha_initializer'?" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_page_points_at_is_there(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for file in re.findall(r"`((?:[\w.]+/)*[\w.]+(?:\.py|\.txt|\.md|/))`", text):
        assert place(file).exists(), file
    # 'the function `choose` in [`minitl/...`](...)', 'PARTS in `naming.py`'
    for name, file in re.findall(r"`(\w+)` in\s\[?`([\w/]+\.py)`", text):
        assert name in names_of(place(file)), f"{name} in {file}"


def place(file):
    """A file as pages name it: from the top of the repository, or of the package."""
    inside = house.PACKAGE / file
    return inside if inside.exists() else house.ROOT / file


def names_of(path):
    """Classes, functions, attributes and variables that a file defines."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def test_every_page_is_in_the_lists():
    contents, tree = ((DOCS / name).read_text("utf-8") for name in ("README.md", "index.md"))
    for page in CHAPTERS:
        if page.stem not in ("README", "index"):
            assert page.name in contents, page.name
            assert re.search(rf"(?m)^{re.escape(page.stem)}$", tree), page.name


def stages_of(chapter):
    """The numbers of the stages that a chapter ends with."""
    end = chapter.read_text("utf-8").split("## Build it yourself")[1]
    listed = re.findall(r"[Ss]tages? (\d+)(?:(?:, | and )(\d+))*", end.split("## Three")[0])
    starts = re.findall(r"`minitl study start (\d+)`", end)
    return {int(n) for n in starts} | {int(n) for pair in listed for n in pair if n}


@pytest.mark.parametrize("chapter", COURSE, ids=lambda path: path.stem)
def test_a_chapter_ends_with_stages_and_three_questions(chapter):
    text = chapter.read_text("utf-8")
    assert 2 <= len(re.findall(r"`minitl\sstudy start \d+`", text)) <= 3
    questions = text.split("## Three questions")[1]
    assert (
        len(
            re.findall(r"<details><summary>[^<]+\?</summary>\n\n.+?\n\n</details>", questions, re.S)
        )
        == 3
    )


def test_the_chapters_lead_to_every_stage_that_there_is():
    named = set().union(*map(stages_of, COURSE))
    assert named == set(all_texts())


@pytest.mark.parametrize("page", CHINESE, ids=lambda path: path.stem)
def test_a_chinese_chapter_is_as_new_as_the_english_one(page):
    """It keeps a digest of the text that it was made from, and has the same code."""
    english, text = (path.read_text("utf-8") for path in (DOCS / page.name, page))
    digest = hashlib.sha256(english.encode()).hexdigest()[:16]
    of, kept = re.findall(r"\A<!-- (docs/\S+), sha256 (\w{16}) -->\n", text)[0]
    assert of == f"docs/{page.name}"
    how = f"bring docs/zh/{page.name} up to date with {of}, then its first line to sha256 {digest}"
    assert kept == digest, how
    assert snippets_of(page) == snippets_of(DOCS / page.name), how


def test_modules_have_moved_where_the_changes_say():
    text = (house.ROOT / "CHANGELOG.md").read_text("utf-8")
    moved = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", text, re.M)
    assert len(moved) > 40
    for was, now in moved:
        assert f"minitl.{now}" in house.modules(), now
        again = ("models", "report", "transfer")  # rooms of these names
        assert f"minitl.{was}" not in house.modules() or was in again, was


def test_the_readme_lists_the_spine():
    """In reading order, each file with its lines as they are or nearly so: see `house.py`."""
    section = (house.ROOT / "README.md").read_text("utf-8").split("## Reading the source")[1]
    section = section.split("\n## ")[0]
    assert "## Speed and accuracy" not in section
    rows = re.findall(r"^\| `([\w/.]+)` \| (\d+) \|", section, re.M)
    assert [name for name, _ in rows] == house.spine()
    total = int(re.findall(r"the \*spine\*, ([\d,]+) lines", section)[0].replace(",", ""))
    assert total == pytest.approx(sum(map(house.spine_lines, house.spine())), rel=0.02)
    for name, lines in rows:
        assert int(lines) == pytest.approx(house.spine_lines(name), abs=10, rel=0.1), name


def test_the_readme_shows_a_route_that_fits_into_a_weekend():
    """Words, lines and minutes as they are, or nearly so: `python -m tests.house --readme`."""
    text = (house.ROOT / "README.md").read_text("utf-8")
    shown = text.split("<!-- route:start -->\n")[1].split("\n<!-- route:end -->")[0]
    now = house.route_table().splitlines()
    assert len(shown.splitlines()) == len(now)
    for line, today in zip(shown.splitlines(), now, strict=True):
        cells, others = ([c.strip() for c in row.split("|")] for row in (line, today))
        assert cells[1:3] == others[1:3]
        for cell, other in zip(cells[3:6], others[3:6], strict=True):
            if other.replace(",", "").isdigit():
                numbers = [int(each.replace(",", "")) for each in (cell, other)]
                assert numbers[0] == pytest.approx(numbers[1], rel=0.1, abs=10), line
    assert sum(row[4] for row in house.route() if row[0] != "skip") <= 600
