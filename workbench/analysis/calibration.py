"""What a sweep of strengths found: effect against fluency, and the band that follows.

The band is the longest range of strengths around the neutral one at which at least `STAYS` of the
texts are fluent at each strength tried. The best strength is the one in it with the largest effect.
How the points are made: `workbench.analysis.strengths`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from workbench.analysis.fluency import FLUENT_EXCESS, FLUENT_REPETITION
from workbench.engine.edits import Feature, Unit
from workbench.figures import Curve, calibration_curve
from workbench.files import readable, write_whole
from workbench.sites import Kind

if TYPE_CHECKING:
    import plotly.graph_objects as go

Mode = Literal["steer", "clamp", "scale"]

FORMAT = "workbench-calibration-1"
STAYS = 0.85
"""Share of the texts that have to be fluent at a strength in the band: 7 of 8.

On other prompts with another seed the texts at both ends of the band were at least 80 % fluent for
24 of 28 features of pocket at temperature 1, and for all 28 at temperature 0.8 and top-p 0.95
(``python -m tests.benchmarks.fluency``).
"""
UNIT_NAMES: dict[Unit, str] = {
    "max": "typical maxima",
    "norm": "shares of the layer's mean norm",
    "raw": "times its activation",
}
"""What to call a strength's unit; only a factor is raw here."""
VERBS: dict[Mode, str] = {"steer": "steer by", "clamp": "clamp to", "scale": "scale by"}


@dataclass(frozen=True)
class Point:
    """What one strength did, as means over the texts."""

    strength: float
    """In the calibration's unit."""
    effect: float
    """How much of the feature the texts hold, or what the caller's function gave."""
    error: float | None
    """Standard error of the effect over the texts; None for the caller's function."""
    loss: float
    """Under the unsteered model, in nats a token."""
    excess: float
    """The loss above that of the unsteered twins, in nats a token."""
    repetition: float
    """Share of repeated 4-grams."""
    fluent: float
    """Share of the texts that are fluent."""
    tokens: float
    """New tokens a text."""
    added: float
    """Norm of what the edit added, over that of the activation; 0 where it never acted."""


@dataclass(frozen=True)
class Calibration:
    """Effect against fluency for one feature."""

    model: str
    """Name of the model."""
    feature: Feature
    """``(layer, index)``."""
    kind: Kind
    """Kind of site."""
    label: str
    """What the feature stands for, where that is known."""
    mode: Mode
    """``"steer"``, ``"clamp"`` or ``"scale"``."""
    unit: Unit
    """Of the strengths, as in `Steer`; ``"raw"`` for a factor."""
    effect_unit: str
    """``"typical maxima"``, ``"activation"``, or empty for the caller's own function."""
    neutral: float
    """The strength at which nothing is pushed."""
    seed: int
    """Of the texts."""
    max_new_tokens: int
    """Length of the texts."""
    prompts: tuple[str, ...]
    """What the texts begin with."""
    planned: int
    """Strengths that were asked for; more than were written if it was stopped."""
    points: tuple[Point, ...]
    """One for each strength, the lowest first."""

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each strength, with the columns of `Point`."""
        names = [field.name for field in fields(Point)]
        return pd.DataFrame([asdict(point) for point in self.points], columns=names)

    @property
    def stopped(self) -> bool:
        """Whether it ended before all strengths were tried."""
        return len(self.points) < self.planned

    @property
    def band(self) -> tuple[float, float]:
        """Lowest and highest strength around the neutral one up to which the texts stay fluent."""
        return (
            self._edge([p for p in reversed(self.points) if p.strength <= self.neutral]),
            self._edge([p for p in self.points if p.strength >= self.neutral]),
        )

    def _edge(self, outwards: Sequence[Point]) -> float:
        """The last strength before the first at which too few texts are fluent."""
        edge = self.neutral
        for point in outwards:
            if point.fluent < STAYS:
                break
            edge = point.strength
        return edge

    @property
    def best(self) -> float:
        """The strength in the band with the largest effect; of equals the nearest to neutral."""
        low, high = self.band
        inside = [p for p in self.points if low <= p.strength <= high]
        inside.sort(key=lambda p: abs(p.strength - self.neutral))
        return max(inside, key=lambda p: p.effect).strength if inside else self.neutral

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the band should know."""
        low, high = self.band
        notes = []
        if self.stopped:
            notes.append(f"stopped after {len(self.points)} of {self.planned} strengths")
        if low == high:
            notes.append("no strength that was tried keeps the texts fluent: try smaller ones")
        if self.points and not any(point.added for point in self.points):
            notes.append("the edit never acted: the feature is silent on these prompts")
        if self._by_chance():
            notes.append("the effect at the best strength may be chance: see the frame's errors")
        for edge, last in ((low, self.points[:1]), (high, self.points[-1:])):
            if last and edge == last[0].strength != self.neutral:
                notes.append(f"fluent as far as was tried at {edge:g}: the band may be wider")
        return tuple(notes)

    def _by_chance(self) -> bool:
        """Whether the best effect is within two standard errors of the neutral one."""
        at = {point.strength: point for point in self.points}
        best, plain = at.get(self.best), at.get(self.neutral)
        if best is None or plain is None or best.error is None or plain.error is None:
            return False
        return best.effect - plain.effect < 2 * math.hypot(best.error, plain.error)

    def __repr__(self) -> str:
        low, high = self.band
        name = f"({self.feature[0]}, {self.feature[1]}) at {self.kind}"
        lines = [
            f"<Calibration of {name}{f', {self.label}' if self.label else ''}: {self.mode}",
            f"  fluent from {low:g} to {high:g} {UNIT_NAMES[self.unit]}, best {self.best:g}",
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines) + ">"

    def figure(self) -> go.Figure:
        """Effect, loss and repetition against strength, with the band shaded."""
        own, points = self.effect_unit or "caller's measure", self.points
        effect = [point.effect for point in points]
        excess = [point.excess for point in points]
        repeated = [point.repetition for point in points]
        curves = [
            Curve("effect", own, effect, height=1.2),
            Curve("loss above twin", "nats a token", excess, FLUENT_EXCESS),
            Curve("repetition", "share of 4-grams", repeated, FLUENT_REPETITION, 0.8),
        ]
        where = f"feature ({self.feature[0]}, {self.feature[1]}) at {self.kind}"
        return calibration_curve(
            [point.strength for point in points],
            curves,
            band=self.band,
            best=self.best,
            neutral=self.neutral,
            title=f"{self.label} · {where}" if self.label else where,
            axis=f"{VERBS[self.mode]} ({UNIT_NAMES[self.unit]})",
        )

    def save(self, path: str | Path) -> Path:
        """Write it as JSON; `Calibration.open` reads it."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        return write_whole(path, text + "\n")

    @classmethod
    def open(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is no calibration.
        """
        path = readable(path, "a saved calibration")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.pop("format") != FORMAT:
                raise KeyError
            points = tuple(Point(**point) for point in found.pop("points"))
            found |= {"feature": tuple(found["feature"]), "prompts": tuple(found["prompts"])}
            return cls(**found, points=points)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError):
            raise ValueError(f"{path} is no {FORMAT} file: Calibration.save writes them") from None
