"""One page for each test, and no way out of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import ipywidgets
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route

from tests.widgets.bridge import Bridge

LOOPBACK = {"127.0.0.1", "localhost", "::1"}


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
    context.set_default_timeout(30_000)
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
def open_bridge(
    context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Bridge]]:
    """Opens a page of a given width and colour scheme, with a bridge into it."""

    def open_page(*, width: int = 1100, dark: bool = False) -> Bridge:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if dark else "light")
        return Bridge(page, monkeypatch)

    yield open_page
    ipywidgets.Widget.close_all()


@pytest.fixture
def bridge(open_bridge: Callable[..., Bridge]) -> Bridge:
    return open_bridge()
