"""The SAE object against its formulas, written out in numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from workbench.sae import SAE, SAEConfig

D_IN, D_SAE, D_OUT = 12, 40, 9


def make(
    activation: str = "jumprelu", *, d_out: int = D_IN, kind: str = "res", **fields: Any
) -> SAE:
    """An SAE with loud random weights, half of whose features fire on a token."""
    g = torch.Generator().manual_seed(3)
    config = SAEConfig("toy", 2, kind, D_SAE, 18.0, "", D_IN, d_out, D_SAE)
    return SAE(
        W_enc=torch.randn(D_IN, D_SAE, generator=g),
        b_enc=torch.randn(D_SAE, generator=g),
        W_dec=torch.randn(D_SAE, d_out, generator=g),
        b_dec=torch.randn(d_out, generator=g),
        threshold=torch.rand(D_SAE, generator=g) * 2 if activation == "jumprelu" else None,
        activation=activation,  # pyright: ignore[reportArgumentType]
        k=5 if activation == "topk" else None,
        config=config,
        **fields,
    )


def encode_by_hand(sae: SAE, x: torch.Tensor) -> np.ndarray:
    """The definition, one token and one feature at a time, in double precision."""
    w, b = sae.W_enc.numpy().astype(np.float64), sae.b_enc.numpy().astype(np.float64)
    rows = x.reshape(-1, x.shape[-1]).numpy().astype(np.float64)
    out = np.zeros((len(rows), w.shape[1]))
    for r, row in enumerate(rows):
        if sae.apply_b_dec_to_input:
            row = row - sae.b_dec.numpy()
        pre = [float(np.sum(row * w[:, j]) + b[j]) for j in range(w.shape[1])]
        if sae.activation == "jumprelu":
            out[r] = [p if p > float(sae.threshold[j]) else 0.0 for j, p in enumerate(pre)]  # pyright: ignore[reportOptionalSubscript]
        elif sae.activation == "relu":
            out[r] = [max(p, 0.0) for p in pre]
        else:
            for j in sorted(range(len(pre)), key=lambda j: (-pre[j], j))[: sae.k]:
                out[r, j] = max(pre[j], 0.0)
    return out.reshape(*x.shape[:-1], w.shape[1])


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 7, D_IN, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("activation", ["jumprelu", "relu", "topk"])
def test_encode_and_decode_follow_the_formulas(activation, subtract, x) -> None:
    sae = make(activation, apply_b_dec_to_input=subtract)
    wanted = encode_by_hand(sae, x)
    acts = sae.encode(x)
    assert acts.shape == (3, 7, D_SAE)
    assert 0.05 < (wanted > 0).mean() < 0.95
    np.testing.assert_allclose(acts.numpy(), wanted, atol=1e-5)
    assert ((acts.numpy() == 0) == (wanted == 0)).all()
    recon = wanted @ sae.W_dec.numpy() + sae.b_dec.numpy()
    np.testing.assert_allclose(sae.decode(acts).numpy(), recon, atol=1e-4)
    assert torch.equal(sae.reconstruct(x), sae.decode(acts))


def test_a_pre_activation_exactly_at_the_threshold_is_zero() -> None:
    one = torch.eye(D_IN, D_SAE)
    sae = replace(make(), W_enc=one, b_enc=torch.zeros(D_SAE), threshold=torch.full((D_SAE,), 0.5))
    x = torch.zeros(3, D_IN)
    x[0, 0], x[1, 0], x[2, 0] = 0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 0.25
    first = sae.encode(x)[:, 0]
    assert first[0] == 0
    assert first[1] == x[1, 0]
    assert first[2] == 0


def test_jumprelu_subtracts_nothing_from_what_passes() -> None:
    sae = replace(make(), W_enc=torch.eye(D_IN, D_SAE), b_enc=torch.zeros(D_SAE))
    sae = replace(sae, threshold=torch.full((D_SAE,), 0.5))
    assert sae.encode(torch.full((1, D_IN), 2.0))[0, 0] == 2.0


def test_infinite_inputs_give_no_nan_where_nothing_fires() -> None:
    sae = replace(make(), W_enc=-torch.eye(D_IN, D_SAE), b_enc=torch.zeros(D_SAE))
    sae = replace(sae, W_enc=-torch.ones(D_IN, D_SAE))
    assert torch.equal(sae.encode(torch.full((1, D_IN), torch.inf)), torch.zeros(1, D_SAE))


def test_topk_breaks_ties_by_the_lowest_index() -> None:
    sae = make("topk")
    sae = replace(sae, W_enc=torch.zeros(D_IN, D_SAE), b_enc=torch.ones(D_SAE))
    sae.b_enc[30] = 2.0
    acts = sae.encode(torch.zeros(2, D_IN))
    assert acts[0].nonzero().squeeze(1).tolist() == [0, 1, 2, 3, 30]


@pytest.mark.parametrize("activation", ["jumprelu", "relu", "topk"])
def test_encode_features_is_that_slice_of_encode(activation, x) -> None:
    sae = make(activation)
    chosen = [7, 0, 39, 7]
    full = sae.encode(x)
    assert full[..., chosen].any()
    torch.testing.assert_close(sae.encode_features(x, chosen), full[..., chosen])
    torch.testing.assert_close(sae.encode_features(x, torch.tensor(chosen)), full[..., chosen])
    torch.testing.assert_close(sae.encode_features(x, 7), full[..., [7]])


def test_encode_features_reads_no_other_column(x) -> None:
    sae = make()
    others = torch.ones(D_SAE, dtype=torch.bool)
    others[[4, 5]] = False
    poisoned = replace(sae, W_enc=sae.W_enc.masked_fill(others, torch.nan))
    assert torch.equal(poisoned.encode_features(x, [4, 5]), sae.encode_features(x, [4, 5]))


def test_encode_sparse_lists_the_nonzero_entries_in_order() -> None:
    sae = make()
    x = torch.randn(600, D_IN, generator=torch.Generator().manual_seed(2))
    rows, features, values = sae.encode_sparse(x)
    dense = torch.zeros(600, D_SAE)
    dense[rows, features] = values
    torch.testing.assert_close(dense, sae.encode(x))
    flat = rows * D_SAE + features
    assert (flat.diff() > 0).all()
    assert (values > 0).all()
    assert [len(part) for part in sae.encode_sparse(x[:0])] == [0, 0, 0]
    with pytest.raises(ValueError, match=r"\(2, 600, 12\): encode_sparse expects \(pos, d_in\)"):
        sae.encode_sparse(torch.stack([x, x]))


def test_rows_and_columns_are_the_features_own() -> None:
    sae = make("relu", d_out=D_OUT)
    assert torch.equal(sae.direction(3), sae.W_dec[3])
    assert torch.equal(sae.encoder_column(3), sae.W_enc[:, 3])
    assert sae.direction(3).shape == (D_OUT,)
    assert sae.check_index(np.int64(3)) == 3  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("index", [-1, D_SAE, 2.0, "3", True, None])
def test_a_wrong_index_is_named_with_the_range_and_the_sae(index) -> None:
    with pytest.raises(ValueError, match=r"SAE toy layer 2 res .* has features 0 to 39") as caught:
        make().check_index(index)
    assert repr(index) in str(caught.value)


def test_a_wrong_width_says_which_sae_and_which_site() -> None:
    with pytest.raises(ValueError, match=r"layer 2 res .* width 12; got activations of width 5"):
        make().encode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"decodes .* width 40, got 12"):
        make().decode(torch.zeros(2, 12))


@pytest.mark.parametrize(
    ("kind", "wanted", "got", "hint"),
    [
        ("att", 160, 128, "width of the residual stream: read the input of self_attn.o_proj"),
        ("att", 2048, 2304, "width of the residual stream: read the input of self_attn.o_proj"),
        ("res", 128, 160, "width of the input of self_attn.o_proj"),
        ("res", 3584, 4096, "width of the input of self_attn.o_proj"),
    ],
)
def test_a_wrong_width_that_belongs_to_another_site_names_it(kind, wanted, got, hint) -> None:
    sae = SAE(
        W_enc=torch.zeros(wanted, 2),
        b_enc=torch.zeros(2),
        W_dec=torch.zeros(2, wanted),
        b_dec=torch.zeros(wanted),
        threshold=None,
        activation="relu",
        config=SAEConfig("", 0, kind, 2, None, "", wanted, wanted, 2),
    )
    with pytest.raises(ValueError, match=hint):
        sae.encode(torch.zeros(1, got))


def test_to_copies_and_leaves_the_original() -> None:
    sae = make()
    half = sae.to(dtype=torch.bfloat16)
    assert half.W_dec.dtype == half.threshold.dtype == torch.bfloat16  # pyright: ignore[reportOptionalMemberAccess]
    assert sae.W_dec.dtype == torch.float32
    assert half.encode(torch.zeros(1, D_IN)).dtype == torch.bfloat16
    assert sae.to("cpu", torch.float32).W_enc.data_ptr() == sae.W_enc.data_ptr()


def test_half_precision_activations_are_widened(x) -> None:
    sae = make()
    assert torch.equal(sae.encode(x.bfloat16()), sae.encode(x.bfloat16().float()))


def test_gradients_reach_the_input(x) -> None:
    x = x.clone().requires_grad_()
    sae = make()
    sae.encode(x)[0, 0, :].sum().backward()
    fires = (sae.encode(x[0, 0]) > 0).float()
    torch.testing.assert_close(x.grad[0, 0], sae.W_enc @ fires)


def test_repr_says_what_it_is() -> None:
    assert repr(make()) == (
        "<SAE toy layer 2 res width 40 L0 18: jumprelu, 12 -> 12, float32 on cpu>"
    )
    assert "topk 5" in repr(make("topk"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b_enc": torch.zeros(3)}, r"b_enc has shape \(3,\), expected \(40,\)"),
        ({"threshold": None}, "jumprelu needs them"),
        ({"threshold": torch.zeros(2)}, r"threshold has shape \(2,\)"),
        ({"activation": "gelu"}, "'gelu'"),
        ({"k": 4}, "only topk has a k"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make(), **changes)


def test_k_must_be_within_the_features() -> None:
    with pytest.raises(ValueError, match="k=41: expected 1 to d_sae=40"):
        replace(make("topk"), k=41)
    with pytest.raises(ValueError, match="d_in=12, d_out=9"):
        make(d_out=D_OUT, apply_b_dec_to_input=True)
