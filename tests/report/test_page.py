"""The report in a real browser: nothing from outside, nothing run, nothing cut off."""

import base64
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from minitl.report import Report
from minitl.report.page import data_uri, heated, plane

EVIL = "<img src=x onerror=\"document.title='run'\">'\"&{{ 7*7 }}{% raw %}"
NAMES = [EVIL, "完好的电池 ひびわれ", "x" * 300]
RNG = np.random.default_rng(0)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def everything(count=40, names=NAMES):
    """A report with all its sections, names that wish ill among them."""
    m = len(names)
    truth, p = RNG.integers(0, m, count), RNG.dirichlet(np.ones(m), count)
    images = RNG.integers(0, 255, (count, 40, 48, 3)).astype(np.uint8)
    paths = [f"photos/{names[label]}/{i}{EVIL}.png" for i, label in enumerate(truth)]
    paths[:5] = ["photos/" + "n" * 300 + f"{i}\udcff\u202e\n.png" for i in range(5)]
    figures = {"accuracy": {"value": 0.83, "low": 0.76, "high": 0.885}, "log_loss": {"value": 0.4}}
    report = Report(f"A title {EVIL}", f"A lead {EVIL}", f"minitl train '{EVIL}'")
    report.facts = {"base": "VGG16", EVIL: "x" * 300, "中文": EVIL}
    report.figures, report.notes = {f"On {EVIL}": figures}, [f"Seen before: {EVIL}"]

    def heat(pixels, classes):
        assert pixels.shape == (len(classes), 40, 48, 3)
        return RNG.random(pixels.shape[:3])

    report.add_predictions(truth, p, names, paths, lambda i: images[i], heat)
    report.add_map(RNG.random((count, 7)), truth, names, lambda i: images[i])
    history = {"loss": [3.0, 2.0], "val_loss": [3.0, float("nan")], EVIL: [1.0, 2.0]}
    report.add_history([(EVIL, history), ("中文", {"loss": [1.0]})])
    finding = SimpleNamespace(said=f"labelled {EVIL}", paths=(paths[0], paths[9]))
    kinds = [(f"Copies {EVIL}", "They count twice.", [finding] * 30)]
    report.add_findings(kinds, lambda path: images[0])
    return report


def test_every_name_is_escaped_and_nothing_is_outside():
    html = everything().html()
    assert "<img src=x" not in html and "&lt;img src=x" in html and "{{ 7*7 }}" in html
    assert "49" not in re.sub(r"base64,[^\"]*|[\d.]{4,}", "", html.split("<main")[0])
    addresses = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"'>\s)]*)", html)
    assert addresses and all(a.startswith(("data:", "#", "x")) for a in addresses)
    assert "<script" not in html and "default-src 'none'" in html
    assert r"\udcff\u202e\n" in html  # what no terminal, and no page, should obey


def test_a_report_has_the_sections_of_what_it_was_given(tmp_path):
    html = Report("Nothing yet").html()
    assert "Nothing yet" in html and 'id="wrong"' not in html and 'id="check"' not in html
    report = everything(names=["a", "b"])
    html = report.html()
    for section in ("figures", "curves", "wrong", "unsure", "map", "check", "made"):
        assert f'id="{section}"' in html
    assert "83.0&nbsp;%" in html and "76.0 to 88.5&nbsp;%" in html
    assert len(report.wrong) == min(report.wrong_count, 24) and report.wrong[0].heat
    report.write(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text("utf-8").splitlines()[0] == "<!doctype html>"


def test_wrong_pictures_come_worst_first_and_right_ones_not_at_all():
    p = np.array([[0.6, 0.4], [0.99, 0.01], [0.2, 0.8], [0.45, 0.55]])
    report = Report("t")
    image = np.zeros((8, 8, 3))
    report.add_predictions([1, 1, 1, 0], p, ["a", "b"], list("wxyz"), lambda i: image)
    assert [(s.name, s.said) for s in report.wrong] == [
        ("x", "said a 99%, is b"),
        ("w", "said a 60%, is b"),
        ("z", "said b 55%, is a"),
    ]
    assert [s.name for s in report.unsure] == ["z", "w", "y"]  # x is surer than 0.9
    assert report.unsure[0].said == "b 55% or a 45%; is a"


def test_pictures_that_are_gone_are_left_out():
    def read(i):
        if i == 1:
            raise FileNotFoundError("gone")
        return np.zeros((8, 8, 3))

    report = Report("t")
    report.add_predictions([1, 1], [[0.9, 0.1], [0.8, 0.2]], ["a", "b"], ["x", "y"], read)
    assert [s.name for s in report.wrong] == ["x"] and report.wrong_count == 2
    report.html()


def test_the_map_is_the_plane_of_the_two_main_directions():
    f = RNG.normal(size=(50, 20)) * ([5, 3] + [0.1] * 18)
    places, share = plane((f - f.mean(axis=0)).astype(np.float32), np.random.default_rng(1))
    u, s, _ = np.linalg.svd(f - f.mean(axis=0), full_matrices=False)
    for k in (0, 1):
        assert abs(places[:, k] @ u[:, k]) == pytest.approx(s[k], rel=1e-4)
    assert share == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), rel=1e-4)
    report = Report("t")
    report.add_map(f, None, (), lambda i: np.zeros((4, 4, 3)))
    assert f"holds {share:.0%}" in report.map_caption and report.map.count("<circle") == 50


def test_a_thumbnail_is_small_and_heat_is_bright():
    image = RNG.integers(0, 255, (900, 600, 3)).astype(np.uint8)
    uri = data_uri(image, 100)
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(base64.b64decode(uri.split(",")[1])) < 12_000
    shown = heated(np.full((4, 4, 3), 100), np.eye(4))
    assert shown.shape == (4, 4, 3) and shown[0, 0].mean() > shown[0, 1].mean() + 50
    assert shown.min() >= 0 and shown.max() <= 255


# --- In a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window. In CI a missing one is a failure."""
    required = os.environ.get("CI")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if required:
            raise
        pytest.skip("playwright is not installed")
    if CHROMIUM is None:
        assert not required, "CI needs a browser: install chromium"
        pytest.skip("there is no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser(browser, tmp_path, width, scheme):
    path = tmp_path / "report.html"
    everything().write(path)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    page.wait_for_function("[...document.images].every(i => i.complete)")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.title() == f"A title {EVIL}"
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert page.evaluate("document.images.length") > 60 and page.evaluate(broken) == 0
    # Nothing sticks out of the page, and no text out of the box that it is in.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    cut = """[...document.querySelectorAll('main *, header *')].filter(e =>
        !(e instanceof SVGElement) && !e.closest('.bar') &&
        (e.getBoundingClientRect().right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 1) &&
        getComputedStyle(e).display != 'inline').map(e => e.outerHTML.slice(0, 120))"""
    assert page.evaluate(cut) == []
    page.close()


def test_everybody_can_use_it(browser, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    path = tmp_path / "report.html"
    everything().write(path)
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(path.as_uri())
        found = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.close()
