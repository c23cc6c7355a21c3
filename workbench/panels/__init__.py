"""Panels: a widget and the model calls that fill it."""

from __future__ import annotations

from workbench.panels.evolution import Evolution
from workbench.panels.heatmap import Heatmap
from workbench.panels.steering import Steering

__all__ = ["Evolution", "Heatmap", "Steering"]
