"""Baselines of steering: the very same edits, along directions that should not do the same.

An edit adds a multiple of its feature's decoder row ``d``. Here ``d`` is exchanged for another
direction of the same norm, and all else stays: where the edit acts, what it reads, and so, at each
position, how much it adds. What the text does then is what any push of that size does.

- `random_source`: a random direction.
- `live_source`: the decoder row of a random feature of the same SAE that fires in ordinary text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from workbench.engine.binding import FeatureSource
from workbench.engine.edits import Edit, Freeze, Patch, Splice, When
from workbench.sae import SAE
from workbench.sae.suite import Suite
from workbench.sites import Site


@dataclass(frozen=True, eq=False, repr=False)
class _Turned(SAE):
    """An SAE some of whose features write along other directions."""

    others: dict[int, Tensor] | None = None

    def direction(self, index: int) -> Tensor:
        """See `SAE`."""
        known = (self.others or {}).get(self.check_index(index))
        return self.W_dec[index] if known is None else known


@dataclass(frozen=True)
class Exchanged:
    """A `FeatureSource` that gives some features other directions, of the same norm."""

    source: FeatureSource
    others: dict[Site, dict[int, Tensor]]
    """By site and feature, ``(d_out,)`` each."""

    def sae_at(self, site: Site) -> SAE:
        """The SAE, with the directions exchanged."""
        sae = self.source.sae_at(site)
        if site not in self.others:
            return sae
        same = {one.name: getattr(sae, one.name) for one in fields(SAE)}
        return _Turned(**same, others=self.others[site])

    def typical_maximum(self, site: Site, index: int) -> float:
        """That of the feature itself, so that strengths stay what they are."""
        return self.source.typical_maximum(site, index)

    def mean_activation(self, site: Site, index: int) -> float:
        """That of the feature itself."""
        return self.source.mean_activation(site, index)

    def mean_norm(self, site: Site) -> float:
        """That of the source."""
        return self.source.mean_norm(site)


def random_source(source: FeatureSource, edits: Sequence[Edit], seed: int = 0) -> Exchanged:
    """`source` with random directions for the features of `edits`.

    Args:
        source: The SAEs and their calibration.
        edits: What is compared with; a splice or a whole patch has no direction and stays.
        seed: Fixes the directions.
    """
    random = torch.Generator().manual_seed(seed)

    def other(sae: SAE, _site: Site, index: int) -> Tensor:
        return torch.randn(sae.config.d_out, generator=random).to(sae.W_dec.device)

    return _exchanged(source, edits, other)


def live_source(suite: Suite, edits: Sequence[Edit], seed: int = 0) -> Exchanged:
    """`suite` with the directions of random live features for the features of `edits`.

    Live is what fires at least once in the calibration text; any feature where there is none.

    Args:
        suite: The SAEs and their calibration.
        edits: What is compared with.
        seed: Fixes the choice.
    """
    random = torch.Generator().manual_seed(seed)
    edited = _features(edits)

    def other(sae: SAE, site: Site, index: int) -> Tensor:
        live = torch.ones(sae.config.d_sae, dtype=torch.bool)
        if suite.calibrated(site):
            live = suite.maxima(site).cpu() > 0
        live[edited[site]] = False
        choice = live.nonzero()[:, 0]
        if not len(choice):
            raise ValueError(
                f"no other feature at {site} is live: there is nothing to compare with"
            )
        return sae.W_dec[choice[torch.randint(len(choice), (1,), generator=random)[0]]]

    return _exchanged(suite, edits, other)


def _exchanged(
    source: FeatureSource, edits: Sequence[Edit], other: Callable[[SAE, Site, int], Tensor]
) -> Exchanged:
    """`source` with what `other` gives for each feature of `edits`, brought to the row's norm."""
    found: dict[Site, dict[int, Tensor]] = {}
    for site, indices in _features(edits).items():
        sae = source.sae_at(site)
        for index in indices:
            row = sae.direction(index).float()
            new = other(sae, site, index).float()
            scaled = new * (row.norm() / new.norm()).nan_to_num()
            found.setdefault(site, {})[index] = scaled.to(sae.W_dec.dtype)
    return Exchanged(source, found)


def _features(edits: Sequence[Edit]) -> dict[Site, list[int]]:
    """The features whose directions the edits add, by site."""
    found: dict[Site, set[int]] = {}
    for edit in edits:
        inner = edit.edit if isinstance(edit, When) else edit
        if isinstance(inner, Patch):
            found.setdefault(inner.site, set()).update(inner.features or ())
        elif not isinstance(inner, Splice | Freeze):
            found.setdefault(inner.site, set()).add(inner.index)
    return {site: sorted(indices) for site, indices in found.items() if indices}
