"""A steering panel as its page uses it, without a page: messages in, traits out."""

from __future__ import annotations

from typing import Any

from workbench.lab import Lab
from workbench.panels import Steering

PROMPT = "Once upon a time there was"
OPTIONS: dict[str, Any] = {
    "max_new_tokens": 10,
    "temperature": 0.9,
    "top_p": 0.95,
    "seed": 4,
}


def panel_of(lab: Lab, *features: tuple[int, int], **options: Any) -> Steering:
    """A panel that writes in the calling thread."""
    options = {"synchronous": True} | OPTIONS | options
    return Steering(lab, options.pop("prompt", PROMPT), features, **options)


def send(panel: Steering, name: str, **fields: Any) -> None:
    """What the page sends; a refusal is an error here."""
    ask(panel, name, **fields)
    assert panel.widget.error == "", panel.widget.error


def ask(panel: Steering, name: str, **fields: Any) -> str:
    """What the page sends, and the error that it shows then."""
    panel.widget.error = ""
    panel.widget._receive(None, {"type": name, **fields}, [])
    return panel.widget.error


def put(panel: Steering, row: int, **values: Any) -> None:
    """Set what a row says, one thing after the other."""
    for key, value in values.items():
        send(panel, "set", id=panel.widget.rows[row]["id"], key=key, value=value)


def words(panel: Steering, column: str = "steered") -> list[str]:
    """The tokens that a column shows."""
    return [token["text"] for token in panel.widget.texts.get(column, ())]


def of_code(panel: Steering) -> Any:
    """What the copied code writes."""
    names: dict[str, Any] = {}
    exec(panel.widget.code, names)
    return names["written"]
