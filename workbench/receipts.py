"""Receipts: what each edit really did.

An edit that never acted is the commonest silent mistake in steering (a wrong site, a position that a cache never
shows again, an error term that takes the change back). So every run returns, for each edit, the forward passes and
positions where it added something, and how much next to what was there.
"""

from __future__ import annotations

import warnings
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
    """The same over the norm of the activation there."""

    @property
    def acted(self) -> bool:
        """Whether it changed anything at all."""
        return bool(self.positions)

    def __str__(self) -> str:
        if not self.acted:
            return "did not act"
        return (
            f"acted at {len(self.positions)} positions in {len(self.steps)} steps, adding a norm of "
            f"{self.mean_norm:.3g} ({self.relative_norm:.0%} of the activation)"
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


class Recorder:
    """Collects what the edits of a batch do, pass by pass."""

    def __init__(self, edits: int, rows: int) -> None:
        self._edits, self._rows = edits, rows
        self._entries: list[tuple[int, Tensor, Tensor, Tensor, Tensor]] = []
        self._where = self._step = torch.empty(0)

    def start_pass(self, positions: Tensor, lengths: Tensor) -> None:
        """Note the `positions` ``(batch, pos)`` of the coming pass and the prompts' `lengths` ``(batch, 1)``."""
        self._where = positions
        self._step = (positions - lengths + 1).clamp(min=0)

    def add(self, edit: int, norms: Tensor, x: Tensor) -> None:
        """Note that `edit` added vectors of `norms` ``(batch, pos)`` to `x` ``(batch, pos, d)``."""
        # Only references are kept while the model runs; the sums wait for `receipts`.
        self._entries.append((edit, norms, x, self._where, self._step))

    def receipts(self) -> tuple[Receipt, ...]:
        """A receipt for each row; warns once for each edit that acted in none."""
        acts = [[self._act(edit, row) for edit in range(self._edits)] for row in range(self._rows)]
        for edit in range(self._edits):
            if not any(row[edit].acted for row in acts):
                warnings.warn(
                    f"edit {edit} did not act: its feature, positions, steps or condition never came up",
                    NoEffectWarning,
                    stacklevel=4,
                )
        return tuple(Receipt(tuple(row)) for row in acts)

    def _act(self, edit: int, row: int) -> Act:
        mine = [entry for entry in self._entries if entry[0] == edit]
        if not mine:
            return Act((), (), 0.0, 0.0)
        norms = torch.cat([norm[row] for _, norm, _, _, _ in mine]).float()
        sizes = torch.cat([x[row].float().norm(dim=-1) for _, _, x, _, _ in mine])
        where = torch.cat([position[row] for _, _, _, position, _ in mine])
        step = torch.cat([steps[row] for _, _, _, _, steps in mine])
        hit = (norms > 0) & (where >= 0)
        if not hit.any():
            return Act((), (), 0.0, 0.0)
        relative = norms[hit] / sizes[hit].clamp(min=torch.finfo(torch.float32).tiny)
        return Act(
            steps=tuple(step[hit].unique().tolist()),
            positions=tuple(where[hit].unique().tolist()),
            mean_norm=norms[hit].mean().item(),
            relative_norm=relative.mean().item(),
        )
