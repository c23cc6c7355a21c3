"""All that is known of one feature, and a text of one's own to try it on.

The page's handlers only note and enqueue: a text that is being typed is read by one runner, where
the latest wins, and one does errands (another feature to open, panels to make), of which none is
lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.panels import dashboard_facts as facts
from workbench.panels.base import Stack
from workbench.panels.jobs import Errands, LatestJob
from workbench.sites import Kind, Site, check_kind, feature_at
from workbench.widgets import FeatureDashboard

if TYPE_CHECKING:
    from workbench.index import FeatureRecord, Index
    from workbench.lab import Lab

OnFeature = Callable[[int, int, Kind], object]
"""Gets layer, index and kind of the feature that is shown."""
OnText = Callable[[str, int, int, Kind], object]
"""Gets the text that was edited, and layer, index and kind of the feature."""

MESSAGES = ("label", "note", "steer", "follow", "try", "open", "back")


class Dashboard(Stack[FeatureDashboard]):
    """What the weights, an index of a corpus and the reader's own text say of a feature."""

    def __init__(
        self,
        lab: Lab,
        feature: tuple[int, int],
        kind: Kind = "res",
        *,
        text: str = "",
        tokens: int = 10,
        nearest: int = 6,
        synchronous: bool | None = None,
    ) -> None:
        """Gather what is known and draw it.

        Args:
            lab: The model, its SAEs, and an index of their features if there is one.
            feature: ``(layer, index)``.
            kind: Kind of site of the feature.
            text: A text to try the feature on; also typed on the page.
            tokens: Output tokens to show at each end.
            nearest: Features to show of each site as its nearest.
            synchronous: Do what the page asks for in the calling thread, for front ends that show
                no updates from others; on Colab only, if None.

        Raises:
            ValueError: If the feature does not exist.
        """
        self.lab = lab
        self._counts = {"tokens": tokens, "nearest": nearest}
        self._lock = threading.RLock()
        self._history: list[tuple[Site, int]] = []
        self._steer: list[OnFeature] = []
        self._follow: list[OnFeature] = []
        self._label: list[OnText] = []
        self._note: list[OnText] = []
        super().__init__(FeatureDashboard())
        self.job = LatestJob(self._failed, synchronous=synchronous)
        self.errands = Errands(self._failed, synchronous=synchronous)
        for name in MESSAGES:
            self.widget.on(name, getattr(self, f"_on_{name}"))
        self.show(feature, kind)
        if text:
            self.try_text(text)

    # ------------------------------------------------------------------------ for the user

    def __repr__(self) -> str:
        return f"<Dashboard of feature {self.feature[1]} at {self.site}>"

    @property
    def feature(self) -> tuple[int, int]:
        """``(layer, index)`` of the feature that is shown."""
        return self.site.layer, self.index

    @property
    def record(self) -> FeatureRecord | None:
        """What the index says of it; None where there is no index of its site."""
        return self._record

    def show(self, feature: tuple[int, int], kind: Kind = "res") -> None:
        """Show another feature in the same place.

        Raises:
            ValueError: If it does not exist; then nothing is changed.
        """
        lab, (site, index) = self.lab, feature_at(feature, kind)
        lab.suite.sae_at(site.check(lab.engine.config)).check_index(index)
        known, record, traits = facts.gather(lab, site, index, **self._counts)
        text = self.widget.tried["text"]
        traits["tried"] = self._read(text, site, index) if text else {}
        # All that can fail is done.
        with self._lock, self.widget.hold_sync():
            self.site, self.index, self._record = site, index, record
            newest = self.widget.tried["text"]
            for name, value in traits.items():
                setattr(self.widget, name, value)
            self._show_history()
        self._write_code()
        if newest != text:  # typed meanwhile
            self._on_try(newest)
        if known is not None:
            self.errands.submit(lambda: self._add_hints(known, (site, index), traits))

    def try_text(self, text: str) -> list[float]:
        """Read a text and show how strongly the feature fires on each token.

        Returns:
            The activation at each token, ``<bos>`` included.
        """
        self.widget.tried = self._read(text, self.site, self.index)
        self._write_code()
        return list(self.widget.tried["values"])

    def on_steer(self, handler: OnFeature) -> OnFeature:
        """Let Steer call `handler(layer, index, kind)` instead of opening a panel below.

        Returns:
            The handler, so that this works as a decorator; likewise those that follow.
        """
        self._steer.append(handler)
        return handler

    def on_follow(self, handler: OnFeature) -> OnFeature:
        """Let Follow call `handler(layer, index, kind)` instead of opening a map below."""
        self._follow.append(handler)
        return handler

    def on_label(self, handler: OnText) -> OnText:
        """Call `handler(text, layer, index, kind)` when the label was edited, after it is kept."""
        self._label.append(handler)
        return handler

    def on_note(self, handler: OnText) -> OnText:
        """Call `handler(text, layer, index, kind)` when the note was edited, after it is kept."""
        self._note.append(handler)
        return handler

    # ------------------------------------------------------------------------ from the page

    @property
    def _shown(self) -> tuple[int, int, Kind]:
        return self.site.layer, self.index, self.site.kind

    def _on_label(self, text: str) -> None:
        layer, index, kind = self._shown
        self.lab.labels.set((layer, index), text, kind=kind)
        self.widget.label = facts.shown_label(self.lab, self.site, index)
        for handler in self._label:
            handler(text, *self._shown)

    def _on_note(self, text: str) -> None:
        layer, index, kind = self._shown
        self.lab.labels.note((layer, index), text, kind=kind)
        self.widget.note = text
        for handler in self._note:
            handler(text, *self._shown)

    def _on_steer(self) -> None:
        self._call(self._steer, self._open_steering, "Opening the steering panel…")

    def _on_follow(self) -> None:
        self._call(self._follow, self._open_evolution, "Following it through the layers…")

    def _call(self, handlers: list[OnFeature], default: Callable[[], None], busy: str) -> None:
        shown = self._shown
        for handler in handlers:
            handler(*shown)
        if not handlers:
            self._errand(default, busy)

    def _on_try(self, text: str) -> None:
        self.widget.error = ""
        if not text:
            self.job.stop()
            self.widget.tried = {}
            self._write_code()
            return
        self.widget.tried = {**self.widget.tried, "text": text, "state": "running"}
        self.job.submit(lambda stop: self._try(text, stop))

    def _on_open(self, layer: int, kind: str, index: int) -> None:
        site, here = Site(layer, check_kind(kind)), (self.site, self.index)

        def go() -> None:
            self._history.append(here)
            try:
                self.show((site.layer, index), site.kind)
            except BaseException:
                self._history.pop()
                raise

        self._errand(go, f"Opening feature {index}…")

    def _on_back(self) -> None:
        def go() -> None:
            if self._history:
                site, index = self._history.pop()
                self.show((site.layer, index), site.kind)

        self._errand(go, "Going back…")

    def _errand(self, work: Callable[[], None], busy: str) -> None:
        def errand() -> None:
            try:
                work()
            finally:
                self.widget.busy = ""

        self.widget.error, self.widget.busy = "", busy
        self.errands.submit(errand)

    # ---------------------------------------------------------------------------- the work

    def _try(self, text: str, stop: threading.Event) -> None:
        with self._lock:
            of = self.site, self.index
        tried = self._read(text, *of)
        with self._lock:
            # Another feature that was opened meanwhile has read the text for itself.
            if stop.is_set() or of != (self.site, self.index):
                return
            self.widget.tried = tried
        self._write_code()

    def _read(self, text: str, site: Site, index: int) -> dict[str, Any]:
        """A text's tokens with a feature's activation at each."""
        run = self.lab.run(text, sites=[site])
        values = run.features(site.layer, site.kind).of(index).tolist()
        shown = {"text": text, "tokens": list(run.tokens.strings), "values": values}
        return {**shown, "masked": [0], "state": "done"}

    def _open_steering(self) -> None:
        prompt = self.widget.tried["text"]
        self.open_below(self.lab.steering(prompt, [self.feature], kind=self.site.kind))

    def _open_evolution(self) -> None:
        text = self.widget.tried["text"]
        if not text and self._record is not None and self._record.top:
            text = self._record.top[0].text
        if not text:
            raise ValueError(
                "to follow a feature takes a text, and no passage is known on which it fires: type "
                "one under 'Try your own text'"
            )
        run = self.lab.run(text)
        self.open_below(run.evolution(self.feature, self.site.kind))

    def _add_hints(self, known: Index, of: tuple[Site, int], traits: Mapping[str, Any]) -> None:
        """Say what features without a label fire on; later than the rest, as each is looked up."""
        groups = [
            {**group, "rows": facts.with_hints(self.lab, known, group["rows"])}
            for group in traits["neighbours"]
        ]
        company = facts.with_hints(self.lab, known, traits["cofiring"])
        with self._lock:
            if (self.site, self.index) == of:
                self.widget.neighbours, self.widget.cofiring = groups, company

    def _show_history(self) -> None:
        self.widget.history = [f"feature {index} · {site}" for site, index in self._history]

    def _write_code(self) -> None:
        text = self.widget.tried["text"]
        self.widget.code = facts.code(self.lab, self.site, self.index, text)

    def _failed(self, error: BaseException) -> None:
        if self.widget.tried["state"] == "running":
            self.widget.tried = {**self.widget.tried, "state": "idle", "tokens": [], "values": []}
        self.widget.error = str(error) or type(error).__name__
