"""Kinship: which features of two SAEs write the same direction, and what chance would reach.

Two features are kin when they write the same direction into the residual stream: the data-free
matching of Laptev et al. 2025 ("Analyze Feature Flow to Enhance Interpretation and Steering in
Language Models", arXiv 2502.03032). ``res``, ``mlp`` and transcoder decoders write there already.
An ``att`` decoder row lives in the space of the head outputs, so it is first carried through
``W_O`` and, where a norm follows (Gemma), its gain, which is what the layer adds to the stream (up
to the norm's division, a positive factor that a cosine does not see).

Among thousands of features the nearest one to *any* direction is not far, so a cosine says nothing
without its null: what the nearest feature reaches for a direction that is none of the model's. That
direction is drawn with the mean and the covariance of the decoder that is matched,

    u = m + sum_i s_i (d_i - m) / sqrt(n),        s_i = +1 or -1 at random

over its n unit rows d_i with mean m, and then of unit norm. Uniform directions would be too easy to
beat: decoders fill some directions of the stream more than others, and rows that share a mean all
have a cosine with one another that is no kinship. So the mean is kept as it is, and its sign is
never drawn. A decoder with fewer rows than dimensions says too little of its covariance, and every
draw would lie in the span of what it is to be compared with: there directions are uniform.

The null is the order statistic of the draws' best cosines that a new draw exceeds with probability
``level`` at most (the rank is that of split conformal prediction: Vovk et al. 2005, Lei et al.
2018, arXiv 1604.04173). That holds for draws; decoders made to have no relation at all came to 2.6
% to 5.4 % at a level of 5 % in the mean of 24 seeds, each to within 0.25 % (tests/evolution).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.architectures import architecture_of
from workbench.engine.binding import FeatureSource
from workbench.sae import SAE
from workbench.sites import Site

LEVEL = 0.01
"""Share of unrelated directions that may pass for kin at a site."""
DRAWS = 512
"""Unrelated directions of a null."""
BLOCK = 1024
"""Rows of a product at once: 67 MB against 16,384 features."""
HELD = 2**26
"""Bytes of decoders that are kept beside the two in use: all of a small suite."""


@dataclass(frozen=True)
class Relative:
    """A feature that writes nearly what a given one writes."""

    site: Site
    """Where it is."""
    index: int
    """Its index there."""
    cosine: float
    """Cosine of the two written directions, -1 to 1."""


def written_directions(module: Any, site: Site, sae: SAE) -> Tensor:
    """What each feature writes into the residual stream ``(d_sae, d_model)``, of unit norm.

    Args:
        module: A transformers model of an architecture that `workbench.architectures` knows.
        site: Where the SAE reads.
        sae: The SAE.
    """
    directions = sae.W_dec.float()
    if site.kind == "att":
        directions = architecture_of(module).into_stream(module, site.layer, directions)
    return nn.functional.normalize(directions, dim=-1)


def unrelated(directions: Tensor, count: int = DRAWS, seed: int = 0) -> Tensor:
    """Unit directions with the mean and covariance of some others ``(count, d_model)``.

    Args:
        directions: ``(row, d_model)`` of unit norm. Fewer rows than dimensions give uniform ones.
        count: How many.
        seed: Of the draw.
    """
    random = torch.Generator().manual_seed(seed)
    rows, width = directions.shape
    if rows < width:
        drawn = torch.randn(count, width, generator=random).to(directions.device)
    else:
        mean = directions.mean(0)
        signs = torch.randint(0, 2, (count, rows), generator=random) * 2.0 - 1
        drawn = signs.to(directions.device) @ directions
        drawn -= signs.sum(1, keepdim=True).to(directions.device) * mean
        drawn = mean + drawn / math.sqrt(rows)
    return nn.functional.normalize(drawn, dim=-1)


def passed_by(best: Tensor, level: float) -> float:
    """The value that a new draw from the same source exceeds with probability `level` at most.

    Args:
        best: Draws ``(draw,)``.
        level: Above 0 and below 1.

    Raises:
        ValueError: If so few draws cannot say it.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    rank = math.ceil((1 - level) * (len(best) + 1))
    if rank > len(best):
        raise ValueError(
            f"{len(best)} draws cannot tell what only a share of {level} exceeds: "
            f"take {math.ceil(1 / level)} or a larger level"
        )
    return float(best.kthvalue(rank).values)


@dataclass(frozen=True, eq=False)
class Matches:
    """For features of one site the nearest one of another."""

    source: Site
    """Whose features are matched."""
    target: Site
    """Where the nearest ones are."""
    features: Tensor
    """``(feature,)`` which of the source's."""
    indices: Tensor
    """``(feature,)`` the nearest of the target's."""
    cosines: Tensor
    """``(feature,)`` of the two written directions."""
    null: float
    """What a direction unrelated to the source's features reaches."""

    @property
    def margins(self) -> Tensor:
        """``(feature,)`` cosine above the null."""
        return self.cosines - self.null

    @property
    def counts(self) -> Tensor:
        """``(feature,)`` whether the two are kin."""
        return self.margins > 0


class Kinship:
    """Matches between the sites of a suite; of large decoders it holds two at a time."""

    def __init__(
        self,
        module: Any,
        source: FeatureSource,
        *,
        level: float = LEVEL,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        """Nothing is computed yet.

        Args:
            module: A transformers model of an architecture that `workbench.architectures` knows.
            source: Its SAEs.
            level: Share of unrelated directions that may pass for kin.
            draws: Unrelated directions of each null.
            seed: Of the draws.
        """
        self.level = level
        self._module, self._source, self._draws, self._seed = module, source, draws, seed
        self._held: dict[Site, Tensor] = {}
        self._unrelated: dict[Site, Tensor] = {}
        self._nulls: dict[tuple[Site, Site], float] = {}

    def directions(self, site: Site) -> Tensor:
        """What each feature of a site writes ``(d_sae, d_model)``, of unit norm."""
        # Put at the end again: the one that was not asked for longest goes first.
        found = self._held.pop(site, None)
        if found is None:
            while len(self._held) > 1 and sum(x.nbytes for x in self._held.values()) > HELD:
                self._held.pop(next(iter(self._held)))
            found = written_directions(self._module, site, self._source.sae_at(site))
        self._held[site] = found
        return found

    def null(self, source: Site, target: Site) -> float:
        """What the nearest feature of `target` to a direction unrelated to `source`'s reaches."""
        pair = source, target
        if pair not in self._nulls:
            if source not in self._unrelated:
                drawn = unrelated(self.directions(source), self._draws, self._seed)
                self._unrelated[source] = drawn
            best = (self._unrelated[source] @ self.directions(target).T).amax(1)
            self._nulls[pair] = passed_by(best, self.level)
        return self._nulls[pair]

    def matches(self, source: Site, target: Site, features: Sequence[int] | None = None) -> Matches:
        """The nearest feature of `target` for each of `source`.

        Args:
            source: Whose features.
            target: Where to look.
            features: Which of them; all if left out.

        Raises:
            ValueError: If a feature does not exist.
        """
        own, other = self.directions(source), self.directions(target)
        if features is not None:
            sae = self._source.sae_at(source)
            own = own[[sae.check_index(index) for index in features]]
        best = [_largest(part @ other.T) for part in own.split(BLOCK)]
        chosen = torch.arange(len(own)) if features is None else torch.tensor(list(features))
        return self._matches(source, target, chosen, best)

    def both_ways(self, one: Site, other: Site) -> tuple[Matches, Matches]:
        """All matches from `one` to `other` and back, with one product for the two."""
        own, theirs = self.directions(one), self.directions(other)
        forth = []
        back = torch.full((len(theirs),), -math.inf, device=own.device)
        whose = torch.zeros(len(theirs), dtype=torch.long, device=own.device)
        for start in range(0, len(own), BLOCK):
            product = own[start : start + BLOCK] @ theirs.T
            forth.append(_largest(product))
            values, rows = _largest(product.T)
            whose = torch.where(values > back, rows + start, whose)
            back = torch.maximum(back, values)
        return (
            self._matches(one, other, torch.arange(len(own)), forth),
            self._matches(other, one, torch.arange(len(theirs)), [(back, whose)]),
        )

    def _matches(
        self, source: Site, target: Site, features: Tensor, best: Sequence[tuple[Tensor, Tensor]]
    ) -> Matches:
        cosines, indices = (torch.cat(column).cpu() for column in zip(*best, strict=True))
        return Matches(source, target, features, indices, cosines, self.null(source, target))


def _largest(table: Tensor) -> tuple[Tensor, Tensor]:
    """Largest value of each row and the first place where it stands."""
    if table.device.type != "cpu":
        best = table.max(1)
        return best.values, best.indices
    # torch's own takes several times as long on a CPU.
    places = torch.from_numpy(table.contiguous().numpy().argmax(1))
    return table.gather(1, places[:, None])[:, 0], places
