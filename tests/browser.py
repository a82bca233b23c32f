"""Pages are looked at in a real browser, Debian's Chromium, without a window.

Under CI a missing browser is a failure; elsewhere these tests are skipped.
"""

import contextlib
import os
import shutil
import time

import pytest


@contextlib.contextmanager
def browser_page(width=1400, height=900, **how):
    """A page of Chromium. `page.faults`: errors of the console and of scripts, and requests that
    failed; `page.asked`: every address that was asked for."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing: apt-get install chromium")
        pytest.skip("Chromium is missing")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, **how)
        page.faults, page.asked = [], []
        page.on("console", lambda m: m.type == "error" and page.faults.append(m.text))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("dialog", lambda d: (page.faults.append(f"dialog {d.message}"), d.dismiss()))
        page.on("requestfailed", lambda r: page.faults.append(f"{r.url}: {r.failure}"))
        page.on("request", lambda r: page.asked.append(r.url))
        yield page
        browser.close()


def until(page, expression, value, seconds=60):
    """Wait for an expression in the page to have this value; the page may forbid `eval`."""
    deadline = time.monotonic() + seconds
    while (found := page.evaluate(expression)) != value:
        assert time.monotonic() < deadline, f"{expression} is {found!r}, not {value!r}"
        page.wait_for_timeout(20)


def serious_findings(page):
    """What axe-core calls serious or critical on a page: for each its rule and the first place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    bad = [each for each in found if each["impact"] in ("serious", "critical")]
    return [(each["id"], each["nodes"][0]["html"]) for each in bad]
