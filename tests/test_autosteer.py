"""Autosteer: its figures by hooks, halves apart, controls of the same norm, bad input named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from tests.test_contrast import stories
from workbench.analysis import autosteer as module
from workbench.analysis.text_features import Sides
from workbench.analysis.trials import EXAMPLE, OPENING, Trial, logprob
from workbench.lab import Lab
from workbench.sites import Site
from workbench.tokens import Tokens

STEER = wb.Steer((3, 286), 0.75)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def hungarian() -> tuple[list[str], list[str]]:
    return stories("language:hu", 10)


@pytest.fixture(scope="module")
def found(lab: Lab, hungarian) -> module.Autosteer:
    return lab.autosteer(
        "Hungarian", hungarian[0], against=hungarian[1], layers=[2, 4], progress=False
    )


def tokens(lab: Lab, texts: list[str]) -> list[Tokens]:
    return [lab.tokens(text) for text in texts]


def by_hooks(lab: Lab, ids: list[int], start: int, edits: list[tuple[int, torch.Tensor]]) -> float:
    """Mean log-probability of `ids` from `start` on, with vectors added after <bos>."""
    engine: Any = lab.engine.module
    handles = []
    for layer, vector in edits:

        def after(_: object, __: object, x: torch.Tensor, v: torch.Tensor = vector) -> torch.Tensor:
            return torch.cat([x[:, :1], x[:, 1:] + v], 1)

        handles.append(engine.model.layers[layer].register_forward_hook(after))
    try:
        with torch.no_grad():
            logits = engine(torch.tensor([ids])).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    chosen = [logits[i - 1].log_softmax(-1)[ids[i]] for i in range(start, len(ids))]
    return float(torch.stack(chosen).mean())


def vector_of(lab: Lab, edit: wb.Steer) -> tuple[int, torch.Tensor]:
    layer, index = edit.feature
    size = lab.suite.typical_maximum(Site(layer), index) if edit.unit == "max" else 1.0
    return layer, edit.strength * size * lab.sae(layer=layer).W_dec[index]


def test_gain_and_price_are_those_of_plain_hooks(lab: Lab, hungarian) -> None:
    there, lacking = (tokens(lab, side[:4]) for side in hungarian)
    trial = Trial.of(lab.engine, lab.suite, there, lacking)
    edits = [vector_of(lab, STEER)]
    rises: dict[str, list[float]] = {"examples": [], "switched": [], "others": []}
    for i in range(4):
        opening = list(lacking[(i + 1) % 4].ids[:OPENING])
        for name, text in (("examples", there[i]), ("switched", lacking[i])):
            ids = opening + list(text.ids[1 : 1 + EXAMPLE])
            rise = by_hooks(lab, ids, OPENING, edits) - by_hooks(lab, ids, OPENING, [])
            rises[name].append(rise)
        ids = list(lacking[i].ids[: OPENING + EXAMPLE])
        rises["others"].append(by_hooks(lab, ids, 1, edits) - by_hooks(lab, ids, 1, []))
    gain, other, own = (float(np.mean(rises[name])) for name in ("examples", "switched", "others"))
    assert trial.gain([STEER]) == pytest.approx(gain, abs=1e-4)
    assert trial.price([STEER]) == pytest.approx(-own, abs=1e-4)
    assert trial.own_gain([STEER], -9) == pytest.approx(gain - max(0, other), abs=1e-4)
    assert trial.own_gain([STEER], 9) == pytest.approx(gain, abs=1e-4)
    assert abs(gain) > 0.01
    assert trial.gain([]) == pytest.approx(0, abs=1e-6)


def test_texts_of_all_lengths_count_alike_and_in_small_batches(
    lab: Lab, hungarian, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [lab.tokens(t[:n]) for t, n in zip(hungarian[0], (9, 100, 40, 70), strict=False)]
    starts = [1, 5, 2, 9]
    expected = np.mean(
        [by_hooks(lab, list(t.ids), s, []) for t, s in zip(texts, starts, strict=True)]
    )
    assert logprob(lab.engine, texts, starts) == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr("workbench.analysis.text_features.BYTES", 1)
    assert logprob(lab.engine, texts, starts) == pytest.approx(expected, abs=1e-4)


def test_a_known_language_is_found_and_beats_both_controls(found, lab: Lab) -> None:
    frame = found.frame.set_index("what")
    assert 1 <= len(found.edits) <= 3
    assert all(isinstance(edit, wb.Steer) and edit.strength > 0 for edit in found.edits)
    assert {edit.feature[0] for edit in found.edits} <= {2, 4}
    assert len({edit.feature for edit in found.edits}) == len(found.edits) > 1
    gain = float(frame.loc["proposal", "gain"])
    assert gain > 0.03
    assert gain > frame.loc["random features", "gain"]
    assert gain > frame.loc["random directions", "gain"]
    assert found.notes == ()
    text = lab.generate("The old", edits=found.edits, max_new_tokens=10).text
    assert text != lab.generate("The old", max_new_tokens=10).text


def test_the_reported_gain_is_that_of_texts_that_had_no_part(found, lab: Lab, hungarian) -> None:
    sides = Sides.of(*(tokens(lab, side) for side in hungarian), seed=0)
    halves = {}
    for name, rows in (("chosen", sides.chooses), ("gain", ~sides.chooses)):
        there, lacking = (
            [sides.texts[i] for i in np.flatnonzero(rows & side)]
            for side in (sides.positive, ~sides.positive)
        )
        halves[name] = Trial.of(lab.engine, lab.suite, there, lacking)
    proposal = found.frame.iloc[0]
    edits = [vector_of(lab, edit) for edit in found.edits]
    for name, trial in halves.items():
        rises = [
            by_hooks(lab, list(t.ids), s, edits) - by_hooks(lab, list(t.ids), s, [])
            for t, s in zip(trial.examples.texts, trial.examples.starts, strict=True)
        ]
        assert proposal[name] == pytest.approx(np.mean(rises), abs=1e-3)
    assert proposal["price"] == pytest.approx(halves["gain"].price(found.edits), abs=1e-5)
    assert not {t.ids for t in halves["gain"].others.texts} & {
        t.ids for t in halves["chosen"].others.texts
    }
    alone = found.frame[found.frame["what"] == "alone"]
    for row, edit in zip(alone.itertuples(), found.edits, strict=True):
        assert (row.layer, row.feature, row.strength) == (*edit.feature, edit.strength)
        assert row.gain == pytest.approx(halves["gain"].gain([edit]), abs=1e-5)


def test_held_out_texts_change_the_score_and_not_the_proposal(found, lab: Lab, hungarian) -> None:
    sides = Sides.of(*(tokens(lab, side) for side in hungarian), seed=0)
    spare = [iter(side) for side in stories("language:es", 10, seed=5)]
    changed = [
        [t if sides.chooses[i + 10 * j] else next(spare[j]) for i, t in enumerate(side)]
        for j, side in enumerate(hungarian)
    ]
    again: Any = lab.autosteer("", changed[0], against=changed[1], layers=[2, 4], progress=False)
    assert again.edits == found.edits
    assert again.frame["gain"][0] != pytest.approx(found.frame["gain"][0])
    assert again.frame["chosen"][0] == pytest.approx(found.frame["chosen"][0])
    assert any("no better than chance" in note for note in again.notes)


def test_controls_add_the_same_norm_at_the_same_sites(lab: Lab) -> None:
    edits = [STEER, wb.Steer((3, 12), 20.0, unit="raw"), wb.Steer((5, 3), -1.0)]
    live = {Site(3): np.array([12, 286, 7, 9]), Site(5): np.array([3, 4])}
    random = np.random.default_rng(0)
    for draw in (
        module._features(lab.suite, edits, live, random),
        module._noise(lab.suite, edits, random),
    ):
        found, source = draw
        for edit, one in zip(edits, found, strict=True):
            expected = vector_of(lab, edit)[1].norm()
            row = source.sae_at(one.site).direction(one.index)
            size = source.typical_maximum(one.site, one.index) if one.unit == "max" else 1.0
            assert one.site == edit.site
            assert one.strength * size * float(row.norm()) == pytest.approx(float(expected))
            own = lab.suite.sae_at(edit.site).direction(edit.index)
            assert abs(float(torch.cosine_similarity(row, own, 0))) < 0.9


def test_a_seed_fixes_the_proposal(found, lab: Lab, hungarian) -> None:
    again = lab.autosteer(
        "Hungarian", hungarian[0], against=hungarian[1], layers=[2, 4], progress=False
    )
    pd.testing.assert_frame_equal(again.frame, found.frame)


def test_a_label_that_holds_the_name_is_tried(
    lab: Lab, hungarian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CANDIDATES", 2)
    tried: list[wb.Steer] = []
    plain = Trial.own_gain

    def watched(self: Trial, edits: Any, least: float) -> float:
        tried.extend(edits)
        return plain(self, edits, least)

    monkeypatch.setattr(Trial, "own_gain", watched)
    lab.autosteer("language:hu", hungarian[0], against=hungarian[1], layers=[6], size=1,
                  progress=False)  # fmt: skip
    surest = next(f for f in lab.suite.find("language:hu") if f.site == Site(6))
    assert tried[0].feature == (6, surest.index)
    assert len({edit.feature for edit in tried}) == 2  # half of the places are for labels


def test_ordinary_passages_stand_in_for_the_other_side(lab: Lab, hungarian) -> None:
    found: Any = lab.autosteer("Hungarian", hungarian[0], layers=[4], size=1, progress=False)
    assert len(found.edits) == 1
    assert found.frame["chosen"][0] > 0


def test_a_suite_without_calibration_proposes_raw_strengths(lab: Lab, hungarian) -> None:
    bare = Lab(lab.engine, wb.Suite(None, model="pocket"))
    bare.use(lab.sae(layer=4))
    found: Any = bare.autosteer("x", hungarian[0], against=hungarian[1], size=1, progress=False)
    assert [edit.unit for edit in found.edits] == ["raw"]
    assert found.frame["chosen"][0] > 0


def test_nothing_is_proposed_where_nothing_helps(
    lab: Lab, hungarian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST", 10.0)
    found = lab.autosteer("x", hungarian[0], against=hungarian[1], layers=[4], progress=False)
    assert found.edits == ()
    assert len(found.frame) == 0
    assert "give more of them" in repr(found)


def test_one_example_is_said_to_prove_nothing(lab: Lab, hungarian) -> None:
    found = lab.autosteer("x", hungarian[0][:1], against=hungarian[1][:3], layers=[4], size=1,
                          progress=False)  # fmt: skip
    assert "cannot be split" in repr(found)
    assert not found.edits or "so they are too good" in found._repr_html_()


def test_bad_input_is_named(lab: Lab, hungarian) -> None:
    there, lacking = hungarian
    with pytest.raises(TypeError, match=r"examples is a list of texts: write \[text\]"):
        lab.autosteer("formal", "one text")
    with pytest.raises(TypeError, match="against is a list"):
        lab.autosteer("formal", there, against="one text")
    with pytest.raises(ValueError, match="examples is empty"):
        lab.autosteer("formal", [])
    with pytest.raises(ValueError, match="stands in examples and in against"):
        lab.autosteer("formal", there, against=there)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        lab.autosteer("formal", there, against=lacking, size=0)
    with pytest.raises(ValueError, match=r"at layers \[40\]"):
        lab.autosteer("formal", there, against=lacking, layers=[40])
