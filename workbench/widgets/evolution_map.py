"""Evolution map: a feature's nearest relative at every layer and sub-layer, on every token.

Python has found the relatives (their index, their cosine to the origin) and measured how strongly
each fires; the page draws the map, with a line chart of one token through the layers, and tells
Python which cell is selected.
"""

from __future__ import annotations

from typing import Any

import traitlets

from workbench.widgets.base import checked_records, source, style, table, visible
from workbench.widgets.matrix import MatrixWidget


class EvolutionMap(MatrixWidget):
    """Creates a map of sites (rows, first at the bottom) by tokens; `values` is (site, pos).

    `selected` is `[site index, position]`.

    Example:
        >>> from workbench.widgets import float32_bytes
        >>> EvolutionMap(
        ...     sites=[{"layer": 0, "kind": "res", "index": 17, "cosine": 0.8}],
        ...     tokens=["<bos>", "Paris"],
        ...     values=float32_bytes([[0.0, 6.5]]),
        ...     masked=[0],
        ... )
        EvolutionMap(2 tokens x 1 sites)
    """

    _esm = source("shared.js", "matrix.js", "evolution_map.js")
    _css = style("shared.css", "evolution_map.css")
    _rows_name = "sites"
    _tokens_first = False

    sites = traitlets.List(traitlets.Dict()).tag(sync=True)
    """One row each, in execution order: `layer` (int), `kind` ("res", "att", "mlp" ...), `index` of
    the nearest relative (int), `cosine` to the origin (float), `label` (str, optional)."""

    origin = traitlets.Int(-1).tag(sync=True)
    """Index in `sites` of the feature that is followed; -1: none."""

    @traitlets.validate("sites")
    def _check_sites(self, proposal: Any) -> list[dict[str, Any]]:
        needed = ["layer", "kind", "index", "cosine"]
        return checked_records("site", proposal["value"], needed, ["label"])

    def static_html(self) -> str:
        """A table of the sites, last layer first as in the widget, with each one's peak."""
        rows = list(enumerate(zip(self.sites, self.peaks(), strict=True)))
        body = [
            [
                f"{site['layer']} {site['kind']}{' (origin)' if row == self.origin else ''}",
                site["index"],
                site.get("label") or "",
                f"{site['cosine']:.3f}",
                f"{value:.4g}",
                f"{visible(self.tokens[position])} ({position})" if position >= 0 else "",
            ]
            for row, (site, (value, position)) in reversed(rows)
        ]
        heads = ["layer", "feature", "label", "cosine", f"maximum ({self.unit})", "on token"]
        return self.static_heading() + table(heads, body)
