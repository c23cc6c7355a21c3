"""Sparse autoencoders: the object, its files and its figures of merit."""

from __future__ import annotations

from workbench.sae.base import SAE, SAEConfig

__all__ = ["SAE", "SAEConfig"]
