"""The app: prompt, heatmap, dashboard, evolution, steering and search as one linked page.

Everything that the page or Python asks for goes into one record of what is wanted, `_Wanted`, and
one runner, where the latest wins, brings the page to it: it compares what is shown with what is
wanted and does what differs. So nothing is lost when requests come faster than they are done, and a
tab that nobody looks at costs nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.files import write_whole
from workbench.panels import app_search
from workbench.panels.app_page import HINT, TABS, Page
from workbench.panels.app_panels import Beside, Pin
from workbench.panels.base import Named
from workbench.panels.dashboard import Dashboard
from workbench.panels.dashboard_facts import index_of, with_hints
from workbench.panels.evolution import Evolution
from workbench.panels.heatmap import Heatmap, Selected
from workbench.panels.jobs import Errands, LatestJob
from workbench.panels.last_texts import LastTexts
from workbench.panels.steering import Steering
from workbench.sites import Kind, Site, check_kind
from workbench.widgets import pages
from workbench.widgets.base import visible

if TYPE_CHECKING:
    from workbench.lab import Lab
    from workbench.runs import Run

EXAMPLES = (
    "The capital of France is",
    "Once upon a time there was a small boat",
    "Es war einmal ein kleines Haus",
    "def add(a, b):\n    return",
)
"""Prompts to begin with."""
ALL = "all"
"""The place that stands for the residual stream of every layer."""


@dataclass(frozen=True)
class _Wanted:
    """What the page is to show."""

    prompt: str
    """Empty: none yet."""
    place: str
    chosen: Selected | None
    tab: str

    @property
    def feature(self) -> Pin | None:
        """The chosen feature, wherever it was chosen."""
        return None if self.chosen is None else self.chosen[1:]


class App(Named):
    """One page on which the chosen feature is the same everywhere."""

    def __init__(
        self,
        lab: Lab,
        prompt: str = "",
        *,
        feature: tuple[int, int] | None = None,
        kind: Kind = "res",
        layer: int | None = None,
        k: int = 20,
        tab: str = "feature",
        examples: Sequence[str] = EXAMPLES,
        encoder: str | Path | None = None,
        synchronous: bool | None = None,
    ) -> None:
        """Make the page; a prompt is run at once, and nothing else before it is looked at.

        Args:
            lab: The model and its SAEs.
            prompt: What to run; typed on the page if left out.
            feature: ``(layer, index)`` of the feature to begin with; if left out, the first of the
                heatmap that has a label, or its first.
            kind: Kind of site of the feature and of the heatmap.
            layer: Layer of the heatmap; about two thirds of the way up if left out.
            k: Features in the heatmap, of each site.
            tab: What stands beside it: ``"feature"``, ``"layers"``, ``"steering"``, ``"search"``.
            examples: Prompts that the page offers.
            encoder: Folder of a sentence encoder on this machine, to search by meaning.
            synchronous: Do what the page asks for in the calling thread, for front ends that show
                no updates from others; in Colab alone if left out.

        Raises:
            TypeError: If the prompt is no text, or there is no such option.
            ValueError: If there is no such feature, layer or tab.
        """
        if synchronous is None:
            synchronous = "google.colab" in sys.modules
        if not isinstance(prompt, str):
            raise TypeError(f"prompt is a text, got {prompt!r}; lab.run takes ids and chat turns")
        self.lab = lab
        self.run: Run | None = None
        """The newest run."""
        self.heatmap: Heatmap | None = None
        """Its heatmap."""
        self._k, self._encoder = k, encoder
        self._lock, self._working = threading.RLock(), threading.RLock()
        self._shown = ("", "")
        self._opened: Pin | None = None
        self._pin: Pin | None = None
        self._searches = 0
        place = self._first_place(layer, check_kind(kind))
        chosen = None if feature is None else (None, *self._checked(*feature, kind))
        self._wanted = _Wanted(prompt, place, chosen, _known_tab(tab))
        self.page = Page(
            model=lab.engine.name,
            prompt=prompt,
            examples=examples,
            places=self._places(),
            place=place,
            tab=tab,
            ways=app_search.ways(encoder=encoder),
        )
        """The app's own widgets; `.page.box` holds all of it."""
        self._beside = Beside(
            lab,
            self.page,
            choose=self._choose,
            open_tab=self.open,
            changed=self._refresh,
            synchronous=synchronous,
        )
        self._twin = LastTexts(self)
        self.job = LatestJob(self._failed, synchronous=synchronous)
        self.errands = Errands(self._failed, synchronous=synchronous)
        self.page.bar.on("run", self._on_run)
        self.page.bar.on("place", lambda value: self._want(place=value))
        self.page.head.on("tab", lambda id: self.open(id))
        self.page.search.on("search", self._on_search)
        self.page.search.on("choose", lambda layer, kind, index: self.select(layer, index, kind))
        self.job.submit(self._catch_up)

    # ------------------------------------------------------------------------ for the user

    def __repr__(self) -> str:
        prompt = "no prompt yet" if self.run is None else repr(self.run.tokens.text)
        feature = self._wanted.feature
        what = "no feature" if feature is None else "feature {1} of layer {0} {2}".format(*feature)
        return f"<App of {self.lab.engine.name}: {prompt}, {what}>"

    def _ipython_display_(self) -> None:
        self._twin.display()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = self.page.box._repr_mimebundle_(**options)
        return None if shown is None else (shown, {})

    @property
    def dashboard(self) -> Dashboard | None:
        """The chosen feature's; None before it is first looked at, as for the two that follow."""
        return self._beside.dashboard

    @property
    def evolution(self) -> Evolution | None:
        """The chosen feature through the layers."""
        return self._beside.evolution

    @property
    def steering(self) -> Steering | None:
        """Steering, with a row for the chosen feature."""
        return self._beside.steering

    @property
    def selected(self) -> Selected | None:
        """``(position, layer, index, kind)`` of the chosen feature; None before there is one.

        The position is that of the token in the prompt where it was chosen, or is strongest.
        """
        return self._wanted.chosen

    @property
    def tab(self) -> str:
        """What stands beside the heatmap."""
        return self._wanted.tab

    def show(self, prompt: str) -> None:
        """Run another prompt; the chosen feature and the rows of steering stay. Returns at once.

        Raises:
            ValueError: If it is empty.
        """
        if not prompt.strip():
            raise ValueError("the prompt is empty: type a text, then Run")
        if self.steering is not None:
            self.steering.stop()  # else the prompt waits for the end of its text
        with self._lock:
            chosen = self._wanted.feature
            self._want(prompt=prompt, chosen=None if chosen is None else (None, *chosen))

    def select(
        self, layer: int, index: int, kind: Kind = "res", position: int | None = None
    ) -> None:
        """Choose a feature, as a click would; every panel follows. Returns at once.

        Args:
            layer: Layer of the feature.
            index: Its number.
            kind: Its kind of site.
            position: Of the token in the prompt; where the feature is largest if left out.

        Raises:
            ValueError: If there is no such feature.
        """
        self._opened = None
        self._choose(position, *self._checked(layer, index, kind))

    def open(self, tab: str) -> None:
        """Show another tab, as a click would. Returns at once.

        Raises:
            ValueError: If there is no such tab.
        """
        self._want(tab=_known_tab(tab))

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the page shows what was asked; False if the time is up first."""
        return self.job.join(timeout) and self.errands.join(timeout)

    def save_html(self, path: str | Path) -> Path:
        """Write all of it as one file that opens from disk with no network and no kernel.

        Dashboard and map of the chosen feature are made if nobody has looked at them yet.
        """
        self.join()
        with self._working:
            if self._wanted.feature is not None:
                self._beside.show_dashboard(*self._wanted.feature)
                if self.run is not None:
                    self._beside.show_evolution(self.run, *self._wanted.feature)
            self.page.head.busy = ""
            text = pages(self.page.parts(), f"workbench · {self.lab.engine.name}")
        return write_whole(path, text)

    def static_html(self) -> str:
        """All that is drawn, as plain HTML for viewers that run nothing."""
        return "".join(part.static_html() for part in self.page.parts())

    # ------------------------------------------------------------------------ from the page

    def _on_run(self, prompt: str) -> None:
        try:
            self.show(prompt)
        except ValueError as error:
            self.page.bar.error = str(error)

    def _on_cell(self, position: int | None, layer: int, index: int, kind: Kind) -> None:
        if not self._beside.is_ours:
            self._choose(position, layer, index, kind, tab=self._tab_of_click())

    def _on_open(self, layer: int, index: int, kind: Kind) -> None:
        """A click on a cell or the name of a row; the second on the same goes to its dashboard."""
        again = self._opened == (layer, index, kind)
        self._opened = (layer, index, kind)
        if self._wanted.feature != (layer, index, kind):
            self._choose(None, layer, index, kind, tab=self._tab_of_click())
        elif again:
            self.open("feature")

    def _tab_of_click(self) -> str:
        return "feature" if self._wanted.tab == "search" else self._wanted.tab

    def _on_search(self, how: str, query: str) -> None:
        self._searches += 1
        number, box = self._searches, self.page.search
        asked = {"how": how, "query": query}
        box.found = {**asked, "state": "running", "rows": box.found["rows"]}

        def errand() -> None:
            if number != self._searches:  # a newer one waits
                return
            rows, error = [], ""
            try:
                rows = app_search.search(self.lab, how, query, encoder=self._encoder)
            except Exception as caught:
                error = str(caught)
            if number == self._searches:
                box.found = {**asked, "state": "done", "rows": rows, "error": error}

        self.errands.submit(errand)

    def _choose(
        self, position: int | None, layer: int, index: int, kind: Kind, *, tab: str | None = None
    ) -> None:
        with self._lock:
            known, tab = self._wanted.chosen, tab or self._wanted.tab
            if position is None and known is not None and known[1:] == (layer, index, kind):
                position = known[0]
            self._want(chosen=(position, layer, index, kind), tab=tab)

    def _want(self, **changes: Any) -> None:
        with self._lock:
            self._wanted = replace(self._wanted, **changes)
        self.page.bar.error = self.page.head.error = ""
        self.job.submit(self._catch_up)

    # ---------------------------------------------------------------------------- the work

    def _catch_up(self, stop: threading.Event) -> None:
        """Bring the page to what is wanted; ends early where something newer is."""
        with self._working:
            self.page.open(self._wanted.tab)
            for step in (self._show_run, self._show_chosen, self._show_tab):
                step(self._wanted)
                if stop.is_set():
                    return
            self._rest()
            self._twin.update()

    def _rest(self) -> None:
        self.page.bar.busy = self.page.head.busy = ""
        lost = self._wanted.feature is None and self._wanted.tab != "search"
        self.page.head.hint = HINT if lost else ""

    def _refresh(self) -> None:
        """A label has changed, or a text is written."""
        if self._wanted.chosen is not None:
            self._show_heading(self._wanted.chosen)
        self._twin.update()

    def _show_run(self, wanted: _Wanted) -> None:
        """Run the prompt and draw its heatmap, if either is another than is shown."""
        if not wanted.prompt or self._shown == (wanted.prompt, wanted.place):
            return
        bar, began = self.page.bar, time.monotonic()
        bar.busy = "Reading the prompt…"
        before, known = self._shown[0], self.run
        same = known is not None and before == wanted.prompt
        run = known if same and known is not None else self.lab.run(wanted.prompt)
        self._draw(run, wanted)
        self._shown = (wanted.prompt, wanted.place)
        bar.prompt, bar.place = wanted.prompt, wanted.place
        bar.note = f"{len(run.tokens)} tokens · {time.monotonic() - began:.2f} s"
        bar.busy, bar.code = "", self._code()
        if not same:
            self._beside.follow_prompt(before, wanted.prompt)

    def _draw(self, run: Run, wanted: _Wanted) -> None:
        """Put a new heatmap into the place of the old; what was pinned stays so."""
        old = [] if self.heatmap is None else self.heatmap.pinned
        pinned = [pin for pin in old if pin not in (self._pin, wanted.feature)]
        if wanted.feature is not None:
            pinned.append(wanted.feature)
        self._pin = wanted.feature
        layer, kind = (None, "res") if wanted.place == ALL else wanted.place.split()
        number = None if layer is None else int(layer)
        made = run.heatmap(number, check_kind(kind), k=self._k, pinned=pinned)
        made.on_select(self._on_cell)
        made.on_open(self._on_open)
        self.run, self.heatmap = run, made
        self.page.put_heatmap(made.widget)

    def _show_chosen(self, wanted: _Wanted) -> None:
        """The heading, and the cell of the heatmap."""
        chosen = wanted.chosen or self._first_feature()
        if chosen is None:
            return
        _, layer, index, kind = chosen
        found = (self._position(chosen), layer, index, kind)
        with self._lock:
            if self._wanted.chosen == wanted.chosen:
                self._wanted = replace(self._wanted, chosen=found)
        self.page.search.chosen = [layer, kind, index]
        self._show_heading(found)
        if self.heatmap is None or self.run is None:
            return
        if (Site(layer, kind), index) not in self.heatmap.rows:
            self._draw(self.run, replace(wanted, chosen=found))
        with self._beside.ours():
            self.heatmap.select(layer, index, kind, found[0])

    def _first_feature(self) -> Selected | None:
        """The first row of the heatmap with a label; if none has, the strongest for its density."""
        if self.heatmap is None or self.run is None or not self.heatmap.rows:
            return None
        widget = self.heatmap.widget
        rows = [self.heatmap.rows[row] for row in widget.orders[widget.order]]
        weight = {
            one: peak / max(feature.get("density", 1.0), 1e-6)
            for one, feature, (peak, _) in zip(
                self.heatmap.rows, widget.features, widget.peaks(), strict=True
            )
        }
        labelled = (row for row in rows if self.run is not None and self.run.label(*row))
        site, index = next(labelled, max(rows, key=weight.__getitem__))
        return None, site.layer, index, site.kind

    def _position(self, chosen: Selected) -> int | None:
        position, layer, index, kind = chosen
        if self.run is None or (position is not None and position < len(self.run.tokens)):
            return position
        values = self.run.features(layer, kind).of(index)
        return int(values[1:].argmax()) + 1 if len(values) > 1 else 0

    def _show_heading(self, chosen: Selected) -> None:
        position, layer, index, kind = chosen
        site, head = Site(layer, kind), self.page.head
        label = self.lab.label(site, index)
        parts = [str(site)] if label is None else [f"feature {index}", str(site)]
        if label is None:
            parts.append(self._hint(site, index))
        if self.run is not None and position is not None:
            values = self.run.features(layer, kind).of(index)
            token = visible(self.run.tokens.strings[position])
            if values[position] > 0:
                parts.append(f"here {float(values[position]):.3g} on {token}")
            else:
                parts.append(f"silent on {token}" if values[1:].any() else "silent on this prompt")
        head.title = f"Feature {index}" if label is None else label.text
        head.subtitle = " · ".join(parts)

    def _hint(self, site: Site, index: int) -> str:
        """What a feature without a label fires on."""
        known, *_ = index_of(self.lab, site)
        if known is None:
            return "no label"
        row = {"layer": site.layer, "kind": site.kind, "index": index, "label": ""}
        (found,) = with_hints(self.lab, known, [row])
        return f"no label; strongest on {found['hint']}" if "hint" in found else "no label"

    def _show_tab(self, _: _Wanted) -> None:
        feature, tab = self._wanted.feature, self._wanted.tab
        if tab == "search":
            self.page.fill("search", self.page.search)
        elif feature is None:
            return
        elif tab == "feature":
            self._beside.show_dashboard(*feature)
        elif tab == "steering":
            self._beside.show_steering(self._wanted.prompt, *feature)
        elif self.run is not None:
            self._beside.show_evolution(self.run, *feature)

    def _failed(self, error: BaseException) -> None:
        """Show what went wrong where it was asked for; the page stays at what it showed."""
        prompt, place = self._shown
        where = self.page.head
        with self._lock:
            if self._wanted.prompt and (self._wanted.prompt, self._wanted.place) != self._shown:
                where = self.page.bar
                self._wanted = replace(self._wanted, prompt=prompt, place=place or where.place)
        self._rest()
        where.error = str(error) or type(error).__name__

    # ------------------------------------------------------------------------------- small

    def _places(self) -> list[dict[str, Any]]:
        places = [{"value": ALL, "text": "every layer, res", "group": "several"}]
        for site in self.lab.suite.sites:
            place = {"value": f"{site.layer} {site.kind}", "text": str(site), "group": site.kind}
            places.append(place)
        return places

    def _first_place(self, layer: int | None, kind: Kind) -> str:
        suite = self.lab.suite
        sites = [site for site in suite.sites if site.kind == kind]
        if not sites:
            raise ValueError(f"there is no SAE of kind {kind!r}; see lab.saes")
        if layer is not None:
            if Site(layer, kind) not in sites:
                there = ", ".join(str(site.layer) for site in sites)
                raise ValueError(f"no SAE of kind {kind!r} at layer {layer}; there is at {there}")
            return f"{layer} {kind}"
        wanted = 2 * self.lab.engine.config.num_hidden_layers / 3
        near = [site for site in sites if suite.at_hand(site)] or sites
        return f"{min(near, key=lambda site: abs(site.layer - wanted)).layer} {kind}"

    def _checked(self, layer: int, index: int, kind: Kind) -> Pin:
        site = Site(int(layer), check_kind(kind)).check(self.lab.engine.config)
        self.lab.suite.sae_at(site).check_index(int(index))
        return site.layer, int(index), site.kind

    def _code(self) -> str:
        return f"lab = wb.open({self.lab.engine.name!r})\nlab.app({self._shown[0]!r})"


def _known_tab(tab: str) -> str:
    if tab not in TABS:
        raise ValueError(f"tab must be one of {', '.join(TABS)}, got {tab!r}")
    return tab
