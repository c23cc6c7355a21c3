"""Rows: edits as a panel and a recipe write them down, in plain words and numbers.

A row is what can be saved: it names a feature, a mode and a number, and holds no tensor. `Row.edit`
makes the edit that the engine takes, and `Row.code` the line of Python that makes the same edit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from workbench.engine.edits import Ablate, Clamp, Edit, Patch, Scale, Splice, Steer, Unit, When
from workbench.recipes.fields import check_finite, checked_fields
from workbench.sites import Kind, Site, check_kind

if TYPE_CHECKING:
    from workbench.lab import Lab

Mode = Literal["steer", "clamp", "scale", "ablate", "patch", "splice"]
MODES: tuple[Mode, ...] = get_args(Mode)
Where = Literal["both", "prompt", "generated", "positions", "steps"]
WHENS: tuple[Where, ...] = get_args(Where)
AMOUNTS = ("steer", "clamp", "scale")
"""Modes with a number."""


@dataclass(frozen=True)
class Above:
    """A condition: the row acts only where this feature is above a value."""

    layer: int
    kind: Kind
    index: int
    value: float
    """In activation units."""

    def __post_init__(self) -> None:
        _ = Site(self.layer, self.kind)
        _check_index("the condition's feature", self.index)
        check_finite("the condition's value", self.value)

    @property
    def site(self) -> Site:
        """Where it is read."""
        return Site(self.layer, self.kind)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One edit in plain words and numbers."""

    id: str
    """Name of the row within its recipe."""
    layer: int
    kind: Kind = "res"
    index: int = -1
    """Feature; -1 in a splice, which is of the whole SAE."""
    mode: Mode = "steer"
    value: float = 0.0
    """Strength of "steer", activation of "clamp" (both in `unit`), factor of "scale"."""
    unit: Unit = "max"
    """See `workbench.engine.edits.Steer`."""
    when: Where = "both"
    where: str = ""
    """Positions or steps, such as ``"0-3, 7"``, where `when` names them."""
    above: Above | None = None
    """Only where another feature is active."""
    to: Literal["zero", "mean"] = "zero"
    """What "ablate" leaves."""
    error: bool = False
    """Whether "splice" keeps the SAE's error."""
    other: str = ""
    """Text that "patch" takes the feature from."""
    keep: tuple[int, ...] | None = None
    """Features that "splice" keeps; None for all."""
    drop: tuple[int, ...] | None = None
    """Features that "splice" leaves out."""
    muted: bool = False
    solo: bool = False

    def __post_init__(self) -> None:
        check_kind(self.kind)
        _ = self.site
        _check_choice("mode", self.mode, MODES)
        _check_choice("when", self.when, WHENS)
        _check_choice("unit", self.unit, get_args(Unit))
        _check_choice("to", self.to, ("zero", "mean"))
        check_finite("value", self.value)
        if self.mode != "splice":
            _check_index("feature", self.index)
        for name in ("keep", "drop"):
            if (chosen := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(int(i) for i in chosen))
        if self.when in ("positions", "steps"):
            places(self.where)
        if self.mode == "patch" and self.when in ("generated", "steps"):
            raise ValueError(
                "a patch acts on the prompt, where the other text has positions too: "
                "choose 'prompt', 'both' or 'positions'"
            )
        if self.above is not None and self.mode in ("patch", "splice"):
            raise ValueError(f"a {self.mode} takes no condition: leave it out or choose a mode")
        if self.above is not None and self.above.site > self.site:
            raise ValueError(
                f"the condition is read at {self.above.site}, after the edit acts at {self.site}; "
                "choose a condition at the same site or before"
            )

    # --------------------------------------------------------------------- what it means

    @property
    def site(self) -> Site:
        """Where the row reads."""
        return Site(self.layer, self.kind)

    @property
    def sites(self) -> set[Site]:
        """Every site with an SAE that the row needs."""
        return {self.site} | ({self.above.site} if self.above else set())

    @property
    def neutral(self) -> bool:
        """Whether the row changes nothing as it stands."""
        return (self.mode == "steer" and self.value == 0) or (
            self.mode == "scale" and self.value == 1
        )

    @property
    def features(self) -> dict[Site, tuple[int, ...] | None]:
        """The features that it needs at each site; None for all of an SAE."""
        found: dict[Site, tuple[int, ...] | None] = {}
        if self.mode != "splice":
            found[self.site] = (self.index,)
        elif self.error and self.keep is None:
            found[self.site] = self.drop
        else:
            found[self.site] = None if self.drop is not None else self.keep
        if self.above is not None:
            before = found.get(self.above.site, ())
            found[self.above.site] = None if before is None else (*before, self.above.index)
        return found

    def edit(self, lab: Lab) -> Edit:
        """The edit; a patch reads its other text with `lab`.

        Raises:
            ValueError: If the site or the feature does not exist.
        """
        scope = {} if self.mode == "patch" else self._scope()
        if self.mode == "splice":
            return Splice(self.site, keep=self.keep, drop=self.drop, error=self.error, **scope)
        if self.mode == "patch":
            if not self.other.strip():
                raise ValueError(
                    f"row {self.id}: a patch needs the other text to take feature {self.index} from"
                )
            other = lab.run(self.other, sites=[self.site]).activation(self.layer, self.kind)
            return Patch(self.site, other, features=[self.index], **self._positions())
        feature, scope = (self.layer, self.index), {"kind": self.kind, **scope}
        if self.mode == "steer":
            edit = Steer(feature, self.value, unit=self.unit, **scope)
        elif self.mode == "clamp":
            edit = Clamp(feature, self.value, unit=self.unit, **scope)
        elif self.mode == "scale":
            edit = Scale(feature, self.value, **scope)
        else:
            edit = Ablate(feature, to=self.to, **scope)
        if self.above is None:
            return edit
        condition = (self.above.layer, self.above.index)
        return When(condition, edit, above=self.above.value, kind=self.above.kind)

    def code(self) -> str:
        """The expression that makes the same edit, where ``lab`` and ``wb`` are known."""
        feature = f"({self.layer}, {self.index})"
        scope = {} if self.mode == "patch" else self._scope()
        if self.mode == "splice":
            options = {"keep": self.keep, "drop": self.drop, "error": self.error or None} | scope
            return _call("Splice", [self._site_code()], options)
        if self.mode == "patch":
            site = self._site_code()
            other = f"lab.run({self.other!r}, sites=[{site}]).activation({self.layer}"
            other += f", {self.kind!r})"
            return _call("Patch", [site, other], {"features": [self.index]} | self._positions())
        options: dict[str, Any] = {"kind": None if self.kind == "res" else self.kind}
        if self.mode in ("steer", "clamp"):
            options["unit"] = self.unit
        if self.mode == "ablate":
            options["to"] = None if self.to == "zero" else self.to
        numbers = [repr(float(self.value))] if self.mode in AMOUNTS else []
        edit = _call(self.mode.capitalize(), [feature, *numbers], options | scope)
        if self.above is None:
            return edit
        above, kind = self.above, self.above.kind
        options = {"above": float(above.value), "kind": None if kind == "res" else kind}
        return _call("When", [f"({above.layer}, {above.index})", edit], options)

    def __str__(self) -> str:
        if self.mode == "splice":
            return f"splice of the SAE at {self.site}{' with its error' if self.error else ''}"
        what = f"feature {self.index} of {self.site}"
        if self.mode == "scale":
            return f"{what} × {self.value:g}"
        if self.mode in AMOUNTS:
            measure = {"max": " × its typical maximum", "norm": " × the layer's mean norm"}
            unit = measure.get(self.unit, "")
            return f"{what} {'at' if self.mode == 'steer' else 'held at'} {self.value:+g}{unit}"
        done = {"patch": "from the other text", "ablate": "ablated"}[self.mode]
        return f"{what} {done}{' to its mean' if self.to == 'mean' else ''}"

    # ---------------------------------------------------------------------------- as JSON

    def to_json(self) -> dict[str, Any]:
        """Every field that is not as usual."""
        usual = {f.name: f.default for f in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """The row of `to_json`.

        Raises:
            TypeError: If a field is unknown, missing or of the wrong type.
            ValueError: If a value is not allowed.
        """
        checked = checked_fields(cls, data)
        if checked.get("above") is not None:
            checked["above"] = Above(**checked_fields(Above, checked["above"]))
        return cls(**checked)

    # --------------------------------------------------------------------------- helpers

    def _scope(self) -> dict[str, Any]:
        if self.when in ("positions", "steps"):
            return {self.when: places(self.where)}
        return {} if self.when == "both" else {"when": self.when}

    def _positions(self) -> dict[str, Any]:
        return {"positions": places(self.where)} if self.when == "positions" else {}

    def _site_code(self) -> str:
        return f"wb.Site({self.layer}, {self.kind!r})"


def acting(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows that count: those on solo if there are any, else those that are not muted."""
    return tuple(row for row in rows if row.solo) or tuple(row for row in rows if not row.muted)


def places(text: str) -> tuple[int, ...]:
    """Whole numbers of a list such as ``"0-3, 7"``; negative ones count from the prompt's end.

    Raises:
        ValueError: For anything else.

    >>> places("0-3, 7, -1")
    (0, 1, 2, 3, 7, -1)
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(-?\d+)\s*(?:-\s*(-?\d+)\s*)?", part)
        if match is None:
            raise ValueError(f"places are written like '0-3, 7', got {text!r}")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first or last - first > 100_000:
            raise ValueError(f"{part.strip()!r} is no range: write the smaller number first")
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def _call(name: str, arguments: Sequence[str], options: Mapping[str, Any]) -> str:
    """``wb.name(arguments, option=value, ...)``, options of None left out."""
    parts = [
        *arguments,
        *(f"{key}={value!r}" for key, value in options.items() if value is not None),
    ]
    return f"wb.{name}({', '.join(parts)})"


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _check_index(name: str, index: int) -> None:
    if index < 0:
        raise ValueError(f"{name} must be 0 or more, got {index}")
