"""Between these tests and their servers stands nothing."""

from __future__ import annotations

import pytest

from workbench.labels import web


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between a test and its server."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have waited; nothing does."""
    asked: list[float] = []
    monkeypatch.setattr(web, "sleep", asked.append)
    return asked
