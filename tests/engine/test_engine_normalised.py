"""Edits with SAEs whose output depends on the token beyond its features, against plain hooks.

In an SAE that normalises its input a feature's share of the reconstruction is ``f s d``, with the
token's own scale ``s``; the rules below write that out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import RandomSuite
from engine.engine_oracle import TOLERANCE, Place, Rule, oracle, saes
from torch import Tensor

from workbench.engine.edits import Ablate, Clamp, Edit, Patch, Scale, Steer, When
from workbench.engine.tracing import trace
from workbench.models import Model
from workbench.sae import SAE
from workbench.sites import Site
from workbench.tokens import tokenize

TEXT = "A text long enough."
PLACE: Place = (1, "res")
INDEX, OTHER = 5, 9


def statistics(normalize: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised token, its shift and its scale, written out."""
    if normalize == "layer_norm":
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return (x - mean) / (std + 1e-5), mean, std
    scale = x.pow(2).mean(-1, keepdim=True).sqrt()
    return x / scale, torch.zeros_like(scale), scale


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=TOLERANCE["atol"], rtol=TOLERANCE["rtol"])


def feature(sae: SAE, x: Tensor, index: int) -> Tensor:
    """Activation ``(pos, 1)`` of a feature."""
    z = statistics(sae.normalize, x)[0]
    pre = z @ sae.W_enc[:, index] + sae.b_enc[index]
    assert sae.threshold is not None
    return torch.where(pre > sae.threshold[index], pre, 0.0)[:, None]


def scale(sae: SAE, x: Tensor) -> Tensor:
    return statistics(sae.normalize, x)[2]


def ids(model: Model) -> list[int]:
    return list(tokenize(model.tokenizer, TEXT).ids)


def check(model: Model, sae: SAE, edit: Edit, rules: list[Rule]) -> None:
    """The engine's logits and residual stream are the oracle's, and not those without the edit."""
    prompt = ids(model)
    plain = oracle().run(prompt, len(prompt))
    wanted = oracle().run(prompt, len(prompt), rules)
    leaving = oracle().leaving[PLACE]
    assert (wanted - plain).abs().max() > 1
    run = trace(
        model,
        [tokenize(model.tokenizer, TEXT)],
        [Site(*PLACE)],  # pyright: ignore[reportArgumentType]
        edits=[edit],
        source=RandomSuite({Site(*PLACE): sae}),  # pyright: ignore[reportArgumentType]
    )
    close(run.activations[Site(1)][0], leaving)
    close(run.logits[0], wanted)


@pytest.fixture(params=["layer_norm", "constant_norm"])
def sae(request: pytest.FixtureRequest) -> SAE:
    return replace(saes()[PLACE], normalize=request.param)


def test_ablation_takes_out_the_features_share_of_the_reconstruction(model: Model, sae) -> None:
    prompt = ids(model)
    oracle().run(prompt, len(prompt))
    before = oracle().arriving[PLACE]
    run = trace(
        model,
        [tokenize(model.tokenizer, TEXT)],
        [Site(1)],
        edits=[Ablate((1, INDEX))],
        source=RandomSuite({Site(1): sae}),
    )
    f = sae.encode(before)
    without = f.clone()
    without[:, INDEX] = 0
    share = sae.decode(f, before) - sae.decode(without, before)
    assert share[1:].abs().max() > 1
    assert (scale(sae, before) - 1).abs().min() > 0.1, "with a scale near 1 nothing shows"
    # <bos> is never edited.
    share[0] = 0
    close(run.activations[Site(1)][0], before - share)


def rules_of(sae: SAE) -> dict[str, tuple[Edit, Any]]:
    d = sae.W_dec[INDEX]
    share = 0.4 * (3.0 + 1 + 3) / d.norm()  # 0.4 of the suite's mean norm at (1, res)
    return {
        "ablate": (Ablate((1, INDEX)), lambda x, p: -feature(sae, x, INDEX) * scale(sae, x) * d),
        "scale": (
            Scale((1, INDEX), 2.5),
            lambda x, p: 1.5 * feature(sae, x, INDEX) * scale(sae, x) * d,
        ),
        "clamp": (
            Clamp((1, INDEX), 4.0),
            lambda x, p: (4.0 - feature(sae, x, INDEX)) * scale(sae, x) * d,
        ),
        "steer raw": (
            Steer((1, INDEX), 3.0, unit="raw"),
            lambda x, p: 3.0 * scale(sae, x) * d,
        ),
        "steer by the typical maximum": (
            Steer((1, INDEX), 2.0),
            lambda x, p: 2.0 * (1 + 1 + 1.5 + INDEX / 10) * scale(sae, x) * d,
        ),
        "steer by the layer's norm": (
            Steer((1, INDEX), 0.4, unit="norm"),
            lambda x, p: (share * d).expand(len(x), -1),
        ),
        "clamp by the layer's norm": (
            Clamp((1, INDEX), 0.4, unit="norm"),
            lambda x, p: share * d - feature(sae, x, INDEX) * scale(sae, x) * d,
        ),
    }


@pytest.mark.parametrize("name", list(rules_of(saes()[PLACE])))
def test_an_edit_counts_in_the_tokens_own_scale(model: Model, sae: SAE, name: str) -> None:
    edit, delta = rules_of(sae)[name]
    check(model, sae, edit, [Rule(PLACE, delta)])


def test_a_condition_is_in_activations_and_not_in_scaled_ones(model: Model, sae: SAE) -> None:
    prompt = ids(model)
    oracle().run(prompt, len(prompt))
    found = feature(sae, oracle().arriving[PLACE], OTHER)[1:, 0]
    above = float(found[found > 0].median())
    rule = Rule(
        PLACE,
        lambda x, p: 4.0 * scale(sae, x) * sae.W_dec[INDEX],
        condition=(PLACE, lambda x: feature(sae, x, OTHER)[:, 0] > above),
    )
    assert 0 < int((found > above).sum()) < len(found)
    check(model, sae, When((1, OTHER), Steer((1, INDEX), 4.0, unit="raw"), above=above), [rule])


def test_a_patch_of_features_brings_the_other_runs_share(model: Model, sae: SAE) -> None:
    prompt = ids(model)
    other = torch.randn(len(prompt), 24, generator=torch.Generator().manual_seed(4)) * 5

    def delta(x: Tensor, p: Tensor) -> Tensor:
        wanted = feature(sae, other[p], INDEX) * scale(sae, other[p])
        return (wanted - feature(sae, x, INDEX) * scale(sae, x)) * sae.W_dec[INDEX]

    check(model, sae, Patch(Site(1), other, features=[INDEX]), [Rule(PLACE, delta)])


def test_a_topk_that_normalises_is_edited_by_its_whole_encoder(model: Model, sae: SAE) -> None:
    top = replace(sae, threshold=None, activation="topk", k=4)
    prompt = ids(model)
    oracle().run(prompt, len(prompt))
    x = oracle().arriving[PLACE]
    pre = (statistics(sae.normalize, x)[0] @ top.W_enc + top.b_enc).relu()
    kept = torch.where(pre >= pre.topk(4).values[:, -1:], pre, 0.0)
    index = int((kept[1:] > 0).sum(0).argmax())
    delta = -kept[:, [index]] * scale(top, x) * top.W_dec[index]
    check(model, top, Ablate((1, index)), [Rule(PLACE, lambda x, p: delta)])


def test_a_skip_connection_stays_when_a_feature_goes(model: Model) -> None:
    """A transcoder's edit is at its MLP's output and takes only the feature's row."""
    place: Place = (1, "transcoder")
    plain = saes()[place]
    skip = replace(plain, W_skip=torch.randn(24, 24, generator=torch.Generator().manual_seed(7)))
    prompt = ids(model)
    run = {
        name: trace(
            model,
            [tokenize(model.tokenizer, TEXT)],
            [Site(1, "mlp")],
            edits=[Ablate((1, INDEX), kind="transcoder")],
            source=RandomSuite({Site(1, "transcoder"): sae}),
        ).activations[Site(1, "mlp")][0]
        for name, sae in (("plain", plain), ("skip", skip))
    }
    assert torch.equal(run["plain"], run["skip"])
    oracle().run(prompt, len(prompt))
    x, before = oracle().arriving[place], oracle().leaving[1, "mlp"]
    f = skip.encode(x)
    without = f.clone()
    without[:, INDEX] = 0
    share = skip.decode(f, x) - skip.decode(without, x)
    share[0] = 0
    assert share.abs().max() > 1
    close(run["skip"], before - share)
