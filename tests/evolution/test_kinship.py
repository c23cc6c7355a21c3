"""Matches between decoders against brute force, and the null against decoders with no relation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import D_MODEL, RandomSuite
from torch import Tensor

from tests.evolution.planted import directions, rotation, suite_of
from workbench.analysis.kinship import Kinship, passed_by, unrelated
from workbench.models import Model
from workbench.sites import Site

ONE, OTHER = Site(0), Site(1)


def written(model: Model, suite: RandomSuite, site: Site, index: int) -> Tensor:
    """What a feature adds to the stream, by the modules of Gemma 2, of unit norm."""
    row = suite.sae_at(site).W_dec[index]
    if site.kind == "att":
        layer: Any = model.module.model.layers[site.layer]  # pyright: ignore
        gain = 1 + layer.post_attention_layernorm.weight.detach()
        row = layer.self_attn.o_proj.weight.detach() @ row * gain
    return row / row.square().sum().sqrt()


@pytest.mark.parametrize("source", [Site(1, "att"), Site(2, "res")])
@pytest.mark.parametrize("target", [Site(0, "att"), Site(1, "mlp"), Site(2, "transcoder")])
def test_matches_are_those_of_brute_force(
    model: Model, suite: RandomSuite, source: Site, target: Site
) -> None:
    found = Kinship(model.module, suite).matches(source, target, [3, 11])
    assert found.features.tolist() == [3, 11]
    for place, index in enumerate([3, 11]):
        own = written(model, suite, source, index)
        cosines = [float(own @ written(model, suite, target, i)) for i in range(40)]
        best = max(range(40), key=lambda i: cosines[i])
        assert found.indices[place] == best
        assert float(found.cosines[place]) == pytest.approx(cosines[best], abs=1e-5)
        assert float(found.margins[place]) == pytest.approx(cosines[best] - found.null, abs=1e-5)


@pytest.mark.parametrize("held", [0, 2**26])
def test_both_ways_is_each_way(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr("workbench.analysis.kinship.BLOCK", 7)
    monkeypatch.setattr("workbench.analysis.kinship.HELD", held)
    suite = suite_of({ONE: directions(40, 12, 1), OTHER: directions(33, 12, 2)})
    kinship = Kinship(None, suite, draws=200)
    forth, back = kinship.both_ways(ONE, OTHER)
    for found, ends in ((forth, (ONE, OTHER)), (back, (OTHER, ONE))):
        alone = kinship.matches(*ends)
        assert (found.source, found.target) == ends
        assert torch.equal(found.indices, alone.indices)
        assert torch.equal(found.features, alone.features)
        torch.testing.assert_close(found.cosines, alone.cosines)
        assert found.null == alone.null
    assert forth.null != back.null


def test_of_large_decoders_two_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.analysis.kinship.HELD", 0)
    sites = [Site(layer) for layer in range(4)]
    suite = suite_of({site: directions(30, 8, site.layer) for site in sites})
    kinship, most = Kinship(None, suite, draws=100), 0
    for source in sites:
        for target in sites:
            kinship.matches(source, target)
            most = max(most, len(kinship._held))
    assert most == 2


def test_identical_layers_are_kin_feature_by_feature() -> None:
    rows = directions(200, 32, 1)
    suite = suite_of({ONE: rows, OTHER: rows})
    found = Kinship(None, suite).matches(ONE, OTHER)
    assert torch.equal(found.indices, torch.arange(200))
    torch.testing.assert_close(found.cosines, torch.ones(200))
    assert found.counts.all()


def test_a_feature_in_another_order_and_on_its_head_is_told_apart() -> None:
    rows = directions(200, 32, 1)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    suite = suite_of({ONE: rows, OTHER: rows[order], Site(2): -rows})
    kinship = Kinship(None, suite)
    assert torch.equal(order[kinship.matches(ONE, OTHER).indices], torch.arange(200))
    assert kinship.matches(ONE, Site(2)).counts.float().mean() < 0.05


def test_unrelated_directions_have_the_mean_and_covariance_of_the_decoder() -> None:
    stretch = torch.linspace(0.2, 3, 16)
    rows = directions(500, 16, 1) * stretch + torch.eye(16)[3] * 1.5
    rows = rows / rows.norm(dim=1, keepdim=True)
    drawn = unrelated(rows, 10_000)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(10_000))
    # They are brought to unit norm at the end, so the moments hold up to that.
    torch.testing.assert_close(drawn.mean(0), rows.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), rows.T.cov(), atol=0.04, rtol=0)
    assert rows.T.cov().diag().max() > 4 * rows.T.cov().diag().min()


def test_few_rows_give_uniform_directions() -> None:
    rows = torch.eye(64)[:3]
    drawn = unrelated(rows, 4000)
    # In the span of three rows the nearest would be at 0.58 at least.
    assert (drawn @ rows.T).max(1).values.max() < 0.6
    torch.testing.assert_close(drawn.T.cov(), torch.eye(64) / 64, atol=0.004, rtol=0)


RELATIONS = ("rotated", "redrawn", "shuffled", "shared mean")


def strangers(relation: str, seed: int) -> tuple[Tensor, Tensor]:
    """Two decoders that have nothing to do with one another."""
    one = directions(1000, 48, seed) * torch.linspace(0.3, 2, 48)
    if relation == "shared mean":
        mean = 3 * torch.eye(48)[5]
        other = directions(800, 48, seed + 50) * torch.linspace(0.3, 2, 48)
        return one + mean, other + mean
    if relation == "rotated":
        return one, one @ rotation(48, seed + 1)
    if relation == "redrawn":
        return one, directions(800, 48, seed + 50) * torch.linspace(0.3, 2, 48)
    random = torch.Generator().manual_seed(seed)
    return one, one.gather(1, torch.rand(one.shape, generator=random).argsort(1))


@pytest.mark.parametrize("relation", RELATIONS)
def test_strangers_are_kin_no_more_often_than_the_level_says(relation: str) -> None:
    level, rates = 0.05, []
    for seed in range(16):
        one, other = strangers(relation, seed)
        suite = suite_of({ONE: one, OTHER: other})
        found = Kinship(None, suite, level=level, draws=1000, seed=seed).matches(ONE, OTHER)
        rates.append(float(found.counts.float().mean()))
    # Each has some 50 hits against a null of 50 draws: the mean of 16 is known to 5 % of itself.
    assert sum(rates) / 16 <= 1.25 * level
    # And the null is no wall.
    assert sum(rates) / 16 >= level / 4


def test_a_shared_mean_alone_makes_no_kin() -> None:
    """Every cosine between the two is high, and says nothing."""
    one, other = strangers("shared mean", 0)
    found = Kinship(None, suite_of({ONE: one, OTHER: other})).matches(ONE, OTHER)
    assert found.cosines.min() > 0.8
    assert found.null > 0.9


def test_the_null_is_the_order_statistic_that_a_new_draw_passes_that_rarely() -> None:
    draws = torch.arange(1.0, 100.0)  # 99 of them, so a new one is above the 90th 1 in 10 times
    assert passed_by(draws.flip(0), 0.1) == 90
    assert passed_by(draws, 0.01) == 99
    with pytest.raises(ValueError, match=r"99 draws cannot tell .* 0.005 exceeds: take 200"):
        passed_by(draws, 0.005)
    with pytest.raises(ValueError, match="level must be above 0 and below 1, got 1"):
        passed_by(draws, 1)


def test_what_does_not_exist_is_refused(model: Model, suite: RandomSuite) -> None:
    with pytest.raises(ValueError, match="feature index 40"):
        Kinship(model.module, suite).matches(ONE, OTHER, [40])
    assert suite.sae_at(ONE).config.d_in == D_MODEL
