"""The page in a real browser: what a person sees and does, with the keyboard too, and offline."""

import csv

import pytest

from tests.browser import browser_page, serious_findings, until
from tests.serve.conftest import BLUE, GREEN, NAMES, RED

EVIL = "<img src=x onerror=alert(1)>'\"" + "名" * 60 + "x" * 180 + ".png"


def files(**contents):
    return [{"name": name, "mimeType": "image/png", "buffer": c} for name, c in contents.items()]


@pytest.fixture(params=[400, 1400])
def page(server, request):
    with browser_page(width=request.param) as page:
        page.goto(server.address)
        until(page, "document.querySelector('#about').textContent.includes('tells')", True)
        yield page
        assert page.faults == []
        assert all(url.startswith((server.address, "blob:", "data:")) for url in page.asked)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0


def wait_for_answers(page, text):
    until(page, "document.querySelector('#status').textContent", text)


def test_chosen_pictures_get_their_classes(page):
    page.set_input_files("#files", files(**{"a.png": RED, EVIL: BLUE, "b.png": b"no picture"}))
    wait_for_answers(page, "3 of 3 pictures, 1 without an answer")
    cards = page.locator("#results > li")
    assert cards.nth(0).locator(".answer").inner_text().startswith(f"{NAMES[0]} · ")
    assert cards.nth(1).locator(".answer").inner_text().startswith(f"{NAMES[2]} · ")
    assert cards.nth(1).locator("h3").inner_text() == EVIL
    assert "not an image" in cards.nth(2).locator(".error").inner_text()
    # Nothing of a name became HTML, and the first picture is shown.
    assert page.locator("h3 img, .name b").count() == 0
    assert page.evaluate("document.querySelector('#results img').naturalWidth") == 40
    assert serious_findings(page) == []


def test_where_it_looked_lies_over_the_picture_and_goes_away(page):
    page.set_input_files("#files", files(**{"a.png": RED}))
    wait_for_answers(page, "1 of 1 pictures")
    button = page.get_by_role("button", name="Where it looked")
    button.click()
    heat = page.locator("img.heat")
    heat.wait_for()
    until(page, "document.querySelector('img.heat').naturalWidth", 32)
    assert heat.bounding_box() == page.locator(".frame img").first.bounding_box()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert not heat.is_visible() and button.get_attribute("aria-pressed") == "false"


def test_the_table_that_is_saved_is_the_one_that_is_shown(page):
    page.set_input_files("#files", files(**{'a "b",c.png': GREEN}))
    wait_for_answers(page, "1 of 1 pictures")
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save as CSV").click()
    with open(saving.value.path(), encoding="utf-8", newline="") as file:
        head, row = list(csv.reader(file))
    assert head == ["name", "class", *NAMES, "error"]
    assert row[:2] == ['a "b",c.png', NAMES[1]] and float(row[3]) > 0.9


def test_the_keyboard_reaches_all_of_it(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    page.set_input_files("#files", files(**{"a.png": RED}))
    wait_for_answers(page, "1 of 1 pictures")
    reached = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent"))
    assert {"Save as CSV", "Clear", "Where it looked"} <= reached
    page.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Enter")
    assert page.locator("#results > li").count() == 0
    assert page.evaluate("document.activeElement.id") == "files"


def test_dropped_pictures(page):
    page.evaluate(
        """async (bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            const drop = document.querySelector("#drop");
            for (const kind of ["dragover", "drop"])
                drop.dispatchEvent(new DragEvent(
                    kind, {bubbles: true, cancelable: true, dataTransfer: data}));
        }""",
        list(RED),
    )
    wait_for_answers(page, "1 of 1 pictures")
    assert page.locator(".answer").inner_text().startswith(NAMES[0])
    assert not page.locator("#drop.over").count()
