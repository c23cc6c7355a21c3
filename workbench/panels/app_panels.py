"""The panels beside the app's heatmap, each made when it is first looked at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from workbench.panels.app_page import Page
from workbench.panels.dashboard import Dashboard
from workbench.panels.evolution import Evolution
from workbench.panels.steering import Steering
from workbench.sites import Kind, Site

if TYPE_CHECKING:
    from workbench.lab import Lab
    from workbench.runs import Run

Pin = tuple[int, int, Kind]
"""``(layer, index, kind)`` of a feature."""


class OnChoice(Protocol):
    """Gets the feature that somebody chose in a panel."""

    def __call__(
        self, position: int | None, layer: int, index: int, kind: Kind, *, tab: str | None = None
    ) -> object:
        """Take it; `tab` is the tab to show it in, the open one if None."""
        ...


class Beside:
    """Dashboard, map through the layers and steering of the chosen feature."""

    def __init__(
        self,
        lab: Lab,
        page: Page,
        *,
        choose: OnChoice,
        open_tab: Callable[[str], object],
        changed: Callable[[], object],
        synchronous: bool,
    ) -> None:
        """Make none of them yet.

        Args:
            lab: The model and its SAEs.
            page: Where they go.
            choose: Gets a feature that is chosen in one of them.
            open_tab: Gets the tab that one of them asks for.
            changed: Called when a label has changed or a text is there.
            synchronous: See `workbench.panels.jobs`.
        """
        self._lab, self._page, self._synchronous = lab, page, synchronous
        self._choose, self._open_tab, self._changed = choose, open_tab, changed
        self.dashboard: Dashboard | None = None
        self.evolution: Evolution | None = None
        self.steering: Steering | None = None
        self._row: dict[str, Any] | None = None
        self._thread: int | None = None

    # A panel says what is chosen in it, whoever did so. What this thread does is no news.

    @contextmanager
    def ours(self) -> Iterator[None]:
        """While it lasts, what panels report from this thread is of our own doing."""
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    @property
    def is_ours(self) -> bool:
        """Whether this thread is inside `ours`."""
        return self._thread == threading.get_ident()

    # ---------------------------------------------------------------------------- dashboard

    def show_dashboard(self, layer: int, index: int, kind: Kind) -> None:
        """Let the dashboard show a feature."""
        if self.dashboard is None:
            self._page.head.busy = "Opening the dashboard…"
            made = self._lab.dashboard((layer, index), kind, synchronous=self._synchronous)
            made.widget.observe(self._on_title, names="title")
            made.on_steer(lambda *_: self._open_tab("steering"))
            made.on_follow(lambda *_: self._open_tab("layers"))
            made.on_label(lambda *_: self._changed())
            self.dashboard = made
            self._page.fill("feature", made.widget)
        elif (*self.dashboard.feature, self.dashboard.site.kind) != (layer, index, kind):
            with self.ours():
                self.dashboard.show((layer, index), kind)

    def _on_title(self, _: object) -> None:
        """The dashboard has gone to a neighbour, or back."""
        if not self.is_ours and self.dashboard is not None:
            self._choose(None, *self.dashboard.feature, self.dashboard.site.kind)

    # ---------------------------------------------------------------------------- evolution

    def show_evolution(self, run: Run, layer: int, index: int, kind: Kind) -> None:
        """Let the map follow a feature on a run; a node of the map that is clicked stays a node."""
        self._page.head.busy = "Following it through the layers…"
        old = self.evolution
        if old is None or old.run is not run:
            made = run.evolution((layer, index), kind, synchronous=self._synchronous)
            made.on_select(self._on_node)
            made.on_open(
                lambda layer, index, kind: self._choose(None, layer, index, kind, tab="feature")
            )
            self.evolution = made
            self._page.fill("layers", made.widget)
            return
        clicked = old.selected is not None and old.selected[1:] == (layer, index, kind)
        if not clicked and old.features != ((Site(layer, kind), index),):
            with self.ours():
                old.follow((layer, index), kind)

    def _on_node(self, position: int | None, layer: int, index: int, kind: Kind) -> None:
        if not self.is_ours:
            self._choose(position, layer, index, kind)

    # ----------------------------------------------------------------------------- steering

    def show_steering(self, prompt: str, layer: int, index: int, kind: Kind) -> None:
        """Let steering have a row for a feature.

        The row that came with the feature before goes, unless somebody has touched it: looking
        through features leaves no trail of sliders.
        """
        panel = self.steering
        if panel is None:
            how: dict[str, Any] = {"kind": kind, "synchronous": self._synchronous}
            panel = self._lab.steering(prompt, [(layer, index)], **how)
            panel.widget.observe(self._on_status, names="status")
            self.steering, self._row = panel, dict(panel.widget.rows[0])
            self._page.fill("steering", panel.widget)
            return
        rows = [(row["layer"], row.get("index"), row["kind"]) for row in panel.widget.rows]
        if (layer, index, kind) in rows:
            return
        untouched = [row for row in panel.widget.rows if _same(row, self._row)]
        panel.add((layer, index), kind)
        panel.errands.join()
        self._row = dict(panel.widget.rows[-1])
        if untouched:
            panel.widget.rows = [row for row in panel.widget.rows if not _same(row, untouched[0])]

    def follow_prompt(self, before: str, now: str) -> None:
        """Let steering go on from another prompt, unless somebody typed one of its own there."""
        panel = self.steering
        if panel is None or panel.widget.turns or panel.widget.prompt != before:
            return
        panel.widget.prompt = now
        if panel.widget.run:
            panel.start()

    def _on_status(self, change: Any) -> None:
        if change["new"].get("state") in ("done", "stopped"):
            self._changed()


def _same(row: dict[str, Any], other: dict[str, Any] | None) -> bool:
    """Whether a row is as it was, but for what the panel says of it."""
    return other is not None and {**row, "warning": ""} == {**other, "warning": ""}
