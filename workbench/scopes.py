"""Where edits act, and the checks that all of them share.

``when`` is ``"prompt"``, ``"generated"`` or ``"both"``. ``positions`` names prompt positions
(negative ones count from the prompt's end) and ``steps`` names forward passes: step 0 reads the
prompt, step 1 the first generated token, and so on. ``<bos>`` is never edited unless ``positions``
names 0: its activation is far outside of what SAEs were trained on.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from workbench.sites import is_whole

Occasion = Literal["prompt", "generated", "both"]


@dataclass(frozen=True)
class Scope:
    """Where an edit acts; see the module's docstring."""

    when: Occasion = "both"
    positions: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_choice("when", self.when, get_args(Occasion))
        if self.positions is not None and self.when == "generated":
            raise ValueError("positions are prompt positions: use steps with when='generated'")
        if self.steps is not None and any(step < 0 for step in self.steps):
            raise ValueError(f"steps count forward passes from 0, got {min(self.steps)}")

    def holds(self, step: int) -> bool:
        """Whether the token that pass `step` reads is in it; from 1 on, for all rows alike."""
        if self.when == "prompt" or self.positions is not None:
            return False
        return self.steps is None or step in self.steps

    def may_meet(self, other: Scope) -> bool:
        """Whether there can be a token that is in both."""
        pairs = [(self.steps, other.steps), (self.positions, other.positions)]
        signs = {position < 0 for position in (*(self.positions or ()), *(other.positions or ()))}
        if len(signs) == 2:  # where the prompt's end is, nobody knows yet
            pairs.pop()
        apart = any(a is not None and b is not None and not {*a} & {*b} for a, b in pairs)
        return not apart and {self.when, other.when} != {"prompt", "generated"}

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


def normalise(edit: object, *names: str, empty: bool = False) -> None:
    """Turn the named fields of an edit into tuples of plain integers, where they are given.

    Raises:
        TypeError: If one holds anything else, or nothing where it may not be `empty`.
    """
    for name in names:
        value = getattr(edit, name)
        if value is None:
            continue
        listed = isinstance(value, Iterable) and not isinstance(value, str)
        found: tuple[Any, ...] = tuple(value) if listed else ()
        if not (listed and (found or empty)) or not all(map(is_whole, found)):
            raise TypeError(
                f"{name} is a list of whole numbers, such as [1, 2], or None; got {value!r}"
            )
        object.__setattr__(edit, name, tuple(operator.index(v) for v in found))


def as_tuple(values: Sequence[int] | None) -> tuple[int, ...] | None:
    """A list as a tuple; None stays None."""
    return None if values is None else tuple(values)


def check_number(name: str, value: object) -> None:
    """Refuse what is no finite number.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse what is none of `choices`.

    Raises:
        ValueError: Naming them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
