"""Suites whose decoders are made by hand, so that it is known which features are kin."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.sae import SAE, SAEConfig
from workbench.sae.suite import Suite
from workbench.sites import Site


def directions(count: int, width: int, seed: int) -> Tensor:
    """Random unit rows ``(count, width)``."""
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def rotation(width: int, seed: int) -> Tensor:
    """A random orthogonal matrix."""
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=random)).Q


def sae_of(site: Site, rows: Tensor) -> SAE:
    """An SAE with these decoder rows, each scaled differently: norms say nothing of kinship."""
    count, width = rows.shape
    rows = rows * torch.linspace(0.5, 2, count)[:, None]
    return SAE(
        W_enc=rows.T.contiguous(),
        b_enc=torch.zeros(count),
        W_dec=rows,
        b_dec=torch.zeros(width),
        threshold=torch.ones(count),
        activation="jumprelu",
        config=SAEConfig("made", site.layer, site.kind, count, None, "", width, width, count),
    )


def suite_of(decoders: dict[Site, Tensor]) -> Suite:
    """A suite of SAEs with these decoder rows."""
    suite = Suite(None, model="made")
    for site, rows in decoders.items():
        suite.use(sae_of(site, rows), site)
    return suite
