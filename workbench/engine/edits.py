"""Edits: what to change about an activation, as values.

Every edit is a frozen dataclass that can be printed, compared, saved and listed. An edit *adds a
difference* instead of replacing the activation by a reconstruction, so the SAE's error stays in
place and no other feature is touched. With ``f`` the feature's activation at a token, ``d`` its
decoder row, ``m`` its mean activation over ordinary text and ``x`` the activation at the site:

============================  ==============================================
`Steer(feature, s)`           ``x + s d``
`Clamp(feature, v)`           ``x + (v - f) d``
`Scale(feature, s)`           ``x + (s - 1) f d``
`Ablate(feature)`             ``x - f d``
`Ablate(feature, to="mean")`  ``x + (m - f) d``
`Patch(site, run, ...)`       another run's activation, or only the named features' part of it
`When(condition, edit)`       the edit, where another feature is above a threshold
`Splice(site, ...)`           ``b_dec + sum_{i kept} f_i d_i``, and ``+ (x - SAE(x))`` if asked for
`Freeze(site)`                the activation of the unedited run over the same text
============================  ==============================================

Edits at one site are simultaneous: every ``f`` (of a condition, too) is that of the activation as
it arrives, and the differences are summed; two edits of one feature add up. Only a `Freeze` comes
first: the others act on what it holds. Edits at several sites act in execution order, each on what
the earlier ones left. `workbench.scopes` says what ``when``, ``positions`` and ``steps`` mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from workbench.engine.site_edits import Freeze, Patch, Splice
from workbench.scopes import (
    Occasion,
    Scope,
    as_tuple,
    check_choice,
    check_number,
    normalise,
)
from workbench.sites import Kind, Site, check_feature, check_kind

__all__ = [
    "Ablate",
    "Clamp",
    "Edit",
    "Feature",
    "FeatureEdit",
    "Freeze",
    "Occasion",
    "Patch",
    "Scale",
    "Scope",
    "Splice",
    "Steer",
    "Unit",
    "When",
    "ablate",
    "check_edit",
    "edit_list",
    "freeze_rest",
]

Feature = tuple[int, int]
"""``(layer, index)``."""
Unit = Literal["max", "norm", "raw"]
Mean = Literal["zero", "mean"]


@dataclass(frozen=True, kw_only=True)
class FeatureEdit(ABC):
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
        normalise(self, "positions", "steps")
        for name in ("strength", "value", "factor"):
            check_number(name, getattr(self, name, 0.0))
        if hasattr(self, "unit"):
            check_choice("unit", self.unit, get_args(Unit))  # pyright: ignore[reportAttributeAccessIssue]
        if hasattr(self, "to"):
            check_choice("to", self.to, get_args(Mean))  # pyright: ignore[reportAttributeAccessIssue]
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
        return Scope(self.when, as_tuple(self.positions), as_tuple(self.steps))

    @property
    def amount(self) -> tuple[float, Unit]:
        """The edit's own number, and its unit before calibration."""
        return 0.0, "raw"

    @abstractmethod
    def line(self, amount: float) -> tuple[float, float]:
        """Constant ``a`` and slope ``b`` of the multiple ``a + b f`` of ``d`` that is added.

        Every edit is such a line, so those of a site are one multiplication and one addition.

        Args:
            amount: The edit's own number, in activation units.
        """

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
    """Take the feature out: the same as `Scale` by 0. Or hold it at its mean."""

    to: Mean = field(default="zero", kw_only=True)
    """``"zero"``, or ``"mean"``: the feature's mean activation over ordinary text."""

    def line(self, amount: float) -> tuple[float, float]:
        """See `FeatureEdit`."""
        return amount, -1.0


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
        check_number("above", self.above)
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


Edit = Steer | Clamp | Scale | Ablate | Patch | When | Splice | Freeze
"""Any edit."""


def edit_list(edits: object) -> tuple[Edit, ...]:
    """The edits of a run as a tuple.

    Raises:
        TypeError: If it is not a sequence of edits.
        ValueError: If two of them put something in the place of the same activation.
    """
    if not isinstance(edits, Iterable):
        raise TypeError(f"edits is a list, such as [Steer((5, 231), 6.0)]; got {edits!r}")
    found = tuple(edits)
    for number, edit in enumerate(found):
        check_edit(number, edit)
    _check_replacements(found)
    return found


def _check_replacements(edits: Sequence[Edit]) -> None:
    """Refuse two edits that each put something in the place of one activation.

    As differences they would add up to neither.
    """
    seen: list[tuple[int, Edit]] = []
    for number, edit in enumerate(edits):
        whole_patch = isinstance(edit, Patch) and edit.features is None
        if not whole_patch and not (isinstance(edit, Splice) and not edit.error):
            continue
        for other, before in seen:
            if before.site.writes_at == edit.site.writes_at and before.scope.may_meet(edit.scope):
                raise ValueError(
                    f"edits {other} and {number} both replace the activation at "
                    f"{edit.site.writes_at}: leave one out, or give them different positions"
                )
        seen.append((number, edit))


def check_edit(number: int, edit: object) -> None:
    """Refuse what is not an edit.

    Raises:
        TypeError: With its place in the list.
    """
    if not isinstance(edit, Edit):
        raise TypeError(
            f"edit {number} is {edit!r}; an edit is one of Steer, Clamp, Scale, Ablate, Patch, "
            "When, Splice, Freeze"
        )


def ablate(
    features: Iterable[Feature], *, kind: Kind = "res", to: Mean = "zero", **scope: Any
) -> tuple[Ablate, ...]:
    """The ablation of a whole set.

    >>> ablate([(5, 231), (6, 17)], to="mean")[1].to
    'mean'

    Args:
        features: ``(layer, index)`` of each.
        kind: Kind of site of all of them.
        to: As for `Ablate`.
        scope: ``when``, ``positions`` and ``steps``, as for every edit.

    Raises:
        ValueError: If one is there twice: it would be taken out twice.
    """
    found = tuple(Ablate(feature, kind=kind, to=to, **scope) for feature in features)
    twice = [edit.feature for i, edit in enumerate(found) if edit in found[:i]]
    if twice:
        raise ValueError(f"feature {twice[0]} is in the set twice and would be taken out twice")
    return found


def freeze_rest(
    edits: Iterable[Edit], config: Any, what: Literal["att", "all"] = "att"
) -> tuple[Freeze, ...]:
    """Freeze what comes after the first edit, so that only direct paths carry the edits.

    Args:
        edits: The edits whose direct effect is wanted; run them and the result together.
        config: Of the model: ``lab.engine.config``.
        what: ``"att"``: the attention's output of every site after the first edit; ``"all"``: the
            MLP's, too.

    Raises:
        ValueError: For another word, or if there is no edit.
    """
    check_choice("what", what, ("att", "all"))
    sites = [edit.site.writes_at for edit in edits if not isinstance(edit, Freeze)]
    if not sites:
        raise ValueError("there is no edit to freeze the rest of: give at least one")
    kinds: tuple[Kind, ...] = ("att",) if what == "att" else ("att", "mlp")
    layers = range(config.num_hidden_layers)
    rest = (Site(layer, kind) for layer in layers for kind in kinds)
    return tuple(Freeze(site) for site in rest if site > min(sites))
