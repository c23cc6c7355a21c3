"""Which features tell two sets of texts apart, and does that hold for texts not yet seen?

1. Each text becomes one number a feature: its activation over the text (mean or maximum), ``<bos>``
   left out.
2. One half of each set chooses: features are ranked by AUROC, the chance that a positive text is
   above a negative one (ties count half), and where that is equal by the difference of the means.
3. The other half, which had no part in it, says what the ranking is worth (`held_out`).
4. Control: the same search with the texts' sides shuffled, a number of times. `control` is the best
   held-out score that it ever found among as many features, so what does not exceed it may be luck.

The difference of the mean activations (Rimsky et al. 2024, arXiv 2312.06681) is the rival of every
feature: `Contrast.direction`.

Texts are read some at a time, at some sites at a time, and only what is active is kept, so neither
many texts nor many layers fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.directions import Direction
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site
from workbench.tokens import Tokens
from workbench.tracing import trace

Pool = Literal["mean", "max"]

BYTES = 2**28
"""Activations and logits that one pass may leave behind: 256 MB."""
SITES = 8
"""Sites that are read in one pass over the texts, and so SAEs that are in use together."""
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
        notes = "".join(f"<p>note: {note}</p>" for note in self.notes)
        return f"{self.frame._repr_html_()}{notes}"  # pyright: ignore[reportCallIssue]

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


@dataclass(frozen=True, eq=False)
class Sides:
    """Texts of two sides, and which of them choose."""

    texts: tuple[Tokens, ...]
    """Positive ones first."""
    positive: np.ndarray
    """``(text,)`` bool."""
    chooses: np.ndarray
    """``(text,)`` bool; all where a side has a single text."""
    notes: tuple[str, ...]
    """What was changed on the way."""

    @classmethod
    def of(cls, positive: Sequence[Tokens], negative: Sequence[Tokens], seed: int) -> Sides:
        """Check both sides and split each at random.

        Raises:
            ValueError: If a side is empty or a text stands on both.
        """
        sides = [list({t.ids: t for t in texts}.values()) for texts in (positive, negative)]
        for name, texts in zip(("positive", "negative"), sides, strict=True):
            if not texts:
                raise ValueError(f"there are no {name} texts: give at least one, better ten")
        both = {t.ids for t in sides[0]} & {t.ids for t in sides[1]}
        if both:
            text = next(t.text for t in sides[0] if t.ids in both)
            raise ValueError(
                f"{len(both)} texts stand on both sides, such as {text[:60]!r}: what is on both "
                "sides tells nothing; take it out of one"
            )
        notes = []
        repeated = len(positive) + len(negative) - len(sides[0]) - len(sides[1])
        if repeated:
            notes.append(f"{repeated} repeated texts count once")
        held_out = min(map(len, sides)) > 1
        if not held_out:
            notes.append(
                "one text on a side cannot be split: there are no held-out scores, and any feature "
                "of that very text ranks high; give at least two texts a side, better ten"
            )
        random = np.random.default_rng(seed)
        chooses = [
            random.permutation(len(texts)) < (len(texts) + 1) // 2 if held_out else True
            for texts in sides
        ]
        counts = [len(texts) for texts in sides]
        return cls(
            (*sides[0], *sides[1]),
            np.repeat([True, False], counts),
            np.concatenate([np.broadcast_to(c, n) for c, n in zip(chooses, counts, strict=True)]),
            tuple(notes),
        )

    def shuffled(self, count: int, seed: int) -> np.ndarray:
        """The sides as they are, then `count` shuffles within each half ``(text, 1 + count)``."""
        random = np.random.default_rng(seed)
        columns = np.repeat(self.positive[:, None], 1 + count, axis=1)
        for half in (self.chooses, ~self.chooses):
            for column in range(1, 1 + count):
                columns[half, column] = random.permutation(self.positive[half])
        return columns


@dataclass(frozen=True, eq=False)
class Reading:
    """All texts at one site, a number for each feature that was ever active."""

    site: Site
    features: np.ndarray
    """``(seen,)`` index of each."""
    values: np.ndarray
    """``(text, seen)`` activation over the text, mean or maximum."""
    scale: np.ndarray
    """``(seen,)`` typical maximum, or the largest activation in the texts that choose if larger."""
    means: Tensor
    """``(text, d_in)`` mean activation of the site, ``<bos>`` left out."""


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


def read_texts(
    model: Model,
    suite: Suite,
    sides: Sides,
    sites: Sequence[Site],
    *,
    pool: Pool = "mean",
    progress: bool = True,
) -> Iterator[Reading]:
    """Read all texts of both sides at each of `sites`, some of both at a time.

    Raises:
        ValueError: If there is no site, or `pool` is another word.
    """
    if pool not in get_args(Pool):
        raise ValueError(f"pool must be 'mean' or 'max', got {pool!r}")
    if not sites:
        raise ValueError("there is no site to look at: give layers and kinds that have an SAE")
    texts, ordered = sides.texts, sorted(sites)
    blocks = [ordered[i : i + SITES] for i in range(0, len(ordered), SITES)]
    with tqdm(total=len(texts) * len(blocks), desc="reading texts", disable=not progress) as bar:
        for block in blocks:
            gathered = {site: _Gathered(suite.sae_at(site).config.d_sae) for site in block}
            for batch in batches(model, texts, block):
                activations = trace(model, [texts[i] for i in batch], block).activations
                for site, x in activations.items():
                    own = [
                        row[len(row) - len(texts[i]) + 1 :] for i, row in zip(batch, x, strict=True)
                    ]
                    gathered[site].add(suite, site, batch, own)
                bar.update(len(batch))
            for site in block:
                # Taken out, so that a site is gone from memory when the next is asked for.
                yield gathered.pop(site).reading(suite, site, sides.chooses, pool)


def batches(
    model: Model, texts: Sequence[Tokens], sites: Sequence[Site] = ()
) -> Iterator[list[int]]:
    """Texts of like length together, as many as fit `BYTES`, by their places."""
    numbers = model.config.vocab_size + sum(site.width(model.config) for site in sites)
    most = BYTES // (4 * numbers)
    batch: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: (len(texts[i]), i)):
        if batch and (len(batch) + 1) * len(texts[i]) > most:
            yield batch
            batch = []
        batch.append(i)
    yield batch


class _Gathered:
    """What is active in the texts at one site, so far."""

    def __init__(self, d_sae: int) -> None:
        self.d_sae = d_sae
        self.active: list[Tensor] = []
        """``(2, entry)`` text and feature."""
        self.pooled: list[Tensor] = []
        """``(2, entry)`` mean and maximum."""
        self.means: dict[int, Tensor] = {}

    def add(self, suite: Suite, site: Site, places: Sequence[int], parts: Sequence[Tensor]) -> None:
        """Take in the texts at `places`, with activations ``(pos, d_in)`` each."""
        sae = suite.sae_at(site)
        self.means |= {i: x.float().mean(0) for i, x in zip(places, parts, strict=True)}
        lengths = torch.tensor([len(x) for x in parts])
        owner = torch.repeat_interleave(torch.arange(len(parts)), lengths)
        rows, features, values = (
            part.cpu() for part in sae.encode_sparse(torch.cat(list(parts)).to(sae.W_enc.device))
        )
        values = values.float()
        entries, group = torch.unique(owner[rows] * self.d_sae + features, return_inverse=True)
        text, feature = entries // self.d_sae, entries % self.d_sae
        zeros = torch.zeros(len(entries))
        mean = zeros.scatter_add(0, group, values) / lengths[text]
        self.active.append(torch.stack([torch.tensor(places)[text], feature]))
        self.pooled.append(torch.stack([mean, zeros.scatter_reduce(0, group, values, "amax")]))

    def reading(self, suite: Suite, site: Site, chooses: np.ndarray, pool: Pool) -> Reading:
        """All of it as tables; `chooses` ``(text,)`` says which texts may set a scale."""
        (text, feature), (mean, peak) = torch.cat(self.active, 1), torch.cat(self.pooled, 1)
        seen, column = torch.unique(feature, return_inverse=True)
        values = torch.zeros(len(chooses), len(seen))
        values[text, column] = mean if pool == "mean" else peak
        own = torch.from_numpy(chooses)[text]
        scale = torch.zeros(len(seen)).scatter_reduce(0, column[own], peak[own], "amax")
        if suite.calibrated(site):
            scale = torch.maximum(scale, suite.maxima(site)[seen].float())
        scale[scale == 0] = 1  # silent in the texts that choose: the gap is 0 in any unit
        means = torch.stack([self.means[i] for i in range(len(chooses))])
        return Reading(site, seen.numpy(), values.numpy(), scale.numpy(), means)


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
