"""The study path: every chapter's snippets run, and what it points at is there."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import house

DOCS = Path(__file__).parent.parent / "docs"
CHAPTERS = sorted(DOCS.glob("*.md"))
LISTS = ("README", "glossary", "scaling")  # have no snippets
PAGES = [*CHAPTERS, *(house.ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]


def snippets_of(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


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
    (tmp_path / "main.py").write_text(program)
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


def test_every_chapter_is_in_the_list():
    contents = (DOCS / "README.md").read_text("utf-8")
    for chapter in CHAPTERS:
        assert chapter.name in contents or chapter.stem == "README"


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
