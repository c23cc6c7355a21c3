"""The app's search for features."""

from __future__ import annotations

import html
from typing import Any

import traitlets

from workbench.widgets.app_part import AppPart
from workbench.widgets.base import checked_records, source, style, table

_IDLE = {"state": "idle", "how": "", "query": "", "rows": [], "error": ""}
_HIT = ("layer", "kind", "index", "label", "score", "why")


class AppSearch(AppPart):
    """Creates the search for features.

    Example:
        >>> AppSearch(title="Search", ways=[{"id": "label", "text": "label", "hint": "words"}])
        AppSearch('Search')
    """

    _esm = source("shared.js", "steering_controls.js", "app_search.js")

    _css = style("shared.css", "app_search.css")

    _messages = {"search": ("how", "query"), "choose": ("layer", "kind", "index")}

    ways = traitlets.List(traitlets.Dict()).tag(sync=True)
    """How to search: `id`, ``text``, ``hint`` (what a query looks like), ``score`` (what the number
    is called) and ``typed`` (whether to search while the reader types)."""

    found = traitlets.Dict(default_value=_IDLE).tag(sync=True)
    """The newest search: ``state`` ("idle", "running", "done"), ``how``, ``query``, `error` and
    ``rows``: ``layer``, ``kind``, `index`, ``label``, ``score`` (a number or None) and ``why``."""

    chosen = traitlets.List(maxlen=3).tag(sync=True)
    """Layer, kind and index of the feature that is chosen now; []: none."""

    @traitlets.validate("ways")
    def _check_ways(self, proposal: Any) -> list[dict[str, Any]]:
        return checked_records("way", proposal["value"], ("id", "text", "hint"), ("score", "typed"))

    @traitlets.validate("found")
    def _check_found(self, proposal: Any) -> dict[str, Any]:
        filled = {**_IDLE, **proposal["value"]}
        return {**filled, "rows": checked_records("hit", filled["rows"], _HIT, ())}

    def static_html(self) -> str:
        """What was found."""
        if not self.found["rows"]:
            return ""
        rows = [
            [f"{one['layer']} {one['kind']} {one['index']}", one["label"], one["why"]]
            for one in self.found["rows"]
        ]
        asked = html.escape(f"Search by {self.found['how']}: {self.found['query']}")
        return f"<p>{asked}</p>" + table(("feature", "label", "why"), rows)
