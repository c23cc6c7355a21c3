"""The boxes of the app: the bar, the heatmap, and beside it one panel of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets

from workbench.widgets import AppFeature, AppPrompt, AppSearch, Widget

TABS = {
    "feature": "Feature",
    "layers": "Through the layers",
    "steering": "Steering",
    "search": "Search",
}
"""What stands beside the heatmap, one at a time."""
HINT = "Run a prompt, then click a cell of the heatmap; or search for a feature."


class Page:
    """The app's own widgets, and boxes for the panels."""

    def __init__(
        self,
        *,
        model: str,
        prompt: str,
        examples: Sequence[str],
        places: Sequence[dict[str, Any]],
        place: str,
        tab: str,
        ways: Sequence[dict[str, Any]],
    ) -> None:
        """Lay the page out.

        Args:
            model: Name of the model.
            prompt: Text of the prompt's box.
            examples: Prompts to offer.
            places: What the heatmap can draw; see `AppPrompt.places`.
            place: The one that it draws.
            tab: The tab that is open.
            ways: How to search; see `AppSearch.ways`.
        """
        self.bar = AppPrompt(
            title="workbench",
            subtitle=model,
            prompt=prompt,
            examples=list(examples),
            places=list(places),
            place=place,
        )
        self.head = AppFeature(
            title="No feature chosen",
            tabs=[{"id": each, "text": text} for each, text in TABS.items()],
            tab=tab,
        )
        self.search = AppSearch(ways=list(ways))
        self._left = _box("wb-app-left")
        self._tabs = {each: _box("wb-app-page") for each in TABS}
        right = _box("wb-app-right", [self.head, *self._tabs.values()])
        self.box = _box("wb-app", [self.bar, _box("wb-app-main", [self._left, right])])
        """All of it."""
        self.open(tab)

    def open(self, tab: str) -> None:
        """Show a tab. The others keep their panels, hidden: nothing is drawn anew."""
        self.head.tab = tab
        for each, box in self._tabs.items():
            box.layout.display = None if each == tab else "none"

    def fill(self, tab: str, widget: Widget) -> None:
        """Put a panel into a tab, in the place of what was there."""
        _put(self._tabs[tab], widget)

    def put_heatmap(self, widget: Widget) -> None:
        """Put a heatmap into its place."""
        _put(self._left, widget)

    def parts(self) -> list[Widget]:
        """The widgets that are there, top to bottom; the search only if something was found."""
        found = [self.search] if self.search.found["rows"] else []
        panels = [box.children[0] for tab, box in self._tabs.items() if box.children]
        inner = [panel for panel in panels if panel is not self.search]
        return [self.bar, *self._left.children, self.head, *inner, *found]


def _box(name: str, children: Sequence[ipywidgets.Widget] = ()) -> ipywidgets.VBox:
    box = ipywidgets.VBox(list(children))
    box.add_class(name)
    return box


def _put(box: ipywidgets.VBox, widget: Widget) -> None:
    old = tuple(box.children)
    if old != (widget,):
        box.children = [widget]
        for one in old:
            one.close()  # else the kernel and the page keep what nobody sees
