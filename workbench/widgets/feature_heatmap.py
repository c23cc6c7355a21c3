"""Token-by-feature heatmap: which features fire on which token, and how strongly; in two runs, too.

Python gives the tokens, the features and one float32 matrix a run; the page draws, filters and
permutes the rows, and tells Python which cell is selected and which rows are pinned. Nothing is
computed here beyond the row maxima of the static twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import traitlets

from workbench.widgets.base import (
    Handler,
    checked_records,
    floats_of,
    source,
    style,
    table,
    visible,
)
from workbench.widgets.matrix import MatrixWidget

_TWIN_ROWS = 12


class FeatureHeatmap(MatrixWidget):
    """Creates a heatmap of tokens (columns) by features (rows); `values` is (pos, feature).

    `selected` is `[position, row]`: the row in `features`, not the feature's number in its SAE.

    A second run is shown beside the first when `other_values` is given. Both have the same columns:
    one each for the tokens they share, and one each for a token that only one of them has, where
    the other's values are NaN.

    Example:
        >>> from workbench.widgets import float32_bytes
        >>> FeatureHeatmap(
        ...     tokens=["<bos>", "Paris"],
        ...     features=[{"id": 231, "label": "capital cities", "max": 8.0}],
        ...     values=float32_bytes([[0.0], [6.5]]),
        ...     masked=[0],
        ... )
        FeatureHeatmap(2 tokens x 1 features)
    """

    _esm = source(
        "shared.js",
        "matrix.js",
        "heatmap_rows.js",
        "heatmap_values.js",
        "diverging.js",
        "feature_heatmap.js",
    )
    _css = style("shared.css", "feature_heatmap.css")
    _rows_name = "features"
    _tokens_first = True

    features = traitlets.List(traitlets.Dict()).tag(sync=True)
    """One row each: `id` (int), and if known ``label`` (str); `max`: the feature's typical maximum,
    to which the hover card compares instead of the largest value of the row; ``density``: the share
    of ordinary tokens on which it fires; `site` (str): a short name of where it was read;
    ``attribution``: its sum over all tokens. A line is drawn between rows of different sites."""

    scale = traitlets.Enum(["linear", "log", "row"], "linear").tag(sync=True)
    """Colour scale; also switched in the widget. Log covers at most four decades; row colours each
    row by its own maximum, which makes quiet sites visible beside loud ones."""

    orders = traitlets.Dict().tag(sync=True)
    """Name -> rows in that order, top to bottom; switched in the widget if there are several."""

    order = traitlets.Unicode("").tag(sync=True)
    """The order that is shown, one of `orders`; empty: as in `features`."""

    filter = traitlets.Unicode("").tag(sync=True)
    """Only rows whose label or site holds each of these words, or whose number begins with it."""

    pinned = traitlets.List(traitlets.Int()).tag(sync=True)
    """Rows that stay on top whatever the order and the filter; also set by the page."""

    other_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """The second run's token of each column; anything where it has none."""

    other_values = traitlets.Bytes(b"").tag(sync=True)
    """The second run's activations, as `values`; empty: there is no second run."""

    positions = traitlets.List(traitlets.List(traitlets.Int()), maxlen=2).tag(sync=True)
    """Of each run, the position of each column in its text; -1 where it has no such token."""

    names = traitlets.List(traitlets.Unicode(), ["run", "other"], maxlen=2).tag(sync=True)
    """What to call the two runs."""

    view = traitlets.Enum(["both", "difference"], "difference").tag(sync=True)
    """Two runs: the values of both in each cell, or the second's minus the first's."""

    effects = traitlets.Bytes(b"").tag(sync=True)
    """Attributions of the cells to a next token, as `values` and of either sign; empty: none."""

    target = traitlets.Unicode("").tag(sync=True)
    """What they are attributed to, such as `␣Paris`."""

    show = traitlets.Enum(["activation", "attribution"], "activation").tag(sync=True)
    """What the colours mean where there are attributions; also switched in the widget."""

    actions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Buttons for the selected cell; see `on_action`."""

    def __init__(self, **traits: Any) -> None:
        self._open_handlers: list[Handler] = []
        self._action_handlers: dict[str, list[Handler]] = {}
        super().__init__(**traits)
        self.on_msg(lambda _, content, __: self._received(content))

    def on_open(self, handler: Handler) -> Handler:
        """Call `handler(row)` whenever a cell or the name of a row is clicked, or Enter pressed.

        Unlike `on_select` also for what is selected already, and never for what Python selects.

        Returns:
            The handler, so that this works as a decorator.
        """
        self._open_handlers.append(handler)
        return handler

    def on_action(self, name: str, handler: Handler) -> Handler:
        """Offer a button `name` for the selected cell, which calls `handler(position, row)`.

        Returns:
            The handler.
        """
        self._action_handlers.setdefault(name, []).append(handler)
        self.actions = list(self._action_handlers)
        return handler

    def _received(self, content: dict[str, Any]) -> None:
        """Something was clicked on the page, perhaps in a row that was replaced since."""
        position, row = content["position"], content["row"]
        if not (0 <= row < len(self.features) and -1 <= position < len(self.tokens)):
            return
        if content["type"] == "open":
            self.call_handlers("on_open", self._open_handlers, row)
        else:
            name = content["name"]
            self.call_handlers(name, self._action_handlers.get(name, []), position, row)

    @traitlets.validate("features")
    def _check_features(self, proposal: Any) -> list[dict[str, Any]]:
        optional = ["label", "max", "density", "site", "attribution"]
        return checked_records("feature", proposal["value"], ["id"], optional)

    @traitlets.validate("order")
    def _check_order(self, proposal: Any) -> str:
        order = proposal["value"]
        if order and order not in self.orders:
            known = ", ".join(map(repr, self.orders)) or "none"
            raise ValueError(f"FeatureHeatmap has no order {order!r}; it has: {known}")
        return order

    def update(self, **traits: Any) -> None:
        """As in `MatrixWidget`; what belongs to the rows or columns that are replaced goes too.

        New features clear the orders, the pins, the second run and the attributions, new tokens the
        last two, unless they are given as well.
        """
        cleared: dict[str, Any] = {}
        if "features" in traits:
            cleared |= {"orders": {}, "order": "", "pinned": []}
        if "features" in traits or "tokens" in traits:
            cleared |= {"other_values": b"", "other_tokens": [], "positions": [], "effects": b""}
        super().update(**{**cleared, **traits})

    def _check_size(self, traits: dict[str, Any]) -> None:
        super()._check_size(traits)

        def now(name: str) -> Any:
            return traits.get(name, getattr(self, name))

        values, tokens, other = now("values"), now("tokens"), now("other_values")
        rows = list(range(len(now("features"))))
        for name, order in now("orders").items():
            if sorted(order) != rows:
                raise ValueError(
                    f"FeatureHeatmap: order {name!r} must name each of the {len(rows)} rows once, "
                    f"got {_short(order)}"
                )
        effects = now("effects")
        if effects and (other or len(effects) != len(values)):
            raise ValueError(
                f"FeatureHeatmap: effects are those of one run and need {len(values)} bytes; got "
                f"{len(effects)}" + (", and other_values" if other else "")
            )
        if not other:
            return
        sizes = [len(now("other_tokens")), *map(len, now("positions"))]
        if len(other) != len(values) or sizes != [len(tokens)] * 3:
            raise ValueError(
                f"FeatureHeatmap: a second run needs other_values of {len(values)} bytes, and "
                f"other_tokens and two lists of positions of {len(tokens)} columns; got "
                f"{len(other)} bytes and {sizes}"
            )

    def static_html(self) -> str:
        """A table of the strongest features with the token on which each peaks."""
        found = [(*peak, row) for row, peak in enumerate(self.peaks()) if peak[1] >= 0]
        strongest = sorted(found, key=lambda peak: (-abs(peak[0]), peak[2]))[:_TWIN_ROWS]
        body = [
            [
                self._name(row),
                self.features[row].get("label") or "",
                f"{value:.4g}",
                f"{visible(self.token(position))} ({position})",
            ]
            for value, position, row in strongest
        ]
        place = "on token (column)" if self._differs else "on token (position)"
        heads = ["feature", "label", f"maximum ({self.meaning})", place]
        several = "s" if len(self.masked) > 1 else ""
        places = ", ".join(map(str, self.masked))
        masked = f"; position{several} {places} not scored" if places else ""
        counts = f"{len(body)} of {len(self.features)} features, {len(self.tokens)} tokens{masked}."
        head = self.static_heading() + self.static_text()
        return f"{head}{table(heads, body)}<p>{counts}</p>"

    @property
    def meaning(self) -> str:
        """What the colours mean now, in words."""
        if self._differs:
            return f"{self.unit}, {self.names[1]} − {self.names[0]}"
        return f"attribution to {self.target}" if self._attributes else self.unit

    def peaks(self) -> list[tuple[float, int]]:
        """Of what has a sign: the largest of each row and its column, (0.0, -1) for none."""
        if not self._differs and not self._attributes:
            return super().peaks()
        first, second = floats_of(self.values), floats_of(self.other_values or self.effects)
        count = len(self.features)
        scored = [p for p in range(len(self.tokens)) if p not in set(self.masked)]
        best = []
        for row in range(count):
            places = ((p, p * count + row) for p in scored)
            changes = ((second[at] - (first[at] if self._differs else 0), p) for p, at in places)
            kept = (pair for pair in changes if pair[0] == pair[0] and pair[0] != 0)
            best.append(max(kept, key=lambda pair: abs(pair[0]), default=(0.0, -1)))
        return best

    @property
    def _attributes(self) -> bool:
        return bool(self.effects) and self.show == "attribution"

    @property
    def _differs(self) -> bool:
        return bool(self.other_values)

    def _name(self, row: int) -> str:
        """A feature's number, behind its site where there are several."""
        feature = self.features[row]
        return f"{feature.get('site', '')} {feature['id']}".strip()

    def token(self, column: int) -> str:
        """The token of a column; of two runs both, where they differ.

        Behind a plus or minus where only the second or only the first run has it.
        """
        if not self._differs:
            return self.tokens[column]
        first, second = self.tokens[column], self.other_tokens[column]
        if self.positions[0][column] < 0:
            return f"+ {second}"
        if self.positions[1][column] < 0:
            return f"− {first}"
        return first if first == second else f"{first} → {second}"


def _short(order: Sequence[int]) -> str:
    return repr(list(order)) if len(order) < 12 else f"{len(order)} numbers"
