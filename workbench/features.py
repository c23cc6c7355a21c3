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

import pandas as pd
import torch
from torch import Tensor

from workbench.architectures import architecture_of
from workbench.sae import SAE
from workbench.sites import Site
from workbench.tokens import Tokens

Measure = Literal["max", "sum", "count"]


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
        if not 0 <= index < self.d_sae:
            raise ValueError(
                f"feature {index} does not exist at {self.site}: 0 to {self.d_sae - 1}"
            )
        out = torch.zeros(len(self.tokens))
        mine = self.indices == index
        out[self.positions[mine]] = self.values[mine]
        return out

    def columns(self, indices: Sequence[int]) -> Tensor:
        """``(pos, len(indices))`` activations of several features.

        Raises:
            ValueError: If the SAE lacks one of them.
        """
        if not indices:
            return torch.zeros(len(self.tokens), 0)
        return torch.stack([self.of(index) for index in indices], -1)

    def top(self, k: int = 20, *, by: Measure = "max") -> list[int]:
        """The `k` features that are strongest on this text, strongest first.

        Args:
            k: How many, at most.
            by: ``"max"`` activation over positions, ``"sum"`` of it, or ``"count"`` of positions.

        Raises:
            ValueError: For another measure, or a `k` below 1.
        """
        if by not in get_args(Measure):
            raise ValueError(f"by must be one of 'max', 'sum', 'count', got {by!r}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        indices, values = self.indices[self.scored], self.values[self.scored]
        if by == "count":
            values = torch.ones_like(values)
        score = torch.zeros(self.d_sae).scatter_reduce_(
            0, indices, values, "amax" if by == "max" else "sum"
        )
        best = score.topk(min(k, self.d_sae))
        return [int(i) for i, value in zip(best.indices, best.values, strict=True) if value > 0]

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
