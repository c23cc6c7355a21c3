"""What a corpus says of every feature: densities, histograms, examples, company.

    index = lab.index(texts, path="wiki.duckdb")    # one pass, resumable
    index.feature((5, "res"), 231).top              # no model needed from here on

The pass (`build`) turns texts into rows (`corpus`), counts what fires (`state`, `best`, `sample`),
commits now and then, and writes the tables that are read (`files`, `publish`, `reading`).
"""

from __future__ import annotations

from workbench.index.build import build
from workbench.index.files import NotAnIndexError
from workbench.index.reading import Index
from workbench.index.records import Example, FeatureRecord
from workbench.index.state import Shape

__all__ = [
    "Example",
    "FeatureRecord",
    "Index",
    "NotAnIndexError",
    "Shape",
    "build",
]
