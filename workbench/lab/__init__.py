"""The facade: `open` gives a `Lab`, which binds a model, its SAEs and what is known of them."""

from __future__ import annotations

from workbench.lab.facade import Lab
from workbench.lab.opening import open

__all__ = ["Lab", "open"]
