"""How far can a feature be pushed? Its effect against the fluency of the text, by strength.

1. Write: the same prompts are continued with the same seed at every strength, and once unsteered.
2. Judge: each text is read by the model without edits. That gives its fluency beside its unsteered
   twin (`workbench.fluency`), and its effect: the feature's mean activation on the new tokens, in
   typical maxima. It is read without edits so that the text has to hold what the feature stands
   for; under the edit every text would have a large activation.
3. Choose: the band is the longest range of strengths around the neutral one at which at least
   `STAYS` of the texts are fluent at each strength tried; the best of them has the largest effect.

Strengths are tried from the neutral one outwards, so a sweep that is stopped has a band, too.
"""

from __future__ import annotations

import json
import math
import statistics
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd
import torch
from tqdm.auto import tqdm

from workbench.edits import Clamp, Edit, Feature, Scale, Steer, Unit, check_feature
from workbench.figures import Curve, calibration_curve
from workbench.fluency import FLUENT_EXCESS, FLUENT_REPETITION, fluency
from workbench.models import Model
from workbench.program import Probe
from workbench.receipts import NoEffectWarning
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import Tokens, tokens_of
from workbench.tracing import Generation, generate, trace

if TYPE_CHECKING:
    import plotly.graph_objects as go

Mode = Literal["steer", "clamp", "scale"]
Effect = Callable[[list[str]], float]
"""From the texts at one strength (prompts left out) to a number."""

FORMAT = "workbench-calibration-1"
STAYS = 0.85
"""Share of the texts that have to be fluent at a strength in the band: 7 of 8."""
PROMPTS, PROMPT_TOKENS = 8, 16
"""Of the suite's passages, how many are continued and how much of each is given."""
ROWS = 64
"""Texts that are written side by side."""
STEPS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Strengths to both sides in typical maxima. Features differ: a band may end at 0.5 or beyond 3."""
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
"""The same in shares of the layer's mean norm, where no typical maximum is known."""
FACTORS = (-4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""What a feature is scaled by; 1 changes nothing."""

UNIT_NAMES: dict[Unit, str] = {
    "max": "typical maxima",
    "norm": "shares of the layer's mean norm",
    "raw": "times its activation",
}
"""What to call a strength's unit; only a factor is raw here."""
VERBS: dict[Mode, str] = {"steer": "steer by", "clamp": "clamp to", "scale": "scale by"}


@dataclass(frozen=True)
class Control:
    """A feature and the number that is turned."""

    feature: Feature
    """``(layer, index)``."""
    kind: Kind
    """Kind of site."""
    mode: Mode
    """``"steer"``, ``"clamp"`` or ``"scale"``."""
    unit: Unit
    """Of the strength, as in `Steer`; a factor has none and says ``"raw"``."""
    maximum: float | None
    """The feature's typical maximum, where it is known."""

    @classmethod
    def of(cls, suite: Suite, feature: Feature, kind: Kind, mode: Mode) -> Control:
        """The control of a feature, in typical maxima where the suite knows them.

        Raises:
            ValueError: If the feature or the mode does not exist.
        """
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of 'steer', 'clamp', 'scale', got {mode!r}")
        layer, index = check_feature(feature)
        site = Site(layer, check_kind(kind))
        suite.sae_at(site).check_index(index)
        maximum = float(suite.maxima(site)[index]) if suite.calibrated(site) else 0.0
        unit: Unit = "raw" if mode == "scale" else "max" if maximum > 0 else "norm"
        return cls((layer, index), kind, mode, unit, maximum if maximum > 0 else None)

    @property
    def site(self) -> Site:
        """Where the feature is."""
        return Site(self.feature[0], self.kind)

    @property
    def neutral(self) -> float:
        """The strength at which nothing is pushed: factor 1, else 0."""
        return 1.0 if self.mode == "scale" else 0.0

    @property
    def strengths(self) -> tuple[float, ...]:
        """What is tried unless told."""
        if self.mode == "scale":
            return FACTORS
        steps = STEPS if self.unit == "max" else SHARES
        return (*(-s for s in reversed(steps)), 0.0, *steps)

    def edits(self, strength: float) -> list[Steer | Clamp | Scale]:
        """The edits at a strength: none where one would add nothing."""
        if self.mode == "clamp":  # at 0, too: it takes out what is there
            return [Clamp(self.feature, strength, kind=self.kind, unit=self.unit)]
        if strength == self.neutral:
            return []
        if self.mode == "scale":
            return [Scale(self.feature, strength, kind=self.kind)]
        return [Steer(self.feature, strength, kind=self.kind, unit=self.unit)]


@dataclass(frozen=True)
class Point:
    """What one strength did, as means over the texts."""

    strength: float
    """In the calibration's unit."""
    effect: float
    """How much of the feature the texts hold, or what the caller's function gave."""
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
        for edge, last in ((low, self.points[:1]), (high, self.points[-1:])):
            if last and edge == last[0].strength != self.neutral:
                notes.append(f"fluent as far as was tried at {edge:g}: the band may be wider")
        return tuple(notes)

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
        frame, own = self.frame, self.effect_unit or "caller's measure"
        curves = [
            Curve("effect", own, frame["effect"], height=1.2),
            Curve("loss above twin", "nats a token", frame["excess"], FLUENT_EXCESS),
            Curve("repetition", "share of 4-grams", frame["repetition"], FLUENT_REPETITION, 0.8),
        ]
        where = f"feature ({self.feature[0]}, {self.feature[1]}) at {self.kind}"
        return calibration_curve(
            frame["strength"],
            curves,
            band=self.band,
            best=self.best,
            neutral=self.neutral,
            title=f"{self.label} · {where}" if self.label else where,
            axis=f"{VERBS[self.mode]} ({UNIT_NAMES[self.unit]})",
        )

    def save(self, path: str | Path) -> Path:
        """Write it as JSON; `Calibration.open` reads it."""
        path = Path(path)
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def open(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is no calibration.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found.pop("format") != FORMAT:
                raise KeyError
            points = tuple(Point(**point) for point in found.pop("points"))
            found |= {"feature": tuple(found["feature"]), "prompts": tuple(found["prompts"])}
            return cls(**found, points=points)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError):
            raise ValueError(f"{path} is no {FORMAT} file: Calibration.save writes them") from None


def beginnings(passages: Sequence[Tokens], tokenizer: Any) -> list[Tokens]:
    """Prompts for a sweep: the first tokens of some passages."""
    return [tokens_of(tokenizer, passage.ids[:PROMPT_TOKENS]) for passage in passages[:PROMPTS]]


def calibrate(
    model: Model,
    suite: Suite,
    control: Control,
    prompts: Sequence[Tokens],
    *,
    strengths: Sequence[float] | None = None,
    max_new_tokens: int = 40,
    seed: int = 0,
    effect: Effect | None = None,
    progress: bool = True,
    stop: threading.Event | None = None,
) -> Calibration:
    """Sweep the strength of a feature.

    Args:
        model: The model.
        suite: Its SAEs.
        control: What is turned.
        prompts: What the texts begin with.
        strengths: What to try, beside the neutral strength; those of the control if left out.
        max_new_tokens: Length of the texts.
        seed: Of the texts, drawn at temperature 1.
        effect: From the texts at one strength to a finite number; the feature's own mean activation
            in them if left out.
        progress: Whether to show a bar.
        stop: Set it from another thread, or interrupt the kernel: what is finished is returned.

    Raises:
        TypeError: If a strength is not a number.
        ValueError: If there is no prompt or a strength is not finite or too strong for the model.
    """
    order = _outwards(control, strengths)
    stop = stop or threading.Event()
    points: list[Point] = []
    judge = _Judge(model, suite, control, effect)
    bar = tqdm(total=len(order), desc="calibrating", unit="strength", disable=not progress)
    try:
        options = {"max_new_tokens": max_new_tokens, "seed": seed, "stop": stop}
        for twins in _texts(model, suite, prompts, [[]], options):
            sweep = [control.edits(strength) for strength in order]
            for texts in _texts(model, suite, prompts, sweep, options):
                points.append(judge.point(order[len(points)], texts, twins))
                bar.update()
    except KeyboardInterrupt:
        stop.set()
    finally:
        bar.close()
    site, index = control.site, control.feature[1]
    own = "activation" if control.maximum is None else "typical maxima"
    return Calibration(
        model=model.name,
        feature=control.feature,
        kind=control.kind,
        label=suite.label(site, index),
        mode=control.mode,
        unit=control.unit,
        effect_unit="" if effect else own,
        neutral=control.neutral,
        seed=seed,
        max_new_tokens=max_new_tokens,
        prompts=tuple(prompt.text for prompt in prompts),
        planned=len(order),
        points=tuple(sorted(points, key=lambda point: point.strength)),
    )


def _outwards(control: Control, strengths: Sequence[float] | None) -> list[float]:
    """The strengths to try and the neutral one, from the neutral one outwards.

    Raises:
        TypeError: If one is not a number.
        ValueError: If one is not finite.
    """
    found = {float(control.neutral)}
    for strength in control.strengths if strengths is None else strengths:
        control.edits(strength)  # refuses what is no number or not finite
        found.add(float(strength))
    return sorted(found, key=lambda s: (abs(s - control.neutral), s))


def _texts(
    model: Model,
    suite: Suite,
    prompts: Sequence[Tokens],
    sweep: Sequence[Sequence[Edit]],
    options: dict[str, Any],
) -> Iterator[list[Generation]]:
    """The prompts' texts under each list of edits in turn; ends early when it is stopped."""
    count = max(ROWS // len(prompts), 1) if prompts else 1
    for start in range(0, len(sweep), count):
        block = sweep[start : start + count]
        each = [edits for edits in block for _ in prompts]
        with warnings.catch_warnings():
            # Expected on some prompts; `Calibration.notes` speaks up if it never acted at all.
            warnings.simplefilter("ignore", NoEffectWarning)
            texts = generate(model, [*prompts] * len(block), each=each, source=suite, **options)
        if options["stop"].is_set():
            return
        for place in range(0, len(texts), len(prompts)):
            yield texts[place : place + len(prompts)]


@dataclass(frozen=True)
class _Judge:
    """Turns the texts at a strength into a point."""

    model: Model
    suite: Suite
    control: Control
    effect: Effect | None

    def point(
        self, strength: float, texts: Sequence[Generation], twins: Sequence[Generation]
    ) -> Point:
        """Judge `texts` beside their unsteered `twins`."""
        judged = fluency(self.model, texts, twins=twins)
        acts = [act.relative_norm for text in texts for act in text.receipt.acts]
        return Point(
            strength=strength,
            effect=self._effect(texts),
            loss=_mean(one.loss for one in judged),
            excess=_mean(one.excess for one in judged),
            repetition=_mean(one.repetition for one in judged),
            fluent=_mean(one.verdict == "fluent" for one in judged),
            tokens=_mean(len(text.tokens) for text in texts),
            added=_mean(acts) if acts else 0.0,
        )

    def _effect(self, texts: Sequence[Generation]) -> float:
        """The caller's measure, or the feature's mean activation on the new tokens.

        Raises:
            ValueError: If the caller's is no finite number.
        """
        if self.effect is not None:
            value = float(self.effect([text.text for text in texts]))
            if not math.isfinite(value):
                raise ValueError(f"effect must give a finite number for the texts, got {value}")
            return value
        site = self.control.site
        whole = [tokens_of(self.model.tokenizer, text.ids) for text in texts]
        read = trace(self.model, whole, [site]).activations[site]
        probe = Probe.of(self.suite.sae_at(site), [self.control.feature[1]], read.device)
        found = probe.activations(read)[..., 0]  # (text, pos), padded on the left
        new = [row[len(row) - len(t.tokens) :] for row, t in zip(found, texts, strict=True)]
        return float(torch.cat(new).mean()) / (self.control.maximum or 1.0)


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)
