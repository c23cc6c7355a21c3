"""The labelled corpus: every kind of document, drawn by seed.

`document(seed, index)` is a pure function, so any document can be made again alone, training and
held-out text differ by their seed, and nothing has to be stored.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import cache

from workbench.pocket.corpus.core import Document, Piece, Writer
from workbench.pocket.corpus.local import LOCAL
from workbench.pocket.corpus.narrative import NARRATIVE

__all__ = ["KINDS", "Document", "Piece", "Writer", "document", "documents"]

NARRATIVE_SHARE = 0.52
"""Share of the documents whose words depend on all the persistent factors at once."""

Kind = Callable[[Writer], None]


def _kinds() -> dict[str, tuple[float, Kind]]:
    kinds: dict[str, tuple[float, Kind]] = {}
    for family, share in ((NARRATIVE, NARRATIVE_SHARE), (LOCAL, 1 - NARRATIVE_SHARE)):
        total = sum(weight for weight, _ in family.values())
        kinds |= {name: (share * weight / total, write) for name, (weight, write) in family.items()}
    return kinds


KINDS = _kinds()
"""Name -> (share of the documents, function that writes one)."""


@cache
def _cumulative(names: tuple[str, ...]) -> list[float]:
    return list(itertools.accumulate(KINDS[name][0] for name in names))


def document(seed: int, index: int, kinds: tuple[str, ...] = tuple(KINDS)) -> Document:
    """The `index`-th document of corpus `seed`, drawn from `kinds` by their shares."""
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"unknown kind of document {sorted(unknown)}; there are {sorted(KINDS)}")
    # A string seed is hashed by `random` itself, which is the same on every platform and Python.
    rng = random.Random(f"{seed}/{index}")
    kind = rng.choices(kinds, cum_weights=_cumulative(kinds))[0]
    writer = Writer(rng)
    KINDS[kind][1](writer)
    return writer.document(kind)


def documents(seed: int, kinds: tuple[str, ...] = tuple(KINDS)) -> Iterator[Document]:
    """Documents of corpus `seed` without end."""
    return (document(seed, index, kinds) for index in itertools.count())
