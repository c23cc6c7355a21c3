"""Widgets whose page asks for things: which messages there are, and who answers.

The page sends ``{type: name, field: value, ...}``; `on(name, handler)` names who gets the fields as
keywords. An exception in a handler is shown in the widget.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from workbench.widgets.base import Handler, Widget


class AskingWidget(Widget):
    """Creates the common part of widgets that answer messages; not used by itself."""

    _messages: Mapping[str, tuple[str, ...]] = {}
    """Messages of the page, and the fields that a handler gets as keywords."""

    _from_page: tuple[str, ...] = ("error",)
    """Traits that the page may write; everything else comes as a message."""

    def __init__(self, **traits: Any) -> None:
        self.lock = threading.RLock()
        self._handlers: dict[str, list[Handler]] = {name: [] for name in self._messages}
        super().__init__(**traits)
        self.on_msg(self._receive)

    def on(self, name: str, handler: Handler) -> Handler:
        """Call `handler` with the message's fields as keywords when the page asks for `name`.

        Args:
            name: One of those that the widget's own text lists.
            handler: Must be short and thread-safe. One message at a time.

        Raises:
            ValueError: If there is no such message.
        """
        self._known(name)
        self._handlers[name].append(handler)
        return handler

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take from the page only what a reader can change there."""
        super().set_state({name: sync_data[name] for name in sync_data if name in self._from_page})

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        name = str(content.get("type", ""))
        self.call_handlers(f"on {name!r}", [self._answer], name, content)

    def _answer(self, name: str, content: Mapping[str, Any]) -> None:
        self._known(name)
        with self.lock:
            self._call(name, content)

    def _call(self, name: str, content: Mapping[str, Any]) -> None:
        for handler in self._handlers[name]:
            handler(**{field: content[field] for field in self._messages[name]})

    def _known(self, name: str) -> None:
        if name not in self._messages:
            raise ValueError(f"no message {name!r}; there are {', '.join(self._messages)}")
