"""Training curves: how several SAEs learn, drawn while they do.

Python trains and sets the traits; the page draws three line charts, with a line for each SAE, and
asks for a stop by a message; see `workbench.widgets.asking`.
"""

from __future__ import annotations

import html
from typing import Any

import traitlets

from workbench.widgets.asking import AskingWidget
from workbench.widgets.base import floats_of, source, style, table

FIELDS = ("curve", "tokens", "fvu", "l0", "dead")
"""What a point is made of, in this order."""
STATES = ("reading", "running", "stopping", "stopped", "finished", "failed")
ROWS = 8
"""Of the static twin, for each SAE."""


class TrainingCurves(AskingWidget):
    """Creates the charts of a training run.

    Example:
        >>> from workbench.widgets import float32_bytes
        >>> TrainingCurves(
        ...     names=["TopK"],
        ...     targets=[20.0],
        ...     points=float32_bytes([[0, 1024, 0.9, 20.0, 0.0], [0, 2048, 0.7, 20.0, 0.1]]),
        ...     state="stopped",
        ... )
        TrainingCurves(1 SAE, 2 points, stopped)
    """

    _esm = source("shared.js", "training_chart.js", "training_curves.js")
    _css = style("shared.css", "training_curves.css")

    _messages = {"stop": ()}

    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Of the SAEs."""

    targets = traitlets.List(traitlets.Float()).tag(sync=True)
    """The L0 that each is trained towards."""

    points = traitlets.Bytes(b"").tag(sync=True)
    """float32 (point, 5): number of the SAE, tokens trained on, fraction of variance unexplained,
    L0, share of dead features; of each SAE in order of the tokens."""

    dead_tokens = traitlets.Int(0).tag(sync=True)
    """A feature counts as dead that was not active on so many tokens; 0: not said."""

    state = traitlets.Enum(STATES, "reading").tag(sync=True)
    """What goes on; only in the first two is there something to stop."""

    status = traitlets.Unicode("").tag(sync=True)
    """The same for the reader, with how far it is."""

    done = traitlets.Float(0.0).tag(sync=True)
    """Share of the training that is done."""

    total = traitlets.Int(0).tag(sync=True)
    """Tokens of the whole training, the right end of the axes; 0: as far as the points go."""

    @traitlets.validate("points")
    def _check_points(self, proposal: Any) -> bytes:
        size = len(proposal["value"])
        if size % (4 * len(FIELDS)):
            raise ValueError(
                f"points has {size} bytes: a point is {len(FIELDS)} float32 numbers, "
                f"{', '.join(FIELDS)}"
            )
        return proposal["value"]

    def curves(self) -> list[list[tuple[float, ...]]]:
        """Of each SAE its points, each without the SAE's number."""
        flat, width = floats_of(self.points), len(FIELDS)
        found: list[list[tuple[float, ...]]] = [[] for _ in self.names]
        for at in range(0, len(flat), width):
            found[int(flat[at])].append(tuple(flat[at + 1 : at + width]))
        return found

    def summary(self) -> str:
        """How many SAEs and points, and the state."""
        points = len(self.points) // (4 * len(FIELDS))
        saes = f"{len(self.names)} SAE{'s' * (len(self.names) != 1)}"
        return f"{saes}, {points} points, {self.state}"

    def static_html(self) -> str:
        """State, and of each SAE some of the figures, the last included."""
        rows = []
        for name, target, curve in zip(self.names, self.targets, self.curves(), strict=False):
            for tokens, fvu, l0, dead in _some(curve):
                figures = (
                    f"{tokens:,.0f}",
                    f"{fvu:.3f}",
                    f"{l0:.1f}",
                    f"{target:g}",
                    f"{dead:.1%}",
                )
                rows.append((name, *figures))
        heads = ("SAE", "tokens", "FVU", "L0", "target L0", "dead features")
        status = f"<p>{html.escape(self.status or self.state)}</p>"
        return self.static_heading() + status + (table(heads, rows) if rows else "")


def _some(curve: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """At most `ROWS` points, evenly from the first to the last."""
    if len(curve) <= ROWS:
        return curve
    return [curve[round(i * (len(curve) - 1) / (ROWS - 1))] for i in range(ROWS)]
