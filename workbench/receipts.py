"""Receipts: what each edit really did.

An edit that never acted is the commonest silent mistake in steering (a wrong site, a position that
a cache never shows again, an error term that takes the change back). So every run returns, for each
edit, the forward passes and positions where it added something, and how much next to what was
there.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Act:
    """What one edit did in one run."""

    steps: tuple[int, ...]
    """Forward passes in which it added something; 0 read the prompt."""
    positions: tuple[int, ...]
    """Positions of the text where it added something."""
    mean_norm: float
    """Mean norm of what it added, over those positions, in activation units."""
    relative_norm: float
    """The same over the norm of the activation to which it was added."""

    @property
    def acted(self) -> bool:
        """Whether it changed anything at all."""
        return bool(self.positions)

    def __str__(self) -> str:
        if not self.acted:
            return "did not act"
        return (
            f"acted at {len(self.positions)} positions in {len(self.steps)} steps, adding a norm "
            f"of {self.mean_norm:.3g} ({self.relative_norm:.0%} of the activation)"
        )


@dataclass(frozen=True)
class Receipt:
    """What the edits of one run did, in their order."""

    acts: tuple[Act, ...]

    def __str__(self) -> str:
        if not self.acts:
            return "no edits"
        return "\n".join(f"edit {i}: {act}" for i, act in enumerate(self.acts))


class NoEffectWarning(UserWarning):
    """An edit changed nothing in a whole run."""


@dataclass(frozen=True, eq=False)
class _Entry:
    """What some edits added at one site in one pass."""

    norms: Tensor
    """``(batch, pos, edit)``"""
    sizes: Tensor
    """Norm of what was there ``(batch, pos)``."""
    where: Tensor
    """Position of each token ``(batch, pos)``; negative where nothing counts."""


class Recorder:
    """Collects what the edits of a batch do, pass by pass."""

    def __init__(self, edits: int, lengths: Tensor, *, warns: bool = True) -> None:
        """Start with the number of `edits` and the prompts' `lengths` ``(batch, 1)``.

        `warns` says whether an edit that never acts is warned of.
        """
        self._edits, self._lengths, self._warns = edits, lengths, warns
        self._entries: dict[tuple[int, ...], list[_Entry]] = {}
        self._seen = torch.full_like(lengths, -1)
        self._where = self._seen
        self._passes = 0

    def start_pass(self, positions: Tensor) -> None:
        """Note the `positions` ``(batch, pos)`` of the coming pass."""
        # Without a cache old tokens come by again in every pass; they count once.
        self._where = positions.masked_fill(positions <= self._seen, -1)
        self._seen = torch.maximum(self._seen, positions[:, -1:])
        self._passes += 1

    def add(self, edits: Sequence[int], norms: Tensor, sizes: Tensor) -> None:
        """Note that `edits` added vectors of `norms` ``(batch, pos, edit)``.

        `sizes` ``(batch, pos)`` are the norms of what was there. The sums wait for `receipts`, so
        that a GPU is not made to wait in every pass.
        """
        self._entries.setdefault(tuple(edits), []).append(_Entry(norms, sizes, self._where))

    def receipts(self) -> tuple[Receipt, ...]:
        """A receipt for each row; may warn once for each edit that acted in none."""
        rows = range(len(self._lengths))
        joined = {edits: _join(entries) for edits, entries in self._entries.items()}
        found = [self._acts(edit, joined) for edit in range(self._edits)]
        for edit, acts in enumerate(found):
            # A run that was stopped before it began says nothing about its edits.
            if self._warns and self._passes and not any(act.acted for act in acts):
                warnings.warn(
                    f"edit {edit} did not act: its feature, positions, steps or condition never "
                    "came up, or its strength changes nothing",
                    NoEffectWarning,
                    stacklevel=_caller(),
                )
        return tuple(Receipt(tuple(acts[row] for acts in found)) for row in rows)

    def _acts(self, edit: int, joined: dict[tuple[int, ...], _Entry]) -> list[Act]:
        """What `edit` did in each row."""
        # More than one only where a live edit became another kind on the way.
        parts = [
            (entry.norms[..., edits.index(edit)], entry.sizes, entry.where)
            for edits, entry in joined.items()
            if edit in edits
        ]
        if not parts:
            return [Act((), (), 0.0, 0.0)] * len(self._lengths)
        norms, sizes, where = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        steps = (where - self._lengths.cpu() + 1).clamp(min=0)
        return [_act(*row) for row in zip(norms, sizes, where, steps, strict=True)]


def _join(entries: Sequence[_Entry]) -> _Entry:
    """The entries of all passes as one, on the CPU."""
    return _Entry(
        torch.cat([entry.norms for entry in entries], 1).cpu(),
        torch.cat([entry.sizes for entry in entries], 1).cpu(),
        torch.cat([entry.where for entry in entries], 1).cpu(),
    )


def _act(norms: Tensor, sizes: Tensor, where: Tensor, steps: Tensor) -> Act:
    """The record of one edit in one row, from ``(pos,)`` each."""
    hit = (norms > 0) & (where >= 0)
    if not hit.any():
        return Act((), (), 0.0, 0.0)
    relative = norms[hit] / sizes[hit].clamp(min=torch.finfo(torch.float32).tiny)
    return Act(
        steps=tuple(steps[hit].unique().tolist()),
        positions=tuple(where[hit].unique().tolist()),
        mean_norm=norms[hit].mean().item(),
        relative_norm=relative.mean().item(),
    )


def _caller() -> int:
    """The `stacklevel` of the first frame outside of this package, for a warning of the caller."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("workbench."):
        level, frame = level + 1, frame.f_back
    return level
