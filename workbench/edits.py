"""Edits: what to change about an activation, as values.

Every edit is a frozen dataclass that can be printed, compared, saved and listed. An edit *adds a
difference* instead of replacing the activation by a reconstruction, so the SAE's error stays in
place and no other feature is touched. With ``f`` the feature's activation at a token, ``d`` its
decoder row and ``x`` the activation at the site:

==========================  ==============================================
`Steer(feature, s)`         ``x + s d``
`Clamp(feature, v)`         ``x + (v - f) d``
`Scale(feature, s)`         ``x + (s - 1) f d``
`Ablate(feature)`           ``x - f d``
`Patch(site, run, ...)`     another run's activation, or only the named features' part of it
`When(condition, edit)`     the edit, where another feature is above a threshold
==========================  ==============================================

Edits at one site are simultaneous: every ``f`` (of a condition, too) is that of the activation as
it arrives, and the differences are summed; two edits of one feature add up. Edits at several sites
act in execution order, each on what the earlier ones left.

Where an edit acts. ``when`` is ``"prompt"``, ``"generated"`` or ``"both"``. `positions` names
prompt positions (negative ones count from the prompt's end) and `steps` names forward passes: step
0 reads the prompt, step 1 the first generated token, and so on. ``<bos>`` is never edited unless
`positions` names 0: its activation is far outside of what SAEs were trained on.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, get_args

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

    def holds(self, step: int) -> bool:
        """Whether the token that pass `step` reads is in it; from 1 on, for all rows alike."""
        if self.when == "prompt" or self.positions is not None:
            return False
        return self.steps is None or step in self.steps

    def mask(self, positions: Tensor, prompt_length: Tensor) -> Tensor:
        """Where the edit acts.

        Args:
            positions: ``(batch, pos)`` position of each token in its own sequence; negative for
                padding.
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

    feature: Feature = field(kw_only=False)
    """``(layer, index)``."""
    kind: Kind = "res"
    """Which SAE of the layer the feature belongs to."""
    when: Occasion = "both"
    """``"prompt"``, ``"generated"`` or ``"both"``."""
    positions: Sequence[int] | None = None
    """Prompt positions, or None for all but ``<bos>``."""
    steps: Sequence[int] | None = None
    """Forward passes, or None for all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "feature", check_feature(self.feature))
        check_kind(self.kind)
        _normalise(self, "positions", "steps")
        for name in ("strength", "value", "factor"):
            _check_number(name, getattr(self, name, 0.0))
        if hasattr(self, "unit"):
            _check_choice("unit", self.unit, get_args(Unit))  # pyright: ignore[reportAttributeAccessIssue]
        _ = self.scope, self.site  # their own checks

    @property
    def site(self) -> Site:
        """Where the feature is read."""
        return Site(self.feature[0], self.kind)

    @property
    def index(self) -> int:
        """The feature's index in its SAE."""
        return self.feature[1]

    @property
    def scope(self) -> Scope:
        """Where the edit acts."""
        return Scope(self.when, _tuple(self.positions), _tuple(self.steps))

    @property
    def amount(self) -> tuple[float, Unit]:
        """The edit's own number, and its unit before calibration."""
        return 0.0, "raw"

    def line(self, amount: float) -> tuple[float, float]:
        """Constant ``a`` and slope ``b`` of the multiple ``a + b f`` of ``d`` that is added.

        Every edit is such a line, so those of a site are one multiplication and one addition.

        Args:
            amount: The edit's own number, in activation units.
        """
        raise NotImplementedError

    def coefficient(self, activation: Tensor, amount: float) -> Tensor:
        """The multiple of the decoder row that is added, in the shape of `activation`.

        Args:
            activation: The feature's activation.
            amount: The edit's own number, in activation units.
        """
        constant, slope = self.line(amount)
        return constant + slope * activation


@dataclass(frozen=True)
class Steer(FeatureEdit):
    """Add ``strength`` times the feature's direction.

    >>> Steer((5, 231), 6.0).site
    Site(5, 'res')
    """

    strength: float
    """How much, in `unit`; negative pushes away."""
    unit: Unit = field(default="max", kw_only=True)
    """``"max"``: multiples of the feature's typical maximum; ``"norm"``: shares of the layer's mean
    norm; ``"raw"``: activation units."""

    @property
    def amount(self) -> tuple[float, Unit]:
        """See `FeatureEdit`."""
        return self.strength, self.unit

    def line(self, amount: float) -> tuple[float, float]:
        """See `FeatureEdit`."""
        return amount, 0.0


@dataclass(frozen=True)
class Clamp(FeatureEdit):
    """Hold the feature at ``value``."""

    value: float
    """The activation to hold, in `unit`."""
    unit: Unit = field(default="raw", kw_only=True)
    """As for `Steer`."""

    @property
    def amount(self) -> tuple[float, Unit]:
        """See `FeatureEdit`."""
        return self.value, self.unit

    def line(self, amount: float) -> tuple[float, float]:
        """See `FeatureEdit`."""
        return amount, -1.0


@dataclass(frozen=True)
class Scale(FeatureEdit):
    """Multiply the feature by ``factor``: 0 ablates it, 1 changes nothing."""

    factor: float
    """No unit."""

    @property
    def amount(self) -> tuple[float, Unit]:
        """See `FeatureEdit`."""
        return self.factor, "raw"

    def line(self, amount: float) -> tuple[float, float]:
        """See `FeatureEdit`."""
        return 0.0, amount - 1.0


@dataclass(frozen=True)
class Ablate(FeatureEdit):
    """Take the feature out: the same as `Scale` by 0."""

    def line(self, amount: float) -> tuple[float, float]:
        """See `FeatureEdit`."""
        return 0.0, -1.0


@dataclass(frozen=True, eq=False)
class Patch:
    """Replace an activation by another run's, at the same prompt positions.

    With `features`, only their part is replaced: ``x + sum_i (f_i' - f_i) d_i``, with ``f'`` of the
    other run.
    """

    site: Site
    """Where."""
    activation: Tensor
    """``(pos, d_in)`` of the other run, such as ``run.activation(5)``."""
    positions: Sequence[int] | None = field(default=None, kw_only=True)
    """Prompt positions, or None for all but ``<bos>`` that both have."""
    features: Sequence[int] | None = field(default=None, kw_only=True)
    """Indices in the site's SAE, or None for the whole activation."""

    def __post_init__(self) -> None:
        if not isinstance(self.site, Site):
            raise TypeError(f"a patch needs a Site, such as Site(5, 'res'); got {self.site!r}")
        if self.site.kind == "transcoder":
            raise ValueError(
                f"{self.site} is only read: patch what its MLP writes, at {self.site.writes_at}"
            )
        if not isinstance(self.activation, Tensor) or self.activation.dim() != 2:
            got = tuple(getattr(self.activation, "shape", ())) or type(self.activation).__name__
            raise ValueError(f"the activation to patch in must be a tensor (pos, d_in), got {got}")
        if not torch.isfinite(self.activation).all():
            raise ValueError("the activation to patch in holds NaN or infinity")
        _normalise(self, "positions", "features")

    @property
    def scope(self) -> Scope:
        """Where the edit acts."""
        return Scope("prompt", _tuple(self.positions))


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
        object.__setattr__(self, "condition", check_feature(self.condition))
        _check_number("above", self.above)
        if not isinstance(self.edit, Steer | Clamp | Scale | Ablate):
            raise TypeError(
                f"When takes a Steer, Clamp, Scale or Ablate to do, got {type(self.edit).__name__}"
            )
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


def edit_list(edits: object) -> tuple[Edit, ...]:
    """The edits of a run as a tuple.

    Raises:
        TypeError: If it is not a sequence of edits.
    """
    if not isinstance(edits, Iterable):
        raise TypeError(f"edits is a list, such as [Steer((5, 231), 6.0)]; got {edits!r}")
    found = tuple(edits)
    for number, edit in enumerate(found):
        check_edit(number, edit)
    return found


def check_edit(number: int, edit: object) -> None:
    """Refuse what is not an edit.

    Raises:
        TypeError: With its place in the list.
    """
    if not isinstance(edit, Edit):
        raise TypeError(
            f"edit {number} is {edit!r}; an edit is one of Steer, Clamp, Scale, Ablate, Patch, When"
        )


def check_feature(feature: object) -> Feature:
    """The feature as two plain integers; a table's own integers are welcome.

    Raises:
        TypeError: If it is not ``(layer, index)``.
    """
    if isinstance(feature, tuple) and len(feature) == 2 and all(map(_is_whole, feature)):
        return operator.index(feature[0]), operator.index(feature[1])
    raise TypeError(f"a feature is (layer, index), such as (5, 231); got {feature!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _normalise(edit: object, *names: str) -> None:
    """Turn the named fields into tuples of plain integers, where they are given."""
    for name in names:
        value = getattr(edit, name)
        if value is None:
            continue
        whole = isinstance(value, Iterable) and not isinstance(value, str)
        found: tuple[Any, ...] = tuple(value) if whole else ()
        if not found or not all(map(_is_whole, found)):
            raise TypeError(
                f"{name} is a list of whole numbers, such as [1, 2], or None; got {value!r}"
            )
        object.__setattr__(edit, name, tuple(operator.index(v) for v in found))


def _tuple(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
