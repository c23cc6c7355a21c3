"""A training run with plausible figures, for the tests and for looking at it."""

from __future__ import annotations

import math
from typing import Any

from workbench.widgets import TrainingCurves, float32_bytes

NAMES = ["JumpReLU", "TopK", "ReLU"]
STEP, COUNT = 16_384, 40


def rows(count: int = COUNT) -> list[list[float]]:
    """The points of three SAEs: number, tokens, FVU, L0, share of dead features."""
    found = []
    for number, floor in enumerate((0.16, 0.15, 0.19)):
        for i in range(1, count + 1):
            fvu = floor + 0.8 * math.exp(-i / (6 + number)) + 0.01 * math.sin(3 * i + number)
            l0 = (16 + 12 * math.exp(-i / 5), 16.0, 16 + 50 * math.exp(-i / 4) - 3 * (i < 9))[
                number
            ]
            dead = (0.0, 0.04 * max(0, i - 12) / count, 0.02 * math.exp(-i / 9))[number]
            found.append([number, i * STEP, fvu, l0, dead])
    return found


def training(**changes: Any) -> TrainingCurves:
    """Three SAEs, two thirds of the way."""
    traits: dict[str, Any] = {
        "title": "Training 3 SAEs at layer 3 res",
        "subtitle": "pocket · texts about capital cities · batches of 1,024 tokens",
        "names": NAMES,
        "targets": [16.0, 16.0, 16.0],
        "points": float32_bytes(rows()),
        "dead_tokens": 60_000,
        "state": "running",
        "status": "step 640 of 960 · 21,000 tokens/s · 16 s left",
        "done": 2 / 3,
        "total": 60 * STEP,
        "code": "training = lab.train_saes(texts, configs, layer=3)\n",
    }
    return TrainingCurves(**{**traits, **changes})
