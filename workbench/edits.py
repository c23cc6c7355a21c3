"""Edits: what to change about an activation, as values.

Every edit is a frozen dataclass that can be printed, compared, saved and listed. An edit *adds a difference* instead of
replacing the activation by a reconstruction, so the SAE's error stays in place and no other feature is touched. With
``f`` the feature's activation at a token, ``d`` its decoder row and ``x`` the activation at the site:

==========================  ==============================================
`Steer(feature, s)`         ``x + s d``
`Clamp(feature, v)`         ``x + (v - f) d``
`Scale(feature, s)`         ``x + (s - 1) f d``
`Ablate(feature)`           ``x - f d``
`Patch(site, run, ...)`     another run's activation, or only the named features' part of it
`When(condition, edit)`     the edit, where another feature is above a threshold
==========================  ==============================================

Edits at one site are simultaneous: every ``f`` is that of the activation as it arrives, and the differences are summed.
Edits at several sites act in execution order.

Where an edit acts. ``when`` is ``"prompt"``, ``"generated"`` or ``"both"``. `positions` names prompt positions (negative
ones count from the prompt's end) and `steps` names forward passes: step 0 reads the prompt, step 1 the first generated
token, and so on. ``<bos>`` is never edited unless `positions` names 0: its activation is far outside of what SAEs were
trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from workbench.sites import Kind, Site, check_kind

Feature = tuple[int, int]
"""``(layer, index)``."""
Unit = Literal["max", "norm", "raw"]
Occasion = Literal["prompt", "generated", "both"]


@dataclass(frozen=True)
class Scope:
    """Where an edit acts; see the module's docstring."""

    when: Occasion = "both"
    positions: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_choice("when", self.when, get_args(Occasion))
        if self.positions is not None and self.when == "generated":
            raise ValueError("positions are prompt positions: use steps with when='generated'")
        if self.steps is not None and any(step < 0 for step in self.steps):
            raise ValueError(f"steps count forward passes from 0, got {min(self.steps)}")

    def mask(self, positions: Tensor, prompt_length: Tensor) -> Tensor:
        """Where the edit acts.

        Args:
            positions: ``(batch, pos)`` position of each token in its own sequence; negative for padding.
            prompt_length: ``(batch, 1)`` tokens of each prompt.

        Returns:
            ``(batch, pos)`` bool.
        """
        in_prompt = positions < prompt_length
        if self.positions is None:
            chosen = positions > 0
        else:
            wanted = torch.tensor(self.positions, device=positions.device)
            absolute = torch.where(
                wanted < 0, wanted + prompt_length, wanted.expand(len(positions), -1)
            )
            chosen = (
                (positions[:, :, None] == absolute[:, None, :]).any(-1)
                & in_prompt
                & (positions >= 0)
            )
        if self.when != "both":
            chosen &= in_prompt if self.when == "prompt" else ~in_prompt
        if self.steps is not None:
            step = (positions - prompt_length + 1).clamp(min=0)
            chosen &= torch.isin(step, torch.tensor(self.steps, device=positions.device))
        return chosen


@dataclass(frozen=True, kw_only=True)
class FeatureEdit:
    """What the edits of one feature have in common."""

    kind: Kind = "res"
    """Which SAE of the layer the feature belongs to."""
    when: Occasion = "both"
    """``"prompt"``, ``"generated"`` or ``"both"``."""
    positions: tuple[int, ...] | None = None
    """Prompt positions, or None for all but ``<bos>``."""
    steps: tuple[int, ...] | None = None
    """Forward passes, or None for all."""

    def __post_init__(self) -> None:
        check_feature(self.feature)
        check_kind(self.kind)
        for name in ("positions", "steps"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(int(v) for v in value))
        for name in ("strength", "value", "factor"):
            _check_number(name, getattr(self, name, 0.0))
        if hasattr(self, "unit"):
            _check_choice("unit", self.unit, get_args(Unit))  # pyright: ignore[reportAttributeAccessIssue]
        _ = self.scope  # its own checks

    # Declared here so that the shared code may use it; each subclass has it as its first field.
    @property
    def _feature(self) -> Feature:
        return self.feature  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def site(self) -> Site:
        """Where the feature is read."""
        return Site(self._feature[0], self.kind)

    @property
    def index(self) -> int:
        """The feature's index in its SAE."""
        return self._feature[1]

    @property
    def scope(self) -> Scope:
        """Where the edit acts."""
        return Scope(self.when, self.positions, self.steps)

    @property
    def amount(self) -> tuple[float, Unit]:
        """The number that `coefficient` takes as `amount`, and its unit before calibration."""
        return 0.0, "raw"

    def coefficient(self, activation: Tensor, amount: float) -> Tensor:
        """The multiple of the decoder row that is added, in the shape of `activation`.

        Args:
            activation: The feature's activation.
            amount: The edit's own number, already in activation units.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Steer(FeatureEdit):
    """Add ``strength`` times the feature's direction.

    >>> Steer((5, 231), 6.0).site
    Site(5, 'res')
    """

    feature: Feature
    """``(layer, index)``."""
    strength: float
    """How much, in `unit`; negative pushes away."""
    unit: Unit = field(default="max", kw_only=True)
    """``"max"``: multiples of the feature's typical maximum; ``"norm"``: shares of the layer's mean norm;
    ``"raw"``: activation units."""

    @property
    def amount(self) -> tuple[float, Unit]:
        return self.strength, self.unit

    def coefficient(self, activation: Tensor, amount: float) -> Tensor:
        return torch.full_like(activation, amount)


@dataclass(frozen=True)
class Clamp(FeatureEdit):
    """Hold the feature at ``value``."""

    feature: Feature
    """``(layer, index)``."""
    value: float
    """The activation to hold, in `unit`."""
    unit: Unit = field(default="raw", kw_only=True)
    """As for `Steer`."""

    @property
    def amount(self) -> tuple[float, Unit]:
        return self.value, self.unit

    def coefficient(self, activation: Tensor, amount: float) -> Tensor:
        return amount - activation


@dataclass(frozen=True)
class Scale(FeatureEdit):
    """Multiply the feature by ``factor``: 0 ablates it, 1 changes nothing."""

    feature: Feature
    """``(layer, index)``."""
    factor: float
    """No unit."""

    @property
    def amount(self) -> tuple[float, Unit]:
        return self.factor, "raw"

    def coefficient(self, activation: Tensor, amount: float) -> Tensor:
        return (amount - 1.0) * activation


@dataclass(frozen=True)
class Ablate(FeatureEdit):
    """Take the feature out: the same as `Scale` by 0."""

    feature: Feature
    """``(layer, index)``."""

    def coefficient(self, activation: Tensor, amount: float) -> Tensor:  # noqa: ARG002
        return -activation


@dataclass(frozen=True, eq=False)
class Patch:
    """Replace an activation by another run's, at the same prompt positions.

    With `features`, only their part is replaced: ``x + sum_i (f_i' - f_i) d_i``, with ``f'`` of the other run.
    """

    site: Site
    """Where."""
    activation: Tensor
    """``(pos, d_in)`` of the other run, such as ``run.activation(5)``."""
    positions: tuple[int, ...] | None = field(default=None, kw_only=True)
    """Prompt positions, or None for all but ``<bos>`` that both have."""
    features: tuple[int, ...] | None = field(default=None, kw_only=True)
    """Indices in the site's SAE, or None for the whole activation."""

    def __post_init__(self) -> None:
        if self.activation.dim() != 2:
            raise ValueError(
                f"the activation to patch in must be (pos, d_in), got {tuple(self.activation.shape)}"
            )
        if not torch.isfinite(self.activation).all():
            raise ValueError("the activation to patch in holds NaN or infinity")
        for name in ("positions", "features"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(int(v) for v in value))

    @property
    def scope(self) -> Scope:
        """Where the edit acts."""
        return Scope("prompt", self.positions)


@dataclass(frozen=True)
class When:
    """An edit that acts only where another feature is active.

    The condition is read at the same token, at a site no later than the edit's own.
    """

    condition: Feature
    """``(layer, index)`` of the feature to watch."""
    edit: Steer | Clamp | Scale | Ablate
    """What to do there."""
    above: float = field(default=0.0, kw_only=True)
    """Activation that has to be exceeded, in activation units."""
    kind: Kind = field(default="res", kw_only=True)
    """Which SAE of the layer the condition belongs to."""

    def __post_init__(self) -> None:
        check_feature(self.condition)
        _check_number("above", self.above)
        if self.condition_site > self.edit.site:
            raise ValueError(
                f"the condition is read at {self.condition_site}, after the edit acts at "
                f"{self.edit.site}; choose a condition at the same site or before"
            )

    @property
    def condition_site(self) -> Site:
        """Where the condition is read."""
        return Site(self.condition[0], check_kind(self.kind))

    @property
    def site(self) -> Site:
        """Where the edit acts."""
        return self.edit.site

    @property
    def scope(self) -> Scope:
        """Where the edit acts, if the condition holds."""
        return self.edit.scope


Edit = Steer | Clamp | Scale | Ablate | Patch | When
"""Any edit."""


def check_feature(feature: object) -> None:
    """Refuse what is not ``(layer, index)``.

    Raises:
        TypeError: With what was given.
    """
    if (
        not isinstance(feature, tuple)
        or len(feature) != 2
        or not all(isinstance(part, int) and not isinstance(part, bool) for part in feature)
    ):
        raise TypeError(f"a feature is (layer, index), such as (5, 231); got {feature!r}")


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
