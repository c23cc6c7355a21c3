"""`workbench app`: the app as Voila serves it, with no notebook around it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")
"""A folder for pictures to be looked at; none are taken without it."""
READY = re.compile(r"http://127\.0\.0\.1:\d+/")

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is, once Voila says so."""
    log = tmp_path_factory.mktemp("server") / "voila.log"
    command = [sys.executable, "-m", "workbench", "app", "--no-browser", "--port=0"]
    command += ["--prompt", "Es war einmal ein kleines Haus"]
    with log.open("w") as written:
        process = subprocess.Popen(
            command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield _ready(process, log)
        finally:
            process.terminate()
            process.wait(20)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)


def _ready(process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> str:
    for _ in range(int(seconds * 5)):
        found = READY.search(log.read_text(encoding="utf-8"))
        if found:
            return found[0]
        assert process.poll() is None, log.read_text(encoding="utf-8")
        time.sleep(0.2)
    raise TimeoutError(f"no address within {seconds} s:\n{log.read_text(encoding='utf-8')}")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in the dark that reaches this machine alone; fails if it asks for more."""
    refused: list[str] = []

    def guard(route: Route) -> None:
        asked = urlsplit(route.request.url)
        if asked.scheme in {"data", "blob"} or asked.hostname == "127.0.0.1":
            route.continue_()
        else:
            refused.append(route.request.url)
            route.abort()

    context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme="dark")
    context.set_default_timeout(int(os.environ.get("WORKBENCH_PATIENCE", "60")) * 1000)
    context.route("**/*", guard)
    yield context.new_page()
    context.close()
    assert refused == []


def test_the_page_works_without_any_code_in_sight(address: str, page: Page) -> None:
    page.goto(address)
    title = page.locator(".wb-app-feature .wb-title")
    expect(page.locator(".wb-histogram")).to_be_visible(timeout=90_000)
    assert page.title() == "workbench · pocket"
    assert page.locator(".jp-InputArea:visible").count() == 0
    assert page.locator(".wb-app-prompt").get_attribute("data-theme") == "dark"
    first = title.inner_text()
    canvas = page.locator(".wb-feature-heatmap canvas").first
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.8})
    expect(title).not_to_have_text(first)
    page.get_by_role("tab", name="Steering", exact=True).click()
    entry = page.get_by_role("spinbutton", name="as a number").first
    entry.fill("1.5")
    entry.press("Enter")
    expect(page.locator(".wb-steering-panel .wb-status")).to_contain_text("Done", timeout=90_000)
    texts = [
        column.inner_text() for column in page.locator(".wb-steering-panel .wb-text").all()[:2]
    ]
    assert texts[0] != texts[1]
    assert all(text.startswith("Es war einmal ein kleines Haus") for text in texts)
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/voila-steering.png")
