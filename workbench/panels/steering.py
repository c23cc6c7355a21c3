"""Sliders that steer a text while it is written, beside its unsteered twin.

A run writes the unsteered text first (once for each prompt and setting, then kept), and the steered
one after it with the same seed. How far the edits moved each token is the Kullback-Leibler
divergence from the unsteered distribution *after the same text*, so the steered text is read once
more without edits when it is finished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.edits import Ablate, Clamp, Edit, Scale, Steer, Unit
from workbench.panels.base import Panel
from workbench.panels.jobs import LatestJob
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import Tokens
from workbench.tracing import Generation, LiveEdits, Step, generate, trace
from workbench.widgets import SteeringPanel

if TYPE_CHECKING:
    from workbench.lab import Lab

FeatureEdit = Steer | Clamp | Scale | Ablate
ROUNDING = 1e-5
"""Divergence in nats below which a difference is that of two orders of summation."""
ALTERNATIVES = 3
"""Other tokens that are shown for each written one."""


class Steering(Panel[SteeringPanel]):
    """A slider for each feature; text streams beside its unsteered twin."""

    def __init__(
        self,
        lab: Lab,
        prompt: str,
        features: Sequence[tuple[int, int]],
        *,
        kind: Kind = "res",
        strength: float = 0.0,
        low: float | None = None,
        high: float | None = None,
        max_new_tokens: int = 60,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seed: int = 0,
        synchronous: bool = False,
    ) -> None:
        """Make the panel; nothing runs before Run is pressed or a slider is moved.

        Args:
            lab: The model and its SAEs.
            prompt: What the texts begin with.
            features: ``(layer, index)`` of each slider.
            kind: Kind of site of the features.
            strength: Where the sliders start, in multiples of the feature's typical maximum, or of
                the layer's mean norm where no typical maximum is known.
            low: Left end of the sliders; -4 maxima or -1 norm if left out.
            high: Right end of the sliders; 4 maxima or 1 norm if left out.
            max_new_tokens: Length of the texts.
            temperature: See `workbench.tracing.generate`.
            top_p: See there.
            seed: See there; the same for both texts.
            synchronous: Write in the calling thread, for front ends that show no updates from
                others.

        Raises:
            ValueError: If there is no feature, or one does not exist.
        """
        if not features:
            raise ValueError(
                "name at least one feature to steer, such as features=[(5, 231)]; lab.find helps"
            )
        self.lab = lab
        sites = [Site(layer, check_kind(kind)) for layer, _ in features]
        units: list[Unit] = ["max" if lab.suite.calibrated(site) else "norm" for site in sites]
        self.edits = LiveEdits(
            [
                Steer((layer, index), strength, kind=kind, unit=unit)
                for (layer, index), unit in zip(features, units, strict=True)
            ]
        )
        self._muted = [False] * len(features)
        self._options = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
        }
        self._plain: tuple[str, Generation, list[dict]] | None = None
        lab.prepare(self.edits.edits)
        for edit in self.edits.edits:  # an unknown or silent feature is refused here
            _check_feature(lab, edit)
        self.widget = SteeringPanel(
            title="Steering",
            subtitle=f"{lab.engine.name}, temperature {temperature:g}, seed {seed}",
            prompt=prompt,
            rows=[
                {
                    "layer": site.layer,
                    "kind": site.kind,
                    "index": index,
                    "label": lab.suite.label(site, index),
                    **_scale(unit, low, high),
                    "value": strength,
                    "mode": "steer",
                    **_safe(lab, site, index),
                }
                for site, (_, index), unit in zip(sites, features, units, strict=True)
            ],
        )
        self.job = LatestJob(self._failed, synchronous=synchronous)
        self.widget.on_run(lambda _prompt: self.start())
        self.widget.on_stop(self.job.stop)
        self.widget.on_change(self._changed)
        self.widget.on_mute(self._mute)
        self._update_code()

    def start(self) -> None:
        """Write both texts with the present prompt and sliders; returns at once."""
        self.widget.error = ""
        self._update_code()
        self.job.submit(self._write)

    def stop(self) -> None:
        """Stop writing within one token."""
        self.job.stop()

    @property
    def text(self) -> str:
        """The steered text so far, prompt left out."""
        return "".join(token["text"] for token in self.widget.steered)

    def _changed(self, row: int, value: float) -> None:
        self._set(row, value)
        self._update_code()
        running = self.widget.status.get("state") == "running"
        if not (running and self.widget.live == "next"):
            self.start()

    def _mute(self, row: int, muted: bool) -> None:  # noqa: FBT001 (the widget's own callback)
        self._muted[row] = muted
        self._changed(row, self.widget.rows[row]["value"])

    def _set(self, row: int, value: float) -> None:
        edit = self.edits.edits[row]
        assert isinstance(edit, Steer)
        self.edits.replace(row, replace(edit, strength=0.0 if self._muted[row] else float(value)))

    def _write(self, stop: threading.Event) -> None:
        widget, total = self.widget, self._options["max_new_tokens"]
        prompt = self.lab.tokens(widget.prompt)
        run = widget.start(total=total, prompt=widget.prompt)
        plain = self._unsteered(run, prompt, stop)
        if stop.is_set() or plain is None:
            widget.finish(run, state="stopped")
            return
        stream = _Stream(self, run, "steered")
        edits = self.edits if any(self._acting()) else ()
        steered = self._generate(prompt, edits, stream, stop)
        self._shade(steered, stream)
        state = "stopped" if steered.finish == "stopped" else "done"
        widget.finish(
            run,
            state=state,
            receipt=self._receipt(steered),
            rate=stream.rate(),
            steered=stream.tokens,
        )

    def _unsteered(self, run: int, prompt: Tokens, stop: threading.Event) -> Generation | None:
        """The twin: written once, then shown again as it was."""
        key = f"{prompt.ids} {self._options}"
        if self._plain is None or self._plain[0] != key:
            stream = _Stream(self, run, "plain")
            twin = self._generate(prompt, (), stream, stop)
            if twin.finish == "stopped":
                return None
            self._plain = (key, twin, stream.tokens)
        else:
            self.widget.stream(run, "plain", self._plain[2])
        return self._plain[1]

    def _generate(
        self, prompt: Tokens, edits: LiveEdits | tuple[()], stream: _Stream, stop: threading.Event
    ) -> Generation:
        return generate(
            self.lab.engine,
            [prompt],
            edits=edits,
            source=self.lab.suite,
            stream=stream,
            stop=stop,
            **self._options,
        )[0]

    def _acting(self) -> list[bool]:
        return [isinstance(e, Steer) and e.strength != 0 for e in self.edits.edits]

    def _shade(self, steered: Generation, stream: _Stream) -> None:
        """Note for each token how far the edits moved it, and its probability without them."""
        if not stream.logits:
            return
        whole = Tokens(
            steered.ids,
            (*steered.prompt.strings, *steered.tokens.strings),
            (*steered.prompt.special, *steered.tokens.special),
        )
        first = len(steered.prompt) - 1
        read = trace(self.lab.engine, [whole]).logits[0, first : first + len(stream.logits)]
        plain, moved = (x.float().log_softmax(-1) for x in (read, torch.stack(stream.logits)))
        divergence = (moved.exp() * (moved - plain)).sum(-1).clamp(min=0)
        for i, token in enumerate(stream.tokens):
            token["shift"] = float(divergence[i]) if divergence[i] > ROUNDING else 0.0
            token["p_before"] = float(plain[i, steered.tokens.ids[i]].exp())

    def _receipt(self, steered: Generation) -> list[str]:
        if not any(self._acting()):
            return ["no edit: every slider is at 0 or muted"]
        lines = []
        for edit, act in zip(self.edits.edits, steered.receipt.acts, strict=True):
            assert isinstance(edit, Steer)
            measure = "its typical maximum" if edit.unit == "max" else "the layer's mean norm"
            name = f"feature {edit.index} of {edit.site} at {edit.strength:+g} × {measure}"
            idle = " (slider at 0 or muted)" if edit.strength == 0 else ""
            lines.append(f"{name}: {act}{idle}")
        return lines

    def _update_code(self) -> None:
        edits = ", ".join(
            f"wb.Steer({e.feature}, {e.strength:g}, kind={e.kind!r}"
            f"{'' if e.unit == 'max' else f', unit={e.unit!r}'})"
            for e in self.edits.edits
            if isinstance(e, Steer) and e.strength
        )
        options = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        self.widget.code = (
            f"lab = wb.open({self.lab.engine.name!r})\n"
            f"lab.generate({self.widget.prompt!r}, edits=[{edits}], {options})"
        )

    def _failed(self, error: BaseException) -> None:
        message = f"{type(error).__name__}: {error}"
        if self.widget.status.get("state") == "running":
            self.widget.finish(self.widget.run, state="error", error=message)
        else:
            self.widget.error = message


def _check_feature(lab: Lab, edit: Edit) -> None:
    assert isinstance(edit, Steer)
    if edit.unit == "max":
        lab.suite.typical_maximum(edit.site, edit.index)
    else:
        lab.suite.sae_at(edit.site).check_index(edit.index)


def _scale(unit: Unit, low: float | None, high: float | None) -> dict[str, object]:
    """Ends, step and unit of a slider."""
    end, step, name = (4.0, 0.1, "× max") if unit == "max" else (1.0, 0.02, "× norm")
    return {
        "low": -end if low is None else low,
        "high": end if high is None else high,
        "step": step,
        "unit": name,
    }


def _safe(lab: Lab, site: Site, index: int) -> dict[str, list[float]]:
    """The range of strengths that kept the text fluent, where it was tested."""
    tested = lab.suite.tested_strength(site, index)
    return {} if tested is None else {"safe": [0.0, tested]}


class _Stream:
    """Sends each token of a generation to one column of the panel."""

    def __init__(self, panel: Steering, run: int, column: str) -> None:
        self.panel, self.run, self.column = panel, run, column
        self.tokens: list[dict] = []
        self.logits: list[Tensor] = []
        self._began: float | None = None

    def __call__(self, step: Step) -> None:
        if self._began is None:
            self._began = time.monotonic()
        self.logits.append(step.logits[0].float().cpu())
        probabilities = self.logits[-1].softmax(-1)
        token = {
            "text": step.strings[0],
            "p": float(probabilities[step.ids[0]]),
            "top": self._alternatives(probabilities, step.ids[0]),
        }
        self.tokens.append(token)
        self.panel.widget.stream(self.run, self.column, [token])

    def rate(self) -> float:
        """Tokens a second, from the first token on."""
        if self._began is None or len(self.tokens) < 2:
            return 0.0
        return (len(self.tokens) - 1) / max(time.monotonic() - self._began, 1e-9)

    def _alternatives(self, probabilities: Tensor, chosen: int) -> list[list]:
        best = torch.topk(probabilities, ALTERNATIVES + 1)
        tokenizer = self.panel.lab.tokenizer
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [[tokenizer.decode([i]), p] for i, p in pairs if i != chosen][:ALTERNATIVES]
