"""What the dashboard shows, as plain values: from the index, the suite and the weights.

Each function answers for one part of the page. What is not known is left out, and ``missing`` says
what would make it known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workbench.analysis.anatomy import encoder_decoder_angle, nearest, token_effects
from workbench.index import Example, FeatureRecord, Index
from workbench.sites import Site
from workbench.tokens import strings_of
from workbench.widgets.base import visible

if TYPE_CHECKING:
    from workbench.lab import Lab

COMPANY = 12
"""Features of the list of those that fire together."""
PEAKS = 4
"""Tokens that stand for a feature without a label."""


def gather(
    lab: Lab, site: Site, index: int, *, tokens: int, nearest: int
) -> tuple[Index | None, FeatureRecord | None, dict[str, Any]]:
    """Every trait but that of the reader's own text, and the index and record they are from.

    Args:
        lab: The model, its SAEs, perhaps an index.
        site: Where the feature is.
        index: Which it is.
        tokens: Output tokens at each end.
        nearest: Nearest features of each site.
    """
    known, missing, remedy = index_of(lab, site)
    record = None if known is None else known.feature(site, index)
    if record is not None and record.fires == 0:
        missing = f"It never fired on the {record.tokens:,} tokens of the index."
        remedy = 'lab.index(more_texts, path="more.duckdb")'
    config = lab.suite.sae_at(site).config
    l0 = "" if config.l0 is None else f", L0 {config.l0:g}"
    traits: dict[str, Any] = {
        "title": f"Feature {index} · {site}",
        "subtitle": f"{lab.engine.name} · SAE of {config.d_sae:,} features{l0}",
        "label": shown_label(lab, site, index),
        "note": lab.labels.notes(site, index),
        "facts": figures(lab, site, index, record),
        "missing": missing,
        "remedy": remedy,
        "neighbours": neighbours(lab, site, index, nearest),
        **outputs(lab, site, index, tokens),
        **from_corpus(lab, record, site),
    }
    return known, record, traits


def code(lab: Lab, site: Site, index: int, text: str) -> str:
    """The lines that show the same dashboard."""
    lines = [f"lab = wb.open({lab.engine.name!r})"]
    known, *_ = index_of(lab, site)
    if known is not None and known.path != lab.suite.index_file:
        lines.append(f"lab.feature_index = Index.open({str(known.path)!r})")
        lines.insert(0, "from workbench.index import Index\n")
    kind = "" if site.kind == "res" else f", {site.kind!r}"
    tried = f", text={text!r}" if text else ""
    return "\n".join([*lines, f"lab.dashboard({(site.layer, index)}{kind}{tried})"])


def index_of(lab: Lab, site: Site) -> tuple[Index | None, str, str]:
    """The index to read a feature of `site` from, or None, why, and the code that makes one."""
    try:
        index = lab.feature_index
    except ValueError:
        return (
            None,
            "There is no index of these features: no activations, passages or company to show. A "
            "pass over some texts makes one.",
            'lab.index(texts, path="features.duckdb")',
        )
    if belongs(lab, index, site):
        return index, "", ""
    without = f"with another SAE at {site}" if site in index.sites else f"without {site}"
    return (
        None,
        f"The index in use was made {without}: no activations, passages or company to show.",
        f'lab.index(texts, sites=[{site!r}], path="{site.kind}_{site.layer}.duckdb")',
    )


def belongs(lab: Lab, index: Index, site: Site) -> bool:
    """Whether the index was made with the SAE that the lab uses at `site`."""
    if site not in index.sites:
        return False
    try:
        index.check_saes({site: lab.suite.sae_at(site)})
    except ValueError:
        return False
    return True


def figures(lab: Lab, site: Site, index: int, record: FeatureRecord | None) -> list[dict[str, str]]:
    """Density, activations and angle, each with what it was measured on."""
    shown = []
    suite = lab.suite
    if record is not None:
        of = f"{record.fires:,} of {record.tokens:,} tokens"
        shown.append(_fact("density", f"{100 * record.density:.3g} %", of))
    elif suite.calibrated(site):
        share = float(suite.density(site)[index])
        shown.append(_fact("density", f"{100 * share:.3g} %", "the suite's calibration"))
    if record is not None and record.fires:
        spread = f"where it fires, ± {record.deviation:.3g}"
        shown.append(_fact("mean activation", f"{record.mean:.3g}", spread))
        shown.append(_fact("maximum", f"{record.maximum:.3g}", "in the index"))
    with suppress(ValueError):  # nobody measured it, or the feature never fired
        typical = suite.typical_maximum(site, index)
        on = "calibration" if suite.calibrated(site) else "sample texts"
        shown.append(_fact("typical maximum", f"{typical:.3g}", f"99th percentile, {on}"))
    angle = encoder_decoder_angle(suite.sae_at(site), index)
    if angle is None:
        shown.append(_fact("encoder to decoder", "–", "other spaces"))
    else:
        compared = f"cosine {angle.cosine:.2f}, median {angle.median:.2f}"
        shown.append(_fact("encoder to decoder", f"{angle.degrees:.0f}°", compared))
    return shown


def from_corpus(lab: Lab, record: FeatureRecord | None, site: Site) -> dict[str, Any]:
    """Traits that only an index can fill: histogram, passages, company."""
    if record is None:
        return {"histogram": {}, "top": [], "spread": [], "cofiring": [], "maximum": 0.0}
    edges = record.edges.tolist() if len(record.counts) else []
    return {
        "histogram": {"edges": edges, "counts": record.counts.tolist()},
        "top": [_passage(one) for one in record.top],
        "spread": [_passage(one) for one in record.stratified],
        "cofiring": _company(lab, record, site),
        "maximum": float(record.maximum),
    }


def outputs(lab: Lab, site: Site, index: int, k: int) -> dict[str, Any]:
    """Traits of what the feature writes into the logits."""
    sae, tokenizer = lab.suite.sae_at(site), lab.tokenizer
    try:
        found = token_effects(lab.engine.module, site, sae, index, k=k, vocabulary=len(tokenizer))
    except ValueError as error:  # quantised weights, or an architecture without a row
        return {"promoted": [], "suppressed": [], "output_note": str(error)}
    way = "decoder row → W_O and its norm's gain → " if site.kind == "att" else "decoder row → "
    note = (
        f"{way}gain of the final norm → unembedding. The norm's division and a soft cap do not "
        "change the order; they are left out, so only ratios count."
    )

    def rows(pairs: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
        names = strings_of(tokenizer, [token for token, _ in pairs])
        return [
            {"token": name, "effect": effect}
            for name, (_, effect) in zip(names, pairs, strict=True)
        ]

    return {
        "promoted": rows(found.promoted),
        "suppressed": rows(found.suppressed),
        "output_note": note,
    }


def neighbours(lab: Lab, site: Site, index: int, k: int) -> list[dict[str, Any]]:
    """The groups of the nearest features, one a site."""
    try:
        found = nearest(lab.engine.module, lab.suite, site, index, k=k)
    except ValueError:  # what `outputs` says already
        return []
    return [
        {
            "title": str(other),
            "own": other == site,
            "rows": [
                {**_named(lab, one.site, one.index), "cosine": one.cosine} for one in relatives
            ],
        }
        for other, relatives in found.items()
    ]


def with_hints(lab: Lab, known: Index, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of features, where there is no label with the tokens of their strongest passages."""
    done = []
    sites = {Site(row["layer"], row["kind"]) for row in rows}
    usable = {site for site in sites if belongs(lab, known, site)}
    for row in rows:
        site = Site(row["layer"], row["kind"])
        if row["label"] or site not in usable:
            done.append(dict(row))
            continue
        peaks = Counter(one.tokens[one.at] for one in known.feature(site, row["index"]).top)
        words = [visible(token) for token, _ in peaks.most_common(PEAKS)]
        done.append({**row, "hint": "  ".join(words) or "never fires"})
    return done


def _company(lab: Lab, record: FeatureRecord, site: Site) -> list[dict[str, Any]]:
    return [
        {
            **_named(lab, site, int(row["feature"])),
            "together": int(row["together"]),
            "of": int(row["of"]),
            "lift": float(row["lift"]),
        }
        for row in record.cofiring.head(COMPANY).to_dict("records")
    ]


def shown_label(lab: Lab, site: Site, index: int) -> dict[str, str]:
    """The label of a feature with where it is from, as the widget takes it."""
    found = lab.label(site, index)
    return {"text": found.text, "about": found.provenance} if found else {"text": "", "about": ""}


def _named(lab: Lab, site: Site, index: int) -> dict[str, Any]:
    found = shown_label(lab, site, index)
    where = {"layer": site.layer, "kind": site.kind, "index": index}
    return {**where, "label": found["text"], "about": found["about"]}


def _passage(one: Example) -> dict[str, Any]:
    return {
        "tokens": list(one.tokens),
        "values": list(one.activations),
        "at": one.at,
        "below": one.below,
        "place": f"document {one.document}, token {one.position}",
    }


def _fact(name: str, value: str, hint: str) -> dict[str, str]:
    return {"name": name, "value": value, "hint": hint}
