"""Our batched float32 Muon beside torch's, which works in bfloat16."""

from __future__ import annotations

import pytest
import torch

from workbench.pocket.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 8, 24), (3, 24, 8), (1, 16, 16)])
def test_singular_values_end_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    torch.testing.assert_close(orthogonalised(matrices), u @ v, atol=0.35, rtol=0)


def test_three_steps_agree_with_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(12, 20, generator=generator) for _ in range(2)]
    gradients = [[torch.randn(12, 20, generator=generator) for _ in range(2)] for _ in range(3)]
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in start] for _ in range(2))
    one = Muon(ours, lr=0.1, momentum=0.9, weight_decay=0.3)
    other = torch.optim.Muon(
        theirs, lr=0.1, momentum=0.9, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"
    )
    for gradient in gradients:
        for parameters, optimizer in ((ours, one), (theirs, other)):
            for parameter, g in zip(parameters, gradient, strict=True):
                parameter.grad = g.clone()
            optimizer.step()
    for a, b, x in zip(ours, theirs, start, strict=True):
        assert (a - x).abs().max() > 0.1
        # bfloat16 keeps 8 bits: three steps of about 0.3 * 0.1 * sqrt(20) / sqrt(12).
        torch.testing.assert_close(a, b, atol=0.01, rtol=0)
