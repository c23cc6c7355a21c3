"""The hand-written gradients against autograd with the estimators written independently."""

from __future__ import annotations

import pytest
import torch

from workbench.training.gradients import Penalty, Pieces, dense_gradients, sparse_gradients

BATCH, D_IN, D_SAE, D_OUT = 700, 10, 48, 7


class Jump(torch.autograd.Function):
    """JumpReLU with the straight-through estimator of Rajamanoharan et al. 2024, eq. 11."""

    @staticmethod
    def forward(ctx, pre, threshold, width) -> torch.Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.width = width
        return torch.where(pre > threshold, pre, torch.zeros_like(pre))

    @staticmethod
    def backward(ctx, grad) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        pre, threshold = ctx.saved_tensors
        kernel = (((pre - threshold) / ctx.width).abs() < 0.5).to(pre)
        through = -(threshold / ctx.width) * kernel * grad
        return grad * (pre > threshold), through.sum(0), None


class Step(torch.autograd.Function):
    """The Heaviside step of the L0 penalty, eq. 12: no gradient to the pre-activation."""

    @staticmethod
    def forward(ctx, pre, threshold, width) -> torch.Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.width = width
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx, grad) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        pre, threshold = ctx.saved_tensors
        kernel = (((pre - threshold) / ctx.width).abs() < 0.5).to(pre)
        return torch.zeros_like(pre), (-(1 / ctx.width) * kernel * grad).sum(0), None


def problem(transcoder: bool) -> tuple[torch.Tensor, torch.Tensor, Pieces, int]:
    g = torch.Generator().manual_seed(11)
    d_out = D_OUT if transcoder else D_IN
    x = torch.randn(BATCH, D_IN, generator=g) / D_IN**0.5
    y = torch.randn(BATCH, d_out, generator=g) if transcoder else x
    parameters = Pieces(
        encoder=torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=g)),
        decoder=torch.nn.functional.normalize(torch.randn(D_SAE, d_out, generator=g)),
        b_enc=torch.randn(D_SAE, generator=g) * 0.05,
        b_dec=torch.randn(d_out, generator=g) * 0.1,
        threshold=0.5 + 0.2 * torch.rand(D_SAE, generator=g),
    )
    return x, y, parameters, d_out


def by_autograd(x, y, parameters: Pieces, penalty: Penalty) -> tuple[Pieces, float]:
    """The loss of the docstring, differentiated by torch in double precision."""
    p = Pieces(**{k: v.double().requires_grad_() for k, v in vars(parameters).items()})
    x, y = x.double(), y.double()
    pre = (x - p.b_dec if penalty.center else x) @ p.encoder.T + p.b_enc
    if penalty.activation == "jumprelu":
        acts = Jump.apply(pre, p.threshold, penalty.bandwidth)
        l0 = Step.apply(pre, p.threshold, penalty.bandwidth).sum(1).mean()
        extra = penalty.weight * (l0 / penalty.target_l0 - 1) ** 2
    elif penalty.activation == "relu":
        acts = pre.relu()
        l0 = (acts > 0).sum(1).double().mean()
        extra = penalty.weight * acts.sum(1).mean()
    else:
        kept = pre.relu().topk(round(penalty.target_l0), dim=1)
        acts = torch.zeros_like(pre).scatter(1, kept.indices, kept.values)
        l0 = (acts > 0).sum(1).double().mean()
        extra = 0.0
    loss = ((acts @ p.decoder + p.b_dec - y) ** 2).sum(1).mean() + extra
    loss.backward()
    grads = {
        k: (torch.zeros_like(v) if v.grad is None else v.grad).float() for k, v in vars(p).items()
    }
    return Pieces(**grads), float(l0.detach())


@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("step", [dense_gradients, sparse_gradients])
@pytest.mark.parametrize("transcoder", [False, True])
@pytest.mark.parametrize("activation", ["jumprelu", "relu", "topk"])
def test_gradients_are_those_of_autograd(activation, transcoder, step, mkl, monkeypatch) -> None:
    monkeypatch.setattr("workbench.training.gradients.SPARSE_LIMIT", 1.0)
    if not mkl:
        monkeypatch.setattr("workbench.training.gradients._has_sampled_product", lambda: False)
    x, y, parameters, d_out = problem(transcoder)
    penalty = Penalty(activation, not transcoder, bandwidth=0.1, target_l0=3.0, weight=0.7)
    gradients = Pieces.views(
        torch.full((Pieces.size(D_IN, D_SAE, d_out),), 0.0), D_IN, D_SAE, d_out
    )
    result = step(x, y, parameters, penalty, gradients)
    wanted, l0 = by_autograd(x, y, parameters, penalty)
    assert result.l0 == pytest.approx(l0)
    assert int(result.fired.sum()) == round(l0 * BATCH)
    assert 1 < l0 < D_SAE
    for name, tensor in vars(wanted).items():
        got = getattr(gradients, name)
        assert activation != "jumprelu" or tensor.abs().max() > 1e-3, name
        torch.testing.assert_close(got, tensor, atol=2e-6, rtol=2e-4, msg=lambda m, n=name: n + m)


def test_a_batch_that_is_not_sparse_takes_the_dense_path(monkeypatch) -> None:
    x, y, parameters, d_out = problem(transcoder=False)
    penalty = Penalty("relu", center=True, bandwidth=0.1, target_l0=3.0, weight=0.7)
    calls = []
    monkeypatch.setattr(
        "workbench.training.gradients.dense_gradients",
        lambda *args: calls.append(args) or dense_gradients(*args),
    )
    gradients = Pieces.views(torch.zeros(Pieces.size(D_IN, D_SAE, d_out)), D_IN, D_SAE, d_out)
    sparse_gradients(x, y, parameters, penalty, gradients)
    assert len(calls) == 1
    parameters.b_enc.sub_(1.2)
    result = sparse_gradients(x, y, parameters, penalty, gradients)
    assert len(calls) == 1
    assert 0 < result.l0 < 0.1 * D_SAE
