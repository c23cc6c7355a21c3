"""Widgets with plausible contents, for the tests and for looking at them."""

from __future__ import annotations

import math
import random
from typing import Any

from workbench.widgets import EvolutionMap, FeatureHeatmap, float32_bytes

TEXT = (
    "<bos>|The| capital| of| France| is| Paris|,| and| the| capital| of| Japan| is| Tokyo|.|\n|"
    "Every| spring| the| river| floods| the| market| square|."
)
TOKENS = TEXT.split("|")
FEATURES = [
    (231, "capital cities", 12.4, {"Paris": 11.8, "Tokyo": 9.6, "capital": 6.1}),
    (1907, "country names, Europe", 9.8, {"France": 9.1, "Paris": 2.2}),
    (88, "“of” between a place and its capital, sovereign or seat of government", 7.5, {"of": 6.9}),
    (4410, "Japan and Japanese culture", 11.2, {"Japan": 10.4, "Tokyo": 7.7}),
    (17, "definite article", 4.2, {"The": 3.9, "the": 3.2}),
    (2750, "end of sentence", 6.0, {".": 5.6, "\n": 2.9}),
    (612, "copula before a fact", 5.1, {"is": 4.6}),
    (5003, "water, floods and rivers", 8.8, {"river": 7.9, "floods": 8.3}),
    (333, "line breaks", 14.0, {"\n": 13.1}),
    (1288, "seasons of the year", 7.2, {"spring": 6.6}),
    (940, "public places in a town", 6.9, {"market": 4.8, "square": 6.2}),
    (76, "list continues: comma and conjunction", 5.5, {",": 3.7, "and": 4.4}),
]


def matrix(*, noise: float = 0.9, seed: int = 0) -> list[list[float]]:
    """Activations (pos, feature): the words above, and a little elsewhere."""
    draw = random.Random(seed)
    rows = []
    for position, token in enumerate(TOKENS):
        row = []
        for _, _, _, peaks in FEATURES:
            value = peaks.get(token.strip(" "), 0.0)
            if value == 0.0 and draw.random() < 0.16:
                value = draw.random() * noise
            row.append(60.0 * (1 + draw.random()) if position == 0 else value)
        rows.append(row)
    return rows


def heatmap(**changes: Any) -> FeatureHeatmap:
    """Twelve features on 26 tokens, BOS masked."""
    traits: dict[str, Any] = {
        "title": "Features on a prompt",
        "subtitle": "pocket · residual stream after layer 5 · 12 strongest of 2,048 features",
        "tokens": TOKENS,
        "features": [{"id": i, "label": label, "max": top} for i, label, top, _ in FEATURES],
        "values": float32_bytes(matrix()),
        "masked": [0],
        "code": 'run = lab.run("The capital of France is ...")\nrun.heatmap(layer=5)',
    }
    return FeatureHeatmap(**{**traits, **changes})


SITES = ["4 att"] * 3 + ["4 mlp"] * 4 + ["4 res"] * 5


def grouped_heatmap(**changes: Any) -> FeatureHeatmap:
    """The same twelve features as if they were of three sites, with a second order."""
    features = [
        {"id": i, "label": label, "max": top, "site": site, "density": 0.002}
        for (i, label, top, _), site in zip(FEATURES, SITES, strict=True)
    ]
    orders = {
        "measure": list(range(12)),
        "clustered": [2, 1, 0, 6, 5, 4, 3, 11, 10, 9, 8, 7],
    }
    return heatmap(**{"features": features, "orders": orders, "order": "measure", **changes})


EXCHANGED, REMOVED, ADDED = 4, 7, 17
"""Columns of `compared_heatmap`: France against Hungary; a comma that the second run lacks; a word
that only it has."""


def compared_heatmap(**changes: Any) -> FeatureHeatmap:
    """Two runs over 27 columns."""
    nan = math.nan
    first, second = list(TOKENS), list(TOKENS)
    second[EXCHANGED], second[REMOVED] = " Hungary", ""
    first.insert(ADDED, "")
    second.insert(ADDED, " single")
    values, others = matrix(), matrix(seed=5)
    others[EXCHANGED][1], others[REMOVED] = 1.1, [nan] * len(FEATURES)
    others.insert(ADDED, [2.0] * len(FEATURES))
    values.insert(ADDED, [nan] * len(FEATURES))
    places = [
        [-1 if (token == "") else sum(t != "" for t in run[:at]) for at, token in enumerate(run)]
        for run in (first, second)
    ]
    traits: dict[str, Any] = {
        "title": "Two runs",
        "subtitle": "pocket · largest change first",
        "tokens": first,
        "values": float32_bytes(values),
        "other_tokens": second,
        "other_values": float32_bytes(others),
        "positions": places,
        "names": ["France", "Hungary"],
    }
    return heatmap(**{**traits, **changes})


def large_heatmap(positions: int, features: int, *, seed: int = 1) -> FeatureHeatmap:
    """A matrix of random sparse activations."""
    draw = random.Random(seed)
    return FeatureHeatmap(
        title=f"{positions} tokens, {features} features",
        tokens=["<bos>", *(f" t{position}" for position in range(1, positions))],
        features=[{"id": 7 * n, "label": f"feature number {n}"} for n in range(features)],
        values=random_values(positions, features, draw),
        masked=[0],
    )


def random_values(positions: int, features: int, draw: random.Random) -> bytes:
    """Sparse activations as bytes, three in ten not zero."""
    return float32_bytes(
        [
            [draw.expovariate(0.5) if draw.random() < 0.3 else 0.0 for _ in range(features)]
            for _ in range(positions)
        ]
    )


PARENTS = {"att": 2, "mlp": 1}
"""How far behind it the residual feature of its layer stands among the nodes."""


def evolution(**changes: Any) -> EvolutionMap:
    """A feature of layer 5 through eight layers with three sites each."""
    draw = random.Random(3)
    nodes, values, links = [], [], []
    for layer in range(8):
        for kind in ("att", "mlp", "res"):
            near = math.exp(-((layer - 5) ** 2) / 9) * {"att": 0.55, "mlp": 0.7, "res": 1.0}[kind]
            label = "capital cities" if near > 0.6 else "place names" if near > 0.3 else "nouns"
            is_origin = layer == 5 and kind == "res"
            node: dict[str, Any] = {
                "layer": layer,
                "kind": kind,
                "index": 231 if is_origin else draw.randrange(2048),
                "cosine": 1.0 if is_origin else round(0.93 * near + 0.05 * draw.random(), 3),
                "null": 0.3,
                "label": label,
            }
            kin = node["cosine"] > 0.3
            if kin:
                node |= {"correlation": round(0.9 * near, 3), "correlation_null": 0.12}
            if kind == "res" and kin:
                node["birth"] = {3: "mlp", 2: "new", 4: "attention"}.get(layer, "carried")
                node["trend"] = "fading" if layer > 5 else "strengthening"
            if is_origin:
                node["children"] = [17, 94]
            nodes.append(node)
            values.append(
                [
                    near * row[0] * (0.7 + 0.3 * draw.random()) + (0.2 * row[3] if layer < 3 else 0)
                    for row in matrix(noise=0.2)
                ]
            )
            here = len(nodes) - 1
            if kind in PARENTS and kin:
                links.append((here, here + PARENTS[kind], "similar", near))
            if kind == "res" and layer > 2:
                links.append((here - 3, here, "carries", 0.3 + 0.6 * near))
    causes = [(10, 17, "causes", -3.2), (14, 23, "causes", -1.4), (9, 23, "causes", 0.9)]
    traits: dict[str, Any] = {
        "title": "Feature 231 of layer 5 through the layers",
        "subtitle": "nearest decoder row at each site, by cosine similarity",
        "nodes": nodes,
        "links": [
            {
                "source": source,
                "target": target,
                "tie": tie,
                "strength": round(strength, 3),
                "margin": round(abs(strength) - 0.3, 3),
            }
            for source, target, tie, strength in (*links, *causes)
        ],
        "maps": [{"title": "", "origin": 17}],
        "tokens": TOKENS,
        "values": float32_bytes(values),
        "masked": [0],
        "code": 'run = lab.run("The capital of France is ...")\nrun.evolution(feature=(5, 231))',
    }
    return EvolutionMap(**{**traits, **changes})
