"""Faithfulness: how much of a target survives with some features alone, or without them.

After Marks et al. 2024 (arXiv 2403.19647, section 3.2). With m(S) the target when every feature
outside S is ablated at every site and token,

    faithfulness  F(C) = (m(C) - m(empty)) / (m(model) - m(empty))
    completeness  what is left without the circuit, F(all but C): 0 if the circuit is all there is

Features are ablated to 0, which at a site is a splice ``x' = b_dec + sum_{i in S} f_i d_i`` with
f_i encoded anew from what the sites below left over. What the SAEs fail to reconstruct can be kept
as well: ``+ (x - SAE(x))``. Both are told, and what the errors alone are good for: with errors kept
at many sites they may carry the target without any feature. ``<bos>`` is never touched, since it is
the same whatever the prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from workbench.analysis.attribution import Target, scores_under
from workbench.engine.binding import FeatureSource
from workbench.engine.site_edits import Splice
from workbench.features import Features
from workbench.models import Busy, Model
from workbench.sites import Site
from workbench.tokens import Tokens

Spot = tuple[Site, int, int]
"""A feature at a token: site, position, index."""


@dataclass(frozen=True)
class Faithfulness:
    """The target with all, some and none of the features."""

    model: float
    """In the unedited run."""
    empty: float
    """With no feature at all: the SAEs' biases alone."""
    circuit: float
    """With the circuit's features alone."""
    errors: float
    """With the SAEs' errors and no feature."""
    circuit_and_errors: float
    """With the circuit's features and the errors."""
    removed: float
    """With everything but the circuit's features."""

    @property
    def faithfulness(self) -> float:
        """Share of the target that the features alone bring back, 1 for all of it."""
        return self._share(self.circuit)

    @property
    def faithfulness_with_errors(self) -> float:
        """The same where the errors are kept: their own share is in it."""
        return self._share(self.circuit_and_errors)

    @property
    def above_errors(self) -> float:
        """Share of what the errors leave to be brought back that the features bring back."""
        left = self.model - self.errors
        return (self.circuit_and_errors - self.errors) / left if left else float("nan")

    @property
    def completeness(self) -> float:
        """Share that is left without the features: 0 if the circuit is complete."""
        return self._share(self.removed)

    def _share(self, score: float) -> float:
        whole = self.model - self.empty
        return (score - self.empty) / whole if whole else float("nan")

    def __str__(self) -> str:
        return (
            f"faithfulness {self.faithfulness:.2f}, with errors "
            f"{self.faithfulness_with_errors:.2f}; completeness {self.completeness:.2f}"
        )


def only(spots: Collection[Spot], sites: Sequence[Site], tokens: Tokens, *, error: bool) -> list:
    """The edits that keep `spots` of all the features of `sites`, ``<bos>`` left alone."""
    kept: dict[tuple[Site, int], list[int]] = defaultdict(list)
    for site, position, index in spots:
        kept[site, position].append(index)
    edits = []
    for site in sites:
        # Tokens that keep the same features share a splice.
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for position in range(1, len(tokens)):
            alike[tuple(sorted(kept[site, position]))].append(position)
        edits += [
            Splice(site, keep=keep, error=error, positions=tuple(positions))
            for keep, positions in alike.items()
        ]
    return edits


def without(spots: Collection[Spot]) -> list[Splice]:
    """The edits that ablate `spots` and nothing else."""
    dropped: dict[tuple[Site, int], list[int]] = defaultdict(list)
    for site, position, index in spots:
        dropped[site, position].append(index)
    return [
        Splice(site, drop=sorted(drop), error=True, positions=(position,))
        for (site, position), drop in sorted(dropped.items())
    ]


def measure(
    model: Model,
    source: FeatureSource,
    tokens: Tokens,
    target: Target,
    sites: Sequence[Site],
    circuits: Sequence[Collection[Spot]],
    *,
    busy: Busy = "wait",
) -> list[Faithfulness]:
    """Faithfulness of each of some sets of features, in as few passes as fit.

    Args:
        model: The model.
        source: Its SAEs.
        tokens: The prompt.
        target: What should survive.
        sites: Where everything else is ablated.
        circuits: Features at tokens, at any of `sites`.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a feature is at another site or on ``<bos>``.
    """
    for site, position, index in (spot for spots in circuits for spot in spots):
        if site not in sites or not 0 < position < len(tokens):
            raise ValueError(
                f"feature {index} at {site}, token {position}: the circuit is of "
                f"{', '.join(map(str, sites))}, tokens 1 to {len(tokens) - 1}"
            )
    each: list[Sequence] = [
        [],
        only((), sites, tokens, error=False),
        only((), sites, tokens, error=True),
    ]
    for spots in circuits:
        each += [
            only(spots, sites, tokens, error=False),
            only(spots, sites, tokens, error=True),
            without(spots),
        ]
    scores = scores_under(model, source, target, tokens, each, busy=busy)
    whole, empty, errors = scores[:3]
    return [
        Faithfulness(whole, empty, alone, errors, kept, removed)
        for alone, kept, removed in zip(scores[3::3], scores[4::3], scores[5::3], strict=True)
    ]


def random_spots(active: Sequence[Features], count: int, last: int, seed: int) -> list[Spot]:
    """Active features at tokens drawn at random: what a circuit has to be better than.

    Args:
        active: The features of each site.
        count: How many, at most.
        last: The last token that can matter.
        seed: Of the draw.
    """
    every = [
        (one.site, position, index)
        for one in active
        for position, index in zip(one.positions.tolist(), one.indices.tolist(), strict=True)
        if 0 < position <= last
    ]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
    return [every[i] for i in order[:count].tolist()]
