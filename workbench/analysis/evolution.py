"""Evolution: the nearest relative of a feature at every layer and sub-layer.

Two features of different SAEs are kin when they write the same direction into the residual stream.
``res``, ``mlp`` and transcoder decoders write there already. An ``att`` decoder row lives in the
space of the head outputs, so it is first carried through ``W_O`` and, where a norm follows (Gemma),
its gain, which is what the layer adds to the stream (up to the norm's division, a positive factor
that a cosine does not see). Matching features across layers by the cosine of their decoders follows
Laptev et al. 2025 ("Analyze feature flow to enhance interpretation and steering", arXiv
2502.03032).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor, nn

from workbench.architectures import architecture_of
from workbench.sae import SAE
from workbench.sae.suite import Suite
from workbench.sites import Site


@dataclass(frozen=True)
class Relative:
    """The feature of one site that is nearest to a given one."""

    site: Site
    """Where the relative is."""
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


def relatives(module: Any, suite: Suite, site: Site, index: int) -> list[Relative]:
    """The nearest relative of a feature at every site whose SAE is on disk, in execution order.

    At its own site that is the feature itself. Nothing is downloaded for it: a published suite has
    an SAE at every sub-layer of the model, a gigabyte for every three.

    Raises:
        ValueError: If the feature does not exist.
    """
    sae = suite.sae_at(site)
    direction = written_directions(module, site, sae)[sae.check_index(index)]
    found = []
    for other in (s for s in suite.sites if s == site or suite.at_hand(s)):
        if other == site:
            found.append(Relative(site, index, 1.0))
            continue
        cosines = written_directions(module, other, suite.sae_at(other)) @ direction
        best = int(cosines.argmax())
        found.append(Relative(other, best, float(cosines[best])))
    return found


def relatives_frame(suite: Suite, found: list[Relative]) -> pd.DataFrame:
    """Relatives as a table with columns ``layer, kind, feature, cosine, label``."""
    return pd.DataFrame(
        {
            "layer": r.site.layer,
            "kind": r.site.kind,
            "feature": r.index,
            "cosine": r.cosine,
            "label": suite.label(r.site, r.index),
        }
        for r in found
    )
