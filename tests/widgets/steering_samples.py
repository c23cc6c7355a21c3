"""Steering panels with plausible contents, for the tests and for looking at them."""

from __future__ import annotations

import math
import random
from typing import Any

from workbench.widgets import SteeringPanel

MODES = ["steer", "clamp", "scale", "ablate", "patch"]
ROWS: list[dict[str, Any]] = [
    {
        "id": "a", "layer": 5, "kind": "res", "index": 231, "label": "capital cities", "low": -8,
        "high": 8, "step": 0.5, "value": 3.5, "safe": [-4, 5], "unit": "× max", "mode": "steer",
        "modes": MODES, "formula": "x + 3.5 · 12.4 · d",
    },
    {
        "id": "b", "layer": 3, "kind": "res", "index": 4410, "label": "Japan and Japanese culture, "
        "its cities and its history", "low": -8, "high": 8, "step": 0.5, "value": 6.5,
        "safe": [-3, 4], "unit": "× max", "mode": "steer", "modes": MODES, "when": "generated",
        "above": {"layer": 2, "kind": "mlp", "index": 88, "value": 0.5},
        "formula": "x + 6.5 · 11.2 · d",
    },
    {
        "id": "c", "layer": 6, "kind": "mlp", "index": 76, "label": "list continues", "low": 0,
        "high": 3, "step": 0.1, "value": 0.2, "unit": "× factor", "mode": "scale", "modes": MODES,
        "neutral": 1, "muted": True, "formula": "x + (0.2 − 1) f · d",
    },
]  # fmt: skip
RARE_ROWS: list[dict[str, Any]] = [
    {
        "id": "d", "layer": 2, "kind": "att", "index": 17, "label": "definite article",
        "mode": "ablate", "modes": MODES, "to": "mean", "formula": "x + (m − f) d",
        "warning": "did not act: the feature was silent",
    },
    {
        "id": "e", "layer": 4, "kind": "res", "index": 1288, "label": "seasons of the year",
        "mode": "patch", "modes": MODES, "other": "In winter the river froze.", "when": "positions",
        "where": "0-3, 7", "formula": "x + (f′ − f) d, f′ from the other text",
    },
    {
        "id": "f", "layer": 7, "kind": "mlp", "label": "", "mode": "splice", "modes": ["splice"],
        "error": True, "formula": "x′ = b + Σ f d + (x − SAE(x))",
    },
]  # fmt: skip
"""The modes that have no slider."""

PROMPT = "Once upon a time there was"
PLAIN = (
    " a| little| girl| who| lived| near| the| forest|.| She| liked| to| walk| along| the| river|."
)
STEERED = (
    " a| little| girl| who| lived| in| Tokyo|,| the| capital| of| Japan|.| She| liked| to| visit|"
    " the| old| temples| of| Kyoto|."
)
RANDOM = " a| little| boy| who| had| a| red| ball|.| He| played| with| it| all| day|."
TURNS = [
    {"role": "user", "content": "Tell me a story in two sentences."},
    {"role": "assistant", "content": "A boat left the harbour. It came back full of stars."},
    {"role": "user", "content": "Now one about a city."},
]
BASELINES = [
    {"id": "random", "title": "random direction", "hint": "A random direction of the same norm."},
    {"id": "feature", "title": "random feature", "hint": "A random live feature, same norm."},
    {
        "id": "prompt",
        "title": "plain prompting",
        "hint": "No edit: an instruction before the text.",
    },
]
HITS = [
    {"layer": 5, "kind": "res", "index": 231, "label": "capital cities", "score": 0.97},
    {"layer": 3, "kind": "res", "index": 902, "label": "names of cities", "score": 0.84,
     "note": "fires on Paris, Tokyo, Rome"},
    {"layer": 6, "kind": "mlp", "index": 12, "label": "city squares and markets", "score": 0.61},
]  # fmt: skip
RECEIPT = [
    "Steer L5 res 231 by 3.5 × max: 23 positions in 22 steps, norm added 18.2 (12 %)",
    "Steer L3 res 4410 by 6.5 × max: 23 positions in 22 steps, norm added 30.7 (24 %)",
    "Scale L6 mlp 76: muted, acted nowhere",
]
METERS = {
    "steered": {"verdict": "strained", "repetition": 0.043, "loss": 3.12, "excess": 0.94},
    "plain": {"verdict": "fluent", "repetition": 0.0, "loss": 2.18, "excess": 0.0},
    "random": {"verdict": "broken", "repetition": 0.31, "loss": 6.4, "excess": 4.2},
}


def tokens(text: str, *, seed: int) -> list[dict[str, Any]]:
    """Streamed tokens with all that the hover card shows."""
    draw = random.Random(seed)
    made = []
    for number, word in enumerate(text.split("|")):
        shift = draw.random() * 0.2 if number < 5 else draw.expovariate(1.1)
        p = 0.2 + 0.6 * draw.random()
        rest = [(" the", (1 - p) * 0.6), (" one", (1 - p) * 0.2), ("\n", 0.0004)]
        top = sorted([(word, p), *rest], key=lambda pair: -pair[1])
        entropy = -sum(q * math.log(q) for _, q in top) + draw.random()
        before = p * draw.random()
        made.append(
            {
                "text": word,
                "shift": shift,
                "entropy": entropy,
                "p": p,
                "p_before": before,
                "top": top,
            }
        )
    return made


def steering(**changes: Any) -> SteeringPanel:
    """Three edits, not yet run."""
    traits: dict[str, Any] = {
        "title": "Steer while it writes",
        "subtitle": "pocket · 3 edits at 3 sites",
        "prompt": PROMPT,
        "rows": ROWS,
        "baselines": BASELINES,
        "settings": {"max_new_tokens": 64, "temperature": 0.8, "top_p": 0.95, "seed": 0},
        "sites": [{"layer": layer, "kind": kind} for layer in (5, 6) for kind in ("res", "mlp")],
        "code": 'lab.generate("Once upon a time there was", edits=[wb.Steer((5, 231), 3.5)])',
    }
    return SteeringPanel(**{**traits, **changes})


def finished_steering(**changes: Any) -> SteeringPanel:
    """The same after a run."""
    panel = steering(**changes)
    run = panel.start(total=64, prompt_tokens=prompt_tokens())
    texts = {"steered": tokens(STEERED, seed=1), "plain": without_shift(tokens(PLAIN, seed=2))}
    for column in panel.columns[2:]:
        texts[column["id"]] = without_shift(tokens(RANDOM, seed=3))
    for column, text in texts.items():
        panel.stream(run, column, text)
    panel.finish(run, rate=41.3, receipt=RECEIPT, meters={k: METERS.get(k, {}) for k in texts})
    return panel


def columns(*ids: str) -> list[dict[str, str]]:
    """The pair, and further texts beside them."""
    titles = {b["id"]: b["title"].capitalize() for b in BASELINES}
    notes = {"random": "norm 18.2, seed 0", "feature": "L5 res 1771", "prompt": "no edit"}
    pair = [{"id": "steered", "title": "Steered"}, {"id": "plain", "title": "Unsteered"}]
    return [*pair, *({"id": i, "title": titles[i], "note": notes[i]} for i in ids)]


def prompt_tokens() -> list[dict[str, Any]]:
    """The prompt as the model reads it."""
    words = ["<bos>", "Once", " upon", " a", " time", " there", " was"]
    return [{"text": word, "special": word == "<bos>"} for word in words]


def without_shift(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokens that no edit moved."""
    return [{k: v for k, v in token.items() if k not in ("shift", "p_before")} for token in made]
