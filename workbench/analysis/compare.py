"""Two texts side by side: which tokens belong together, and where the features differ.

Tokens are aligned on their ids by the longest runs that the texts share (`difflib`, after Ratcliff
and Obershelp 1988). Between such runs tokens are paired in order, so that the word that was
exchanged stands opposite the new one; what is left over has no counterpart and is never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import zip_longest

import torch
from torch import Tensor

from workbench.features import Features

Pair = tuple[int | None, int | None]
"""Positions of one column in the first and in the second text; None where it has no such token."""


def align(first: Sequence[int], second: Sequence[int]) -> list[Pair]:
    """The columns of two texts, in order; every position of each stands in exactly one.

    >>> align([2, 10, 11, 12], [2, 10, 99, 98, 12])
    [(0, 0), (1, 1), (2, 2), (None, 3), (3, 4)]

    Args:
        first: Token ids.
        second: Token ids.
    """
    # autojunk would drop frequent tokens from texts of 200 or more, and with them the alignment.
    matcher = SequenceMatcher(None, list(first), list(second), autojunk=False)
    return [
        pair
        for _, a, a_end, b, b_end in matcher.get_opcodes()
        for pair in zip_longest(range(a, a_end), range(b, b_end))
    ]


def differences(first: Features, second: Features, pairs: Sequence[Pair]) -> Tensor:
    """The largest change of each feature over the tokens that both texts have ``(d_sae,)``.

    Its size, whether the feature fires more or less in the second text; ``<bos>`` left out. Sparse
    as the features are: an SAE of a million takes no more than a small one.

    Args:
        first: Features of one text.
        second: Features of the other, of the same SAE.
        pairs: What `align` gives.
    """
    columns, indices, values = [], [], []
    for side, features, sign in ((0, first, -1.0), (1, second, 1.0)):
        column = torch.full((len(features.tokens),), -1)
        for number, pair in enumerate(pairs):
            own = pair[side]
            if own is not None and None not in pair:
                column[own] = number
        there = column[features.positions]
        keep = (there >= 0) & features.scored
        columns.append(there[keep])
        indices.append(features.indices[keep])
        values.append(sign * features.values[keep])
    index = torch.cat(indices)
    cells, which = torch.unique(torch.cat(columns) * first.d_sae + index, return_inverse=True)
    changes = torch.zeros(len(cells)).scatter_add_(0, which, torch.cat(values)).abs()
    found = torch.zeros(first.d_sae)
    return found.scatter_reduce_(0, cells % first.d_sae, changes, "amax")
