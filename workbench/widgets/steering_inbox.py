"""What the page of the steering panel asks for: checked, kept in the traits, told to the handlers.

A change is kept before the handlers hear of it. The page shows it already, so it is not sent back:
an older value on its way would fight with a slider that is being dragged. The page is told only
that it was noted, or, where a check or a handler raises, what holds instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workbench.widgets import steering_traits as check

FIELDS: dict[str, tuple[str, ...]] = {
    "run": (),
    "stop": (),
    "set": ("id", "key", "value"),
    "add": ("layer", "kind", "index"),
    "add_splice": ("layer", "kind"),
    "remove": ("id",),
    "move": ("id", "to"),
    "settings": ("key", "value"),
    "baseline": ("id", "on"),
    "freeze": ("value",),
    "search": ("how", "query", "other"),
    "export": ("what",),
    "open_recipe": ("text",),
}
"""Messages of the page, and the fields that a handler gets as keywords."""
SETTABLE = ("mode", "value", "when", "where", "to", "error", "other", "above", "muted", "solo")
"""Keys of a row that the page may set."""

Undo = Callable[[], object]


class Inbox:
    """Creates the receiver of one panel's messages.

    Args:
        panel: The `SteeringPanel`.
    """

    def __init__(self, panel: Any) -> None:
        self._panel = panel
        self._notes: dict[str, Callable[..., Undo]] = {
            "set": self._set,
            "settings": self._settings,
            "baseline": self._baseline,
            "freeze": self._freeze,
            "search": self._search,
            "export": self._export,
        }

    def receive(
        self,
        name: str,
        content: Mapping[str, Any],
        tell: Callable[[str, Mapping[str, Any]], object],
    ) -> None:
        """Keep what the message changes, and call its handlers.

        Args:
            name: The message's type.
            content: Its fields; of others only ``seq`` counts, the page's mark of the message.
            tell: Calls the handlers of a message.

        Raises:
            ValueError: If a value is not allowed.
        """
        undo: Undo = _nothing
        try:
            if name in self._notes:
                undo = self._notes[name](**{key: content[key] for key in FIELDS[name]})
            tell(name, content)
        except Exception:
            undo()
            self._panel.send({"type": "refused", "rows": self._panel.rows})
            raise
        if "seq" in content:
            self._panel.send({"type": "noted", "seq": content["seq"]})

    def row_at(self, row: str) -> int:
        """Place of the row with an id.

        Raises:
            ValueError: If there is none; lists the ids.
        """
        ids = [each["id"] for each in self._panel.rows]
        check.allowed("row", row, ids)
        return ids.index(row)

    # Each keeps a change and gives the way back.

    def _set(self, *, id: str, key: str, value: Any) -> Undo:
        check.allowed("key", key, SETTABLE)
        with self._panel.lock:
            row = self._panel.rows[self.row_at(id)]
            checked, old = check.checked_row(f"row {id!r}", {**row, key: value}), row[key]
            row[key] = checked[key]
        return lambda: self._put(id, key, old)

    def _put(self, row: str, key: str, value: object) -> None:
        with self._panel.lock:
            self._panel.rows[self.row_at(row)][key] = value

    def _settings(self, *, key: str, value: Any) -> Undo:
        number = check.checked_setting(key, value)
        return self._change("settings", {**self._panel.settings, key: number})

    def _baseline(self, *, id: str, on: bool) -> Undo:
        baselines = self._panel.baselines
        check.allowed("baseline", id, [each["id"] for each in baselines])
        changed = [{**each, "on": bool(on)} if each["id"] == id else each for each in baselines]
        return self._change("baselines", changed)

    def _freeze(self, *, value: str) -> Undo:
        return self._change("freeze", value)

    def _change(self, trait: str, value: object) -> Undo:
        old = getattr(self._panel, trait)
        self._panel.set_trait(trait, value)
        return lambda: self._panel.set_trait(trait, old)

    def _search(self, *, how: str, query: str, other: str) -> Undo:
        check.allowed("how", how, check.HOW)
        return _nothing

    def _export(self, *, what: str) -> Undo:
        check.allowed("what", what, check.EXPORTS)
        return _nothing


def _nothing() -> None:
    """There is nothing to take back."""
