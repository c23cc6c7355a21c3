"""Finding what to steer: by index, by label, by what fires on a text, by what tells texts apart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from workbench.sites import KINDS, Kind, Site, check_kind

if TYPE_CHECKING:
    from workbench.lab import Lab

MOST = 50
"""Rows that a search shows."""
Found = list[dict[str, Any]]


def search(lab: Lab, how: str, query: str, other: str) -> Found:
    """Features that answer a query, best first.

    Args:
        lab: The lab.
        how: "index", "label", "text" or "contrast".
        query: What to look for; for "contrast" the texts that have it, one a line.
        other: For "contrast" the texts that lack it.

    Returns:
        ``layer``, ``kind``, ``index``, ``label``, ``score`` (a number to show) and ``note`` each.

    Raises:
        ValueError: If the query says nothing; says what one looks like.
    """
    if not query.strip():
        raise ValueError("type what to look for")
    if how == "index":
        return by_index(lab, query)
    if how == "label":
        return by_label(lab, query)
    if how == "text":
        return by_text(lab, query)
    return by_contrast(lab, query, other)


def by_index(lab: Lab, query: str) -> Found:
    """One feature by layer and index, such as ``5 231`` or ``5 att 231``; all layers' by index.

    Raises:
        ValueError: If it is written otherwise, or there is no such feature.
    """
    numbers = [int(n) for n in re.findall(r"\d+", query)]
    words = [
        word for word in re.findall(r"[a-z]+", query.lower()) if word not in ("layer", "feature")
    ]
    if len(numbers) not in (1, 2) or len(words) > 1 or not {*words} <= {*KINDS}:
        raise ValueError(
            f"{query!r}: write a layer and an index, such as '5 231' or '5 att 231', or one index"
        )
    kind: Kind = check_kind(words[0]) if words else "res"
    if len(numbers) == 2:
        site = Site(numbers[0], kind).check(lab.engine.config)
        lab.suite.sae_at(site).check_index(numbers[1])
        return [_row(lab, site, numbers[1])]
    there = [s for s in lab.suite.sites if s.kind == kind and lab.suite.at_hand(s)]
    found = [s for s in there if numbers[0] < lab.suite.sae_at(s).config.d_sae]
    if not found:
        raise ValueError(f"no SAE of kind {kind!r} at hand has a feature {numbers[0]}")
    return [_row(lab, site, numbers[0]) for site in found]


def by_label(lab: Lab, query: str) -> Found:
    """Features whose label contains a text, surest first; see `Lab.find`.

    Raises:
        ValueError: If there is none.
    """
    frame = lab.find(query.strip())
    if not len(frame):
        raise ValueError(f"no label contains {query.strip()!r}")
    return [
        _row(lab, Site(int(row["layer"]), row["kind"]), int(row["feature"]), float(row["score"]))
        for row in frame.head(MOST).to_dict("records")
    ]


def by_text(lab: Lab, query: str) -> Found:
    """What fires on a text at the residual stream of all layers, as shares of the usual maximum.

    Raises:
        ValueError: If nothing fires, or no SAE of the residual stream is at hand.
    """
    sites = [s for s in lab.suite.sites if s.kind == "res" and lab.suite.at_hand(s)]
    if not sites:
        raise ValueError("no SAE of the residual stream is on disk: lab.sae(layer=...) fetches one")
    run = lab.run(query, sites=sites)
    found: Found = []
    for site in sites:
        features = run.features(site.layer, site.kind)
        top = features.top(MOST)
        strongest = float(features.of(top[0]).max()) if top else 1.0
        for index in top:
            values = features.of(index)[1:]
            peak = int(values.argmax()) + 1
            usual = run.typical_maximum(site, index)
            share = float(values.max()) / (strongest if usual is None else usual)
            measure = "of its typical maximum" if usual else "of the layer's strongest"
            token = run.tokens.strings[peak]
            note = f"{share:.0%} {measure}, at {token!r}"
            found.append(_row(lab, site, index, share, note))
    if not found:
        raise ValueError("no feature fires on this text: give a longer one")
    return sorted(found, key=lambda row: -row["score"])[:MOST]


def by_contrast(lab: Lab, query: str, other: str) -> Found:
    """What tells the texts of `query` from those of `other`, a text a line; see `Lab.contrast`.

    Raises:
        ValueError: If a side is empty.
    """
    sides = [
        [line.strip() for line in text.splitlines() if line.strip()] for text in (query, other)
    ]
    if not all(sides):
        raise ValueError(
            "give texts of both sides, one a line: with what you look for, and without"
        )
    # Few texts have no held-out half; what is found says so in its notes.
    frame = lab.contrast(*sides, k=MOST, progress=False).frame
    return [
        _row(
            lab,
            Site(int(row["layer"]), row["kind"]),
            int(row["feature"]),
            float(row["score"]),
            f"AUROC {row['score']:.2f}, held out {row['held_out']:.2f}, "
            f"by luck {row['control']:.2f}",
        )
        for row in frame.to_dict("records")
    ]


def _row(
    lab: Lab, site: Site, index: int, score: float | None = None, note: str = ""
) -> dict[str, Any]:
    if not note and lab.suite.calibrated(site):
        maximum = float(lab.suite.maxima(site)[index])
        note = f"typical maximum {maximum:.3g}" if maximum > 0 else "never fired in ordinary text"
    return {
        "layer": site.layer,
        "kind": site.kind,
        "index": index,
        "label": lab.suite.label(site, index),
        "score": score,
        "note": note,
    }
