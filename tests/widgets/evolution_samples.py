"""Evolution maps beyond the plain one of `samples`: large, several, two texts, a next token."""

from __future__ import annotations

import math
import random
from typing import Any

from tests.widgets import samples
from workbench.widgets import EvolutionMap, float32_bytes

LAYERS, KINDS = 26, ("att", "mlp", "res")
ORIGIN = 12 * 3 + 2
BIRTHS = ("carried", "carried", "mlp", "carried", "attention", "carried", "new")
TIES = ("similar", "carries", "causes")


def large(links: int = 300, tokens: int = 40, **changes: Any) -> EvolutionMap:
    """Gemma 2 2B's shape: 26 layers of three sites, made up."""
    draw = random.Random(5)
    nodes, values = [], []
    for layer in range(LAYERS):
        for kind in KINDS:
            near = math.exp(-((layer - 12) ** 2) / 40) * {"att": 0.6, "mlp": 0.7, "res": 1}[kind]
            node: dict[str, Any] = {
                "layer": layer,
                "kind": kind,
                "index": draw.randrange(16384),
                "cosine": round(0.9 * near + 0.1 * draw.random(), 3),
                "null": 0.25,
                "label": draw.choice(["European capital cities", "place names", "is a", ""]),
            }
            if kind == "res" and node["cosine"] > 0.25:
                node["birth"] = BIRTHS[layer % len(BIRTHS)]
                node["trend"] = draw.choice(["strengthening", "steady", "fading"])
            nodes.append(node)
            peak = 20 * near
            values.append(
                [peak * draw.random() if draw.random() < 0.4 else 0.0 for _ in range(tokens)]
            )
    nodes[ORIGIN] |= {"cosine": 1.0, "label": "European capital cities"}
    return EvolutionMap(
        **{
            "title": "Feature 8231 of layer 12 through the layers",
            "subtitle": "made up, of the shape of Gemma 2 2B",
            "nodes": nodes,
            "links": some_links(len(nodes), links, draw),
            "maps": [{"title": "", "origin": ORIGIN}],
            "tokens": ["<bos>", *(samples.TOKENS[1:] * 2)[: tokens - 1]],
            "values": float32_bytes(values),
            "masked": [0],
            **changes,
        }
    )


def some_links(nodes: int, count: int, draw: random.Random) -> list[dict[str, Any]]:
    """Ties between nodes that are near each other in the model, each pair once."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    while len(found) < count:
        source = draw.randrange(nodes - 1)
        target = min(nodes - 1, source + draw.randrange(1, 10))
        strength = round(draw.random(), 3)
        tie = TIES[len(found) % 3]
        found[source, target] = {
            "source": source,
            "target": target,
            "tie": tie,
            "strength": -strength if tie == "causes" else strength,
            "margin": round(strength - 0.2, 3),
        }
    return list(found.values())


def several(count: int = 4, **changes: Any) -> EvolutionMap:
    """The plain map so many times, each with other activations."""
    one, draw = samples.evolution(), random.Random(2)
    size = len(one.nodes)
    nodes = [{**node, "map": m} for m in range(count) for node in one.nodes]
    links = [
        {**link, "source": link["source"] + m * size, "target": link["target"] + m * size}
        for m in range(count)
        for link in one.links
    ]
    numbers = memoryview(one.values).cast("f").tolist()
    values = [[v * (0.4 + draw.random()) for v in numbers] for _ in range(count)]
    maps = [{"title": f"{m}: capital cities", "origin": 17 + m * size} for m in range(count)]
    return samples.evolution(
        **{
            "nodes": nodes,
            "links": links,
            "maps": maps,
            "values": float32_bytes(values),
            **changes,
        }
    )


def edited(**changes: Any) -> EvolutionMap:
    """Feature 10 ablated: it is silent, later ones fire at half."""
    one = samples.evolution()
    width = len(one.tokens)
    numbers = memoryview(one.values).cast("f").tolist()
    after = [
        0.0 if at // width == 10 else v * (0.45 if at // width > 10 else 1)
        for at, v in enumerate(numbers)
    ]
    return samples.evolution(
        **{
            "edited": float32_bytes([after]),
            "edits": [{"text": "layer 3 mlp 1203 ablated", "nodes": [10]}],
            "said": "next token: ␣Paris 0.61 before, ␣Lyon 0.22 after",
            **changes,
        }
    )


def towards(**changes: Any) -> EvolutionMap:
    """Ten features that matter for a next token, two of them at one site."""
    draw = random.Random(8)
    one = samples.evolution()
    rows = [2, 8, 10, 13, 14, 16, 17, 17, 20, 23]
    nodes = [
        {**one.nodes[row], "attribution": round(draw.uniform(-1, 3), 2), "index": 100 + n}
        for n, row in enumerate(rows)
    ]
    numbers = memoryview(one.values).cast("f").tolist()
    width = len(one.tokens)
    return samples.evolution(
        **{
            "title": "The features that matter most for ␣Paris",
            "nodes": nodes,
            "links": [
                {"source": a, "target": b, "tie": "causes", "strength": -1.5, "margin": 1.2}
                for a, b in ((0, 2), (2, 4), (4, 6), (6, 9))
            ],
            "maps": [{"title": "", "origin": -1, "target": "␣Paris"}],
            "values": float32_bytes([numbers[row * width : (row + 1) * width] for row in rows]),
            **changes,
        }
    )


def beside(**changes: Any) -> EvolutionMap:
    """One feature on two texts that differ in a word."""
    made = several(2)
    others = list(made.tokens)
    others[4], others[7] = " Hungary", ""
    return several(
        2,
        **{
            "other_tokens": others,
            "names": ["France", "Hungary"],
            "maps": [
                {**one, "title": name}
                for one, name in zip(made.maps, ("France", "Hungary"), strict=True)
            ],
            **changes,
        },
    )
