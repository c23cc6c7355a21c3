"""The widgets: traits in Python, drawing in plain ES modules, no tensor anywhere.

`FeatureHeatmap` shows features by tokens, `EvolutionMap` a feature through the layers,
`SteeringPanel` sliders beside steered and unsteered text, `FeatureDashboard` all that is known of
one feature, `TrainingCurves` how SAEs learn. `AppPrompt`, `AppFeature` and `AppSearch` are what the
app has beside them. `Widget` is what they share.
"""

from __future__ import annotations

from workbench.widgets.app_feature import AppFeature
from workbench.widgets.app_prompt import AppPrompt
from workbench.widgets.app_search import AppSearch
from workbench.widgets.base import Widget, float32_bytes, pages
from workbench.widgets.evolution_map import EvolutionMap
from workbench.widgets.feature_dashboard import FeatureDashboard
from workbench.widgets.feature_heatmap import FeatureHeatmap
from workbench.widgets.steering_panel import SteeringPanel
from workbench.widgets.training_curves import TrainingCurves

__all__ = [
    "AppFeature",
    "AppPrompt",
    "AppSearch",
    "EvolutionMap",
    "FeatureDashboard",
    "FeatureHeatmap",
    "SteeringPanel",
    "TrainingCurves",
    "Widget",
    "float32_bytes",
    "pages",
]
