"""What the weights say of a feature, against the formulas written out feature by feature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import D_SAE, LAYERS

import workbench as wb
from tests.steering.small_lab import write_small_lab
from workbench.analysis.anatomy import encoder_decoder_angle, nearest, token_effects
from workbench.lab import Lab
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site

KINDS: tuple[Kind, ...] = ("att", "transcoder", "mlp", "res")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    model, suite = write_small_lab(tmp_path_factory.mktemp("anatomy"))
    return wb.open(str(model), suite=suite, device="cpu")


def written(lab: Lab, site: Site, row: torch.Tensor) -> torch.Tensor:
    """What a decoder row adds to the stream, by the modules of Gemma 2."""
    if site.kind != "att":
        return row
    module: Any = lab.engine.module
    layer = module.model.layers[site.layer]
    out = torch.zeros(module.config.hidden_size)
    for d in range(len(out)):
        out[d] = (layer.self_attn.o_proj.weight[d] * row).sum()
    return out * (1 + layer.post_attention_layernorm.weight)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt()))


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_the_brute_force_ranking(lab: Lab, kind: Kind) -> None:
    site, index = Site(1, kind), 7
    with torch.no_grad():
        mine = written(lab, site, lab.suite.sae_at(site).W_dec[index])
        found = nearest(lab.engine.module, lab.suite, site, index, k=5)
        assert list(found) == [Site(layer, kind) for layer in range(LAYERS)]
        for other, relatives in found.items():
            rows = lab.suite.sae_at(other).W_dec
            all_cosines = {
                i: cosine(mine, written(lab, other, rows[i]))
                for i in range(D_SAE)
                if (other, i) != (site, index)
            }
            expected = sorted(all_cosines, key=lambda i: -all_cosines[i])[:5]
            assert [one.index for one in relatives] == expected
            assert [one.site for one in relatives] == [other] * 5
            for one in relatives:
                assert one.cosine == pytest.approx(all_cosines[one.index], abs=1e-5)


def test_nearest_reaches_as_far_as_asked(lab: Lab) -> None:
    near = nearest(lab.engine.module, lab.suite, Site(0), 3, k=2)
    assert list(near) == [Site(0), Site(1)]
    alone = nearest(lab.engine.module, lab.suite, Site(2), 3, k=2, reach=0)
    assert list(alone) == [Site(2)]
    far = nearest(lab.engine.module, lab.suite, Site(0), 3, k=2, reach=2)
    assert list(far) == [Site(0), Site(1), Site(2)]


def test_nearest_of_a_small_sae_is_all_of_it_but_the_feature(lab: Lab) -> None:
    found = nearest(lab.engine.module, lab.suite, Site(0), 3, k=1000, reach=1)
    assert sorted(one.index for one in found[Site(0)]) == [i for i in range(D_SAE) if i != 3]
    assert len(found[Site(1)]) == D_SAE


def test_nearest_opens_nothing_that_is_not_at_hand(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Suite, "at_hand", lambda self, site: site.layer != 2)
    found = nearest(lab.engine.module, lab.suite, Site(1), 3)
    assert list(found) == [Site(0), Site(1)]


def test_nearest_refuses_what_is_not_there(lab: Lab) -> None:
    with pytest.raises(ValueError, match=rf"feature index {D_SAE}"):
        nearest(lab.engine.module, lab.suite, Site(1), D_SAE)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        nearest(lab.engine.module, lab.suite, Site(1), 3, k=0)


@pytest.mark.parametrize("kind", ["att", "mlp", "res"])
def test_the_angle_is_that_of_encoder_column_and_decoder_row(lab: Lab, kind: Kind) -> None:
    sae = lab.suite.sae_at(Site(1, kind))
    angle = encoder_decoder_angle(sae, 9)
    assert angle is not None
    cosines = [cosine(sae.W_enc[:, i], sae.W_dec[i]) for i in range(D_SAE)]
    assert angle.cosine == pytest.approx(cosines[9], abs=1e-5)
    assert angle.degrees == pytest.approx(math.degrees(math.acos(cosines[9])), abs=1e-3)
    assert angle.median == pytest.approx(sorted(cosines)[(D_SAE - 1) // 2], abs=1e-5)
    assert max(cosines) - min(cosines) > 0.3


def test_a_transcoder_has_no_angle(lab: Lab) -> None:
    assert encoder_decoder_angle(lab.suite.sae_at(Site(1, "transcoder")), 9) is None


@pytest.mark.parametrize("kind", KINDS)
def test_token_effects_are_the_ends_of_the_direct_path(lab: Lab, kind: Kind) -> None:
    site, module = Site(1, kind), lab.engine.module
    sae: Any = lab.suite.sae_at(site)
    inner: Any = module
    with torch.no_grad():
        direction = written(lab, site, sae.W_dec[4]) * (1 + inner.model.norm.weight)
        effects = [float((row * direction).sum()) for row in inner.lm_head.weight]
        found = token_effects(module, site, sae, 4, k=6)
    order = sorted(range(len(effects)), key=lambda i: -effects[i])
    assert [token for token, _ in found.promoted] == order[:6]
    assert [token for token, _ in found.suppressed] == order[::-1][:6]
    for token, effect in (*found.promoted, *found.suppressed):
        assert effect == pytest.approx(effects[token], rel=1e-4)


def test_token_effects_leave_out_what_only_fills_up_the_matrix(lab: Lab) -> None:
    sae, module = lab.suite.sae_at(Site(1)), lab.engine.module
    whole = token_effects(module, Site(1), sae, 4, k=8)
    cut = max(token for token, _ in whole.promoted)
    found = token_effects(module, Site(1), sae, 4, k=8, vocabulary=cut)
    assert cut not in [token for token, _ in found.promoted]
    assert max(token for token, _ in (*found.promoted, *found.suppressed)) < cut
    few = token_effects(module, Site(1), sae, 4, k=8, vocabulary=6)
    assert len(few.promoted) == len(few.suppressed) == 3
