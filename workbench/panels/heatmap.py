"""Tokens by features, of one site or several, in one run or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from workbench.analysis.attribution import Attribution, Token
from workbench.analysis.compare import Pair, align
from workbench.features import Measure
from workbench.figures import heatmap
from workbench.panels.base import Stack
from workbench.panels.dashboard import Dashboard
from workbench.panels.evolution import Evolution
from workbench.panels.heatmap_rows import (
    Indices,
    Kinds,
    Layers,
    code,
    effects_of,
    given,
    named,
    orders_of,
    sites_of,
    strongest,
    target_of,
    values_of,
)
from workbench.panels.jobs import Errands
from workbench.sites import Kind, Site, check_kind
from workbench.widgets import FeatureHeatmap

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.panels.steering import Steering
    from workbench.runs import Run

Pin = tuple[int, int, Kind]
"""``(layer, index, kind)`` of a feature."""
Selected = tuple[int | None, int, int, Kind]
"""``(position, layer, index, kind)`` of a cell; no position where only ``other`` has the token."""

OnSelect = Callable[[int | None, int, int, Kind], object]
"""Gets what `Heatmap.selected` holds."""
OnOpen = Callable[[int, int, Kind], object]
"""Gets ``layer, index, kind`` of a feature."""

BY = {
    "max": "strongest first by maximum",
    "sum": "strongest first by sum over the tokens",
    "count": "on most tokens first",
    "weighted": "first by maximum ÷ density (the suite's, in ordinary text)",
    "difference": "largest change first",
    "attribution": "first by attribution to {target} over all tokens",
}


class Heatmap(Stack[FeatureHeatmap]):
    """Which features fire on which token of a run, or of two."""

    def __init__(
        self,
        run: Run,
        layer: Layers = None,
        kind: Kinds = "res",
        *,
        features: Indices | None = None,
        k: int = 20,
        by: Measure | Literal["difference", "attribution"] | None = None,
        token: Token | None = None,
        position: int = -1,
        against: Token | Sequence[Token] = (),
        show: Literal["activation", "attribution"] | None = None,
        label: str | None = None,
        density: tuple[float, float] | None = None,
        order: Literal["measure", "clustered"] = "measure",
        find: str = "",
        pinned: Sequence[Pin] = (),
        scale: Literal["linear", "log", "row"] = "linear",
        other: Run | None = None,
        names: tuple[str, str] = ("run", "other"),
        view: Literal["both", "difference"] = "difference",
    ) -> None:
        """Draw a run.

        Args:
            run: What to draw.
            layer: Layer, or several; every layer whose SAE is at hand if left out.
            kind: Kind of site, or several; ``"all"`` is every kind with an SAE there. The rows of a
                site stand together, sites in execution order.
            features: What to draw, top to bottom: indices for one site, ``{site: indices}`` for
                several; those that are strongest on this text if left out.
            k: How many of each site.
            by: What strongest means: ``"max"``, ``"sum"``, ``"count"`` or ``"weighted"`` (features
                that are rare elsewhere first), see `workbench.features.Features.scores`. Of two
                runs the larger counts; or ``"difference"``, the largest change at a token that both
                have; or ``"attribution"``, the largest attribution to `token` over all tokens, of
                either sign. If left out ``"max"``, with `other` ``"difference"``, with `token`
                ``"attribution"``.
            token: A next token to attribute to, such as ``" Paris"``; see `Run.attribution`. Then
                each cell has its attribution too.
            position: After which token of the text it comes.
            against: Tokens whose mean logit is subtracted instead of all tokens'.
            show: What the colours mean where there are attributions, ``"attribution"`` if left out;
                also switched in the widget.
            label: Only features whose label holds this text, in small or capital letters.
            density: Only features that fire on a share of ordinary tokens between these two.
            order: ``"measure"``, or ``"clustered"``: rows of a site that fire on the same tokens
                beside each other, see `workbench.features.similar_order`. Also switched in the
                widget.
            find: What the widget's filter box holds.
            pinned: Features that stay on top, drawn in any case.
            scale: Of the colours, for all rows together or for each ``"row"`` by itself; also
                switched in the widget.
            other: A second run to compare with, with the same SAEs; its tokens are aligned with
                those of `run` by their ids.
            names: What to call the two runs.
            view: Of two runs the values of ``"both"`` in each cell, or their ``"difference"``.

        Raises:
            ValueError: If a site was not read, a feature does not exist, nobody measured a density
                that is needed, two runs cannot be compared, or there is no such token to attribute
                to.
        """
        if token is not None and other is not None:
            raise ValueError("token= attributes one run: leave other= out, or draw two heatmaps")
        if token is None and "attribution" in (by, show):
            raise ValueError("attribution to which next token? Give token=, such as ' Paris'")
        self.run, self.other = run, other
        own: list[Pair] = [(p, p) for p in range(len(run.tokens))]
        self.columns: list[Pair] = align(run.tokens.ids, other.tokens.ids) if other else own
        """Position of each column in `run` and in `other`."""
        asked = {"features": features, "k": k, "by": by, "label": label, "density": density}
        asked |= {"token": token, "position": position, "against": against}
        self._asked = (layer, kind, asked | {"names": tuple(names)})
        by = by or ("difference" if other else "max" if token is None else "attribution")
        pins = [(Site(one[0], check_kind(one[2])), int(one[1])) for one in pinned]

        def attributed(sites: Sequence[Site]) -> Attribution | None:
            there = sorted({*sites, *(site for site, _ in pins)})
            how: dict[str, Any] = {"position": position, "against": against, "sites": there}
            return None if token is None else run.attribution(token, **how)

        if features is not None:
            chosen = given(features, lambda: sites_of(run, layer, kind))
            self.attribution = attributed(list(chosen))
        else:
            sites = sites_of(run, layer, kind)
            self.attribution = attributed(sites)
            filters: dict[str, Any] = {"label": label, "density": density}
            filters["attribution"] = self.attribution
            chosen = strongest(run, other, self.columns, sites, k=k, by=by, **filters)
        for site, index in pins:
            if index not in chosen.setdefault(site, []):
                chosen[site].append(index)
        chosen = {site: chosen[site] for site in sorted(chosen)}
        self.rows: list[tuple[Site, int]] = [(s, i) for s, found in chosen.items() for i in found]
        """Site and index of each row, as ordered by the measure."""
        masked = [column for column, pair in enumerate(self.columns) if 0 in pair]
        self._values = values = [
            values_of(one, chosen, [pair[side] for pair in self.columns])
            for side, one in enumerate((run, other))
            if one is not None
        ]
        self._effects = self.attribution and effects_of(self.attribution, chosen)
        target = "" if self.attribution is None else self._target(self.attribution)
        how = "in the order given" if features is not None else BY[by].format(target=target)
        widget = FeatureHeatmap(
            title=f"Features at {named(list(chosen))}",
            subtitle=" · ".join(filter(None, (run.model, how, _badge(run, list(chosen))))),
            tokens=self._tokens(run, 0),
            features=[self._row(site, index, len(chosen)) for site, index in self.rows],
            values=values[0].numpy().tobytes(),
            masked=masked,
            orders=orders_of(chosen, values, masked),
            order=order,
            filter=find,
            pinned=[self.rows.index(pin) for pin in pins],
            scale=scale,
            names=list(names),
            view=view,
        )
        super().__init__(widget)
        if other is not None:
            self.widget.update(
                other_tokens=self._tokens(other, 1),
                other_values=values[1].numpy().tobytes(),
                positions=[
                    [-1 if p is None else p for p in one] for one in zip(*self.columns, strict=True)
                ],
            )
        if self._effects is not None:
            self.widget.update(
                effects=self._effects.numpy().tobytes(),
                target=target,
                show=show or "attribution",
            )
        self._write_code()
        self.widget.observe(
            lambda _: self._write_code(),
            names=["order", "filter", "pinned", "scale", "view", "show"],
        )
        self.errands = Errands(self._failed)
        self._opens: list[OnOpen] = [self._open_dashboard] if run.dashboard else []
        widget.on_open(self._open)

    def __repr__(self) -> str:
        sites = list(dict.fromkeys(site for site, _ in self.rows))
        return f"<Heatmap: {self.widget.summary()} at {named(sites)}>"

    @property
    def features(self) -> list[int]:
        """Index of the feature of each row; its site is in `rows`."""
        return [index for _, index in self.rows]

    @property
    def selected(self) -> Selected | None:
        """``(position, layer, index, kind)`` of the selected cell, or None.

        With a second run the position in the first; None where only the second has the token.
        """
        return self._cell(*self.widget.selected) if self.widget.selected else None

    @property
    def pinned(self) -> list[Pin]:
        """``(layer, index, kind)`` of the rows that were pinned, in that order."""
        pinned = (self.rows[row] for row in self.widget.pinned)
        return [(site.layer, index, site.kind) for site, index in pinned]

    def on_select(self, handler: OnSelect) -> OnSelect:
        """Call `handler(position, layer, index, kind)` for every cell that is selected.

        What another panel shows follows in one line, for example
        ``heatmap.on_select(lambda position, layer, index, kind: print(run.label(...)))``. The
        handler should return soon; what it raises is shown in the widget.

        Returns:
            The handler, so that this works as a decorator.
        """

        def call(position: int | None, row: int | None) -> None:
            if position is not None and row is not None:
                handler(*self._cell(position, row))

        self.widget.on_select(call)
        return handler

    def on_open(self, handler: OnOpen) -> OnOpen:
        """Call `handler(layer, index, kind)` whenever somebody clicks a cell or a row's name.

        Or presses Enter; also where it is selected already, and never for what Python selects. It
        takes the place of the dashboard that opens below.

        Returns:
            The handler, so that this works as a decorator.
        """
        if self._open_dashboard in self._opens:
            self._opens.remove(self._open_dashboard)
        self._opens.append(handler)
        return handler

    def _open(self, row: int) -> None:
        site, index = self.rows[row]
        for handler in self._opens:
            handler(site.layer, index, site.kind)

    def _open_dashboard(self, layer: int, index: int, kind: Kind) -> None:
        def errand() -> None:
            if isinstance(self.below, Dashboard):
                self.below.show((layer, index), kind)
            elif self.run.dashboard is not None:
                self.open_below(self.run.dashboard((layer, index), kind))

        self.widget.error = ""
        self.errands.submit(errand)

    def _failed(self, error: BaseException) -> None:
        self.widget.error = str(error) or type(error).__name__

    def on_action(self, name: str, handler: OnSelect) -> OnSelect:
        """Offer a button such as "Steer" for the selected cell.

        It calls `handler(position, layer, index, kind)`; what that raises is shown in the widget.

        Returns:
            The handler.
        """
        self.widget.on_action(name, lambda column, row: handler(*self._cell(column, row)))
        return handler

    def select(
        self, layer: int, index: int, kind: Kind = "res", position: int | None = None
    ) -> bool:
        """Select a cell, as a click would, if the feature is among the rows.

        Args:
            layer: Layer of the feature.
            index: Its number.
            kind: Its kind of site.
            position: Of the token in `run`; where the feature is largest if left out.

        Returns:
            Whether it is drawn here.

        Raises:
            ValueError: If the run has no such position.
        """
        if (Site(layer, kind), index) not in self.rows:
            return False
        row = self.rows.index((Site(layer, kind), index))
        places = [pair[0] for pair in self.columns]
        if position is not None and position not in places:
            raise ValueError(
                f"position {position} does not exist: the run has {len(self.run.tokens)} tokens"
            )
        column = self.widget.peaks()[row][1] if position is None else places.index(position)
        self.widget.selected = [max(column, 0), row]
        return True

    def link(self, panel: Heatmap | Evolution | Steering) -> None:
        """Let another panel go where the selection goes.

        Another heatmap selects the same feature, on the same position if it has the same tokens; an
        `Evolution` follows the feature through the layers; to a `Steering` a button adds it.
        """
        if isinstance(panel, Heatmap):
            same = panel.run.tokens.ids == self.run.tokens.ids
            self.on_select(
                lambda position, layer, index, kind: panel.select(
                    layer, index, kind, position if same else None
                )
            )
        elif isinstance(panel, Evolution):
            self.on_select(lambda _, layer, index, kind: panel.follow((layer, index), kind))
        else:
            self.on_action("Steer", lambda _, layer, index, kind: panel.add((layer, index), kind))

    def figure(self) -> go.Figure:
        """The same as a plain Plotly figure: rows in the order of the widget, pinned ones first.

        Of two runs their difference, of attributions those, if they are what is shown.
        """
        order = self.widget.orders[self.widget.order]
        pinned = list(self.widget.pinned)
        rows = pinned + [row for row in order if row not in set(pinned)]
        effects = self._effects if self.widget.show == "attribution" else None
        values = self._values[0] if effects is None else effects
        if self.other is not None:
            values = self._values[1] - self._values[0]
        return heatmap(
            values[:, rows].numpy(),
            tokens=[self.widget.token(column) for column in range(len(self.columns))],
            features=[self._name(row) for row in rows],
            title=self.widget.title,
            unit=self.widget.meaning,
            masked=self.widget.masked,
            difference=self.other is not None or effects is not None,
        )

    def _name(self, row: int) -> str:
        feature = self.widget.features[row]
        parts = (feature.get("site"), str(feature["id"]), feature["label"])
        return " ".join(part for part in parts if part)

    def _cell(self, column: int, row: int) -> Selected:
        site, index = self.rows[row]
        return self.columns[column][0], site.layer, index, site.kind

    def _tokens(self, run: Run, side: int) -> list[str]:
        places = (pair[side] for pair in self.columns)
        return ["" if place is None else run.tokens.strings[place] for place in places]

    def _row(self, site: Site, index: int, sites: int) -> dict[str, object]:
        row: dict[str, object] = {"id": index, "label": self.run.label(site, index)}
        maximum, density = self.run.typical_maximum(site, index), self.run.density(site)
        if sites > 1:
            row["site"] = "embed" if site.kind == "embed" else f"{site.layer} {site.kind}"
        if maximum:
            row["max"] = maximum
        if self.attribution is not None:
            row["attribution"] = float(self.attribution.parts[site].totals[index])
        if density is not None:
            row["density"] = float(density[index])
        return row

    def _target(self, attribution: Attribution) -> str:
        others = self.run.spelled(attribution.target.against)
        return target_of(attribution, others)

    def _write_code(self) -> None:
        """Show the lines that draw what is seen now, pins and switches included."""
        layer, kind, asked = self._asked
        widget = self.widget
        now = {"order": widget.order, "find": widget.filter, "pinned": self.pinned}
        now |= {"scale": widget.scale, "view": widget.view, "show": widget.show}
        defaults: dict[str, Any] = {**(Heatmap.__init__.__kwdefaults__ or {}), "pinned": []}
        defaults["show"] = "activation" if self.attribution is None else "attribution"
        said = {name: value for name, value in (asked | now).items() if value != defaults[name]}
        widget.code = code(self.run, self.other, layer, kind, said)


def _badge(run: Run, sites: list[Site]) -> str:
    """What the run says of the site; of several it would be too long."""
    return run.badge(sites[0].layer, sites[0].kind) if len(sites) == 1 else ""
