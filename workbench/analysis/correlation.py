"""Correlation: which features fire on the tokens on which a given one fires, and what chance gives.

Pearson's correlation of two activations over a text, as Balcells et al. 2024 ("Evolution of SAE
Features Across Layers in LLMs", arXiv 2410.08869) relate features of neighbouring layers. It sees
what no direction shows: that two features of other directions say the same of a token.

The best of thousands of correlations is above 0 for any feature, the more so the rarer it is. The
null is what the best feature of a site reaches with the origin's own activations, moved along the
text in a circle by a random number of tokens: the same values, the same density, the same clumps,
and no relation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.analysis.kinship import LEVEL, passed_by
from workbench.analysis.passages import Rows
from workbench.engine.binding import FeatureSource
from workbench.engine.tracing import read
from workbench.models import Model
from workbench.sae import SAE
from workbench.sites import Site

SHIFTS = 128
"""Circular shifts of a null."""
APART = 256
"""Tokens that a shift moves at least, so that a topic does not stay where it was."""


@dataclass(frozen=True, eq=False)
class Correlation:
    """Of one feature with all features of a site."""

    site: Site
    """Where they are."""
    values: Tensor
    """``(d_sae,)`` Pearson correlation of the activations; 0 for a feature that never fires."""
    null: float
    """What the best of them reaches with the origin's activations moved along the text."""
    tokens: int
    """Tokens that were read."""
    fires: int
    """On how many of them the origin fires."""

    @property
    def best(self) -> int:
        """The feature that correlates most."""
        return int(self.values.argmax())

    @property
    def margin(self) -> float:
        """Correlation of the best one above the null."""
        return float(self.values.max()) - self.null


def correlations(
    model: Model,
    source: FeatureSource,
    site: Site,
    index: int,
    sites: Sequence[Site],
    rows: Sequence[Rows],
    *,
    level: float = LEVEL,
    shifts: int = SHIFTS,
    seed: int = 0,
) -> dict[Site, Correlation]:
    """Correlate one feature with every feature of some sites, in two passes over a text.

    The first pass reads the feature itself, the second the sites, of which only running sums are
    kept: ``shifts + 3`` numbers a feature.

    Args:
        model: The model.
        source: Its SAEs.
        site: Where the feature is.
        index: Which it is.
        sites: With whose features.
        rows: The text: `workbench.analysis.passages`.
        level: Share of unrelated activations whose best correlation may pass the null.
        shifts: Circular shifts of the null.
        seed: Of the shifts.

    Raises:
        ValueError: If the feature does not exist or does not fire in the text, the text is too
            short to move, or the shifts are too few for `level`.
    """
    moved = _moved(_activations(model, source, site, index, rows), shifts, seed)
    sums = {other: _Sums(source.sae_at(other), moved.shape[1]) for other in sites}
    start = 0
    for part in rows:
        here = moved[start : start + len(part)]

        def consume(other: Site, x: Tensor, part: Rows = part, here: Tensor = here) -> None:
            sums[other].add(part.of(x), here)

        read(model, part.ids, list(sums), consume)
        start += len(part)
    fires = int((moved[:, 0] > 0).sum())
    found = {}
    for other in sorted(sums):
        table = sums[other].correlations(moved)
        null = passed_by(table[:, 1:].max(0).values, level)
        found[other] = Correlation(other, table[:, 0], null, len(moved), fires)
    return found


def _activations(
    model: Model, source: FeatureSource, site: Site, index: int, rows: Sequence[Rows]
) -> Tensor:
    """The feature on every scored token ``(token,)``."""
    sae, found = source.sae_at(site), []
    index = sae.check_index(index)
    for part in rows:

        def consume(_: Site, x: Tensor, part: Rows = part) -> None:
            own = part.of(x).to(sae.W_enc.device)
            found.append(sae.encode_features(own, index)[:, 0].float().cpu())

        read(model, part.ids, [site], consume)
    return torch.cat(found)


def _moved(activations: Tensor, shifts: int, seed: int) -> Tensor:
    """The activations as they are, then moved in circles ``(token, 1 + shifts)``."""
    count = len(activations)
    if not (activations > 0).any():
        raise ValueError(
            f"the feature does not fire on any of the {count} tokens: correlate over more tokens"
        )
    apart = min(APART, count // 4)
    if apart < 1:
        raise ValueError(f"a text of {count} tokens is too short to move one along it")
    random = torch.Generator().manual_seed(seed)
    by = torch.randint(apart, count - apart + 1, (shifts,), generator=random).tolist()
    return torch.stack([activations, *(activations.roll(shift) for shift in by)], 1)


class _Sums:
    """Running sums of the features of one site."""

    def __init__(self, sae: SAE, columns: int) -> None:
        self.sae = sae
        size = sae.config.d_sae
        self.first = torch.zeros(size, dtype=torch.float64)
        self.second = torch.zeros(size, dtype=torch.float64)
        self.cross = torch.zeros(size, columns)

    def add(self, x: Tensor, moved: Tensor) -> None:
        """Take in some tokens ``(token, d_in)`` with the origin's activations there."""
        found = self.sae.encode_sparse(x.to(self.sae.W_enc.device))
        positions, features, values = (part.cpu() for part in found)
        values = values.float()
        self.first.index_add_(0, features, values.double())
        self.second.index_add_(0, features, values.double().square())
        where = torch.stack([features, positions])
        shape = (len(self.first), len(moved))
        self.cross += torch.sparse_coo_tensor(where, values, shape, check_invariants=False) @ moved

    def correlations(self, moved: Tensor) -> Tensor:
        """Pearson's correlation with each column of `moved` ``(d_sae, column)``."""
        count = len(moved)
        mean, theirs = self.first / count, moved.double().mean(0)
        spread = (self.second / count - mean.square()).clamp(min=0).sqrt()
        own = moved.double().std(0, correction=0)
        shared = self.cross.double() / count - mean[:, None] * theirs
        scale = spread[:, None] * own
        return torch.where(scale > 1e-12, shared / scale.clamp(min=1e-12), 0.0).float()
