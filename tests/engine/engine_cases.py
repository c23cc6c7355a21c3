"""One example of every edit for every kind of site, beside its formula as a rule for the hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from conftest import D_SAE
from engine.engine_oracle import (
    Place,
    Rule,
    feature,
    maximum,
    mean,
    most_active,
    reconstruction,
    row,
    seen,
    text_ids,
    usual_norm,
)
from torch import Tensor

from workbench.engine.edits import Ablate, Clamp, Patch, Scale, Splice, Steer, When
from workbench.sae import SAE
from workbench.sites import Site

Case = Callable[[Place], tuple[Any, Rule]]
LONG, SHORT, OTHER = "The cat sat", "Hi 5", "Other!"
PLACES: list[Place] = [(0, "embed"), *((1, k) for k in ("att", "transcoder", "mlp", "res"))]


def encoded_widths(patch: pytest.MonkeyPatch) -> list[int]:
    """Features of the SAE at each encoding from now on, in order."""
    widths: list[int] = []
    encode = SAE.encode

    def counted(self: SAE, x: Tensor) -> Tensor:
        widths.append(self.W_enc.shape[1])
        return encode(self, x)

    patch.setattr(SAE, "encode", counted)
    return widths


def site(place: Place) -> Site:
    return Site(*place)  # pyright: ignore[reportArgumentType]


@cache
def chosen(place: Place) -> int:
    """The feature most active in both prompts, so that the short row of a batch moves too."""

    def least(index: int) -> float:
        return min(float(feature(place, seen(t, place)[1:], index).max()) for t in (LONG, SHORT))

    return max(range(D_SAE), key=least)


def steer(unit: str) -> Case:
    def case(place: Place) -> tuple[Any, Rule]:
        i = chosen(place)
        written = (place[0], "mlp") if place[1] == "transcoder" else place
        size = {"raw": 1.0, "max": maximum(place, i)}.get(
            unit, usual_norm(written) / float(row(place, i).pow(2).sum().sqrt())
        )
        edit = Steer((place[0], i), 1.5, kind=place[1], unit=unit)  # pyright: ignore
        return edit, Rule(place, lambda x, p: 1.5 * size * row(place, i).expand(len(x), -1))

    return case


def moved(place: Place, i: int, amount: Callable[[Tensor], Tensor]) -> Rule:
    """The rule that adds ``amount(f)`` times the feature's row."""
    return Rule(place, lambda x, p: amount(feature(place, x, i))[:, None] * row(place, i))


def clamp(unit: str) -> Case:
    def case(place: Place) -> tuple[Any, Rule]:
        i = chosen(place)
        value = 2.5 if unit == "raw" else 2.5 * maximum(place, i)
        edit = Clamp((place[0], i), 2.5, kind=place[1], unit=unit)  # pyright: ignore
        return edit, moved(place, i, lambda f: value - f)

    return case


def scale(place: Place) -> tuple[Any, Rule]:
    i = chosen(place)
    edit = Scale((place[0], i), 3.0, kind=place[1])  # pyright: ignore[reportArgumentType]
    return edit, moved(place, i, lambda f: 2 * f)


def ablate(place: Place) -> tuple[Any, Rule]:
    i = chosen(place)
    edit = Ablate((place[0], i), kind=place[1])  # pyright: ignore[reportArgumentType]
    return edit, moved(place, i, lambda f: -f)


def inside(position: int, length: int) -> bool:
    """Where a patch from the other prompt can act: in the prompt, and in the other one."""
    return 0 < position < min(length, len(text_ids(OTHER)))


def other(place: Place, positions: Tensor) -> Tensor:
    """The other run's activation at `positions`; past its end anything, which must not be used."""
    found = seen(OTHER, place)
    return found[positions.clamp(max=len(found) - 1)]


def patch_whole(place: Place) -> tuple[Any, Rule]:
    return Patch(site(place), seen(OTHER, place)), Rule(
        place, lambda x, p: other(place, p) - x, inside
    )


def patch_features(place: Place) -> tuple[Any, Rule]:
    indices = (chosen(place), most_active(OTHER, place), 7)

    def delta(x: Tensor, p: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for i in indices:
            change = feature(place, other(place, p), i) - feature(place, x, i)
            total = total + change[:, None] * row(place, i)
        return total

    return Patch(site(place), seen(OTHER, place), features=indices), Rule(place, delta, inside)


def patch_positions(place: Place) -> tuple[Any, Rule]:
    edit = Patch(site(place), seen(OTHER, place), positions=(2, -1))

    def where(position: int, length: int) -> bool:
        return position in (2, length - 1) and position < len(text_ids(OTHER))

    return edit, Rule(place, lambda x, p: other(place, p) - x, where)


def when(watched: Callable[[Place], Place]) -> Case:
    def case(place: Place) -> tuple[Any, Rule]:
        watch = watched(place)
        w, i = chosen(watch), chosen(place)
        found = feature(watch, seen(LONG, watch)[1:], w)
        above = float(found.max() + found.min()) / 2
        assert 0 < int((found > above).sum()) < len(found)
        inner = Steer((place[0], i), 4.0, kind=place[1], unit="raw")  # pyright: ignore
        edit = When((watch[0], w), inner, above=above, kind=watch[1])  # pyright: ignore
        rule = moved(place, i, lambda f: torch.full_like(f, 4.0))
        return edit, replace(rule, condition=(watch, lambda x: feature(watch, x, w) > above))

    return case


def ablate_to_mean(place: Place) -> tuple[Any, Rule]:
    i = chosen(place)
    edit = Ablate((place[0], i), kind=place[1], to="mean")  # pyright: ignore[reportArgumentType]
    return edit, moved(place, i, lambda f: mean(place, i) - f)


def splice(*, error: bool = False, keep: bool = False, drop: bool = False) -> Case:
    def case(place: Place) -> tuple[Any, Rule]:
        named = (chosen(place), 3, 11, 4)
        kept = [i for i in range(D_SAE) if (i in named) == keep] if keep or drop else None
        options: dict[str, Any] = {"keep": named} if keep else {"drop": named} if drop else {}
        edit = Splice(site(place), error=error, **options)

        def value(x: Tensor, p: Tensor) -> Tensor:
            return reconstruction(place, x, kept)

        if error:
            return edit, Rule(place, lambda x, p: value(x, p) - reconstruction(place, x))
        return edit, Rule(place, value, replaces=True)

    return case


EDITS: dict[str, Case] = {
    "steer raw": steer("raw"),
    "steer max": steer("max"),
    "steer norm": steer("norm"),
    "clamp raw": clamp("raw"),
    "clamp max": clamp("max"),
    "scale": scale,
    "ablate": ablate,
    "ablate to the mean": ablate_to_mean,
    "patch whole": patch_whole,
    "patch features": patch_features,
    "patch positions": patch_positions,
    "when at the same site": when(lambda place: place),
    "when at an earlier site": when(lambda place: (0, "embed")),
    "splice": splice(),
    "splice some": splice(keep=True),
    "splice all but some": splice(drop=True),
    "splice some with error": splice(keep=True, error=True),
    "splice all but some with error": splice(drop=True, error=True),
}
