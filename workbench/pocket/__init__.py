"""Pocket: the small Gemma 2 that comes with the package, its SAEs, and how they were made."""
