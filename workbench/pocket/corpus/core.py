"""The writer: text, the concepts of every character, and how surprising each choice was.

A grammar that keeps its own books gives three things that no scraped corpus can:

1. the text;
2. for every character the concepts it belongs to, so the true features are known;
3. the exact information of the derivation. Each random choice adds ``-log p`` nats, so the mean
   over
   documents divided by their tokens is the generator's entropy per token. It is an upper bound for
   the best possible loss, and it is tight where a text can be derived in one way only.

Persistent concepts are a *state* (language, sentiment, topic ...) that every piece inherits. Local
concepts belong to one piece (a weekday, a closing bracket).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text whose characters all carry the same concepts."""

    text: str
    """The characters as they stand in the document."""
    concepts: frozenset[str]
    """Names of the concepts, persistent and local."""
    nats: float = 0.0
    """Information of the choices made since the piece before, in nats."""


@dataclass(frozen=True)
class Document:
    """A finished document."""

    kind: str
    """Which writer made it, such as ``story`` or ``python``."""
    pieces: tuple[Piece, ...]
    nats: float
    """Information of the derivation, in nats."""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece.text for piece in self.pieces)

    def spans(self) -> list[tuple[int, int, frozenset[str]]]:
        """Character ranges ``(start, end, concepts)`` in order, without gaps."""
        spans, start = [], 0
        for piece in self.pieces:
            end = start + len(piece.text)
            spans.append((start, end, piece.concepts))
            start = end
        return spans


@dataclass
class Writer:
    """Writes one document piece by piece.

    Every random decision goes through `pick`, `chance` or `number`, which add its information to
    `nats`. A word is written together with the space before it (``" Monday"``), because a
    byte-level tokenizer joins the two.
    """

    rng: random.Random
    pieces: list[Piece] = field(default_factory=list)
    nats: float = 0.0
    state: dict[str, str] = field(default_factory=dict)
    """Factor -> value, such as ``{"language": "de"}``. Each value is a persistent concept."""
    length: int = 0
    """Characters written so far."""
    _booked: float = 0.0

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of `options`, evenly or by `weights` (any positive scale)."""
        if weights is None:
            self.nats += math.log(len(options))
            return options[int(self.rng.random() * len(options))]
        index = self.rng.choices(range(len(options)), weights)[0]
        self.nats -= math.log(weights[index] / sum(weights))
        return options[index]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        hit = self.rng.random() < probability
        self.nats -= math.log(probability if hit else 1 - probability)
        return hit

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        self.nats += math.log(high - low + 1)
        return self.rng.randint(low, high)

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different ones of `options`, in random order."""
        self.nats += sum(math.log(len(options) - i) for i in range(count))
        return self.rng.sample(options, count)

    def add(self, text: str, *concepts: str) -> None:
        """Append `text` with the local `concepts`; the state's concepts are added to it."""
        if not text:
            return
        if self.state.get("capitals") == "upper":
            text = text.upper()
        persistent = (f"{factor}:{value}" for factor, value in self.state.items())
        self.pieces.append(
            Piece(text, frozenset((*concepts, *persistent)), self.nats - self._booked)
        )
        self._booked = self.nats
        self.length += len(text)

    def document(self, kind: str) -> Document:
        """Close the document."""
        return Document(kind, tuple(self.pieces), self.nats)
