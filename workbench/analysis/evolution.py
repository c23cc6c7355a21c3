"""Evolution: one feature through the layers, put together from kinship, births and the lens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from workbench.analysis.births import births, branches, gain, trend, writers
from workbench.analysis.correlation import Correlation
from workbench.analysis.kinship import DRAWS, LEVEL, Kinship, Relative
from workbench.analysis.lineage import Kin, Lineage, Link
from workbench.features import Features
from workbench.sae.suite import Suite
from workbench.sites import Site

__all__ = ["Relative", "evolve", "over_tokens", "relatives", "relatives_frame", "with_correlations"]


def relatives(
    module: nn.Module,
    suite: Suite,
    site: Site,
    index: int,
    *,
    sites: Sequence[Site] | None = None,
    level: float = LEVEL,
) -> list[Kin]:
    """The nearest feature at every site, with its null, in execution order.

    At its own site that is the feature itself. Where no sites are named nothing is downloaded: a
    published suite has an SAE at every sub-layer of the model, a gigabyte for every three.

    Args:
        module: A transformers model of an architecture that `workbench.architectures` knows.
        suite: Its SAEs.
        site: Where the feature is.
        index: Which it is.
        sites: Where to look; every site whose SAE is at hand if left out.
        level: Share of unrelated directions that may pass for kin at a site.

    Raises:
        ValueError: If the feature does not exist.
    """
    kinship = Kinship(module, suite, level=level)
    return _nearest(kinship, site, index, _searched(suite, site, sites))


def evolve(
    module: nn.Module,
    suite: Suite,
    site: Site,
    index: int,
    *,
    sites: Sequence[Site] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
    kinship: Kinship | None = None,
) -> Lineage:
    """A feature's kin at every site, where each comes from, and what it becomes.

    Weights and calibration alone: no text is read. `with_correlations` adds what a text says.

    Args:
        module: As in `relatives`.
        suite: Its SAEs.
        site: Where the feature is.
        index: Which it is.
        sites: Where to look; every site whose SAE is at hand if left out.
        level: Share of unrelated directions that may pass for kin at a site.
        draws: Unrelated directions of each null.
        seed: Of the draws.
        kinship: Matches of the same model and SAEs that are at hand, with nulls that were drawn
            before; it says level, draws and seed.

    Raises:
        ValueError: If the feature does not exist, or `draws` are too few for `level`.
    """
    if kinship is None:
        kinship = Kinship(module, suite, level=level, draws=draws, seed=seed)
    searched = _searched(suite, site, sites)
    kin = [
        _grown(kinship, suite, one, searched) if one.counts and one.site.kind == "res" else one
        for one in _nearest(kinship, site, index, searched)
    ]
    links = _similar(kin, (site, index)) + _carried(kinship, kin)
    return Lineage((site, index), tuple(kin), tuple(links), kinship.level)


def with_correlations(lineage: Lineage, found: Mapping[Site, Correlation]) -> Lineage:
    """A lineage with the correlations of the origin and its kin, where they were read."""
    kin = [
        replace(one, correlation=float(there.values[one.index]), correlation_null=there.null)
        if (there := found.get(one.site))
        else one
        for one in lineage.kin
    ]
    return replace(lineage, kin=tuple(kin))


def over_tokens(lineage: Lineage, features: Callable[[Site], Features]) -> pd.DataFrame:
    """How strongly each of the kin fires on each token of a text.

    Args:
        lineage: The feature through the layers.
        features: Gives the features of the text at a site; ValueError for one that was not read,
            which is left out.

    Returns:
        Columns ``layer, kind, feature, counts, position, token, activation``; ``<bos>`` left out.
    """
    frames = []
    for one in lineage.kin:
        try:
            found = features(one.site)
        except ValueError:
            continue
        values = found.of(one.index)
        frames.append(
            pd.DataFrame(
                {
                    "layer": one.site.layer,
                    "kind": one.site.kind,
                    "feature": one.index,
                    "counts": one.counts,
                    "position": range(1, len(values)),
                    "token": found.tokens.strings[1:],
                    "activation": values[1:].numpy(),
                }
            )
        )
    columns = ["layer", "kind", "feature", "counts", "position", "token", "activation"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def relatives_frame(suite: Suite, found: Sequence[Kin]) -> pd.DataFrame:
    """Relatives as a table ``layer, kind, feature, cosine, null, margin, counts, label``."""
    return pd.DataFrame(
        {
            "layer": one.site.layer,
            "kind": one.site.kind,
            "feature": one.index,
            "cosine": one.cosine,
            "null": one.null,
            "margin": one.margin,
            "counts": one.counts,
            "label": suite.label(one.site, one.index),
        }
        for one in found
    )


def _searched(suite: Suite, origin: Site, sites: Sequence[Site] | None) -> list[Site]:
    if sites is None:
        sites = [site for site in suite.sites if suite.at_hand(site)]
    return sorted({*sites, origin})


def _nearest(kinship: Kinship, site: Site, index: int, sites: Sequence[Site]) -> list[Kin]:
    found = []
    for other in sites:
        match = kinship.matches(site, other, [index])
        # Its own nearest is itself, unless the SAE has the same row twice.
        best = index if other == site else int(match.indices[0])
        found.append(Kin(other, best, float(match.cosines[0]), match.null))
    return found


def _grown(kinship: Kinship, suite: Suite, one: Kin, sites: Sequence[Site]) -> Kin:
    """A residual feature with where it comes from and what it becomes."""
    site, index = one.site, one.index
    found = births(kinship, site.layer, sites, [index])
    sources = tuple(
        Link(
            (match.target, int(match.indices[0])),
            (site, index),
            "carries",
            float(match.cosines[0]),
            float(match.margins[0]),
        )
        for match in found.sources.values()
    )
    birth, ratio = found.births[0], None
    if birth == "carried" and Site(site.layer - 1) in sites:
        parent = Site(site.layer - 1), int(found.sources["carried"].indices[0])
        ratio = gain(suite, (site, index), parent)
    around = [Site(site.layer + 1)] + ([Site(site.layer - 1)] if site.layer else [])
    near = {other: branches(kinship, site, index, other) for other in around if other in sites}
    several = {other: found for other, found in near.items() if len(found) > 1}
    return replace(
        one,
        birth=birth,
        trend=None if ratio is None else trend(ratio),
        gain=ratio,
        sources=sources,
        children=several.get(around[0], ()),
        parents=several.get(around[-1], ()) if site.layer else (),
    )


def _similar(kin: Sequence[Kin], origin: tuple[Site, int]) -> list[Link]:
    """The origin and those that are kin to it."""
    links = []
    for one in kin:
        if one.counts and one.site != origin[0]:
            source, target = sorted([origin, (one.site, one.index)])
            links.append(Link(source, target, "similar", one.cosine, one.margin))
    return links


def _carried(kinship: Kinship, kin: Sequence[Kin]) -> list[Link]:
    """Ties between a residual feature and those that can have written it, of the kin."""
    there = {one.site: one.index for one in kin if one.counts}
    links = []
    for site, index in there.items():
        if site.kind != "res":
            continue
        own = kinship.directions(site)[index]
        for source in writers(site.layer, there).values():
            cosine = float(torch.dot(kinship.directions(source)[there[source]], own))
            margin = cosine - kinship.null(site, source)
            if margin > 0:
                links.append(
                    Link((source, there[source]), (site, index), "carries", cosine, margin)
                )
    return links
