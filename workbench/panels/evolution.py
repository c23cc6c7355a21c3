"""Features through the layers: a map of the relatives, what ties them, and what an edit changes.

The page's handlers only note what is wanted and hand it to one runner, where the latest wins: a
click on another node, or another edit, replaces what is still being computed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from workbench import figures
from workbench.analysis.attribution import Attribution, Token
from workbench.analysis.compare import Pair, align
from workbench.analysis.kinship import Kinship
from workbench.analysis.lineage import Feature, Lineage, Link
from workbench.engine.edits import Ablate, Edit, FeatureEdit, Steer
from workbench.panels import evolution_maps as maps_of
from workbench.panels.base import Stack, code_of
from workbench.panels.dashboard import Dashboard
from workbench.panels.evolution_maps import FeatureMap, Named, features_of
from workbench.panels.jobs import Errands, LatestJob
from workbench.sites import Kind
from workbench.widgets import EvolutionMap
from workbench.widgets.base import floats_of, visible

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.lab import Lab
    from workbench.panels.heatmap import Heatmap
    from workbench.runs import Run

Selected = tuple[int | None, int, int, Kind]
"""``(position, layer, index, kind)``; no position for the maximum over the tokens."""
OnSelect = Callable[[int | None, int, int, Kind], object]
"""Gets what `Evolution.selected` holds."""
OnOpen = Callable[[int, int, Kind], object]
"""Gets ``layer, index, kind`` of a feature."""
OnEdit = Callable[[tuple[Edit, ...]], object]
"""Gets the edits that are now in force."""


@dataclass(frozen=True)
class _Wanted:
    """What the maps are to show."""

    features: tuple[Feature, ...]
    edits: tuple[Edit, ...]
    target: bool
    """Whether it is the features of the next token, or of a chosen set, on one map."""


class Evolution(Stack[EvolutionMap]):
    """Where features come from, what they become and what they cause, on one text or two."""

    def __init__(
        self,
        run: Run,
        feature: Named | Sequence[Named] | None = None,
        kind: Kind = "res",
        *,
        token: Token | None = None,
        k: int = 10,
        position: int = -1,
        against: Token | Sequence[Token] = (),
        layout: Literal["maps", "flow"] | None = None,
        beside: Run | None = None,
        names: tuple[str, str] = ("run", "other"),
        links: Sequence[Link] = (),
        edits: Sequence[Edit] = (),
        at: int = -1,
        threshold: float = -1.0,
        scale: Literal["all", "own"] = "all",
        view: Literal["tokens", "layers"] = "tokens",
        synchronous: bool | None = None,
    ) -> None:
        """Find the relatives and draw them.

        Args:
            run: The text.
            feature: ``(layer, index)``, or several; ``(layer, index, kind)`` where kinds differ.
                Several are drawn side by side.
            kind: Kind of site of those that do not say it.
            token: A next token such as ``" Paris"``: its strongest features, by attribution, are
                drawn in the place of `feature`, or those given with what each has to do with it.
            k: How many of them.
            position: After which token of the text it comes.
            against: Tokens whose mean logit is subtracted instead of all tokens'.
            layout: ``"maps"``, one for each feature with its relatives, or ``"flow"``, one with
                just the features; ``"flow"`` if left out where there is a `token`.
            beside: A run of another text with the same SAEs, whose maps stand beside; its tokens
                are aligned with those of `run`.
            names: What to call the two texts.
            links: Ties to draw besides, such as those of an ablation; as a ``"flow"`` the features
                at their ends are drawn, too.
            edits: What to change; the maps show activations before and under the edits. Also made
                in the widget.
            at: Position whose activations size the nodes; -1 for the maximum over the tokens. Also
                chosen in the widget.
            threshold: Cosine above the null below which nodes and links are hidden.
            scale: Sizes of all features alike, or of each against its ``"own"`` maximum.
            view: What stands below: ``"tokens"`` by layers, or one token through the ``"layers"``.
            synchronous: Do what the page asks for in the calling thread, for front ends that show
                no updates from others; on Colab only, if None.

        Raises:
            ValueError: If a feature does not exist, there is no such next token, or the run is a
                recording that does not keep the feature's way or the token's attribution.
        """
        if feature is None and token is None:
            raise ValueError(
                "evolution of what? Give a feature such as (5, 231), or a next token: "
                "token=' Paris'"
            )
        self.run, self.beside = run, beside
        self.names = (str(names[0]), str(names[1]))
        own: list[Pair] = [(p, p) for p in range(len(run.tokens))]
        self.columns: list[Pair] = align(run.tokens.ids, beside.tokens.ids) if beside else own
        """Position of each column in `run` and in `beside`."""
        self.attribution: Attribution | None = None
        """To the next token, if there is one."""
        self._asked = {"token": token, "k": k, "position": position, "against": against}
        given = None if feature is None else features_of(feature, kind)
        if token is not None:
            sites = None if given is None else sorted({site for site, _ in given})
            how: dict[str, Any] = {"position": position, "against": against, "sites": sites}
            self.attribution = run.attribution(token, **how)
        chosen = given or maps_of.strongest(cast("Attribution", self.attribution), k)
        drawn = layout or ("flow" if token is not None else "maps")
        self.links = tuple(links)
        """Ties that were given."""
        if drawn == "flow":
            ends = (end for link in links for end in (link.source, link.target))
            chosen = list(dict.fromkeys([*chosen, *ends]))
        wanted = _Wanted(tuple(chosen), tuple(edits), drawn == "flow")
        self._kinship: Kinship | None = None
        self._lineages: dict[Feature, Lineage] = {}
        self._changes = -1
        self._lock = threading.RLock()
        self._selects: list[OnSelect] = []
        self._opens: list[OnOpen] = []
        self._edit_handlers: list[OnEdit] = []
        maps, runs, traits = self._made(wanted)
        settings: dict[str, Any] = {"threshold": threshold, "scale": scale, "view": view}
        super().__init__(EvolutionMap(**traits, **settings, token=self._column(at)))
        self._keep(wanted, maps, runs)
        self.job = LatestJob(self._failed, synchronous=synchronous)
        self.errands = Errands(self._failed, synchronous=synchronous)
        for name in ("centre", "open", "ablate", "steer", "drop", "restore"):
            self.widget.on(name, getattr(self, f"_on_{name}"))
        self.widget.on_select(self._selected)
        names_seen = ["threshold", "scale", "view", "token"]
        self.widget.observe(lambda _: self._write_code(), names=names_seen)

    @classmethod
    def of_lab(
        cls,
        lab: Lab,
        feature: Named | Sequence[Named] | None,
        kind: Kind = "res",
        *,
        text: str | None = None,
        **options: Any,
    ) -> Evolution:
        """The same on a text, or on the passage on which the feature is strongest.

        Args:
            lab: The model, its SAEs, and an index of their features.
            feature: See `Evolution`.
            kind: See `Evolution`.
            text: The text; the strongest passage of the first feature if left out.
            options: See `Evolution`.

        Raises:
            ValueError: If there is no text and the index knows none.
        """
        if text is None:
            if feature is None:
                raise ValueError("a next token needs a text: give text=")
            site, index = features_of(feature, kind)[0]
            record = lab.index_at([site]).feature(site, index)
            if not record.top:
                raise ValueError(
                    f"feature {index} at {site} fires on no token of the index: give a text="
                )
            text = record.top[0].text
        return cls(lab.run(text), feature, kind, **options)

    # ------------------------------------------------------------------------ for the user

    def __repr__(self) -> str:
        names = ", ".join(f"{site} {index}" for site, index in self._now.features)
        return f"<Evolution of {names}: {self.widget.summary()}>"

    @property
    def features(self) -> tuple[Feature, ...]:
        """Site and index of each feature that is followed."""
        return self._now.features

    @property
    def lineage(self) -> Lineage:
        """What is drawn in the first map: kin and ties."""
        return self.maps[0].lineage

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What is changed now, beyond the run's own edits."""
        return self._now.edits

    @property
    def selected(self) -> Selected | None:
        """``(position, layer, index, kind)`` of the selected node or cell, or None.

        The position is that in the map's own text; None for the maximum over the tokens, or where
        that text has no such token.
        """
        if not self.widget.selected:
            return None
        node, column = self.widget.selected
        site, index = self._nodes[node]
        side = self.maps[self.widget.nodes[node]["map"]].side
        position = None if column < 0 else self.columns[column][side]
        return position, site.layer, index, site.kind

    def follow(self, feature: Named | Sequence[Named], kind: Kind = "res") -> None:
        """Follow another feature, or others, in the same place.

        Raises:
            ValueError: If one does not exist; then nothing is changed.
        """
        chosen = tuple(features_of(feature, kind))
        self._now_show(replace(self._now, features=chosen, target=False))

    def ablate(self, feature: Named, kind: Kind = "res") -> None:
        """Show what ablating a feature changes."""
        (site, index) = features_of(feature, kind)[0]
        self._now_show(_with(self._now, Ablate((site.layer, index), kind=site.kind)))

    def steer(self, feature: Named, strength: float, kind: Kind = "res") -> None:
        """Show what adding a feature changes, `strength` in multiples of its typical maximum."""
        (site, index) = features_of(feature, kind)[0]
        edit = Steer((site.layer, index), strength, kind=site.kind)
        self._now_show(_with(self._now, edit))

    def restore(self) -> None:
        """Undo all edits that were made here."""
        self._now_show(replace(self._now, edits=()))

    def on_select(self, handler: OnSelect) -> OnSelect:
        """Call `handler(position, layer, index, kind)` for every node or cell that is selected.

        The handler should return soon; what it raises is shown in the widget.

        Returns:
            The handler, so that this works as a decorator; likewise those that follow.
        """
        self._selects.append(handler)
        return handler

    def on_open(self, handler: OnOpen) -> OnOpen:
        """Let Dashboard call `handler(layer, index, kind)` instead of opening one below."""
        self._opens.append(handler)
        return handler

    def on_edit(self, handler: OnEdit) -> OnEdit:
        """Call `handler(edits)` when the edits have changed and the maps show it."""
        self._edit_handlers.append(handler)
        return handler

    def link(self, panel: Heatmap | Evolution) -> None:
        """Let another panel go where the selection goes: a heatmap selects it, a map follows it."""
        if isinstance(panel, Evolution):
            self.on_select(lambda _, layer, index, kind: panel.follow((layer, index), kind))
            return
        same = panel.run.tokens.ids == self.run.tokens.ids

        def select(position: int | None, layer: int, index: int, kind: Kind) -> None:
            panel.select(layer, index, kind, position if same else None)

        self.on_select(select)

    def to_frame(self) -> pd.DataFrame:
        """One row a node; see `workbench.panels.evolution_maps.frame_of` for the columns."""
        runs, edited = self._runs
        return maps_of.frame_of(self.maps, runs, edited)

    def figure(self, number: int = 0) -> go.Figure:
        """A map as a plain Plotly figure, at the token that the widget shows.

        Args:
            number: Of the map, counted from 0.
        """
        one = self.maps[number]
        rows = [row for row, node in enumerate(self.widget.nodes) if node["map"] == number]
        token, threshold = self.widget.token, self.widget.threshold
        width = len(self.columns)
        values = floats_of(self.widget.edited or self.widget.values)
        peaks = [
            max((v for c, v in self._row(values, row, width) if v == v), default=0.0)
            if token < 0
            else values[row * width + token]
            for row in rows
        ]
        where = "maximum over the tokens" if token < 0 else f"on {self._token(token)} ({token})"
        return figures.evolution(
            one.lineage,
            peaks,
            labels=[self.widget.nodes[row].get("label", "") for row in rows],
            title=one.title or self.widget.title,
            unit=f"feature activation, {where}",
            threshold=threshold,
        )

    # ---------------------------------------------------------------------------- the work

    def _made(
        self, wanted: _Wanted, stop: threading.Event | None = None
    ) -> tuple[list[FeatureMap], tuple[list[Run], list[Run]], dict[str, Any]]:
        """What is wanted, as maps, runs and traits; incomplete if it is stopped."""
        runs = [self.run] if self.beside is None else [self.run, self.beside]
        self._keep_up()
        for site, index in wanted.features:
            if stop is not None and stop.is_set():
                break
            if (site, index) not in self._lineages:
                self._lineages[site, index] = maps_of.lineage_of(
                    self.run, self._kinship, site, index
                )
        edited = [maps_of.with_edits(run, wanted.edits) for run in runs if wanted.edits]
        if stop is not None and stop.is_set():
            return [], (runs, edited), {}
        maps = self._maps(wanted)
        traits = maps_of.shown(maps, runs, self.columns, edited)
        count = len(wanted.edits)
        words = [
            self._words(edit)
            + ("" if maps_of.acted(edited, count, n) else ": nothing to change, it is silent here")
            for n, edit in enumerate(wanted.edits)
        ]
        nodes = [feature for one in maps for feature in one.features]
        traits["edits"] = [
            {"text": text, "nodes": [n for n, f in enumerate(nodes) if f == _of(edit)]}
            for text, edit in zip(words, wanted.edits, strict=True)
        ]
        position = self._asked["position"] if self._asked["token"] is not None else -1
        said = (
            maps_of.next_tokens(*pair, position, self._decode)
            for pair in zip(runs, edited, strict=False)
        )
        traits["said"] = " · ".join(said)
        traits |= self._headings(wanted, maps)
        return maps, (runs, edited), traits

    def _keep_up(self) -> None:
        """Begin anew where `Suite.use` has put another SAE since."""
        changes = len(self.run.suite.changes) if self.run.suite is not None else 0
        if changes != self._changes:
            self._changes, self._kinship = changes, maps_of.kinship_of(self.run)
            self._lineages.clear()

    def _maps(self, wanted: _Wanted) -> list[FeatureMap]:
        sides = [0] if self.beside is None else [0, 1]
        lineages = {feature: self._lineages[feature] for feature in wanted.features}
        if wanted.target:
            one = maps_of.flow(wanted.features, lineages, self.attribution).tied(self.links)
            target = "" if self.attribution is None else visible(self.attribution.target.string)
            named = [self.names[side] if len(sides) > 1 else "" for side in sides]
            return [
                replace(one, side=side, title=name, target="" if side else target)
                for side, name in zip(sides, named, strict=True)
            ]
        found = []
        for feature in wanted.features:
            for side in sides:
                parts = [self._title(feature)] if len(wanted.features) > 1 else []
                parts += [self.names[side]] if len(sides) > 1 else []
                title = " · ".join(parts)
                one = FeatureMap(title, lineages[feature], feature, side)
                found.append(one.tied(self.links))
        return found

    def _headings(self, wanted: _Wanted, maps: Sequence[FeatureMap]) -> dict[str, Any]:
        beside = self.beside
        first = wanted.features[0]
        if wanted.target and self.attribution is not None:
            title = f"The {len(wanted.features)} features that matter most for "
            title += visible(self.attribution.target.string)
            how = "by attribution; ties by decoder cosine"
        elif len(wanted.features) > 1:
            title, how = f"{len(wanted.features)} features through the layers", ""
        else:
            title = f"Feature {first[1]} of {first[0]} through the layers"
            how = self.run.label(*first)
        null = f"null: {100 * maps[0].lineage.level:g} % of unrelated directions pass at a site"
        masked = [column for column, pair in enumerate(self.columns) if 0 in pair]
        tokens = self._tokens(self.run, 0)
        return {
            "title": title,
            "subtitle": " · ".join(filter(None, (self.run.model, how, null))),
            "tokens": tokens,
            "other_tokens": [] if beside is None else self._tokens(beside, 1),
            "names": list(self.names),
            "masked": masked,
        }

    def _keep(
        self, wanted: _Wanted, maps: list[FeatureMap], runs: tuple[list[Run], list[Run]]
    ) -> None:
        self._now = self._next = wanted
        self.maps = maps
        """What is drawn, in order."""
        self._runs = runs
        self._nodes = [feature for one in maps for feature in one.features]
        self._write_code()

    def _now_show(self, wanted: _Wanted) -> None:
        """Bring the widget to what is wanted, in this thread."""
        self.job.stop()
        made = self._made(wanted)
        self._take(wanted, made)

    def _take(self, wanted: _Wanted, made: Any) -> None:
        maps, runs, traits = made
        with self._lock, self.widget.lock:
            changed = wanted.edits != self._now.edits
            same = wanted.features == self._now.features and wanted.target == self._now.target
            kept = {"selected": list(self.widget.selected)} if same else {}
            # Kept before the traits: who hears of a selection must find its features.
            self._keep(wanted, maps, runs)
            self.widget.update(**traits, **kept)
        if changed:
            for handler in self._edit_handlers:
                handler(wanted.edits)

    def _submit(self, wanted: _Wanted, busy: str) -> None:
        self.widget.error, self.widget.busy = "", busy
        self._next = wanted

        def work(stop: threading.Event) -> None:
            made = self._made(wanted, stop)
            if stop.is_set():
                return
            self._take(wanted, made)
            self.widget.busy = ""

        self.job.submit(work)

    def _failed(self, error: BaseException) -> None:
        self._next = self._now
        self.widget.busy = ""
        self.widget.error = str(error) or type(error).__name__

    # ------------------------------------------------------------------------ from the page

    def _on_centre(self, node: int) -> None:
        feature = self._nodes[node]
        wanted = replace(self._next, features=(feature,), target=False)
        self._submit(wanted, f"Following feature {feature[1]} of {feature[0]}…")

    def _on_ablate(self, node: int) -> None:
        site, index = self._nodes[node]
        self._submit(
            _with(self._next, Ablate((site.layer, index), kind=site.kind)),
            f"Running the text without feature {index} of {site}…",
        )

    def _on_steer(self, node: int, strength: float) -> None:
        site, index = self._nodes[node]
        edit = Steer((site.layer, index), float(strength), kind=site.kind)
        self._submit(_with(self._next, edit), f"Steering by feature {index} of {site}…")

    def _on_drop(self, edit: int) -> None:
        kept = tuple(one for number, one in enumerate(self._next.edits) if number != edit)
        self._submit(replace(self._next, edits=kept), "Undoing an edit…")

    def _on_restore(self) -> None:
        self._submit(replace(self._next, edits=()), "Undoing the edits…")

    def _on_open(self, node: int) -> None:
        site, index = self._nodes[node]
        for handler in self._opens:
            handler(site.layer, index, site.kind)
        if self._opens:
            return

        def errand() -> None:
            try:
                if isinstance(self.below, Dashboard):
                    self.below.show((site.layer, index), site.kind)
                elif self.run.dashboard is None:
                    raise ValueError("a recorded run has no dashboards: open the model")
                else:
                    self.open_below(self.run.dashboard((site.layer, index), site.kind))
            finally:
                self.widget.busy = ""

        self.widget.error, self.widget.busy = "", f"Opening feature {index} of {site}…"
        self.errands.submit(errand)

    def _selected(self, *_: object) -> None:
        selected = self.selected
        if selected is not None:
            for handler in self._selects:
                handler(*selected)

    # ------------------------------------------------------------------------------- words

    def _tokens(self, run: Run, side: int) -> list[str]:
        places = (pair[side] for pair in self.columns)
        return ["" if place is None else run.tokens.strings[place] for place in places]

    def _token(self, column: int) -> str:
        return visible(self.widget.tokens[column])

    def _decode(self, token: int) -> str:
        return visible(self.run.spelled([token])[0])

    def _title(self, feature: Feature) -> str:
        site, index = feature
        return f"{site} · {index} {self.run.label(site, index)}".rstrip()

    def _words(self, edit: Edit) -> str:
        feature = _of(edit)
        return maps_of.words_of(edit, "" if feature is None else self.run.label(*feature))

    def _row(self, values: Any, row: int, width: int) -> list[tuple[int, float]]:
        masked = set(self.widget.masked)
        return [(c, values[row * width + c]) for c in range(width) if c not in masked]

    def _column(self, at: int) -> int:
        """The column of a position of the run.

        Raises:
            ValueError: If there is no such position.
        """
        if at < 0:
            return -1
        places = [pair[0] for pair in self.columns]
        if at not in places:
            raise ValueError(
                f"position {at} does not exist: the run has {len(self.run.tokens)} tokens"
            )
        return places.index(at)

    def _write_code(self) -> None:
        """Show the lines that draw what is seen now."""
        now, widget = self._now, self.widget
        said: dict[str, Any] = {}
        asked = self._asked
        features = [(site.layer, int(index), site.kind) for site, index in now.features]
        from_token = now.target and asked["token"] is not None
        words = []
        if not from_token or len(features) != asked["k"]:
            short = [one[:2] if one[2] == "res" else one for one in features]
            words.append(repr(short[0] if len(short) == 1 else short))
        if from_token:
            defaults = {"token": None, "k": 10, "position": -1, "against": ()}
            said |= {name: v for name, v in asked.items() if v != defaults[name]}
        elif now.target:
            said["layout"] = "flow"
        if now.edits:
            words.append(f"edits=[{', '.join(f'wb.{edit!r}' for edit in now.edits)}]")
        defaults = {"threshold": -1.0, "scale": "all", "view": "tokens"}
        said |= {n: getattr(widget, n) for n, v in defaults.items() if getattr(widget, n) != v}
        if widget.token >= 0 and self.columns[widget.token][0] is not None:
            said["at"] = self.columns[widget.token][0]
        lines = [code_of(self.run)]
        if self.beside is not None:
            said["names"] = self.names
            lines.append(code_of(self.beside).split("\n")[-1].replace("run =", "other =", 1))
            words.append("beside=other")
        words += [f"{name}={value!r}" for name, value in said.items()]
        if self.links:
            lines.append("# and its links=[...]")
        widget.code = "\n".join([*lines, f"run.evolution({', '.join(words)})"])


def _of(edit: Edit | FeatureEdit) -> Feature | None:
    """The feature that an edit acts on."""
    return (edit.site, edit.feature[1]) if isinstance(edit, FeatureEdit) else None


def _with(wanted: _Wanted, edit: FeatureEdit) -> _Wanted:
    """The same with one edit more, in the place of an earlier one of the same feature."""
    kept = tuple(one for one in wanted.edits if _of(one) != _of(edit))
    return replace(wanted, edits=(*kept, edit))
