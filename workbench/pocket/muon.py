"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) in float32 and in batches.

`torch.optim.Muon` orthogonalises one matrix at a time in bfloat16, which a CPU without bfloat16
units emulates: fifteen seconds a step where this takes a twentieth of one. The update is the same
and `tests/pocket/test_muon.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz iteration, from the post."""
ITERATIONS = 5
LIKE_ADAM = 0.2
"""Scales an update's root mean square to AdamW's, so that both share one learning rate (Liu et al.
2025, arXiv 2502.16982, section 2.2)."""


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values end up between 0.5 and 1.5.

    Args:
        matrices: ``(batch, rows, columns)``.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Steps of equal size in every direction of a matrix, with Nesterov momentum."""

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        """Take the matrices ``(rows, columns)`` of the hidden layers; embeddings want Adam."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every matrix that has a gradient; those of one shape together."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                directions = [self._direction(p, group["momentum"]) for p in parameters]
                size = group["lr"] * LIKE_ADAM * max(shape) ** 0.5
                updates = orthogonalised(torch.stack(directions))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=size)
        return loss

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Gradient and momentum, one step ahead; also moves the momentum on."""
        gradient, state = parameter.grad, self.state[parameter]
        if gradient is None:
            raise ValueError("a matrix without a gradient has no direction")
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)
