"""Panels: a widget and the model calls that fill it."""

from __future__ import annotations

from workbench.panels.app import App
from workbench.panels.dashboard import Dashboard
from workbench.panels.evolution import Evolution
from workbench.panels.heatmap import Heatmap
from workbench.panels.replay import SteeringReplay
from workbench.panels.steering import Steering
from workbench.panels.training import Training

__all__ = ["App", "Dashboard", "Evolution", "Heatmap", "Steering", "SteeringReplay", "Training"]
