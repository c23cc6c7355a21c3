"""The widgets: traits in Python, drawing in plain ES modules, no tensor anywhere.

`FeatureHeatmap` shows features by tokens, `EvolutionMap` a feature through the layers,
`SteeringPanel` sliders beside steered and unsteered text. `Widget` is what they share.
"""

from __future__ import annotations

from workbench.widgets.base import Widget, float32_bytes
from workbench.widgets.evolution_map import EvolutionMap
from workbench.widgets.feature_heatmap import FeatureHeatmap
from workbench.widgets.steering_panel import SteeringPanel

__all__ = ["EvolutionMap", "FeatureHeatmap", "SteeringPanel", "Widget", "float32_bytes"]
