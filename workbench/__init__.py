"""An interpretability workbench in a notebook: see, follow and steer the features of Gemma 2.

    import workbench as wb

    lab = wb.open()

This file is the table of contents. A name is loaded from its module at first use, so that
`import workbench` costs nothing and `workbench doctor` works where torch does not.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from workbench.doctor import doctor

try:
    __version__ = version("sae-workbench")
except PackageNotFoundError:  # a checkout that is on the path and not installed
    __version__ = "0+unknown"

# Threads of torch that wait for each other in a loop keep the processor from whoever else needs it,
# such as the browser next door: on two busy cores a token then takes 350 ms instead of 25. Read
# when torch is loaded, so `workbench` comes before it; whoever sets it has the last word.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOME: dict[str, str] = {
    "Ablate": "engine.edits",
    "Attribution": "analysis.attribution",
    "Autosteer": "analysis.autosteer",
    "Calibration": "analysis.calibration",
    "Clamp": "engine.edits",
    "Contrast": "analysis.contrast",
    "Direction": "engine.directions",
    "Features": "features",
    "Fluency": "analysis.fluency",
    "Freeze": "engine.edits",
    "Generation": "engine.tracing",
    "Index": "index",
    "Lab": "lab",
    "Label": "labels",
    "Labels": "labels",
    "LiveEdits": "engine.tracing",
    "Patch": "engine.edits",
    "Recipe": "recipes.recipe",
    "Row": "recipes.rows",
    "Run": "runs",
    "SAE": "sae",
    "Scale": "engine.edits",
    "Site": "sites",
    "Splice": "engine.edits",
    "Steer": "engine.edits",
    "Suite": "sae.suite",
    "Tokens": "tokens",
    "TrainConfig": "training",
    "When": "engine.edits",
    "ablate": "engine.edits",
    "catalog": "sae.catalog",
    "catalog_entry": "sae.catalog",
    "freeze_rest": "engine.edits",
    "open": "lab",
    "open_recipe": "recipes.recipe",
    "open_run": "runs",
    "open_steering": "panels.replay",
}
"""Public name -> the module below `workbench` that defines it."""

__all__ = ["__version__", "doctor", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"workbench has no {name!r}. It has: {', '.join(sorted(__all__))}."
        raise AttributeError(msg)
    value = getattr(import_module(f"workbench.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
