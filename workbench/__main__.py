"""`python -m workbench`, the same as the console command `workbench`."""

from __future__ import annotations

from workbench.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
