"""Sweep the strength of a feature: write, judge, and hand over the points.

1. Write: the same prompts are continued with the same seed at every strength, and once unsteered.
2. Judge: each text is read by the model without edits. That gives its fluency beside its unsteered
   twin (`workbench.analysis.fluency`), and its effect: the feature's mean activation on the new
   tokens, in typical maxima. It is read without edits so that the text has to hold what the
   feature stands for; under the edit every text would have a large activation.
3. Choose: `workbench.analysis.calibration.Calibration`.

Strengths are tried from the neutral one outwards, so a sweep that is stopped has a band, too.
"""

from __future__ import annotations

import math
import statistics
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from tqdm.auto import tqdm

from workbench.analysis.calibration import Calibration, Mode, Point
from workbench.analysis.fluency import blocks, fluency
from workbench.engine.edits import Clamp, Edit, Feature, Scale, Steer, Unit
from workbench.engine.program import Probe
from workbench.engine.receipts import NoEffectWarning
from workbench.engine.tracing import Generation, generate, trace
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site, feature_at
from workbench.tokens import Tokens, tokens_of

Effect = Callable[[list[str]], float]
"""From the texts at one strength (prompts left out) to a number."""

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
        site, index = feature_at(feature, kind)
        suite.sae_at(site).check_index(index)
        maximum = float(suite.maxima(site)[index]) if suite.calibrated(site) else 0.0
        unit: Unit = "raw" if mode == "scale" else "max" if maximum > 0 else "norm"
        return cls((site.layer, index), kind, mode, unit, maximum if maximum > 0 else None)

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
        pass  # `Calibration.stopped` says so, and what is finished took time
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
        ValueError: If there are none, or one is not finite.
    """
    if strengths is not None and not len(strengths):
        raise ValueError("strengths is empty: give numbers to try, or leave it out")
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
        effect, error = self._effect(texts)
        acts = [act.relative_norm for text in texts for act in text.receipt.acts]
        return Point(
            strength=strength,
            effect=effect,
            error=error,
            loss=_mean(one.loss for one in judged),
            excess=_mean(one.excess for one in judged),
            repetition=_mean(one.repetition for one in judged),
            fluent=_mean(one.verdict == "fluent" for one in judged),
            tokens=_mean(len(text.tokens) for text in texts),
            added=_mean(acts) if acts else 0.0,
        )

    def _effect(self, texts: Sequence[Generation]) -> tuple[float, float | None]:
        """The caller's measure, or the feature's mean activation on the new tokens with its error.

        Raises:
            ValueError: If the caller's is no finite number.
        """
        if self.effect is not None:
            value = float(self.effect([text.text for text in texts]))
            if not math.isfinite(value):
                raise ValueError(f"effect must give a finite number for the texts, got {value}")
            return value, None
        means = [mean for block in blocks(self.model, texts) for mean in self._presence(block)]
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        return statistics.fmean(means), spread / math.sqrt(len(means))

    def _presence(self, texts: Sequence[Generation]) -> Iterator[float]:
        """The feature's mean activation on each text's new tokens, in typical maxima."""
        site = self.control.site
        whole = [tokens_of(self.model.tokenizer, text.ids) for text in texts]
        read = trace(self.model, whole, [site]).activations[site]
        probe = Probe.of(self.suite.sae_at(site), [self.control.feature[1]], read.device)
        found = probe.activations(read)[..., 0]  # (text, pos), padded on the left
        for row, text in zip(found, texts, strict=True):
            count = len(text.tokens)
            total = float(row[len(row) - count :].sum())
            yield total / max(count, 1) / (self.control.maximum or 1.0)


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)
