"""An SAE of one's own in place of a shipped one takes none of what was said of the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis.evaluation import typical_maxima
from workbench.index.identity import of_sae
from workbench.lab import Lab
from workbench.sae import SAE
from workbench.sites import Site

SITE = Site(6)
LABELLED = 400
"""A feature of the shipped SAE there that has a label, a calibration and a tested strength."""


@pytest.fixture
def lab() -> Lab:
    return wb.open()


def reordered(sae: SAE) -> SAE:
    """The same features under other numbers."""
    order = torch.arange(sae.config.d_sae).roll(1)
    assert sae.threshold is not None
    return replace(
        sae,
        W_enc=sae.W_enc[:, order],
        b_enc=sae.b_enc[order],
        W_dec=sae.W_dec[order],
        threshold=sae.threshold[order],
    )


def said(lab: Lab) -> tuple[str, bool, float | None, bool]:
    """Label, calibration and tested strength of the feature, and whether a search names it."""
    named = lab.find("sentiment:negative")
    found = bool(((named.layer == SITE.layer) & (named.feature == LABELLED)).any())
    suite = lab.suite
    return (
        suite.label(SITE, LABELLED),
        suite.calibrated(SITE),
        suite.tested_strength(SITE, LABELLED),
        found or "sentiment:negative" in suite.steering,
    )


def test_another_sae_has_nothing_of_the_one_before_it(lab: Lab) -> None:
    before = said(lab)
    assert all(before)
    shipped = lab.sae(layer=SITE.layer)
    lab.use(reordered(shipped))
    assert said(lab) == ("", False, None, False)
    assert lab.suite.label(Site(4), 231) == wb.open().suite.label(Site(4), 231)
    with pytest.raises(ValueError, match=r"typical maximum .* was not measured: call lab\.prepare"):
        lab.suite.typical_maximum(SITE, LABELLED)
    with pytest.raises(ValueError, match="nobody measured the density"):
        lab.suite.density(SITE)
    assert lab.suite.mean_norm(SITE) > 0, "of the activation, whichever SAE reads it"
    lab.use(shipped)
    assert said(lab) == before


def test_a_copy_of_the_shipped_one_keeps_all(lab: Lab, tmp_path: Path) -> None:
    before = said(lab)
    lab.use(lab.sae(lab.sae(layer=SITE.layer).save(tmp_path)))
    assert said(lab) == before


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"])
def test_one_number_makes_another_sae(lab: Lab, name: str) -> None:
    sae = lab.sae(layer=2)
    changed = getattr(sae, name).clone()
    changed.view(-1)[7] += 1
    assert sae.same_as(replace(sae))
    assert not sae.same_as(replace(sae, **{name: changed}))


def test_another_activation_makes_another_sae(lab: Lab) -> None:
    sae = replace(lab.sae(layer=2), activation="topk", threshold=None, k=20)
    assert not sae.same_as(lab.sae(layer=2))
    assert not sae.same_as(replace(sae, k=21))
    assert not sae.same_as(replace(sae, apply_b_dec_to_input=True))


def test_typical_maxima_are_measured_where_nobody_knows_them(lab: Lab) -> None:
    lab.use(reordered(lab.sae(layer=SITE.layer)))
    feature = (SITE.layer, LABELLED + 1)
    edit = wb.Steer(feature, 2.0)
    receipt = lab.run("Anna looked at the boat.", edits=[edit]).receipt
    values = []
    for text in lab.suite.sample:
        run = lab.run(text[:400], sites=[SITE])
        assert len(run.tokens) < lab.engine.context
        values += run.features(SITE.layer).of(feature[1])[1:].tolist()
    texts = [lab.tokens(text[:400]) for text in lab.suite.sample]
    saes = {SITE: lab.suite.sae_at(SITE)}
    measured = typical_maxima(lab.engine, saes, {SITE: [feature[1]]}, texts)[SITE][feature[1]]
    assert measured == pytest.approx(np.quantile([v for v in values if v > 0], 0.99), rel=1e-4)
    used = lab.suite.typical_maximum(SITE, feature[1])
    assert used > 0
    assert receipt.acts[0].mean_norm == pytest.approx(2 * used, rel=1e-3)
    facts = {one["name"]: one for one in lab.dashboard(feature, synchronous=True).widget.facts}
    assert facts["typical maximum"] == {
        "name": "typical maximum",
        "value": f"{used:.3g}",
        "hint": "99th percentile, sample texts",
    }


def test_a_feature_that_never_fires_has_no_typical_maximum(lab: Lab) -> None:
    sae = lab.sae(layer=SITE.layer)
    lab.use(replace(sae, b_enc=torch.full_like(sae.b_enc, -1e6)))
    with pytest.raises(ValueError, match="never fired in the calibration text"):
        lab.run("Anna", edits=[wb.Steer((SITE.layer, 3), 1.0)])


def test_shipped_maxima_are_not_measured_anew(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.lab.core.typical_maxima", None)
    lab.run("Anna", edits=[wb.Steer((SITE.layer, LABELLED), 1.0)])
    assert not lab.suite.typical


def test_passages_of_the_one_before_it_are_not_taken_for_its_own(lab: Lab) -> None:
    lab.use(reordered(lab.sae(layer=SITE.layer)))
    feature = (SITE.layer, LABELLED)
    for ask in (
        lambda: lab.causes(feature),
        lambda: lab.autolabel([feature]),
        lambda: lab.autolabel(),
        lambda: lab.evolution(feature),
        lambda: lab.search("language"),
    ):
        with pytest.raises(ValueError, match="made with another SAE at layer 6 res"):
            ask()
    assert lab.autolabel([(4, 231)])


def test_a_run_follows_the_sae_in_use(lab: Lab) -> None:
    run = lab.run("The capital of France is")
    site, token = Site(3), " Paris"
    run.attribution(token, sites=[site])
    run.lineage((3, 5))
    before = run.fit(3).fvu
    lab.use(reordered(lab.sae(layer=3)))
    fresh = lab.run("The capital of France is")
    assert torch.equal(run.features(3).dense(), fresh.features(3).dense())
    assert run.fit(3).fvu == pytest.approx(before)
    assert not run.results.lineages, "a recording must not keep ways through the SAE that was there"
    mine, theirs = (one.attribution(token, sites=[site]).top(5) for one in (run, fresh))
    assert mine.equals(theirs)
    how = {"layers": [3, 5], "k": 5}
    assert run.circuit(token, **how).faithfulness == fresh.circuit(token, **how).faithfulness
    worse = lab.sae(layer=3)
    lab.use(replace(worse, b_dec=worse.b_dec + 1))
    assert run.fit(3).fvu == lab.run("The capital of France is").fit(3).fvu > 1.2 * before


def test_a_map_follows_the_sae_in_use(lab: Lab) -> None:
    run = lab.run("The capital of France is")
    drawn = run.evolution((3, 5), synchronous=True)
    kin = [(one.site, one.index, one.cosine) for one in drawn.lineage.kin if one.site != Site(3)]
    lab.use(reordered(lab.sae(layer=3)))
    drawn.follow((3, 6))  # the same feature under its new number
    now = [(one.site, one.index, one.cosine) for one in drawn.lineage.kin if one.site != Site(3)]
    assert [one[:2] for one in now] == [one[:2] for one in kin]
    assert [one[2] for one in now] == pytest.approx([one[2] for one in kin])
    assert drawn.lineage.origin == (Site(3), 6)


def test_what_was_said_of_the_shipped_one_is_said_of_its_copy(lab: Lab, tmp_path: Path) -> None:
    lab.labels.set((3, 27), "my numbers")
    lab.labels.note((3, 27), "my note")
    lab.use(lab.sae(lab.sae(layer=3).save(tmp_path)))
    assert lab.suite.label(Site(3), 27) == "my numbers"
    assert lab.labels.notes(Site(3), 27) == "my note"
    lab.use(reordered(lab.sae(layer=3)))
    assert lab.suite.label(Site(3), 27) == lab.labels.notes(Site(3), 27) == ""


@pytest.mark.parametrize(
    "does", [{"k": 4}, {"normalize": "layer_norm"}, {"apply_b_dec_to_input": True}]
)
def test_an_index_knows_what_an_sae_does_with_its_weights(lab: Lab, does: dict[str, Any]) -> None:
    sae = replace(lab.sae(layer=3), activation="topk", k=16, threshold=None)
    other = replace(sae, **does)
    assert of_sae(sae) != of_sae(other)
    assert of_sae(sae) == of_sae(replace(sae))
    assert of_sae(sae) != of_sae(replace(sae, activation="relu", k=None))


@pytest.mark.parametrize("name", ["W_enc", "W_dec"])
def test_an_sae_with_a_weight_that_is_no_number_is_not_used(lab: Lab, name: str) -> None:
    sae = lab.sae(layer=3)
    broken = getattr(sae, name).clone()
    broken[3, 4] = torch.nan
    with pytest.raises(ValueError, match=rf"1 value\(s\) of {name} are NaN or infinite"):
        lab.use(replace(sae, **{name: broken}))
    assert lab.suite.sae_at(Site(3)).same_as(sae)
