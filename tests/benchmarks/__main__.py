"""``python -m tests.benchmarks`` (or ``make bench``): every benchmark, as one table."""

from __future__ import annotations

import sys
from itertools import chain

import torch

from tests.benchmarks import engine, widgets
from workbench.lab import open as open_lab


def main() -> None:
    """Print a row as soon as it is measured."""
    lab = open_lab()
    sys.stdout.write(f"{lab}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    for what, measured, target in chain(engine.rows(lab), widgets.rows(lab)):
        sys.stdout.write(f"{what:66} {measured:>9}   target {target}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
