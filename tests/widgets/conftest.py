"""One Chromium for the session, one page for each test, and no way out of the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import ipywidgets
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from tests.widgets.bridge import Bridge

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = os.environ.get("WORKBENCH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(
            "No Chromium for the widget tests. Install one: `apt-get install chromium` (or "
            "`brew install --cask chromium`), or set WORKBENCH_CHROMIUM to its path."
        )
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh browser profile that refuses, and reports, every request that leaves the machine."""
    refused: list[str] = []
    problems: list[str] = []

    def guard(route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in {"file", "data", "blob"} or address.hostname in LOOPBACK:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.abort()

    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(5000)
    context.route("**/*", guard)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    yield context
    context.close()
    assert refused == []
    assert problems == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def bridge(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    yield Bridge(page, monkeypatch)
    ipywidgets.Widget.close_all()


@pytest.fixture
def make_bridge(
    context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A function that opens a page of a given width."""
    yield lambda width: Bridge(sized(context, width), monkeypatch)
    ipywidgets.Widget.close_all()


def sized(context: BrowserContext, width: int) -> Page:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    return page
