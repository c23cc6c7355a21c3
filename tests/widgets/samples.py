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


def evolution(**changes: Any) -> EvolutionMap:
    """A feature of layer 5 through eight layers with three sites each."""
    draw = random.Random(3)
    sites, values = [], []
    for layer in range(8):
        for kind in ("att", "mlp", "res"):
            near = math.exp(-((layer - 5) ** 2) / 9) * {"att": 0.55, "mlp": 0.7, "res": 1.0}[kind]
            label = "capital cities" if near > 0.6 else "place names" if near > 0.3 else "nouns"
            is_origin = layer == 5 and kind == "res"
            sites.append(
                {
                    "layer": layer,
                    "kind": kind,
                    "index": 231 if is_origin else draw.randrange(2048),
                    "cosine": 1.0 if is_origin else round(0.93 * near + 0.05 * draw.random(), 3),
                    "label": label,
                }
            )
            values.append(
                [
                    near * row[0] * (0.7 + 0.3 * draw.random()) + (0.2 * row[3] if layer < 3 else 0)
                    for row in matrix(noise=0.2)
                ]
            )
    traits: dict[str, Any] = {
        "title": "Feature 231 of layer 5 through the layers",
        "subtitle": "nearest decoder row at each site, by cosine similarity",
        "sites": sites,
        "tokens": TOKENS,
        "values": float32_bytes(values),
        "masked": [0],
        "origin": 17,
        "code": 'run = lab.run("The capital of France is ...")\nrun.evolution(feature=(5, 231))',
    }
    return EvolutionMap(**{**traits, **changes})
