"""Two sides of texts, read at many sites: one number a text and feature.

Texts are read some at a time, at some sites at a time, and only what is active is kept, so neither
many texts nor many layers fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.engine.tracing import trace
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Site
from workbench.tokens import Tokens

Pool = Literal["mean", "max"]

BYTES = 2**28
"""Activations and logits that one pass may leave behind: 256 MB."""
SITES = 8
"""Sites that are read in one pass over the texts, and so SAEs that are in use together."""


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
    def of(
        cls,
        positive: Sequence[Tokens],
        negative: Sequence[Tokens],
        seed: int,
        names: tuple[str, str] = ("positive", "negative"),
    ) -> Sides:
        """Check both sides and split each at random.

        Args:
            positive: Texts that have it.
            negative: Texts that lack it.
            seed: Fixes the split.
            names: What the caller calls the sides.

        Raises:
            ValueError: If a side is empty or a text stands on both.
        """
        sides = [list({t.ids: t for t in texts}.values()) for texts in (positive, negative)]
        for name, texts in zip(names, sides, strict=True):
            if not texts:
                raise ValueError(f"{name} is empty: give at least one text, better ten")
            short = next((t for t in texts if len(t) < 2), None)
            if short is not None:
                raise ValueError(
                    f"{short.text!r} in {name} is one token: the first of a text never counts"
                )
        both = {t.ids for t in sides[0]} & {t.ids for t in sides[1]}
        if both:
            text = next(t.text for t in sides[0] if t.ids in both)
            raise ValueError(
                f"{text[:60]!r} stands in {names[0]} and in {names[1]} ({len(both)} such): what is "
                "on both sides tells nothing; take it out of one"
            )
        notes = []
        repeated = len(positive) + len(negative) - len(sides[0]) - len(sides[1])
        if repeated:
            notes.append(f"texts that came again were left out: {repeated}")
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
