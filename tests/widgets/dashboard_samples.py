"""A dashboard with plausible contents, for the tests and for looking at it."""

from __future__ import annotations

from typing import Any

from tests.widgets.samples import TOKENS
from workbench.widgets import FeatureDashboard

EDGES = [0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0]
EDGES += [10.0, 12.0, 14.0]
COUNTS = [210, 195, 160, 120, 150, 90, 75, 60, 80, 62, 40, 33, 41, 30, 22, 14, 12, 5, 1]
MAXIMUM = 12.5


def passage(peak: float, at: int, *, start: int = 1, stop: int = 16) -> dict[str, Any]:
    """A piece of the sample text in which the feature fires at token `at`."""
    tokens = TOKENS[start:stop]
    values = [0.0] * len(tokens)
    values[at], values[(at + 4) % len(tokens)] = peak, peak / 3
    below = sum(n for n, high in zip(COUNTS, EDGES[1:], strict=True) if high <= peak) / sum(COUNTS)
    place = f"document {at}, token {start + at}"
    return {"tokens": tokens, "values": values, "at": at, "below": below, "place": place}


def named(index: int, label: str = "", layer: int = 5, **more: Any) -> dict[str, Any]:
    """A row of a feature."""
    about = "detection · score 0.91 · 2026-03-04" if label else ""
    return {"layer": layer, "kind": "res", "index": index, "label": label, "about": about, **more}


TOP = [passage(MAXIMUM - n / 2, 5 + n % 4) for n in range(9)]
SPREAD = [passage(peak, 3) for peak in (12.5, 9.0, 5.5, 3.2, 1.7, 1.1, 0.8, 0.55)]
NEIGHBOURS = [
    {
        "title": "layer 4 res",
        "own": False,
        "rows": [named(17, "towns", 4, cosine=0.71), named(903, "", 4, cosine=0.4, hint="of  in")],
    },
    {
        "title": "layer 5 res",
        "own": True,
        "rows": [named(12, "country names", cosine=0.38), named(88, cosine=-0.05)],
    },
]
COMPANY = [
    named(1907, "country names, Europe", together=31, of=88, lift=14.2),
    named(88, "", together=20, of=88, lift=3.0, hint="of"),
]
LABEL = {
    "text": "capital cities",
    "about": "detection · score 0.93 · 2026-03-04 · A. Reader",
}


def dashboard(**changes: Any) -> FeatureDashboard:
    """A feature that is fully known, with a text of the reader's own."""
    tried = ["<bos>", "Rome", " is", " a", " city"]
    traits: dict[str, Any] = {
        "title": "Feature 231 · layer 5 res",
        "subtitle": "pocket · SAE of 2,048 features, L0 41",
        "label": LABEL,
        "note": "fires on the name, not on the word “capital”",
        "facts": [
            {"name": "density", "value": "0.43 %", "hint": "1,400 of 325,000 tokens"},
            {"name": "maximum", "value": "12.5", "hint": "in the index"},
            {"name": "encoder to decoder", "value": "31°", "hint": "cosine 0.86, median 0.80"},
        ],
        "histogram": {"edges": EDGES, "counts": COUNTS},
        "promoted": [
            {"token": token, "effect": effect}
            for token, effect in ((" Paris", 2.1), (" Tokyo", 1.9), (" city", 1.2))
        ],
        "suppressed": [
            {"token": token, "effect": effect} for token, effect in (("ing", -1.0), ("\n", -0.8))
        ],
        "output_note": "decoder row → gain of the final norm → unembedding",
        "maximum": MAXIMUM,
        "top": TOP,
        "spread": SPREAD,
        "neighbours": NEIGHBOURS,
        "cofiring": COMPANY,
        "tried": {
            "text": "Rome is a city",
            "tokens": tried,
            "values": [80.0, 6.25, 0.0, 0.0, 1.5],
            "masked": [0],
            "state": "done",
        },
        "code": 'lab = wb.open("pocket")\nlab.dashboard((5, 231))',
    }
    return FeatureDashboard(**{**traits, **changes})
