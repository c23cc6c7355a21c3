"""Births: where a residual feature comes from, and what becomes of it in the next layer.

All of it from weights, by the matches of `workbench.analysis.kinship`, so that each number has a
null. The scheme is that of Laptev et al. 2025 (feature flow, arXiv 2502.03032, section 3): a
feature of the residual stream is compared with those of the stream below, of the MLP and of the
attention of its layer. Where the nearest above its null are several, the one with the largest
margin is said to bring it; where there is none it is new. Splitting and merging are what Balcells
et al. 2024 ("Evolution of SAE Features Across Layers in LLMs", arXiv 2410.08869) see as features
that become more special and as combinations of earlier ones; they correlate activations, here the
same is asked of directions.

What weights cannot say: a stream carries a direction also where no single feature of the layer
below has it, so "new" is new as a feature, not as information. `workbench.analysis.shares` reads
text and says what was there already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.kinship import Kinship, Matches
from workbench.analysis.lineage import Birth, Trend
from workbench.engine.binding import FeatureSource
from workbench.sites import Site

STEADY = 1.25
"""Between one over this and this a strength counts as the same: the typical maxima of two SAEs of
one activation differ about so much."""


def writers(layer: int, sites: Collection[Site]) -> dict[Birth, Site]:
    """Where a residual feature of `layer` can come from, of the sites that have an SAE.

    In layer 0 the stream below is the token embedding. An SAE of the MLP's output comes before a
    transcoder, which writes the same.
    """
    below = Site(layer - 1) if layer else Site(0, "embed")
    mlp = Site(layer, "mlp") if Site(layer, "mlp") in sites else Site(layer, "transcoder")
    named: dict[Birth, Site] = {
        "carried": below,
        "mlp": mlp,
        "attention": Site(layer, "att"),
    }
    return {birth: site for birth, site in named.items() if site in sites}


@dataclass(frozen=True, eq=False)
class Births:
    """Where features of one residual site come from."""

    site: Site
    """Theirs."""
    features: Tensor
    """``(feature,)`` which."""
    sources: dict[Birth, Matches]
    """The nearest feature in each place that they can come from."""

    @property
    def births(self) -> list[Birth]:
        """Of each feature: the source with the largest margin above 0, or ``"new"``."""
        if not self.sources:
            return ["new"] * len(self.features)
        names = list(self.sources)
        best = torch.stack([one.margins for one in self.sources.values()]).max(0)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [names[i] if margin > 0 else "new" for i, margin in pairs]

    def to_frame(self) -> pd.DataFrame:
        """One row a feature.

        Returns:
            Columns ``layer, feature, birth`` and for each source, such as ``mlp``, the nearest
            feature ``mlp``, its ``mlp_cosine`` and its ``mlp_margin``.
        """
        columns: dict[str, object] = {
            "layer": self.site.layer,
            "feature": self.features.numpy(),
            "birth": pd.Categorical(self.births, get_args(Birth)),
        }
        for name, one in self.sources.items():
            columns[name] = one.indices.numpy()
            columns[f"{name}_cosine"] = one.cosines.numpy()
            columns[f"{name}_margin"] = one.margins.numpy()
        return pd.DataFrame(columns)


def births(
    kinship: Kinship, layer: int, sites: Collection[Site], features: Sequence[int] | None = None
) -> Births:
    """Where the residual features of `layer` come from.

    Args:
        kinship: Matches of the suite.
        layer: Layer.
        sites: The sites to look at.
        features: Which features; all if left out.

    Raises:
        ValueError: If a feature does not exist.
    """
    site = Site(layer)
    found: dict[Birth, Matches] = {
        birth: kinship.matches(site, source, features)
        for birth, source in writers(layer, sites).items()
    }
    count = len(kinship.directions(site))
    chosen = torch.arange(count) if features is None else torch.tensor(list(features))
    return Births(site, chosen, found)


def gain(source: FeatureSource, child: tuple[Site, int], parent: tuple[Site, int]) -> float | None:
    """How much stronger a feature is than its parent, each against the norm of its own stream.

    What a feature writes at its typical maximum over the mean norm there: streams grow from layer
    to layer and every reader divides by their norm. 1 is as strong; None where the suite does not
    know these figures, or where an SAE normalises what it reads: what its feature writes then
    depends on the token, too.
    """
    sizes = []
    for site, index in (child, parent):
        try:
            maximum, norm = source.typical_maximum(site, index), source.mean_norm(site)
        except ValueError:  # not calibrated, or it never fired
            return None
        sae = source.sae_at(site)
        if sae.normalize != "none":
            return None
        length = float(sae.direction(index).float().norm())
        sizes.append(maximum * length / norm)
    return sizes[0] / sizes[1]


def trend(ratio: float) -> Trend:
    """A `gain` in a word."""
    if ratio > STEADY:
        return "strengthening"
    return "fading" if ratio < 1 / STEADY else "steady"


def branches(kinship: Kinship, site: Site, index: int, other: Site) -> tuple[int, ...]:
    """The features of `other` that are kin to this one and to no feature of its site more.

    In the layer above those that it splits into, in the layer below those that merge in it, if
    there are two or more. A feature of `other` that has nothing to do with `site` is kin to some
    feature there with probability ``level`` at most, so by chance a feature has ``level`` of them.

    Returns:
        Their indices, the nearest first.

    Raises:
        ValueError: If the feature does not exist.
    """
    own = kinship.directions(site)[index]
    cosines = kinship.directions(other) @ own
    near = (cosines > kinship.null(other, site)).nonzero()[:, 0]
    if not len(near):
        return ()
    near = near[cosines[near].argsort(descending=True)]
    back = kinship.matches(other, site, near.tolist())
    return tuple(back.features[back.indices == index].tolist())


def ancestry(
    kinship: Kinship, site: Site, index: int, sites: Collection[Site]
) -> list[tuple[Site, int]]:
    """A residual feature, its nearest kin in the stream below, that one's, and so on to the first.

    The last one has no kin below: there, as far as weights say, the feature was born.

    Args:
        kinship: Matches of the suite.
        site: A residual site.
        index: Which feature.
        sites: The sites to look at.

    Raises:
        ValueError: If the feature does not exist, or is not of the residual stream.
    """
    if site.kind != "res":
        raise ValueError(f"only features of the residual stream have an ancestry, got {site}")
    found = [(site, index)]
    while (site := Site(site.layer - 1) if site.layer else Site(0, "embed")) in sites:
        match = kinship.matches(found[-1][0], site, [found[-1][1]])
        if not match.counts[0]:
            break
        found.append((site, int(match.indices[0])))
        if site.kind == "embed":
            break
    return found
