"""Plain directions as a `workbench.engine.binding.FeatureSource`: the engine steers by them.

A difference of means or a random vector has no SAE, no typical maximum and no activation: it can be
added, and that is all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.engine.edits import Steer
from workbench.sae import SAE, SAEConfig
from workbench.sites import Site


@dataclass(frozen=True)
class Directions:
    """Plain vectors as features: feature ``i`` of a site is the ``i``-th vector."""

    vectors: dict[Site, Tensor]
    """``(vector, d)`` each."""

    def sae_at(self, site: Site) -> SAE:
        """An SAE whose decoder rows are the vectors.

        Raises:
            ValueError: If there is none at `site`.
        """
        if site not in self.vectors:
            raise ValueError(
                f"there is no direction at {site}; there are some at "
                f"{', '.join(map(str, sorted(self.vectors))) or 'no site'}"
            )
        rows = self.vectors[site]
        count, width = rows.shape
        return SAE(
            W_enc=torch.zeros(width, count),
            b_enc=torch.zeros(count),
            W_dec=rows,
            b_dec=torch.zeros(width),
            threshold=None,
            activation="relu",
            config=SAEConfig("", site.layer, site.kind, count, None, "", width, width, count),
        )

    def typical_maximum(self, site: Site, index: int) -> float:
        """1, so that every unit is raw."""
        return 1.0

    def mean_activation(self, site: Site, index: int) -> float:
        """0: a plain vector is no feature and never active."""
        return 0.0

    def mean_norm(self, site: Site) -> float:
        """1, so that every unit is raw."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction at one site, ready to steer by."""

    site: Site
    """Where it is added."""
    vector: Tensor
    """``(d,)``; strength 1 adds just this."""
    held_out: float = float("nan")
    """AUROC at telling texts apart that had no part in it; NaN if none were left."""

    @property
    def source(self) -> Directions:
        """What `workbench.engine.tracing.generate` needs as ``source=`` beside the edit."""
        return Directions({self.site: self.vector[None]})

    def steer(self, strength: float, **where: Any) -> Steer:
        """The edit that adds `strength` times the vector, for use with `source`.

        Args:
            strength: How much; negative pushes away.
            where: ``when=``, ``positions=`` and ``steps=``, as for `Steer`.
        """
        return Steer((self.site.layer, 0), strength, kind=self.site.kind, **where)


def random_direction(site: Site, width: int, norm: float, seed: int = 0) -> Direction:
    """A direction that means nothing, as long as one that is said to mean something.

    Args:
        site: Where it is added.
        width: Its length in numbers.
        norm: Its Euclidean norm.
        seed: Fixes it.
    """
    noise = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return Direction(site, noise * (norm / noise.norm()))
