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

import numpy as np
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

    amounts: Tensor
    """``(batch, pos, edit)``: norms, or multiples of `row_norms`."""
    row_norms: Tensor | None
    """``(edit,)``"""
    sizes: Tensor
    """Norm of what was there ``(batch, pos)``."""
    where: Tensor
    """Position of each token ``(batch, pos)``; negative where nothing counts."""


class Recorder:
    """Collects what the edits of a batch do, pass by pass."""

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        lengths: Tensor,
        *,
        warns: Sequence[bool],
    ) -> None:
        """Start with the edits of each prompt and the `lengths` ``(batch, 1)`` of all rows.

        Args:
            rows: For each prompt the numbers of its edits.
            lengths: Tokens of each row's prompt; rows beyond those of `rows` are nobody's.
            warns: For each number whether an edit that never acts is warned of.
        """
        self._rows, self._lengths, self._warns = rows, lengths, warns
        self._entries: dict[tuple[tuple[int, ...], int], list[_Entry]] = {}
        self._seen = torch.full_like(lengths, -1)
        self._where = self._seen
        self._passes = 0

    def start_pass(self, positions: Tensor, *, is_new: bool = False) -> None:
        """Note the `positions` ``(batch, pos)`` of the coming pass; `is_new` if all are new."""
        self._passes += 1
        if is_new:
            self._where = positions
            return
        # Without a cache old tokens come by again in every pass; they count once.
        self._where = positions.masked_fill(positions <= self._seen, -1)
        self._seen = torch.maximum(self._seen, positions[:, -1:])

    def add(
        self, edits: tuple[int, ...], amounts: Tensor, row_norms: Tensor | None, sizes: Tensor
    ) -> None:
        """Note that `edits` added vectors of norms `amounts` ``(batch, pos, edit)``.

        With `row_norms` ``(edit,)`` the amounts are multiples of those. `sizes` ``(batch, pos)``
        are the norms of what was there. The arithmetic waits for `receipts`, so that it costs
        nothing in a pass, and a GPU is not made to wait.
        """
        entry = _Entry(amounts, row_norms, sizes, self._where)
        # A live edit may have become another feature on the way, with a row of another norm.
        self._entries.setdefault((edits, id(row_norms)), []).append(entry)

    def receipts(self) -> tuple[Receipt, ...]:
        """A receipt for each prompt; may warn once for each edit that acted in none."""
        joined = [(edits, _join(entries)) for (edits, _), entries in self._entries.items()]
        acts = {
            (row, edit): _acts(edit, row, joined, int(self._lengths[row]))
            for row, edits in enumerate(self._rows)
            for edit in edits
        }
        # A run that was stopped before it began says nothing about its edits.
        if self._passes:
            self._warn({edit for (_, edit), act in acts.items() if act.acted})
        return tuple(
            Receipt(tuple(acts[row, edit] for edit in edits))
            for row, edits in enumerate(self._rows)
        )

    def _warn(self, acted: set[int]) -> None:
        """Warn of the edits that did nothing anywhere."""
        for edit, warns in enumerate(self._warns):
            owners = [row for row, edits in enumerate(self._rows) if edit in edits]
            if not warns or edit in acted or not owners:
                continue
            place = self._rows[owners[0]].index(edit)
            whose = "" if len(owners) == len(self._rows) else f" of prompt {owners[0]}"
            warnings.warn(
                f"edit {place}{whose} did not act: its feature, positions, steps or condition "
                "never came up, or its strength changes nothing",
                NoEffectWarning,
                stacklevel=_caller(),
            )


_Joined = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Norms ``(batch, pos, edit)``, sizes and positions ``(batch, pos)`` of all passes."""


def _join(entries: Sequence[_Entry]) -> _Joined:
    amounts = torch.cat([entry.amounts for entry in entries], 1)
    scale = entries[0].row_norms
    norms = amounts if scale is None else amounts.abs() * scale
    sizes = torch.cat([entry.sizes for entry in entries], 1)
    where = torch.cat([entry.where for entry in entries], 1)
    # As arrays: hundreds of small sums are several times faster there than as tensors.
    # A pass that is differentiated keeps its gradient up to here.
    return norms.detach().cpu().numpy(), sizes.detach().cpu().numpy(), where.cpu().numpy()


def _acts(
    edit: int, row: int, joined: Sequence[tuple[tuple[int, ...], _Joined]], length: int
) -> Act:
    """What `edit` did in a row whose prompt has `length` tokens."""
    # More than one part only where a live edit became another on the way.
    parts = [
        (norms[row, :, edits.index(edit)], sizes[row], where[row])
        for edits, (norms, sizes, where) in joined
        if edit in edits
    ]
    if not parts:
        return Act((), (), 0.0, 0.0)
    if len(parts) == 1:
        return _act(*parts[0], length)
    norms, sizes, where = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _act(norms, sizes, where, length)


def _act(norms: np.ndarray, sizes: np.ndarray, where: np.ndarray, length: int) -> Act:
    """The record of one edit in one row, from ``(pos,)`` each."""
    hit = (norms > 0) & (where >= 0)
    norms = norms[hit]
    if not len(norms):
        return Act((), (), 0.0, 0.0)
    positions = sorted(set(where[hit].tolist()))
    relative = norms / np.maximum(sizes[hit], np.finfo(np.float32).tiny)
    return Act(
        steps=tuple(dict.fromkeys(max(position - length + 1, 0) for position in positions)),
        positions=tuple(positions),
        mean_norm=float(norms.mean()),
        relative_norm=float(relative.mean()),
    )


def _caller() -> int:
    """The ``stacklevel`` of the first frame outside of this package, for a warning."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("workbench."):
        level, frame = level + 1, frame.f_back
    return level
