"""Baselines add as much as the edit, at the same places, along another direction."""

from __future__ import annotations

import pytest
import torch
from conftest import RandomSuite

import workbench as wb
from workbench.analysis.baselines import live_source, random_source
from workbench.engine.edits import Edit
from workbench.engine.tracing import generate, trace
from workbench.lab import Lab
from workbench.models import Model
from workbench.sites import Site
from workbench.tokens import tokenize

EDITS: list[Edit] = [
    wb.Steer((1, 3), 1.5),
    wb.Steer((1, 4), 0.5, unit="norm", when="prompt"),
    wb.Clamp((0, 5), 4.0, kind="att", positions=[1, 2]),
    wb.When((0, 6), wb.Scale((1, 7), -2.0, kind="mlp"), kind="att"),
    wb.Ablate((1, 8), kind="transcoder"),
]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_random_direction_adds_the_same_norm_at_the_same_places(
    model: Model, suite: RandomSuite, seed: int
) -> None:
    prompt = tokenize(model.tokenizer, "a text of some length")
    other = random_source(suite, EDITS, seed)
    for edit in EDITS:  # one by one: of two, the second would read what the first left
        if isinstance(edit, wb.Ablate):
            continue
        (steered,), (random,) = (
            trace(model, [prompt], edits=[edit], source=source).receipts
            for source in (suite, other)
        )
        assert steered.acts[0].acted
        assert random.acts[0].positions == steered.acts[0].positions
        assert random.acts[0].mean_norm == pytest.approx(steered.acts[0].mean_norm, rel=1e-4)
    texts = [
        generate(model, [prompt], edits=EDITS[:1], source=s, temperature=0.0, max_new_tokens=8)[0]
        for s in (suite, other)
    ]
    assert texts[0].ids != texts[1].ids


def test_random_directions_are_fixed_by_the_seed_and_mean_nothing(suite: RandomSuite) -> None:
    found = [random_source(suite, EDITS, seed).sae_at(Site(1)).direction(3) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    row = suite.sae_at(Site(1)).direction(3)
    assert abs(torch.cosine_similarity(found[0], row, dim=0)) < 0.9
    assert torch.equal(
        random_source(suite, EDITS).sae_at(Site(1)).direction(9), suite.sae_at(Site(1)).direction(9)
    )
    assert random_source(suite, EDITS).sae_at(Site(2)) is suite.sae_at(Site(2))


def test_a_random_feature_is_a_live_one_of_the_same_sae() -> None:
    lab = wb.open()
    edits = [wb.Steer((4, 3), 1.0), wb.Clamp((4, 5), 2.0, kind="att")]
    chosen = set()
    for seed in range(12):
        for edit in edits:
            sae = lab.suite.sae_at(edit.site)
            other = live_source(lab.suite, edits, seed).sae_at(edit.site).direction(edit.index)
            row = sae.direction(edit.index)
            assert float(other.norm()) == pytest.approx(float(row.norm()), rel=1e-4)
            alike = torch.nn.functional.cosine_similarity(sae.W_dec, other[None], dim=-1)
            index = int(alike.argmax())
            assert float(alike[index]) == pytest.approx(1.0, abs=1e-4)
            assert index != edit.index
            assert lab.suite.maxima(edit.site)[index] > 0
            chosen.add((edit.site, index))
    assert len(chosen) > 12


def test_nothing_live_to_compare_with_is_said(model: Model) -> None:
    lab: Lab = wb.open()
    suite = wb.Suite(None, model="pocket")
    suite.use(lab.sae(layer=4).select([0]), Site(4))
    with pytest.raises(ValueError, match="no other feature at layer 4 res is live"):
        live_source(suite, [wb.Steer((4, 0), 1.0)])
