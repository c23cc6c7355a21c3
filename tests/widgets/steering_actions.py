"""What the tests of the steering panel do again and again."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator

from workbench.widgets import SteeringPanel

# In one task of the page, so that no pause can pass between the moves however busy the machine is.
MOVE = """(input, values) => {
    for (const value of values) {
        input.value = value;
        input.dispatchEvent(new Event('input', { bubbles: true }));
    }
}"""

Heard = list[tuple[str, dict[str, Any]]]


def listen(panel: SteeringPanel, *names: str) -> Heard:
    """A list that grows with every message of these names."""
    heard: Heard = []
    for name in names:
        panel.on(name, lambda _name=name, **fields: heard.append((_name, fields)))
    return heard


def setting(row: str, key: str, value: object) -> tuple[str, dict[str, Any]]:
    """The message that sets a row's key."""
    return "set", {"id": row, "key": key, "value": value}


def texts(host: Locator) -> list[str]:
    return [column.text_content() or "" for column in host.locator(".wb-text").all()]


def labels(host: Locator) -> list[str]:
    """Labels of the rows, as they stand on the page."""
    return host.locator(".wb-row-label").all_text_contents()
