"""A feature and its nearest relatives through the layers, over the tokens of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workbench.analysis.evolution import Relative, relatives
from workbench.panels.base import Panel, code_of
from workbench.sites import Kind, Site, check_kind
from workbench.widgets import EvolutionMap

if TYPE_CHECKING:
    from workbench.runs import Run


class Evolution(Panel[EvolutionMap]):
    """How strongly the nearest relative of a feature fires at every layer and sub-layer."""

    def __init__(self, run: Run, feature: tuple[int, int], kind: Kind = "res") -> None:
        """Find the relatives and draw them.

        Args:
            run: What to draw.
            feature: ``(layer, index)``.
            kind: Kind of site of the feature.

        Raises:
            ValueError: If the feature does not exist, or the run is a recording: finding relatives
                needs the SAEs.
        """
        if run.suite is None or run.module is None:
            raise ValueError(
                "a recorded run has no SAEs to find relatives with: open the model and run again"
            )
        origin = Site(feature[0], check_kind(kind))
        read = set(run.sites)
        self.run = run
        self.relatives: list[Relative] = [
            r for r in relatives(run.module, run.suite, origin, feature[1]) if r.site in read
        ]
        values = torch.stack(
            [run.features(r.site.layer, r.site.kind).of(r.index) for r in self.relatives]
        )
        label = run.label(origin, feature[1])
        self.widget = EvolutionMap(
            title=f"Feature {feature[1]} of {origin} through the layers",
            subtitle=f"{label}; nearest relative by decoder cosine"
            if label
            else "nearest relative by decoder cosine",
            sites=[self._row(r) for r in self.relatives],
            tokens=list(run.tokens.strings),
            values=values.float().numpy().tobytes(),
            masked=[0],
            origin=[r.site for r in self.relatives].index(origin),
            code=f"{code_of(run)}\nrun.evolution({(origin.layer, int(feature[1]))}, {kind!r})",
        )

    def _row(self, relative: Relative) -> dict[str, object]:
        site = relative.site
        return {
            "layer": site.layer,
            "kind": site.kind,
            "index": relative.index,
            "cosine": relative.cosine,
            "label": self.run.label(site, relative.index),
        }

    @property
    def selected(self) -> tuple[int, int, int, str] | None:
        """``(position, layer, feature, kind)`` of the selected cell, or None."""
        if not self.widget.selected:
            return None
        row, position = self.widget.selected
        relative = self.relatives[row]
        return position, relative.site.layer, relative.index, relative.site.kind
