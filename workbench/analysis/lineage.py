"""Lineage: a feature's relatives at every site, and what ties them together.

What is found of a feature through the layers, in one form: the analyses fill it, tables, figures
and the map draw it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from workbench.sites import Site

Birth = Literal["carried", "mlp", "attention", "new"]
"""Where a residual feature comes from: the residual stream below, what the layer's MLP or attention
adds, or none of them."""
Trend = Literal["strengthening", "steady", "fading"]
"""Against its parent in the residual stream below."""
Tie = Literal["similar", "carries", "causes"]
"""``similar``: the two write one direction. ``carries``: the later is the earlier one passed on by
the residual stream, or was written there by the sub-layer. ``causes``: an ablation of the first
changes the second."""
Feature = tuple[Site, int]
"""A feature: its site and its index there."""


@dataclass(frozen=True)
class Kin:
    """The feature of one site that is nearest to the origin, kin or not."""

    site: Site
    """Where it is."""
    index: int
    """Its index there."""
    cosine: float
    """Cosine of what it and the origin write into the residual stream, -1 to 1."""
    null: float
    """Cosine that the nearest feature to an unrelated direction reaches at this site, in all but a
    stated share of draws."""
    correlation: float | None = None
    """Pearson correlation of the two activations over the tokens of the index; None if not read."""
    correlation_null: float | None = None
    """What the best feature of the site reaches with the origin's activations moved along the text:
    the same density, no relation."""
    birth: Birth | None = None
    """For a residual feature that is kin to the origin."""
    trend: Trend | None = None
    """For one that is carried, where the suite is calibrated."""
    gain: float | None = None
    """The number behind `trend`: what it writes when strongly present, over the mean norm of its
    stream, against the same of its parent; 1 is as strong."""
    sources: tuple[Link, ...] = ()
    """The nearest feature in each place that it can come from, kin or not: the numbers behind
    `birth`."""
    children: tuple[int, ...] = ()
    """Features of the next layer's residual stream that it splits into, two or more."""
    parents: tuple[int, ...] = ()
    """Features of the layer below that merge in it, two or more."""

    @property
    def margin(self) -> float:
        """Cosine above the null."""
        return self.cosine - self.null

    @property
    def counts(self) -> bool:
        """Whether it is kin: its cosine is above the null's."""
        return self.margin > 0


@dataclass(frozen=True)
class Link:
    """A tie between two features."""

    source: Feature
    """The earlier one in execution order."""
    target: Feature
    """The later one."""
    tie: Tie
    """Of which kind."""
    strength: float
    """``similar`` and ``carries``: the cosine. `causes`: change of the target's activation when the
    source is ablated, with its sign, summed over the tokens."""
    margin: float
    """Strength above its null."""


@dataclass(frozen=True)
class Lineage:
    """One feature through the layers."""

    origin: Feature
    """The feature that was asked for."""
    kin: tuple[Kin, ...]
    """The nearest feature of every site in execution order; at the origin's site itself."""
    links: tuple[Link, ...]
    """Ties between them."""
    level: float
    """Share of unrelated directions that would pass for kin at a site."""

    def at(self, site: Site) -> Kin:
        """The feature of a site.

        Raises:
            ValueError: If the site was not searched.
        """
        for one in self.kin:
            if one.site == site:
                return one
        there = ", ".join(str(one.site) for one in self.kin)
        raise ValueError(f"{site} was not searched; there are {there}")

    def to_frame(self) -> pd.DataFrame:
        """One row a site.

        Returns:
            Columns ``layer, kind, feature, cosine, null, margin, counts, correlation,
            correlation_null, birth, trend, gain, children, parents``.
        """
        return pd.DataFrame(
            {
                "layer": one.site.layer,
                "kind": one.site.kind,
                "feature": one.index,
                "cosine": one.cosine,
                "null": one.null,
                "margin": one.margin,
                "counts": one.counts,
                "correlation": one.correlation,
                "correlation_null": one.correlation_null,
                "birth": one.birth,
                "trend": one.trend,
                "gain": one.gain,
                "children": one.children,
                "parents": one.parents,
            }
            for one in self.kin
        )
