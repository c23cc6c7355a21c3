"""Passages: some of the text of an index, as rows that the engine reads.

The documents are drawn at random, so that a corpus in some order is not read at its beginning
alone. Rows are filled up on the right, where no token of a decoder can see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.index import Index
from workbench.models import Model
from workbench.tokens import Tokens

TOKENS = 32_768
"""Scored tokens that are read if nobody says how many."""
CONTEXT, TOGETHER = 128, 4096
"""Tokens of a row, and of the rows that are read together, at most."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of the same length."""

    ids: Tensor
    """``(row, pos)`` token ids."""
    scored: Tensor
    """``(row, pos)`` bool: neither ``<bos>`` nor filled up."""

    def of(self, x: Tensor) -> Tensor:
        """The scored tokens of an activation ``(row, pos, d)``, as ``(token, d)``."""
        return x[self.scored.to(x.device)]

    def __len__(self) -> int:
        """Scored tokens."""
        return int(self.scored.sum())


def rows_of(tokens: Tokens) -> list[Rows]:
    """One text, whose first token is not scored."""
    ids = torch.tensor(tokens.ids)[None]
    return [Rows(ids, torch.arange(ids.shape[1])[None] > 0)]


def passages(model: Model, index: Index, tokens: int = TOKENS, *, seed: int = 0) -> list[Rows]:
    """Random documents of an index until they have `tokens` tokens, or all of them.

    Args:
        model: Whose ``<bos>`` comes before each row.
        index: Whose documents.
        tokens: How many at least, if the index has so many.
        seed: Of the choice.

    Raises:
        ValueError: If no token is asked for, or the index has no text.
    """
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {tokens}")
    width = min(CONTEXT, model.config.max_position_embeddings)
    bos = model.tokenizer.bos_token_id
    first = [] if bos is None else [bos]
    order = np.random.default_rng(seed).permutation(index.meta["documents"])
    texts: list[list[int]] = []
    left = tokens
    for document in order.tolist():
        ids, step = index.ids(document).tolist(), width - len(first)
        pieces = [first + ids[at : at + step] for at in range(0, len(ids), step)]
        texts += pieces
        left -= sum(len(piece) - len(first) for piece in pieces)
        if left <= 0:
            break
    if not texts:
        raise ValueError(f"{index.path} has no text to read")
    return list(_packed(texts, len(first)))


def _packed(texts: list[list[int]], skip: int) -> Iterator[Rows]:
    """Texts of like length together, as they come if they are all the same."""
    texts = sorted(texts, key=len)
    while texts:
        widest = len(texts[-1])
        count = max(1, TOGETHER // widest)
        batch, texts = texts[-count:], texts[:-count]
        ids = torch.zeros(len(batch), widest, dtype=torch.long)
        scored = torch.zeros(len(batch), widest, dtype=torch.bool)
        for row, text in enumerate(batch):
            ids[row, : len(text)] = torch.tensor(text)
            scored[row, skip : len(text)] = True
        yield Rows(ids, scored)
