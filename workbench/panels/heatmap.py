"""Tokens by features of one site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.features import Measure
from workbench.panels.base import Panel, code_of
from workbench.sites import Kind, Site, check_kind
from workbench.widgets import FeatureHeatmap

if TYPE_CHECKING:
    from workbench.runs import Run


class Heatmap(Panel[FeatureHeatmap]):
    """Which features of a site fire on which token of a run."""

    def __init__(
        self,
        run: Run,
        layer: int,
        kind: Kind = "res",
        *,
        features: Sequence[int] | None = None,
        k: int = 20,
        by: Measure = "max",
    ) -> None:
        """Draw a run.

        Args:
            run: What to draw.
            layer: Layer.
            kind: Kind of site.
            features: Indices to draw, top to bottom; the `k` strongest on this text if left out.
            k: How many.
            by: What strongest means: ``"max"``, ``"sum"`` or ``"count"``.

        Raises:
            ValueError: If the site was not read or a feature does not exist.
        """
        self.run, self.site = run, Site(layer, check_kind(kind))
        found = run.features(layer, kind)
        self.features = [int(i) for i in features] if features is not None else found.top(k, by=by)
        values = found.columns(self.features)
        self.widget = FeatureHeatmap(
            title=f"Features at {self.site}",
            subtitle=" · ".join(
                part
                for part in (
                    run.model,
                    f"strongest first by {by}" if features is None else "",
                    run.badge(layer, kind),
                )
                if part
            ),
            tokens=list(run.tokens.strings),
            features=[self._row(index) for index in self.features],
            values=values.numpy().tobytes(),
            masked=[0],
            code=f"{code_of(run)}\nrun.heatmap({layer}, {kind!r}, features={self.features})",
        )

    def _row(self, index: int) -> dict[str, object]:
        row: dict[str, object] = {"id": index, "label": self.run.label(self.site, index)}
        maximum = self.run.typical_maximum(self.site, index)
        return row | ({"max": maximum} if maximum else {})

    @property
    def selected(self) -> tuple[int, int, int] | None:
        """``(position, layer, feature)`` of the selected cell, or None.

        The last two are a feature as edits and `Run.evolution` take it.
        """
        if not self.widget.selected:
            return None
        position, row = self.widget.selected
        return position, self.site.layer, self.features[row]
