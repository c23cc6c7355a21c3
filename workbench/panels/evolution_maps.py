"""What the evolution map draws: lineages, the features of a next token, and their values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.analysis.attribution import Attribution
from workbench.analysis.compare import Pair
from workbench.analysis.evolution import evolve
from workbench.analysis.kinship import Kinship
from workbench.analysis.lineage import Feature, Kin, Lineage, Link
from workbench.engine.edits import Ablate, Edit, FeatureEdit, Steer
from workbench.engine.receipts import NoEffectWarning
from workbench.engine.tracing import trace
from workbench.panels.heatmap_rows import values_of
from workbench.recording.results import Results
from workbench.sites import Kind, Site, feature_at

if TYPE_CHECKING:
    from workbench.runs import Run


Named = tuple[int, int] | tuple[int, int, Kind]
"""``(layer, index)`` or ``(layer, index, kind)``."""


@dataclass(frozen=True)
class FeatureMap:
    """One map: features at their sites, and ties between them."""

    title: str
    """Above it, where there are several."""
    lineage: Lineage
    """The features and ties; of a chosen set every one is its own origin."""
    origin: Feature | None
    """The feature that is followed; None where there is no such one."""
    side: int = 0
    """0 for the run, 1 for the one beside it."""
    effects: Mapping[Feature, float] = field(default_factory=dict)
    """Attribution of each to the next token, where there is one."""
    target: str = ""
    """The next token."""

    @property
    def features(self) -> list[Feature]:
        """Site and index of each node, in execution order."""
        return [(one.site, one.index) for one in self.lineage.kin]

    def tied(self, links: Sequence[Link]) -> FeatureMap:
        """The same with more ties, those between features that are drawn."""
        there = set(self.features)
        more = [link for link in links if link.source in there and link.target in there]
        if not more:
            return self
        return replace(self, lineage=replace(self.lineage, links=(*self.lineage.links, *more)))


def kinship_of(run: Run) -> Kinship | None:
    """Matches of the run's SAEs, whose nulls serve every feature; None for a recording."""
    if run.suite is None or run.module is None:
        return None
    return Kinship(run.module, run.suite)


def lineage_of(run: Run, kinship: Kinship | None, site: Site, index: int) -> Lineage:
    """A feature's way through the sites that the run has read.

    Raises:
        ValueError: If the feature does not exist, or is not among those that a recording keeps.
    """
    drawable = set(run.drawable())
    suite = run.suite
    if kinship is None or suite is None:
        return _within(run.results.lineage((site, index)), drawable)
    assert run.module is not None
    there = [one for one in suite.sites if one in drawable and suite.at_hand(one)]
    found = evolve(run.module, suite, site, index, sites=there, kinship=kinship)
    return run.results.note_lineage(found)


def keep_lineages(run: Run, features: Sequence[Any]) -> None:
    """Find the ways of features that are not known yet.

    Raises:
        ValueError: If one does not exist.
    """
    kinship = kinship_of(run) if features else None
    for site, index in features_of(features) if features else ():
        if (site, index) not in run.kept.results.lineages:
            lineage_of(run, kinship, site, index)


def _within(lineage: Lineage, sites: Collection[Site]) -> Lineage:
    """The part of a lineage at sites that can be drawn."""
    kin = tuple(one for one in lineage.kin if one.site in sites)
    links = (one for one in lineage.links if {one.source[0], one.target[0]} <= {*sites})
    return replace(lineage, kin=kin, links=tuple(links))


def flow(
    chosen: Sequence[Feature], lineages: Mapping[Feature, Lineage], attribution: Attribution | None
) -> FeatureMap:
    """Chosen features on one map, tied where one is in the lineage of the other.

    Args:
        chosen: The features.
        lineages: Of each.
        attribution: To the next token that they matter for, if there is one.
    """
    features = sorted(set(chosen))
    kin = []
    for site, index in features:
        own = lineages[site, index].at(site)
        kin.append(replace(own, cosine=1.0, children=(), parents=()))
    known: dict[tuple[Feature, Feature, str], Link] = {}
    for lineage in lineages.values():
        for link in lineage.links:
            if link.source in features and link.target in features:
                known.setdefault((link.source, link.target, link.tie), link)
    tied = {(source, target) for source, target, _ in known}
    for one in features:
        for other in lineages[one].kin:
            there = (other.site, other.index)
            pair = (min(one, there), max(one, there))
            if there != one and there in features and other.counts and pair not in tied:
                tied.add(pair)
                known[*pair, "similar"] = Link(*pair, "similar", other.cosine, other.margin)
    lineage = Lineage(features[0], tuple(kin), tuple(known.values()), lineages[features[0]].level)
    effects = {
        (site, index): float(attribution.parts[site].totals[index])
        for site, index in features
        if attribution is not None and site in attribution.parts
    }
    return FeatureMap("", lineage, None, effects=effects)


def strongest(attribution: Attribution, k: int) -> list[Feature]:
    """The `k` features with the largest attribution over all tokens, of either sign."""
    rows = attribution.top(k).itertuples(index=False)
    return [(Site(int(row.layer), row.kind), int(row.feature)) for row in rows]  # pyright: ignore


def with_edits(run: Run, edits: Sequence[Edit]) -> Run:
    """The same text with more edits.

    Raises:
        ValueError: If the run is a recording, or an edit cannot be made.
    """
    if run.engine is None:
        raise ValueError("a recorded run has no model to run again: open it and run again")
    whole = [*run.edits, *edits]
    with warnings.catch_warnings():
        # The widget says it beside the edit; see `acted`.
        warnings.simplefilter("ignore", NoEffectWarning)
        traced = trace(run.engine, [run.tokens], run.sites, edits=whole, source=run.suite)
    return replace(
        run,
        logits=traced.logits[0],
        activations={site: x[0] for site, x in traced.activations.items()},
        receipt=traced.receipts[0],
        edits=tuple(whole),
        # Ways through the layers are of the weights and not of the text.
        results=Results(lineages=run.kept.results.lineages),
        _features={},
        _fits={},
        _seen=[],
    )


def acted(edited: Sequence[Run], count: int, number: int) -> bool:
    """Whether an edit changed anything in any of the texts.

    Args:
        edited: The texts under the edits.
        count: Of edits made here; the runs may bring others before them.
        number: Which of these.
    """
    return any(one.receipt.acts[number - count].acted for one in edited)


def features_of(feature: Named | Sequence[Named], kind: Kind = "res") -> list[Feature]:
    """Features in the ways that they can be named, as site and index.

    >>> features_of([(5, 231), (4, 17, "mlp")])
    [(Site(5, 'res'), 231), (Site(4, 'mlp'), 17)]

    Raises:
        TypeError: If one is no ``(layer, index)``.
        ValueError: If there is none, or for an unknown kind.
    """
    given: Any = feature
    several = isinstance(given, Sequence) and all(isinstance(one, tuple) for one in given)
    found = []
    for each in given if several else [given]:
        named = isinstance(each, tuple) and len(each) == 3
        found.append(feature_at(each[:2], each[2]) if named else feature_at(each, kind))
    if not found:
        raise ValueError("no feature to follow: give (layer, index), or a list of them")
    return list(dict.fromkeys(found))


# --------------------------------------------------------------------------- for the widget


def shown(
    maps: Sequence[FeatureMap],
    runs: Sequence[Run],
    columns: Sequence[Pair],
    edited: Sequence[Run],
) -> dict[str, Any]:
    """Nodes, links, maps and values as the widget takes them.

    Args:
        maps: What to draw, in order.
        runs: The run, and the one beside it if there is one.
        columns: Positions of each column in them.
        edited: The same runs under the edits; empty if there are none.
    """
    nodes: list[dict[str, Any]] = []
    links: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for number, one in enumerate(maps):
        start = {feature: len(nodes) + at for at, feature in enumerate(one.features)}
        for kin in one.lineage.kin:
            nodes.append({"map": number, **_node(runs[one.side], one, kin)})
        for link in one.lineage.links:
            if link.source in start and link.target in start:
                links.append(_link(link, start[link.source], start[link.target]))
        origin = -1 if one.origin is None else start[one.origin]
        record: dict[str, Any] = {"title": one.title, "origin": origin}
        records.append({**record, "target": one.target} if one.target else record)
    return {
        "nodes": nodes,
        "links": links,
        "maps": records,
        "values": _bytes(maps, runs, columns),
        "edited": _bytes(maps, edited, columns) if edited else b"",
    }


def _node(run: Run, one: FeatureMap, kin: Kin) -> dict[str, Any]:
    site, feature = kin.site, (kin.site, kin.index)
    node: dict[str, Any] = {"layer": site.layer, "kind": site.kind, "index": int(kin.index)}
    node["label"] = run.label(site, kin.index)
    if one.origin is not None:
        node |= {"cosine": _plain(kin.cosine), "null": _plain(kin.null)}
    if kin.correlation is not None:
        node["correlation"] = _plain(kin.correlation)
        node["correlation_null"] = _plain(kin.correlation_null)
    node |= {"birth": kin.birth, "trend": kin.trend}
    node |= {"children": list(map(int, kin.children)), "parents": list(map(int, kin.parents))}
    if feature in one.effects:
        node["attribution"] = one.effects[feature]
    maximum = run.typical_maximum(site, kin.index)
    return {**node, "maximum": maximum} if maximum else node


def _link(link: Link, source: int, target: int) -> dict[str, Any]:
    numbers = {"strength": float(link.strength), "margin": float(link.margin)}
    return {"source": source, "target": target, "tie": link.tie, **numbers}


def _plain(value: float | None) -> float | None:
    """A number that JSON has, too: none where it is not one."""
    return None if value is None or not math.isfinite(value) else float(value)


def _bytes(maps: Sequence[FeatureMap], runs: Sequence[Run], columns: Sequence[Pair]) -> bytes:
    """Activations (node, column) of all maps, one after the other."""
    parts = []
    for one in maps:
        rows: dict[Site, list[int]] = {}
        for site, index in one.features:
            rows.setdefault(site, []).append(index)
        values = values_of(runs[one.side], rows, [pair[one.side] for pair in columns])
        parts.append(values.T.contiguous().numpy().tobytes())
    return b"".join(parts)


# ------------------------------------------------------------------------------- for the user


def frame_of(maps: Sequence[FeatureMap], runs: Sequence[Run], edited: Sequence[Run]) -> Any:
    """One row a node: what `Lineage.to_frame` has, and what it does on the text.

    Returns:
        The columns of `Lineage.to_frame` with ``label, activation, token, position`` (the maximum
        over the scored tokens, and where it is), ``edited`` (the same under the edits) where there
        are some, ``attribution`` where there is a next token, and first ``map`` where there are
        several.
    """
    frames = []
    for one in maps:
        run, frame = runs[one.side], one.lineage.to_frame()
        frame["label"] = [run.label(*feature) for feature in one.features]
        peaks = [_peak(run, feature) for feature in one.features]
        frame["activation"] = [value for value, _ in peaks]
        frame["token"] = [run.tokens.strings[at] if value > 0 else "" for value, at in peaks]
        frame["position"] = [at if value > 0 else -1 for value, at in peaks]
        if edited:
            frame["edited"] = [_peak(edited[one.side], feature)[0] for feature in one.features]
        if one.effects:
            frame["attribution"] = [one.effects.get(feature) for feature in one.features]
        if len(maps) > 1:
            frame.insert(0, "map", one.title)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _peak(run: Run, feature: Feature) -> tuple[float, int]:
    """A feature's largest scored activation and its position."""
    site, index = feature
    values = run.features(site.layer, site.kind).of(index).clone()
    values[0] = 0.0  # <bos>
    return float(values.max()), int(values.argmax())


def words_of(edit: Edit, label: str = "") -> str:
    """An edit as the reader is told of it.

    >>> words_of(Ablate((4, 17), kind="mlp"))
    'layer 4 mlp 17 ablated'
    """
    if not isinstance(edit, FeatureEdit):
        return str(edit)
    name = f"{edit.site} {edit.feature[1]}{f' {label}' if label else ''}"
    if isinstance(edit, Ablate):
        return f"{name} ablated"
    if isinstance(edit, Steer):
        unit = "× its typical maximum" if edit.unit == "max" else edit.unit
        return f"{name} steered by {edit.strength:g} {unit}"
    return f"{name}: {type(edit).__name__}"


def next_tokens(run: Run, edited: Run, position: int, decode: Any) -> str:
    """What edits do to the next token, in a line.

    Args:
        run: Before.
        edited: Under the edits.
        position: After which token.
        decode: Gives the visible text of a token id.
    """
    before, after = (one.logits[position].float().softmax(-1) for one in (run, edited))
    first, second = int(before.argmax()), int(after.argmax())
    words = f"next token {decode(first)}: {_percent(before[first])} → {_percent(after[first])}"
    if second == first:
        return words
    return f"{words}; now {decode(second)}: {_percent(before[second])} → {_percent(after[second])}"


def _percent(share: Any) -> str:
    value = 100 * float(share)
    return f"{value:.1f} %" if value < 10 else f"{value:.0f} %"
