"""Sparse feature activations of one text at one site, and what a feature writes to the output.

Of the thousands of features of an SAE a few dozen are active at a token, so only those are kept:
three arrays
``(active,)`` of positions, feature indices and values. ``<bos>`` and other masked positions are
kept as data and left out of every ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from workbench.architectures import architecture_of
from workbench.sae import SAE
from workbench.sites import Site, is_whole
from workbench.tokens import Tokens

Measure = Literal["max", "sum", "count", "weighted"]
"""What strongest means: `Features.scores` says how each is computed."""


@dataclass(frozen=True)
class Features:
    """The active features of a text at one site, on the CPU."""

    site: Site
    """Where they were read."""
    tokens: Tokens
    """The text."""
    positions: Tensor
    """``(active,)`` position of each entry, ascending."""
    indices: Tensor
    """``(active,)`` feature of each entry."""
    values: Tensor
    """``(active,)`` feature activation of each entry, above 0."""
    d_sae: int
    """Number of features of the SAE."""

    @classmethod
    def encode(cls, sae: SAE, site: Site, tokens: Tokens, activation: Tensor) -> Features:
        """Encode the `activation` ``(pos, d_in)`` of a text."""
        rows, indices, values = sae.encode_sparse(activation.to(sae.W_enc.device))
        return cls(site, tokens, rows.cpu(), indices.cpu(), values.float().cpu(), sae.config.d_sae)

    def __repr__(self) -> str:
        l0 = len(self.values) / max(len(self.tokens), 1)
        return f"<Features at {self.site}: {len(self.tokens)} tokens, {l0:.1f} active a token>"

    @property
    def scored(self) -> Tensor:
        """``(active,)`` bool: the entries that rankings count, which leave ``<bos>`` out."""
        return self.positions > 0

    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        """``(pos, d_sae)`` of the positions from `start` to `stop`, of all if left out.

        Large for a long text and a wide SAE: 2 GB for 512 tokens and a million features.
        """
        stop = len(self.tokens) if stop is None else min(stop, len(self.tokens))
        out = torch.zeros(max(stop - start, 0), self.d_sae)
        inside = (self.positions >= start) & (self.positions < stop)
        out[self.positions[inside] - start, self.indices[inside]] = self.values[inside]
        return out

    def of(self, index: int) -> Tensor:
        """``(pos,)`` activation of one feature.

        Raises:
            ValueError: If the SAE has no such feature.
        """
        self._check(index)
        out = torch.zeros(len(self.tokens))
        mine = self.indices == index
        out[self.positions[mine]] = self.values[mine]
        return out

    def columns(self, indices: Sequence[int]) -> Tensor:
        """``(pos, len(indices))`` activations of several features.

        Raises:
            ValueError: If the SAE lacks one of them.
        """
        for index in indices:
            self._check(index)
        column = torch.full((self.d_sae,), -1)
        wanted, where = torch.tensor(list(indices), dtype=torch.long).unique(return_inverse=True)
        column[wanted] = torch.arange(len(wanted))
        to = column[self.indices]
        out = torch.zeros(len(self.tokens), len(wanted))
        out[self.positions[to >= 0], to[to >= 0]] = self.values[to >= 0]
        return out[:, where]

    def scores(self, by: Measure = "max", *, density: Tensor | None = None) -> Tensor:
        """How much each feature has to do with this text ``(d_sae,)``; 0 where it never fires.

        Args:
            by: ``"max"`` activation over positions, ``"sum"`` of it, ``"count"`` of positions, or
                ``"weighted"``: the maximum over the feature's share of ordinary tokens, so that
                features come first that fire here and hardly anywhere else.
            density: Those shares ``(d_sae,)``, for ``"weighted"``. One that was measured as 0
                counts as the smallest other: it is rarer, and nobody knows by how much.

        Raises:
            ValueError: For another measure, or ``"weighted"`` without `density`.
        """
        if by not in get_args(Measure):
            raise ValueError(
                f"by must be one of {', '.join(map(repr, get_args(Measure)))}, got {by!r}"
            )
        indices, values = self.indices[self.scored], self.values[self.scored]
        if by == "count":
            values = torch.ones_like(values)
        how = "sum" if by in ("sum", "count") else "amax"
        scores = torch.zeros(self.d_sae).scatter_reduce_(0, indices, values, how)
        if by != "weighted":
            return scores
        if density is None or not (density > 0).any():
            raise ValueError(
                f"by='weighted' divides by how often a feature fires in ordinary text, and nobody "
                f"measured that at {self.site}; use by='max', 'sum' or 'count'"
            )
        return scores / density.clamp(min=float(density[density > 0].min()))

    def ranked(self, by: Measure = "max", *, density: Tensor | None = None) -> list[int]:
        """Every feature that fires on this text, by `scores`, the largest first."""
        return ranked(self.scores(by, density=density))

    def top(self, k: int = 20, *, by: Measure = "max", density: Tensor | None = None) -> list[int]:
        """The `k` features that are strongest on this text, strongest first.

        Args:
            k: How many, at most.
            by: Which are strongest; see `scores`.
            density: See there.

        Raises:
            ValueError: For another measure, or a `k` below 1.
        """
        return self.ranked(by, density=density)[: check_count(k)]

    def to_frame(self, label: Callable[[int], str] | None = None) -> pd.DataFrame:
        """One row for each active feature at each scored position.

        Args:
            label: Gives a feature's label.

        Returns:
            Columns ``position, token, feature, activation, label``, strongest first within a
            position.
        """
        keep = self.scored
        frame = pd.DataFrame(
            {
                "position": self.positions[keep].numpy(),
                "token": [self.tokens.strings[p] for p in self.positions[keep].tolist()],
                "feature": self.indices[keep].numpy(),
                "activation": self.values[keep].numpy(),
            }
        )
        frame["label"] = [label(i) if label else "" for i in frame["feature"]]
        order = ["position", "activation"]
        return frame.sort_values(order, ascending=[True, False], kind="stable", ignore_index=True)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.d_sae:
            raise ValueError(
                f"feature {index} does not exist at {self.site}: 0 to {self.d_sae - 1}"
            )


def ranked(scores: Tensor) -> list[int]:
    """Indices of the scores above 0 ``(d_sae,)``, the largest first; of equal ones the first."""
    found = scores.nonzero()[:, 0]
    found = found[scores[found] > 0]
    return found[scores[found].argsort(descending=True, stable=True)].tolist()


def similar_order(columns: Tensor) -> list[int]:
    """An order in which features that fire on the same tokens stand together.

    A walk: from the first column always to the nearest one not yet visited, by cosine over the
    tokens. Greedy, so a late group can be torn apart, which a tree of clusters would not do; but it
    needs no threshold and no other library, and begins with the strongest. Silent columns go last.

    Args:
        columns: Activations ``(pos, feature)``, masked positions left out.
    """
    unit = nn.functional.normalize(columns.float(), dim=0)
    cosines = (unit.T @ unit).numpy()
    left = unit.any(0).numpy()
    order: list[int] = []
    while left.any():
        # Where no column left shares a token with this one, argmax takes the first: the strongest.
        nearness = cosines[order[-1]] if order else left
        order.append(int(np.where(left, nearness, -1.0).argmax()))
        left[order[-1]] = False
    return order + sorted(set(range(len(left))) - set(order))


def check_count(k: int) -> int:
    """`k` itself when it is a number of features.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is below 1.
    """
    if not is_whole(k):
        raise TypeError(f"k must be a whole number, got {k!r}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return k


def logit_effects(module: Any, direction: Tensor) -> Tensor:
    """What a residual direction adds to each logit ``(vocabulary,)``, up to a positive factor.

    The direct path only: through the linear part of the final norm (its gain, and the centring of
    a layer norm) and the unembedding. The norm's division and the soft cap depend on the rest of
    the stream and keep the order of the tokens, so they are left out.

    Args:
        module: A transformers model of an architecture that `workbench.architectures` knows.
        direction: ``(d_model,)``.

    Raises:
        ValueError: If the architecture is unknown.
    """
    return architecture_of(module).into_logits(module, direction)
