"""What an index says of one feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.sites import Site

BARS, LENGTH = "▁▂▃▄▅▆▇█", 12
"""Heights of a bar drawn as text, and the most bars of a line."""


@dataclass(frozen=True)
class Sparkline:
    """A histogram small enough for the cell of a table.

    >>> Sparkline((1, 0, 4, 8))
    ▂▁▅█
    """

    counts: tuple[int, ...]
    """Tokens in each bin, from the first that is not empty to the last."""

    def __str__(self) -> str:
        """Bars as high as their counts, 0 the lowest; neighbours together where there are many."""
        if not self.counts:
            return ""
        many = -(-len(self.counts) // LENGTH)
        bars = [sum(self.counts[i : i + many]) for i in range(0, len(self.counts), many)]
        highest, most = len(BARS) - 1, max(bars)
        return "".join(BARS[-(-bar * highest // most)] for bar in bars)

    __repr__ = __str__


@dataclass(frozen=True)
class Example:
    """A token at which a feature fires, in its passage."""

    document: int
    """Number of the document, from 0 in the order of the corpus."""
    position: int
    """Token of the document."""
    value: float
    """The activation."""
    at: int
    """Which of `tokens` it is."""
    tokens: tuple[str, ...]
    """The passage: up to 16 tokens to either side, as far as the model saw them in one row."""
    activations: tuple[float, ...]
    """Of the same feature at each token, to a 255th of the largest of the passage."""
    below: float
    """Share of the tokens where the feature fires that fire less, to within a histogram bin."""

    @property
    def text(self) -> str:
        """The passage in one string."""
        return "".join(self.tokens)


@dataclass(frozen=True)
class FeatureRecord:
    """What a corpus says of one feature."""

    site: Site
    index: int
    tokens: int
    """Tokens that were looked at."""
    fires: int
    """Tokens on which it fires."""
    mean: float
    """Mean activation where it fires; 0 if it never does."""
    deviation: float
    """Standard deviation of the activation where it fires."""
    maximum: float
    """Its largest activation; 0 if it never fires."""
    edges: np.ndarray
    """``(bin + 1,)`` edges of the histogram's bins, from the first that is not empty to the last.
    The first and the last of all hold what lies beyond."""
    counts: np.ndarray
    """``(bin,)`` tokens in each."""
    top: tuple[Example, ...]
    """The strongest passages, strongest first; one of each row and of each wording."""
    stratified: tuple[Example, ...]
    """Passages from the whole range of activation, strongest first; random in each range."""
    cofiring: pd.DataFrame
    """Features of the same site that fire on the same tokens, most notable first. Columns
    ``feature, together, of, expected, lift``: it fires on ``together`` of the ``of`` tokens of a
    sample where this one does; ``expected`` if the two were independent; and their quotient."""

    @property
    def density(self) -> float:
        """Share of the tokens on which it fires."""
        return self.fires / self.tokens if self.tokens else 0.0

    @property
    def mean_over_all(self) -> float:
        """Mean activation over all tokens."""
        return self.mean * self.density

    def __repr__(self) -> str:
        return (
            f"<Feature {self.index} at {self.site}: fires on {self.density:.3%} of "
            f"{self.tokens:,} tokens, mean {self.mean:.3g}, maximum {self.maximum:.3g}>"
        )
