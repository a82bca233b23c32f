"""The site of `docs/`: built once with every chapter run, then read file by file and in a browser.

The build ends at the first cell that raises, and at any warning. It needs `minitl[docs]`, VGG16's
weights and, for the chapters' pictures, scikit-learn and elpv-dataset.
"""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from minitl import naming
from tests import house
from tests.browser import browser_page

pytestmark = pytest.mark.weights
DOCS = house.ROOT / "docs"
PACKAGES = ("sphinx", "myst_nb", "furo", "jupytext", "ipykernel", "sklearn", "elpv_dataset")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the finished site."""
    for package in PACKAGES:
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", out / "tree"]
    paths = os.pathsep.join([str(house.ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*line, DOCS, out / "html"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return out / "html"


class Page(HTMLParser):
    """What a page points at, and what can be pointed at in it."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.ids, self.depth_of_main = [], set(), 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.update(found[key] for key in ("id", "name") if found.get(key))
        self.targets += [found[key] for key in ("href", "src") if found.get(key)]


def pages_of(site):
    return sorted(site.rglob("*.html"))


def test_every_link_leads_somewhere(site):
    read = {path: Page(path) for path in pages_of(site)}
    broken = []
    for path, page in read.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = read[there].ids if there in read else None
            if not there.exists() or (parts.fragment and known is not None and
                                      unquote(parts.fragment) not in known):  # fmt: skip
                broken.append(f"{path.relative_to(site)}: {target}")
    assert broken == []
    assert len(read) > 100


def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.glob("*.html"):
        text = path.read_text("utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', text), path


def test_every_public_name_is_in_the_reference(site):
    for room in ("layers", "ops", "optimizers", "callbacks", "transfer", "judging", "autograd"):
        ids = Page(site / "api" / f"{room}.html").ids
        for name, thing in naming.public_names(f"minitl.{room}").items():
            if callable(thing) and getattr(thing, "__name__", "") == name:
                assert f"minitl.{room}.{name}" in ids, name


DRAWN = r"(?m)^(?:\w+_sheet|feature_plane|loss_surface|learning_curves|tile_picture|\w+_diagram)\("


def test_chapters_show_what_they_computed(site):
    for chapter in DOCS.glob("[0-9]*.md"):
        html = (site / chapter.with_suffix(".html").name).read_text("utf-8")
        drawn = len(re.findall(DRAWN, chapter.read_text("utf-8")))
        assert len(set(re.findall(r'src="(_images/[^"]+)"', html))) == drawn, chapter.name
        assert "cell_output" in html, chapter.name


def test_the_pages_in_a_browser(site):
    """No error in the console, no picture that is not there."""
    with browser_page() as page:
        for path in (p for p in pages_of(site) if "source" not in p.parts):
            page.goto(path.as_uri())
            broken = page.evaluate(
                "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"
            )
            assert broken == [], path.name
        assert page.faults == []


def test_a_page_is_no_wider_than_a_telephone(site):
    """What is wider scrolls for itself; the table of `backward` is there whole."""
    wide = "document.documentElement.scrollWidth > innerWidth"
    with browser_page(width=400) as page:
        for path in (p for p in pages_of(site) if "source" not in p.parts):
            page.goto(path.as_uri())
            assert not page.evaluate(wide), path.name
        page.goto((site / "backward.html").as_uri())
        box = page.locator("#backward table").bounding_box()
        assert box["x"] + box["width"] <= 400


def test_backward_step_by_step(site):
    with browser_page() as page:
        page.goto((site / "backward.html").as_uri())
        number = lambda what: page.locator(f"#{what}").inner_text()  # noqa: E731
        for _ in range(4):
            page.click("#next")
        assert (number("value-error"), number("value-loss")) == ("1", "4")
        for _ in range(3):  # the edges are counted, then loss hands on
            page.click("#next")
        assert "w waits for 1 more" in number("told")
        assert (number("gradient-w"), number("waiting-w"), number("gradient-x")) == ("1", "1", "")
        while page.locator("#next").is_enabled():
            page.click("#next")
        assert (number("gradient-w"), number("gradient-x")) == ("5", "6")
        assert number("told") == "Done: dloss/dw = 5, dloss/dx = 6."
        page.fill("#input-w", "-1")
        while page.locator("#next").is_enabled():
            page.click("#next")
        # error = -7: dloss/dw = 2 * -7 * 2 + 1, dloss/dx = 2 * -7 * -1
        assert number("told") == "Done: dloss/dw = -27, dloss/dx = 14."
        assert page.faults == []


@pytest.mark.parametrize("chapter", ["5-freezing", "9-winograd"])
def test_a_chapter_opens_as_a_notebook(chapter):
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(DOCS / f"{chapter}.md")
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    text = (DOCS / f"{chapter}.md").read_text("utf-8")
    assert cells == [s.rstrip() for s in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)]
