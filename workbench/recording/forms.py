"""Results as plain values and tensors, and back.

Each pair of functions is one kind of result: `..._to_json` gives what JSON can hold and puts the
tensors into a dict under a prefix, `..._of_json` reads both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from workbench.analysis.attribution import Attribution, Part, Target
from workbench.analysis.causes import Causes, Change
from workbench.analysis.lineage import Feature, Kin, Lineage, Link
from workbench.features import Features
from workbench.sites import Site, check_kind
from workbench.tokens import Tokens

Tensors = dict[str, Tensor]
Label = Callable[[Site, int], str]
PARTS = ("positions", "indices", "values")


def site_to_json(site: Site) -> list:
    """A site as a pair."""
    return [site.layer, site.kind]


def site_of_json(pair: Any) -> Site:
    """The site of a pair."""
    return Site(int(pair[0]), check_kind(pair[1]))


def features_to(tensors: Tensors, key: str, features: Features) -> None:
    """Put features into `tensors`; whole numbers in half the bytes that torch indexes with."""
    tensors[f"{key}/positions"] = features.positions.to(torch.int32)
    tensors[f"{key}/indices"] = features.indices.to(torch.int32)
    tensors[f"{key}/values"] = features.values
    tensors[f"{key}/d_sae"] = torch.tensor(features.d_sae)


def features_of(tensors: Mapping[str, Tensor], key: str, site: Site, tokens: Tokens) -> Features:
    """The features under a key.

    Raises:
        ValueError: If they name a token or a feature that there is not.
    """
    positions, indices = (tensors[f"{key}/{part}"].long() for part in PARTS[:2])
    values, d_sae = tensors[f"{key}/values"], int(tensors[f"{key}/d_sae"])
    for name, found, end in (("token", positions, len(tokens)), ("feature", indices, d_sae)):
        if found.shape != values.shape or (
            len(found) and not 0 <= found.min() <= found.max() < end
        ):
            raise ValueError(f"the features at {site} name a {name} that does not exist")
    return Features(site, tokens, positions, indices, values, d_sae)


# ------------------------------------------------------------------------------------ lineages


def lineage_to_json(lineage: Lineage) -> dict[str, Any]:
    """A lineage as plain values."""
    return {
        "origin": _feature(lineage.origin),
        "level": lineage.level,
        "links": [_link(link) for link in lineage.links],
        "kin": [
            {**vars(one), "site": site_to_json(one.site), "sources": list(map(_link, one.sources))}
            for one in lineage.kin
        ],
    }


def lineage_of_json(found: Mapping[str, Any]) -> Lineage:
    """The lineage of `lineage_to_json`."""
    kin = []
    for one in found["kin"]:
        lists: dict[str, Any] = {name: tuple(one[name]) for name in ("children", "parents")}
        lists["sources"] = tuple(map(_link_of, one["sources"]))
        kin.append(Kin(**{**one, **lists, "site": site_of_json(one["site"])}))
    links = tuple(map(_link_of, found["links"]))
    return Lineage(_feature_of(found["origin"]), tuple(kin), links, found["level"])


def _feature(feature: Feature) -> list:
    return [*site_to_json(feature[0]), int(feature[1])]


def _feature_of(found: Any) -> Feature:
    return site_of_json(found), int(found[2])


def _link(link: Link) -> list:
    ends = [_feature(link.source), _feature(link.target)]
    return [*ends, link.tie, float(link.strength), float(link.margin)]


def _link_of(found: Any) -> Link:
    return Link(_feature_of(found[0]), _feature_of(found[1]), *found[2:])


# ---------------------------------------------------------------------------- next tokens, causes


def attribution_to_json(
    one: Attribution, tensors: Tensors, key: str, known: Mapping[Site, Features]
) -> dict[str, Any]:
    """An attribution without its slopes and what was read, which are large.

    Args:
        one: The attribution.
        tensors: Where its tensors go.
        key: What their names begin with.
        known: Features that are kept beside it.
    """
    sites = []
    for site, part in one.parts.items():
        place = f"{key}/{site.kind}/{site.layer}"
        own = part.activations is not known.get(site)
        if own:
            features_to(tensors, place, part.activations)
        tensors[f"{place}/effects"] = part.effects.values
        tensors[f"{place}/remainder"] = part.remainder
        sites.append([*site_to_json(site), own])
    return {"target": asdict(one.target), "score": one.score, "sites": sites}


def attribution_of_json(
    found: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    key: str,
    tokens: Tokens,
    *,
    known: Mapping[Site, Features],
    label: Label,
) -> Attribution:
    """The attribution of `attribution_to_json`; its slopes are ``(pos, 0)``."""
    parts = {}
    for *pair, own in found["sites"]:
        site = site_of_json(pair)
        place = f"{key}/{site.kind}/{site.layer}"
        active = features_of(tensors, place, site, tokens) if own else known[site]
        values = tensors[f"{place}/effects"]
        effects = Features(site, tokens, active.positions, active.indices, values, active.d_sae)
        empty = torch.zeros(len(tokens), 0)
        parts[site] = Part(active, effects, tensors[f"{place}/remainder"], empty, empty)
    target = Target(**{**found["target"], "against": tuple(found["target"]["against"])})
    return Attribution(tokens, target, found["score"], parts, label)


def causes_to_json(one: Causes, tensors: Tensors, key: str) -> dict[str, Any]:
    """Causes as plain values and tensors."""
    for site, change in one.changes.items():
        place = f"{key}/{site.kind}/{site.layer}"
        tensors[f"{place}/totals"], tensors[f"{place}/null"] = change.totals, change.null
        if change.tokens is not None:
            features_to(tensors, place, change.tokens)
    tensors[f"{key}/logits"] = one.logits
    return {
        "feature": _feature(one.feature),
        "how": one.how,
        "count": one.count,
        "sites": [[*site_to_json(s), c.tokens is not None] for s, c in one.changes.items()],
        "estimates": [[*_feature(feature), value] for feature, value in one.estimates.items()],
    }


def causes_of_json(
    found: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    key: str,
    tokens: Tokens,
    *,
    string: Callable[[int], str],
    label: Label,
) -> Causes:
    """The causes of `causes_to_json`."""
    changes = {}
    for *pair, by_token in found["sites"]:
        site = site_of_json(pair)
        place = f"{key}/{site.kind}/{site.layer}"
        over = features_of(tensors, place, site, tokens) if by_token else None
        changes[site] = Change(tensors[f"{place}/totals"], tensors[f"{place}/null"], over)
    return Causes(
        feature=_feature_of(found["feature"]),
        how=found["how"],
        tokens=tokens,
        count=found["count"],
        changes=changes,
        logits=tensors[f"{key}/logits"],
        estimates={_feature_of(one): one[3] for one in found["estimates"]},
        string=string,
        label=label,
    )
