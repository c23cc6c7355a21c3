"""Features whose meaning is known: each fires on one word."""

from __future__ import annotations

import numpy as np

from workbench.labels.examples import Material, Passage
from workbench.sites import Site

SITE = Site(5, "res")
WORDS = ("cat", "dog", "tree", "moon", "ship", "king", "gold", "wind")
FILLER = (
    *("the", "a", "on", "in", "we", "saw", "and", "ran", "far", "red", "big", "low"),
    *("new", "old", "by", "at", "to", "of", "it", "was"),
)


def passage(word: str | None, document: int, random: np.random.Generator) -> Passage:
    """Twelve words, one of them `word`, on which the feature fires."""
    tokens = [f" {w}" for w in random.choice(FILLER, 12)]
    values = [0.0] * 12
    if word is not None:
        at = int(random.integers(12))
        tokens[at], values[at] = f" {word}", float(random.uniform(3, 8))
    return Passage(tuple(tokens), tuple(values), document)


def fires_on(word: str, index: int, count: int = 12) -> Material:
    """A feature that fires on one word; quiet passages have the others."""
    random = np.random.default_rng(index)
    others = [w for w in WORDS if w != word]

    def quiet(i: int) -> Passage:
        plain = passage(others[i % len(others)], i, random)
        return Passage(plain.tokens, (0.0,) * len(plain.tokens), i)

    return Material(
        SITE,
        index,
        8.0,
        tuple(passage(word, i, random) for i in range(count)),
        tuple(quiet(100 + i) for i in range(count)),
        tuple(passage(word, 200 + i, random) for i in range(count)),
        tuple(quiet(300 + i) for i in range(count)),
    )


def make(site: Site, index: int) -> Material:
    """The feature with a number: it fires on the word with that number."""
    assert site == SITE
    return fires_on(WORDS[index], index)
