"""What a heatmap draws: which features of which sites, their values, and the orders of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from workbench.analysis.attribution import Attribution
from workbench.analysis.compare import Pair, differences
from workbench.features import Measure, ranked, similar_order
from workbench.panels.base import code_of
from workbench.sites import KINDS, Kind, Site, check_kind
from workbench.widgets.base import visible

if TYPE_CHECKING:
    from workbench.runs import Run

Layers = int | Sequence[int] | None
Kinds = Kind | Sequence[Kind] | Literal["all"]
Indices = Sequence[int] | Mapping[Site, Sequence[int]]
"""Features of one site by their numbers, or of several by site."""
Rows = dict[Site, list[int]]
"""The features to draw of each site, sites in execution order."""


def sites_of(run: Run, layer: Layers, kind: Kinds) -> list[Site]:
    """The sites of a run at these layers and of these kinds, in execution order.

    Raises:
        TypeError: If a layer is no whole number.
        ValueError: If the run lacks a site that is named, or has none of them.
    """
    named_kinds = KINDS if kind == "all" else [kind] if isinstance(kind, str) else list(kind)
    kinds: list[Kind] = [check_kind(one) for one in named_kinds]
    if layer is None:
        found = [site for site in run.drawable(at_hand=True) if site.kind in kinds]
    else:
        several = isinstance(layer, Sequence) and not isinstance(layer, str)
        listed: Any = layer if several else [layer]
        layers = [Site(one).layer for one in listed]
        if kind == "all":
            found = [site for site in run.drawable() if site.layer in layers]
        else:
            found = [Site(one, of) for one in layers for of in kinds]
    if not found:
        has = ", ".join(map(str, run.drawable())) or "no features"
        raise ValueError(f"no SAE for layer={layer}, kind={kind!r} in this run; it has {has}")
    return sorted(set(found))


def given(features: Indices, sites: Callable[[], list[Site]]) -> Rows:
    """The features that were asked for, by site.

    Args:
        features: What was asked for.
        sites: Gives the sites, for features that do not name theirs.

    Raises:
        ValueError: If they are of several sites and do not say which.
    """
    if isinstance(features, Mapping):
        return {site: [int(i) for i in found] for site, found in features.items()}
    there = sites()
    if len(there) > 1:
        raise ValueError(
            f"features={[int(i) for i in features]} of which site? There are {len(there)}: "
            "give {site: [index, ...], ...}, such as {wb.Site(4, 'mlp'): [7]}"
        )
    return {there[0]: [int(i) for i in features]}


def strongest(
    run: Run,
    other: Run | None,
    pairs: Sequence[Pair],
    sites: Sequence[Site],
    *,
    k: int,
    by: Measure | Literal["difference", "attribution"],
    label: str | None,
    density: tuple[float, float] | None,
    attribution: Attribution | None = None,
) -> Rows:
    """The `k` strongest features of each site on this text, or on these two.

    Those of the largest `attribution` by its size, whatever its sign.

    Raises:
        ValueError: If two runs cannot be compared at a site, or for an impossible choice.
    """
    if by == "attribution":
        assert attribution is not None
        sizes = {site: attribution.parts[site].totals.abs() for site in sites}
        filters = {"k": k, "label": label, "density": density}
        return {site: run.chosen(site, ranked(sizes[site]), **filters) for site in sites}
    if other is None:
        if by == "difference":
            raise ValueError("by='difference' compares two runs: give the second one as other=")
        options = {"k": k, "by": by, "label": label, "density": density}
        return {site: run.strongest(site.layer, site.kind, **options) for site in sites}
    chosen: Rows = {}
    for site in sites:
        first, second = (one.features(site.layer, site.kind) for one in (run, other))
        if first.d_sae != second.d_sae:
            raise ValueError(
                f"the runs have different SAEs at {site}, of {first.d_sae} and {second.d_sae} "
                "features, which mean different things: compare runs of the same SAE"
            )
        if by == "difference":
            scores = differences(first, second, pairs)
        else:
            known = run.density(site)
            scores = torch.maximum(*(one.scores(by, density=known) for one in (first, second)))
        chosen[site] = run.chosen(site, ranked(scores), k=k, label=label, density=density)
    return chosen


def effects_of(attribution: Attribution, chosen: Rows) -> Tensor:
    """Attributions ``(pos, row)``."""
    parts = [attribution.parts[site].effects.columns(found) for site, found in chosen.items()]
    return torch.cat([*parts, torch.zeros(len(attribution.tokens), 0)], -1).float()


def target_of(attribution: Attribution, strings: Sequence[str]) -> str:
    """What is attributed, in a few words.

    Args:
        attribution: It.
        strings: What to show for each token of the vocabulary that is subtracted.
    """
    names = [visible(name) for name in (attribution.target.string, *strings)]
    return " − ".join([names[0], ", ".join(names[1:])]) if strings else names[0]


def values_of(run: Run, chosen: Rows, positions: Sequence[int | None]) -> Tensor:
    """Activations ``(column, row)``; NaN where the run has no token for the column."""
    parts = [run.features(site.layer, site.kind).columns(found) for site, found in chosen.items()]
    own = torch.cat([*parts, torch.zeros(len(run.tokens), 0)], -1).float()
    out = torch.full((len(positions), own.shape[1]), torch.nan)
    there = [column for column, position in enumerate(positions) if position is not None]
    out[there] = own[[position for position in positions if position is not None]]
    return out


def orders_of(
    chosen: Rows, values: Sequence[Tensor], masked: Sequence[int]
) -> dict[str, list[int]]:
    """The orders that the widget offers, each a list of rows; sites stay together.

    Args:
        chosen: The rows.
        values: What to cluster by, each ``(column, row)``.
        masked: Columns to leave out.
    """
    both = torch.cat(list(values)).nan_to_num()
    kept = [i for i in range(len(both)) if i % len(values[0]) not in set(masked)]
    clustered: list[int] = []
    for found in chosen.values():
        start = len(clustered)
        own = both[kept, start : start + len(found)]
        clustered += [start + i for i in similar_order(own)]
    return {"measure": list(range(len(clustered))), "clustered": clustered}


def named(sites: Sequence[Site]) -> str:
    """Several sites in a few words.

    >>> named([Site(4, "att"), Site(4, "res")]), named([Site(i) for i in range(8)])
    ('layer 4 att, res', 'layers 0 to 7 res')
    """
    kinds = ", ".join(kind for kind in KINDS if any(site.kind == kind for site in sites))
    layers = sorted({site.layer for site in sites if site.kind != "embed"})
    if not layers:
        return kinds or "no site"
    if len(layers) == 1:
        return f"layer {layers[0]} {kinds}"
    whole = len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1))
    shown = f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))
    return f"layers {shown} {kinds}"


def code(run: Run, other: Run | None, layer: Layers, kind: Kinds, said: Mapping[str, Any]) -> str:
    """Lines that draw the same heatmap again.

    Args:
        run: What is drawn.
        other: The second run.
        layer: As it was asked for.
        kind: As it was asked for.
        said: The other arguments that are not at their default.
    """
    lines = [code_of(run)]
    place = [] if layer is None else [_plain(layer)]
    if kind != "res":
        place.append(_plain(kind) if place else f"kind={_plain(kind)}")
    words = [*place, *(f"{name}={_plain(value)}" for name, value in said.items())]
    if other is not None:
        opening, made = code_of(other).split("\n")
        if other.model != run.model:
            lines.append(opening)
        lines.append(made.replace("run =", "other =", 1))
        if other.receipt.acts:
            lines[-1] += "  # and its edits=[...]"
        words.append("other=other")
    return "\n".join([*lines, f"run.heatmap({', '.join(words)})"])


def _plain(value: Any) -> str:
    """An argument as Python that a notebook with ``import workbench as wb`` understands."""
    if isinstance(value, Mapping):
        pairs = (f"wb.{site!r}: {[int(i) for i in found]}" for site, found in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, Integral):
        return repr(int(value))
    if isinstance(value, str | float | tuple):
        return repr(value)
    return repr([one if isinstance(one, str | tuple) else int(one) for one in value])
