"""Which features tell two sets of texts apart, and does that hold for texts not yet seen?

1. Each text becomes one number a feature: its activation over the text (mean or maximum), ``<bos>``
   left out.
2. One half of each set chooses: features are ranked by AUROC, the chance that a positive text is
   above a negative one (ties count half), and where that is equal by the difference of the means.
3. The other half, which had no part in it, says what the ranking is worth (``held_out``).
4. Control: the same search with the texts' sides shuffled, a number of times. ``control`` is the
   best held-out score that it ever found among as many features, so what does not exceed it may be
   luck.

The difference of the mean activations (Rimsky et al. 2024, arXiv 2312.06681) is the rival of every
feature: `Contrast.direction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.noted import noted_html
from workbench.analysis.text_features import Pool, Reading, Sides, read_texts
from workbench.engine.directions import Direction
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site
from workbench.tokens import Tokens

SHUFFLES = 20
"""Searches with shuffled sides; the best of 20 is exceeded by luck in about one of 21."""
COLUMNS = ["layer", "kind", "feature", "label", "score", "held_out", "positive", "negative"]


@dataclass(frozen=True, eq=False)
class Contrast:
    """What tells the positive texts from the negative ones."""

    frame: pd.DataFrame
    """Features, best first: ``layer, kind, feature, label``; ``score`` (AUROC on the texts that
    chose), ``held_out`` (AUROC on the others), ``positive`` and ``negative`` (mean over all texts
    of a side, in activation units), ``control`` (see the module)."""
    directions: dict[Site, Direction]
    """Difference of means at each site that can be written to, from all texts."""
    notes: tuple[str, ...] = field(default=())
    """What a reader of the figures should know."""

    def __repr__(self) -> str:
        return "\n".join([str(self.frame), *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return noted_html(self.frame, self.notes)

    def direction(self, layer: int, kind: Kind = "res") -> Direction:
        """The difference of means at a site; its AUROC is that of each half's on the other half.

        Raises:
            ValueError: If the site was not read, or is only read.
        """
        site = Site(layer, kind)
        if site not in self.directions:
            raise ValueError(
                f"there is no direction at {site}; there is one at "
                f"{', '.join(map(str, self.directions)) or 'no site'}"
            )
        return self.directions[site]


def contrast(
    model: Model,
    suite: Suite,
    positive: Sequence[Tokens],
    negative: Sequence[Tokens],
    *,
    sites: Sequence[Site],
    k: int = 20,
    pool: Pool = "mean",
    seed: int = 0,
    progress: bool = True,
) -> Contrast:
    """Rank the features of `sites` by how well they tell `positive` texts from `negative` ones.

    Args:
        model: The model.
        suite: Its SAEs.
        positive: Texts that have it.
        negative: Texts that lack it, best alike in all else.
        sites: Where to look.
        k: Features to return.
        pool: A feature's activation over a text: its ``"mean"``, for what holds throughout, or its
            ``"max"``, for what happens once.
        seed: Fixes the halves and the shuffles.
        progress: Show a bar.

    Raises:
        ValueError: If a side is empty, a text stands on both, there is no site, or `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    sides = Sides.of(positive, negative, seed)
    labels = sides.shuffled(0 if sides.chooses.all() else SHUFFLES, seed)
    rows, best, directions = [], _Best(labels.shape[1], k), {}
    for reading in read_texts(model, suite, sides, sites, pool=pool, progress=progress):
        site = reading.site
        chosen, keys = _choose(reading, labels, sides.chooses, k)
        held = _held_out(reading, labels, sides.chooses, chosen)
        best.offer(keys[:, 1:], held[:, 1:])
        rows += _rows(reading, suite, sides, chosen[:, 0], keys[:, 0], held[:, 0])
        if site.writes_at == site:
            directions[site] = _direction(reading, sides)
    frame = pd.DataFrame(rows, columns=[*COLUMNS, "key"])
    frame = frame.sort_values("key", ascending=False, kind="stable", ignore_index=True)
    frame = frame.drop(columns="key").head(k)
    frame["control"] = best.score
    return Contrast(frame, directions, sides.notes)


class _Best:
    """What the searches with shuffled sides found, over all sites."""

    def __init__(self, columns: int, k: int) -> None:
        self._k = k
        self._keys, self._held = np.empty((0, columns - 1)), np.empty((0, columns - 1))

    def offer(self, keys: np.ndarray, held: np.ndarray) -> None:
        """Add a site's best features ``(feature, shuffle)``; only the best `k` of all stay."""
        keys, held = np.vstack([self._keys, keys]), np.vstack([self._held, held])
        order = np.argsort(-keys, axis=0, kind="stable")[: self._k]
        self._keys = np.take_along_axis(keys, order, 0)
        self._held = np.take_along_axis(held, order, 0)

    @property
    def score(self) -> float:
        """The best held-out score; NaN where there were no shuffles."""
        return float(self._held.max()) if self._held.size else float("nan")


def auroc(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Chance that a positive text has the larger value, ties counting half ``(column, labels)``.

    By the rank-sum identity (Hanley and McNeil 1982): ``(R - n (n + 1) / 2) / (n m)`` with ``R``
    the sum of the ranks of the ``n`` positives among ``m`` negatives.

    Args:
        values: ``(text, column)``.
        positive: ``(text, labels)`` bool, each column with texts of both sides.
    """
    ranks = pd.DataFrame(values).rank().to_numpy()  # equal values share their mean rank
    n = positive.sum(0)
    return (ranks.T @ positive - n * (n + 1) / 2) / (n * (len(positive) - n))


def ranking(reading: Reading, positive: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What features are ranked by ``(seen, labels)``: AUROC, and where that is equal the gap.

    The gap is the difference of the means in units of `Reading.scale`. It is at most 1 in size, so
    half the smallest step that an AUROC can make is too large a factor for it to overrule one.

    Args:
        reading: The texts at one site.
        positive: ``(text, labels)`` bool.
        rows: ``(text,)`` bool: the texts that count.
    """
    values, sides = reading.values[rows].astype(float), positive[rows].astype(float)
    n = sides.sum(0)
    m = len(sides) - n
    gap = values.T @ (sides / n - (1 - sides) / m) / reading.scale[:, None]
    return auroc(values, positive[rows]) + gap / (4 * n * m)


def _choose(
    reading: Reading, labels: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best features ``(rank, labels)`` of a site, as columns of the reading, and their keys."""
    keys = ranking(reading, labels, rows)
    chosen = np.argsort(-keys, axis=0, kind="stable")[:k]
    return chosen, np.take_along_axis(keys, chosen, 0)


def _held_out(
    reading: Reading, labels: np.ndarray, chooses: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """AUROC ``(rank, labels)`` of the chosen features on the texts that did not choose."""
    out = np.full(chosen.shape, np.nan)
    if not chooses.all():
        values, sides = reading.values[~chooses], labels[~chooses]
        for column in range(labels.shape[1]):
            own = values[:, chosen[:, column]]
            out[:, column] = auroc(own, sides[:, [column]])[:, 0]
    return out


def _rows(
    reading: Reading,
    suite: Suite,
    sides: Sides,
    chosen: np.ndarray,
    keys: np.ndarray,
    held: np.ndarray,
) -> list[tuple]:
    """Rows of the table for the chosen features of a site."""
    site, own = reading.site, reading.values[:, chosen]
    scores = auroc(own[sides.chooses], sides.positive[sides.chooses, None])[:, 0]
    there, lacking = own[sides.positive].mean(0), own[~sides.positive].mean(0)
    return [
        (site.layer, site.kind, i, suite.label(site, i), *(float(number) for number in numbers))
        for i, *numbers in zip(
            reading.features[chosen].tolist(), scores, held, there, lacking, keys, strict=True
        )
    ]


def _direction(reading: Reading, sides: Sides) -> Direction:
    """Difference of means of all texts; its score is that of each half's on the other half."""
    x, positive = reading.means, torch.from_numpy(sides.positive)

    def difference(rows: Tensor) -> Tensor:
        return x[rows & positive].mean(0) - x[rows & ~positive].mean(0)

    vector = difference(torch.ones(len(x), dtype=torch.bool))
    if sides.chooses.all():
        return Direction(reading.site, vector)
    first = torch.from_numpy(sides.chooses)
    scores = [
        auroc((x[~half] @ difference(half))[:, None].numpy(), sides.positive[~half.numpy(), None])
        for half in (first, ~first)
    ]
    return Direction(reading.site, vector, float(np.mean(scores)))
