"""How good and how sparse an SAE is on given activations.

The figures of Gemma Scope (Lieberum et al. 2024, arXiv 2408.05147, section 4.1) that need no
language model. None of them knows positions: leave position 0 (the BOS token, whose activation is
huge and was not trained on) and padding out before the call.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["density", "fvu", "l0"]


def fvu(x: Tensor, xhat: Tensor) -> float:
    """Fraction of variance unexplained: squared error over squared distance from the mean.

    0 is a perfect reconstruction, 1 is as good as the mean of the same tokens. Exclude position 0
    and padding first: one BOS token can dominate both sums.

    Args:
        x: Activations, or a transcoder's target, `(..., d)`.
        xhat: Their reconstruction, same shape.

    Returns:
        The fraction, summed in double precision.

    Raises:
        ValueError: The shapes differ, or the activations do not vary.
    """
    if x.shape != xhat.shape:
        raise ValueError(f"x {tuple(x.shape)} and xhat {tuple(xhat.shape)}: expected equal shapes.")
    flat = x.reshape(-1, x.shape[-1]).double()
    error = flat - xhat.reshape(flat.shape).double()
    variance = float((flat - flat.mean(0)).square().sum())
    if not variance > 0:
        raise ValueError(
            f"x of shape {tuple(x.shape)} does not vary: FVU needs at least two different tokens."
        )
    return float(error.square().sum()) / variance


def l0(f: Tensor) -> float:
    """Mean number of active features per token.

    Args:
        f: Feature activations `(..., d_sae)`, without position 0 and padding.

    Raises:
        ValueError: There is no token.
    """
    return float(_active(f).sum(1).double().mean())


def density(f: Tensor) -> Tensor:
    """Share of tokens on which each feature is active.

    Args:
        f: Feature activations `(..., d_sae)`, without position 0 and padding.

    Returns:
        Shares from 0 (dead on these tokens) to 1, `(d_sae,)`.

    Raises:
        ValueError: There is no token.
    """
    return _active(f).to(torch.float64).mean(0).float()


def _active(f: Tensor) -> Tensor:
    if not f.ndim or not f.numel():
        raise ValueError(
            f"f of shape {tuple(f.shape)}: expected activations of at least one token."
        )
    return f.reshape(-1, f.shape[-1]) != 0
