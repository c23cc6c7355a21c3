"""A lab whose texts and SAEs are small enough to train in a second."""

from __future__ import annotations

from itertools import islice

import pytest

import workbench as wb
from workbench.lab import Lab
from workbench.pocket.corpus import documents


@pytest.fixture(scope="session")
def pocket() -> Lab:
    """Pocket; whoever changes which SAE it uses opens another."""
    return wb.open("pocket")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """About 4,000 tokens of pocket's corpus."""
    return [one.text for one in islice(documents(21), 18)]
