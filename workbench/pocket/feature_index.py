"""Pocket's own index: what a held-out part of its corpus says of every feature.

Small enough to be shipped: few examples of each feature, from few documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from workbench.index import Index, Shape, build
from workbench.lab import open as open_lab
from workbench.pocket.corpus import documents

SEED = 8
"""Of the corpus; neither training nor evaluation uses it."""
SHAPE = Shape(top=4, bins=2, stratified=1, ranges=1)
CONTEXT = 128


def make(path: Path, tokens: int) -> Index:
    """Index about `tokens` tokens; goes on where it stopped.

    Args:
        path: The file.
        tokens: Documents are taken until they have so many.
    """
    lab = open_lab()

    def texts() -> Iterator[str]:
        count = 0
        for document in documents(SEED):
            yield document.text
            count += len(lab.tokenizer(document.text, add_special_tokens=False)["input_ids"])
            if count >= tokens:
                return

    return build(
        lab.engine,
        lab.suite,
        texts(),
        lab.suite.sites,
        path=path,
        shape=SHAPE,
        context=CONTEXT,
        batch=32,
        pairs=4,
    )
