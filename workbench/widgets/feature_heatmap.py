"""Token-by-feature heatmap: which features fire on which token, and how strongly.

Python gives the tokens, the features and one float32 matrix; the page draws, and tells Python which
cell is selected. Nothing is computed here beyond the row maxima of the static twin.
"""

from __future__ import annotations

from typing import Any

import traitlets

from workbench.widgets.base import checked_records, source, style, table, visible
from workbench.widgets.matrix import MatrixWidget

_TWIN_ROWS = 12


class FeatureHeatmap(MatrixWidget):
    """Creates a heatmap of tokens (columns) by features (rows); `values` is (pos, feature).

    `selected` is `[position, row]`: the row in `features`, not the feature's number in its SAE.

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

    _esm = source("shared.js", "matrix.js", "feature_heatmap.js")
    _css = style("shared.css", "feature_heatmap.css")
    _rows_name = "features"
    _tokens_first = True

    features = traitlets.List(traitlets.Dict()).tag(sync=True)
    """One row each: `id` (int), `label` (str, optional), `max` (optional): the feature's typical
    maximum, to which the hover card compares; without it, the largest value of the row."""

    scale = traitlets.Enum(["linear", "log"], "linear").tag(sync=True)
    """Colour scale; also switched in the widget. Log covers at most four decades."""

    @traitlets.validate("features")
    def _check_features(self, proposal: Any) -> list[dict[str, Any]]:
        return checked_records("feature", proposal["value"], ["id"], ["label", "max"])

    def static_html(self) -> str:
        """A table of the strongest features with the token on which each peaks."""
        peaks = [(*peak, row) for row, peak in enumerate(self.peaks()) if peak[1] >= 0]
        strongest = sorted(peaks, reverse=True)[:_TWIN_ROWS]
        body = [
            [
                self.features[row]["id"],
                self.features[row].get("label") or "",
                f"{value:.4g}",
                f"{visible(self.tokens[position])} ({position})",
            ]
            for value, position, row in strongest
        ]
        heads = ["feature", "label", f"maximum ({self.unit})", "on token (position)"]
        masked = f"; positions {', '.join(map(str, self.masked))} not scored" if self.masked else ""
        counts = f"{len(body)} of {len(self.features)} features, {len(self.tokens)} tokens{masked}."
        return f"{self.static_heading()}{table(heads, body)}<p>{counts}</p>"
