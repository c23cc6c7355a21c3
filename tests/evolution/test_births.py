"""Births, splits and merges that were planted are found; the lineage holds them all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import D_MODEL, HEAD_DIM, HEADS, RandomSuite, random_sae
from torch import Tensor

import workbench as wb
from tests.evolution.planted import directions, suite_of
from tests.steering.small_lab import PROMPT, write_small_lab
from workbench.analysis.births import ancestry, births, branches, gain, trend
from workbench.analysis.evolution import evolve
from workbench.analysis.kinship import Kinship
from workbench.analysis.lineage import Lineage
from workbench.lab import Lab
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Site

COUNT = 60
RES = [Site(layer) for layer in range(3)]
CARRIED, OF_MLP, OF_ATT, NEW, SPLIT, SAME = 0, 1, 2, 3, 4, 10
"""Features of layer 1; from `SAME` on all are those of the layer below."""
WAS = 33
"""What `CARRIED` is in layer 0; in layer 1 that index stands on its head."""
PIECES, MERGED = (41, 57), 20
"""What `SPLIT` of layer 1 becomes in layer 2, and what `PAIR` of layer 1 becomes."""


def nearest_pair() -> tuple[int, int]:
    """The two of the features that stay the same that are nearest to one another.

    Their sum is at 0.8 or more to each: in 24 dimensions the null is at 0.7.
    """
    rows = directions(COUNT, D_MODEL, 1)
    cosines = (rows @ rows.T).fill_diagonal_(0)
    cosines[[*range(SAME), *PIECES, MERGED, WAS]] = 0
    cosines[:, [*range(SAME), *PIECES, MERGED, WAS]] = 0
    one, other = divmod(int(cosines.argmax()), COUNT)
    return one, other


PAIR = nearest_pair()


@pytest.fixture(scope="module")
def planted(model: Model) -> Suite:
    """Three residual layers, in the loud model's stream, with known ties."""
    below, mlp = directions(COUNT, D_MODEL, 1), directions(COUNT, D_MODEL, 2)
    att = directions(COUNT, HEADS * HEAD_DIM, 3)
    layer: Any = model.module.model.layers[1]  # pyright: ignore
    into = layer.self_attn.o_proj.weight.detach().T * (
        1 + layer.post_attention_layernorm.weight.detach()
    )
    here = below.clone()
    here[CARRIED], here[OF_MLP], here[OF_ATT] = below[WAS], mlp[5], att[7] @ into
    here[WAS] = -below[WAS]
    here[[NEW, SPLIT]] = lonely(torch.cat([below, mlp, att @ into]), 2)
    here = here / here.norm(dim=1, keepdim=True)
    above = here.clone()
    # Away from all else, so that the pieces' nearest below is what was split.
    aside = lonely(here, 1, away=here[SPLIT])[0]
    above[PIECES[0]], above[PIECES[1]] = here[SPLIT] + 0.45 * aside, here[SPLIT] - 0.45 * aside
    above[SPLIT] = -here[SPLIT]
    above[MERGED] = here[PAIR[0]] + here[PAIR[1]]
    above[list(PAIR)] = -here[list(PAIR)]
    return suite_of(
        {RES[0]: below, RES[1]: here, RES[2]: above, Site(1, "mlp"): mlp, Site(1, "att"): att}
    )


def lonely(rows: Tensor, count: int, away: Tensor | None = None) -> Tensor:
    """Of many random directions those that are furthest from all of `rows`."""
    drawn = directions(20_000, rows.shape[1], 9)
    if away is not None:
        drawn = drawn - (drawn @ away)[:, None] * away
        drawn = drawn / drawn.norm(dim=1, keepdim=True)
    unit = rows / rows.norm(dim=1, keepdim=True)
    near = (drawn @ unit.T).abs() if away is not None else drawn @ unit.T
    best = near.max(1).values.argsort()
    chosen = [drawn[best[0]]]
    for i in best[1:]:
        if len(chosen) < count and abs(float(drawn[i] @ chosen[0])) < 0.2:
            chosen.append(drawn[i])
    return torch.stack(chosen)


@pytest.fixture(scope="module")
def kinship(model: Model, planted: Suite) -> Kinship:
    return Kinship(model.module, planted)


def test_each_feature_is_born_where_it_was_planted(kinship: Kinship, planted: Suite) -> None:
    found = births(kinship, 1, planted.sites)
    assert [found.births[i] for i in (CARRIED, OF_MLP, OF_ATT, NEW)] == [
        "carried",
        "mlp",
        "attention",
        "new",
    ]
    assert {found.births[i] for i in range(SAME, COUNT) if i != WAS} == {"carried"}
    assert found.sources["carried"].indices[CARRIED] == WAS
    assert found.sources["mlp"].indices[OF_MLP] == 5
    assert found.sources["attention"].indices[OF_ATT] == 7
    frame = found.to_frame()
    row: Any = frame.loc[OF_ATT]
    assert (row["birth"], row["attention"]) == ("attention", 7)
    assert row["attention_cosine"] == pytest.approx(1, abs=1e-5)
    null = kinship.null(Site(1), Site(1, "att"))
    assert row["attention_margin"] == pytest.approx(1 - null, abs=1e-5)


def test_some_features_are_born_as_among_all(kinship: Kinship, planted: Suite) -> None:
    every = births(kinship, 1, planted.sites)
    some = births(kinship, 1, planted.sites, [OF_ATT, CARRIED])
    assert some.births == [every.births[OF_ATT], every.births[CARRIED]]
    assert some.to_frame()["feature"].tolist() == [OF_ATT, CARRIED]


def test_the_ancestry_ends_where_the_feature_was_born(kinship: Kinship, planted: Suite) -> None:
    assert ancestry(kinship, Site(2), CARRIED, planted.sites) == [
        (Site(2), CARRIED),
        (Site(1), CARRIED),
        (Site(0), WAS),
    ]
    assert ancestry(kinship, Site(2), NEW, planted.sites) == [(Site(2), NEW), (Site(1), NEW)]
    assert ancestry(kinship, Site(2), CARRIED, [Site(2), Site(0)]) == [(Site(2), CARRIED)]
    with pytest.raises(ValueError, match=r"only features of the residual stream .* layer 1 att"):
        ancestry(kinship, Site(1, "att"), 7, planted.sites)


def test_in_the_first_layer_without_writers_all_is_new(kinship: Kinship, planted: Suite) -> None:
    assert set(births(kinship, 0, planted.sites).births) == {"new"}


def test_a_transcoder_is_asked_only_where_there_is_no_sae_of_the_mlp(planted: Suite) -> None:
    rows = directions(COUNT, 16, 4)
    suite = suite_of({Site(0): rows, Site(0, "transcoder"): rows})
    found = births(Kinship(None, suite), 0, suite.sites)
    assert set(found.births) == {"mlp"}
    assert found.sources["mlp"].target == Site(0, "transcoder")


def test_a_planted_split_is_found(kinship: Kinship) -> None:
    assert set(branches(kinship, Site(1), SPLIT, Site(2))) == set(PIECES)


def test_a_planted_merge_is_found(kinship: Kinship) -> None:
    assert set(branches(kinship, Site(2), MERGED, Site(1))) >= set(PAIR)


def test_what_is_nearer_to_another_is_no_branch() -> None:
    """The second feature above is well above the null to both below, and belongs to the second."""
    one, other = directions(200, 64, 1), directions(200, 64, 2)
    axes = torch.eye(64)
    one[0], one[1] = axes[0], 0.6 * axes[0] + 0.8 * axes[1]
    other[0], other[1] = 0.95 * axes[0] + 0.31 * axes[2], 0.75 * axes[0] + 0.66 * axes[1]
    found = Kinship(None, suite_of({Site(0): one, Site(1): other}))
    assert found.null(Site(1), Site(0)) < 0.7
    assert branches(found, Site(0), 0, Site(1)) == (0,)
    assert branches(found, Site(0), 1, Site(1)) == (1,)


def test_where_nothing_was_planted_there_is_one_branch(kinship: Kinship) -> None:
    apart = {WAS, CARRIED, OF_MLP, OF_ATT, NEW, SPLIT, *PAIR, MERGED, *PIECES}
    others = [i for i in range(SAME, COUNT) if i not in apart]
    shares = [branches(kinship, Site(1), i, Site(2)) for i in others]
    assert all(i in found for i, found in zip(others, shares, strict=True))
    assert sum(len(found) > 1 for found in shares) <= 0.1 * len(shares)


def test_the_lineage_holds_kin_births_and_ties(model: Model, planted: Suite) -> None:
    found = evolve(model.module, planted, Site(1), OF_ATT)
    assert [one.site for one in found.kin] == list(planted.sites)
    own = found.at(Site(1))
    assert (own.index, own.cosine, own.birth) == (OF_ATT, pytest.approx(1), "attention")
    assert [(link.source[0], link.tie) for link in own.sources] == [
        (Site(0), "carries"),
        (Site(1, "mlp"), "carries"),
        (Site(1, "att"), "carries"),
    ]
    assert found.at(Site(1, "att")).index == 7
    later = found.at(Site(2))
    assert (later.index, later.counts, later.birth) == (OF_ATT, True, "carried")
    ties = {(link.source, link.target, link.tie) for link in found.links}
    att, here, above = (Site(1, "att"), 7), (Site(1), OF_ATT), (Site(2), OF_ATT)
    assert {
        (att, here, "similar"),
        (here, above, "similar"),
        (att, here, "carries"),
        (here, above, "carries"),
    } <= ties
    for link in found.links:
        assert link.source < link.target
        assert link.margin > 0
    assert not any(link.target[0] == Site(0) for link in found.links)


def test_the_lineage_holds_splits_and_merges(model: Model, planted: Suite) -> None:
    split = evolve(model.module, planted, Site(1), SPLIT).at(Site(1))
    assert set(split.children) == set(PIECES)
    merged = evolve(model.module, planted, Site(2), MERGED)
    assert set(merged.at(Site(2)).parents) >= set(PAIR)
    frame = merged.to_frame().set_index(["layer", "kind"])
    assert set(frame.loc[(2, "res"), "parents"]) >= set(PAIR)
    for index in range(SAME, SAME + 8):  # one is no branching
        own = evolve(model.module, planted, Site(1), index).at(Site(1))
        assert len(own.children) != 1
        assert len(own.parents) != 1


def test_only_the_sites_asked_for_are_searched(model: Model, planted: Suite) -> None:
    found = evolve(model.module, planted, Site(1), CARRIED, sites=[Site(0)])
    assert [one.site for one in found.kin] == [Site(0), Site(1)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    model, suite = write_small_lab(tmp_path_factory.mktemp("births"))
    return wb.open(str(model), suite=suite, device="cpu")


def test_the_gain_is_that_of_typical_maxima_over_norms(lab: Lab) -> None:
    child, parent = (Site(2), 30), (Site(1), 4)
    sizes = []
    for site, index in (child, parent):
        maximum = 1 + 4 * index / 39  # as `write_small_lab` has it
        length = float(lab.suite.sae_at(site).W_dec[index].square().sum().sqrt())
        sizes.append(maximum * length / (3 + site.layer))
    assert gain(lab.suite, child, parent) == pytest.approx(sizes[0] / sizes[1], rel=1e-5)
    assert sizes[0] / sizes[1] > 1.25
    assert trend(sizes[0] / sizes[1]) == "strengthening"
    assert trend(sizes[1] / sizes[0]) == "fading"
    assert trend(1.2) == trend(1 / 1.2) == "steady"


def test_where_an_sae_normalises_there_is_no_gain() -> None:
    """The typical maximum of such an SAE is not in the units of the stream."""
    below, above = Site(0), Site(1)
    plain = {site: random_sae(site, D_MODEL, site.layer) for site in (below, above)}
    ends = (above, 3), (below, 5)
    assert gain(RandomSuite(plain), *ends) is not None
    for site in plain:
        for how in ("layer_norm", "constant_norm"):
            mixed = {**plain, site: replace(plain[site], normalize=how)}
            assert gain(RandomSuite(mixed), *ends) is None


def test_without_calibration_there_is_no_gain(planted: Suite) -> None:
    assert gain(planted, (Site(1), 0), (Site(0), 0)) is None


def test_the_facade_gives_the_same_lineage(lab: Lab) -> None:
    found = lab.lineage((1, 3))
    expected = evolve(lab.engine.module, lab.suite, Site(1), 3)
    assert isinstance(found, Lineage)
    assert found == expected
    assert lab.run(PROMPT).lineage((1, 3)) == expected
    table = lab.relatives((1, 3))
    assert table["feature"].tolist() == [one.index for one in expected.kin]
    assert table["margin"].tolist() == [one.margin for one in expected.kin]


def test_the_chain_over_tokens_is_each_feature_s_activation(lab: Lab) -> None:
    run = lab.run(PROMPT)
    table: Any = run.chain((1, 3))
    found = run.lineage((1, 3))
    assert len(table) == len(found.kin) * (len(run.tokens) - 1)
    for one in found.kin:
        mine = table[(table["layer"] == one.site.layer) & (table["kind"] == one.site.kind)]
        values = run.features(one.site.layer, one.site.kind).of(one.index)[1:]
        assert mine["activation"].tolist() == values.tolist()
        assert mine["token"].tolist() == list(run.tokens.strings[1:])
        assert set(mine["feature"]) == {one.index}
    assert table["activation"].max() > 0


def test_a_recording_refuses_and_says_why(lab: Lab, tmp_path: Path) -> None:
    kept = wb.open_run(lab.run(PROMPT).save(tmp_path / "run.safetensors"))
    with pytest.raises(ValueError, match="open the model and run again"):
        kept.lineage((1, 3))
    with pytest.raises(ValueError, match="open the model and run again"):
        kept.lens()
