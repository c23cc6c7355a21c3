"""What a planted bug is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """One wrong line."""

    name: str
    file: str
    """Below ``workbench``."""
    right: str
    """Text that stands in the file exactly once."""
    wrong: str
    tests: tuple[str, ...]
    """What should catch it."""
