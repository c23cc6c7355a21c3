"""What to train: every hyper-parameter of one SAE, checked when it is written down.

The defaults are those of the Gemma Scope recipe (Lieberum et al. 2024, arXiv 2408.05147, section
3.2) where a short run can keep them, and values tuned for a few thousand steps where it cannot:
a million steps at a learning rate of 7e-5 and a bandwidth of 0.001 become some thousands at rates
and bandwidths that are correspondingly larger.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["ACTIVATIONS", "Activation", "TrainConfig"]

Activation = Literal["jumprelu", "relu", "topk"]
ACTIVATIONS: tuple[Activation, ...] = ("jumprelu", "relu", "topk")


@dataclass(frozen=True)
class TrainConfig:
    """Hyper-parameters of one SAE.

    Lengths are in normalised units: activations are divided by one scalar so that their mean
    squared distance from their mean is 1.

    Attributes:
        d_sae: Number of features.
        activation: `"jumprelu"` (straight-through thresholds, L0 penalty), `"relu"` (L1 penalty)
            or `"topk"` (the k largest, k = `target_l0` rounded).
        target_l0: Mean number of active features per token to train towards.
        steps: Number of optimiser steps of the whole run; the schedules are stretched over it.
        batch_size: Tokens per step; the schedules count on it, ``step`` accepts any number.
        lr: Peak learning rate.
        warmup_steps: Steps over which the rate rises from a tenth of `lr` to `lr` on a cosine.
        threshold_lr: Learning rate of the thresholds, as a multiple of `lr` (JumpReLU).
        topk_until: Share of the steps, below 1, in which a JumpReLU is trained as a TopK with the
            step's target as k; then one threshold for all features that gives `target_l0` takes
            over, and training parts them. A short run learns its directions faster this way. 0
            starts with thresholds. What is stopped before is a TopK.
        decay_fraction: Last share of the steps, over which the rate falls linearly to zero. 0
            keeps it constant as Gemma Scope does; a short run gains fidelity from a decay.
        betas: Decay rates of Adam's two moments. Gemma Scope's first is 0.
        adam_eps: Added to the root of Adam's second moment.
        bandwidth: Width of the rectangle kernel of the straight-through estimator (JumpReLU).
        sparsity: JumpReLU: weight of the quadratic penalty `(L0 / target - 1) ** 2`. ReLU: starting
            L1 coefficient, which a controller then moves towards `target_l0`. TopK: not used. If
            left out, 3 for a JumpReLU and 0.1 for a ReLU (a start that is too high costs a short
            run dearly: nothing is active until the controller has come down).
        initial_l0: Mean L0 at the first step, as a multiple of `target_l0`. The target of the
            penalty falls linearly from there, which takes the place of the sparsity warm-up.
        sparsity_warmup: Share of the steps over which that target falls.
        dead_tokens: A feature that has not been active for so many tokens counts as dead.
        revive_every: Steps between two revivals of dead features; 0 never revives.
        revive_until: Share of the steps after which nothing is revived any more, so that what
            was revived last still has time to be trained.
        center: Subtract the decoder bias from the input (the pre-encoder bias), folded into the
            encoder bias at the end. Not for transcoders, whose input is another activation.
        log_every: `Trainer.step` returns measurements every so many steps.
        seed: Seed of the initialisation and of the choices made while reviving.
    """

    d_sae: int = 1024
    activation: Activation = "jumprelu"
    target_l0: float = 18.0
    steps: int = 4000
    batch_size: int = 2048
    lr: float = 2e-3
    warmup_steps: int = 100
    threshold_lr: float = 1.0
    topk_until: float = 0.4
    decay_fraction: float = 0.3
    betas: tuple[float, float] = (0.0, 0.999)
    adam_eps: float = 1e-8
    bandwidth: float = 0.03
    sparsity: float | None = None
    initial_l0: float = 3.0
    sparsity_warmup: float = 0.25
    dead_tokens: int = 400_000
    revive_every: int = 250
    revive_until: float = 0.6
    center: bool = True
    log_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A value is outside its range; the message names field, value and range.
        """
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r}: expected one of {ACTIVATIONS}.")
        for name in ("d_sae", "steps", "batch_size", "dead_tokens", "log_every"):
            self._check(name, low=1)
        for name in ("warmup_steps", "revive_every"):
            self._check(name, low=0)
        for name in ("decay_fraction", "sparsity_warmup", "revive_until", "topk_until"):
            self._check(name, low=0, high=1)
        if self.activation == "jumprelu" and self.topk_until == 1:
            raise ValueError(
                f"topk_until={self.topk_until!r}: expected below 1 for a JumpReLU, which needs "
                "steps for its thresholds; activation='topk' trains a TopK to the end."
            )
        for name in ("lr", "adam_eps", "bandwidth", "threshold_lr"):
            self._check(name, low=0, strict=True)
        if self.sparsity is None:
            object.__setattr__(self, "sparsity", 0.1 if self.activation == "relu" else 3.0)
        self._check("sparsity", low=0)
        self._check("target_l0", low=0, high=self.d_sae, strict=True)
        if self.activation == "topk":
            self._check("target_l0", low=1, high=self.d_sae)
        self._check("initial_l0", low=1)
        object.__setattr__(self, "betas", tuple(self.betas))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas!r}: expected two numbers in [0, 1).")

    def _check(
        self, name: str, *, low: float, high: float = math.inf, strict: bool = False
    ) -> None:
        value = getattr(self, name)
        above = value > low if strict else value >= low
        if not (above and value <= high):
            bound = f"{'above' if strict else 'at least'} {low:g}"
            upper = "" if math.isinf(high) else f" and at most {high:g}"
            raise ValueError(f"{name}={value!r}: expected {bound}{upper}.")

    @property
    def weight(self) -> float:
        """`sparsity` as a number, whoever chose it."""
        assert self.sparsity is not None
        return self.sparsity

    @property
    def k(self) -> int:
        """The number of features that a TopK SAE keeps."""
        return max(1, round(self.target_l0))

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step: cosine warm-up, plateau, linear decay to zero."""
        rate = self.lr
        if step < self.warmup_steps:
            rise = 0.5 * (1 - math.cos(math.pi * step / self.warmup_steps))
            rate *= 0.1 + 0.9 * rise
        left = (self.steps - step) / max(1.0, self.decay_fraction * self.steps)
        return rate * min(1.0, max(0.0, left))

    def target_at(self, step: int) -> float:
        """The L0 that the penalty asks for at a step; `target_l0` once the warm-up is over."""
        progress = min(1.0, step / max(1.0, self.sparsity_warmup * self.steps))
        start = min(self.initial_l0 * self.target_l0, 0.5 * self.d_sae)
        return max(start, self.target_l0) * (1 - progress) + self.target_l0 * progress

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; `TrainConfig(**fields)` reads them back."""
        return {**asdict(self), "betas": list(self.betas)}
