"""The metrics against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.sae.metrics import density, fvu, l0


def test_fvu_is_error_over_variance() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(3, 2, (4, 50, 6)), rng.normal(0, 0.5, (4, 50, 6))
    flat = x.reshape(200, 6)
    wanted = (noise**2).sum() / ((flat - flat.mean(0)) ** 2).sum()
    assert fvu(torch.tensor(x), torch.tensor(x + noise)) == pytest.approx(wanted, rel=1e-9)
    assert 0.01 < wanted < 0.2


def test_fvu_of_the_mean_is_one_and_of_the_truth_zero() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)) + 100
    assert fvu(x, x.mean(0).expand_as(x)) == pytest.approx(1, abs=1e-6)
    assert fvu(x, x) == 0


def test_fvu_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(ValueError, match="does not vary"):
        fvu(torch.ones(3, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"\(3, 2\) and xhat \(2, 3\)"):
        fvu(torch.ones(3, 2), torch.ones(2, 3))


def test_l0_and_density_count_active_features() -> None:
    f = torch.tensor([[[0.0, 1.0, 2.0], [0.0, 0.0, 3.0]], [[0.0, 0.5, 1.0], [0.0, 0.0, 1.0]]])
    assert l0(f) == 1.5
    assert density(f).tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="at least one token"):
        l0(torch.zeros(0, 3))
