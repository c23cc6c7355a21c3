"""What the heatmap and the evolution map have in common on the Python side.

Both show one float32 matrix with the tokens on the horizontal axis; only the rows differ. This
module holds the shared traits, the check that the bytes fit the axes, and the selection handlers.
"""

from __future__ import annotations

import html
from typing import Any

import traitlets

from workbench.widgets.base import Handler, Widget, floats_of, refuse_unknown

_TEXT = 600
"""Letters of the text in the static twin."""


class MatrixWidget(Widget):
    """Creates the common part of the two matrix widgets; not used by itself."""

    _rows_name = ""
    """Name of the trait with one record a row."""

    _tokens_first = True
    """Whether `values` is (pos, row) rather than (row, pos)."""

    tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Display strings, in order; white space and control characters as they are."""

    values = traitlets.Bytes(b"").tag(sync=True)
    """The matrix, float32, row-major. Zero and below is drawn as off; a NaN is drawn hatched."""

    masked = traitlets.List(traitlets.Int()).tag(sync=True)
    """Positions that are shown but not scored: hatched, left out of maxima and of the scale."""

    unit = traitlets.Unicode("feature activation").tag(sync=True)
    """What the colour means, beside the legend."""

    selected = traitlets.List(traitlets.Int(), maxlen=2).tag(sync=True)
    """The selected cell, or `[]`; set by the page or by Python."""

    def __init__(self, **traits: Any) -> None:
        self._select_handlers: list[Handler] = []
        super().__init__(**traits)
        self._check_size({})
        self.observe(self._selected, names="selected")

    def update(self, **traits: Any) -> None:
        """Set several traits as one message; needed when the shape of the matrix changes.

        Args:
            **traits: New values; a selection that is not given is cleared.

        Raises:
            TypeError: If a name is no trait, or a row has an unknown key.
            ValueError: If the values do not fit the axes.
        """
        refuse_unknown(type(self).__name__, traits, self.public_traits())
        self._check_size(traits)
        with self.hold_sync():
            for name, value in {"selected": [], **traits}.items():
                setattr(self, name, value)

    def on_select(self, handler: Handler) -> Handler:
        """Call `handler(first, second)` with the numbers of `selected`, or Nones when cleared.

        An exception of the handler is shown in the widget.

        Returns:
            The handler, so that this works as a decorator.
        """
        self._select_handlers.append(handler)
        return handler

    def summary(self) -> str:
        """Size of the matrix."""
        rows = getattr(self, self._rows_name)
        return f"{len(self.tokens)} tokens x {len(rows)} {self._rows_name}"

    def static_text(self) -> str:
        """The text that is drawn, as escaped HTML: a table of features says little without it."""
        shown = [self.tokens[p] for p in range(len(self.tokens)) if p not in {*self.masked}]
        text = "".join(shown).strip()
        cut = text if len(text) <= _TEXT else f"{text[:_TEXT]}…"
        return f"<p><b>Text</b>: {html.escape(cut)}</p>" if cut else ""

    def peaks(self) -> list[tuple[float, int]]:
        """Largest scored value of each row and its position; (0.0, -1) where nothing fires."""
        numbers, width = floats_of(self.values), len(self.tokens)
        count = len(getattr(self, self._rows_name))
        scored = [position for position in range(width) if position not in set(self.masked)]
        steps = (count, 1) if self._tokens_first else (1, width)
        found = (
            ((numbers[p * steps[0] + row * steps[1]], p) for p in scored) for row in range(count)
        )
        # Of two texts a NaN stands where one of them has no such token.
        kept = ((pair for pair in row if pair[0] == pair[0]) for row in found)
        best = (max(row, default=(0.0, -1)) for row in kept)
        return [(value, position) if value > 0 else (0.0, -1) for value, position in best]

    def _check_size(self, traits: dict[str, Any]) -> None:
        """Refuse values whose bytes do not fit the axes, after these traits are set."""
        values, tokens, rows = (
            traits.get(name, getattr(self, name)) for name in ("values", "tokens", self._rows_name)
        )
        if len(values) != 4 * len(tokens) * len(rows):
            axes = ["tokens", self._rows_name]
            order = ", ".join(axes if self._tokens_first else reversed(axes))
            raise ValueError(
                f"{type(self).__name__}: values has {len(values)} bytes; {len(tokens)} tokens x "
                f"{len(rows)} {self._rows_name} need {4 * len(tokens) * len(rows)} (float32, "
                f"row-major ({order})). Pass array.astype('float32').tobytes()."
            )

    def _selected(self, change: Any) -> None:
        cell = change["new"] or [None, None]
        self.call_handlers("on_select", self._select_handlers, *cell)
