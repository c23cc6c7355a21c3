"""Contrast of two sets of texts: each number by brute force, halves kept apart, bad input named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.analysis import text_features as module
from workbench.analysis.contrast import auroc
from workbench.analysis.text_features import Sides
from workbench.engine.directions import Directions, random_direction
from workbench.engine.tracing import generate, trace
from workbench.lab import Lab
from workbench.pocket.corpus import documents
from workbench.sites import Site

LAYERS = (1, 3, 5)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


def stories(concept: str, count: int, seed: int = 31) -> tuple[list[str], list[str]]:
    """Beginnings of stories in which a concept holds throughout, and of those without it."""
    there: list[str] = []
    lacking: list[str] = []
    for document in documents(seed, ("story",)):
        text = document.text[:120]
        holds = [concept in piece.concepts for piece in document.pieces]
        if all(holds) and len(there) < count:
            there.append(text)
        if not any(holds) and len(lacking) < count:
            lacking.append(text)
        if len(there) == len(lacking) == count:
            return there, lacking
    raise AssertionError("documents never end")


@pytest.fixture(scope="module")
def german() -> tuple[list[str], list[str]]:
    return stories("language:de", 7)


def activation(lab: Lab, text: str, layer: int) -> torch.Tensor:
    """``(pos, d)`` of the residual stream without ``<bos>``, by transformers alone."""
    ids = lab.tokens(text).tensor()
    with torch.no_grad():
        return lab.engine.module(ids, output_hidden_states=True).hidden_states[layer + 1][0, 1:]


def by_pairs(there: Sequence[float], lacking: Sequence[float]) -> float:
    """AUROC as it is defined: the share of pairs in the right order, ties counting half."""
    wins = [(p > n) + 0.5 * (p == n) for p in there for n in lacking]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_every_number_of_the_table_is_that_of_brute_force(lab: Lab, german, pool: str) -> None:
    found: Any = lab.contrast(*german, layers=LAYERS, pool=pool, k=12, progress=False)  # pyright: ignore[reportArgumentType]
    texts = [*german[0], *german[1]]
    chooses = Sides.of(*([lab.tokens(t) for t in side] for side in german), seed=0).chooses
    assert 0 < chooses.sum() < len(texts)
    numbers = {}
    for layer in LAYERS:
        sae: Any = lab.sae(layer=layer)
        rows = []
        for text in texts:
            pre = activation(lab, text, layer) @ sae.W_enc + sae.b_enc
            f = pre * (pre > sae.threshold)
            rows.append(f.mean(0) if pool == "mean" else f.max(0).values)
        numbers[layer] = torch.stack(rows)
    for row in found.frame.itertuples():
        own: Any = numbers[row.layer][:, row.feature].tolist()
        sides = [
            [[v for i, v in enumerate(own) if (i < 7) == side and chooses[i] == half] for side in
             (True, False)]
            for half in (True, False)
        ]  # fmt: skip
        assert row.score == pytest.approx(by_pairs(*sides[0]))
        assert row.held_out == pytest.approx(by_pairs(*sides[1]))
        assert row.positive == pytest.approx(np.mean(own[:7]), rel=1e-3, abs=1e-4)
        assert row.negative == pytest.approx(np.mean(own[7:]), rel=1e-3, abs=1e-4)
        assert row.label == lab.suite.label(Site(row.layer), row.feature)
    # None that was left out would have been chosen: AUROC first, and the gap where it is equal.
    best = found.frame["score"].min()
    listed = {(row.layer, row.feature) for row in found.frame.itertuples()}
    above = set()
    for layer, table in numbers.items():
        for feature in range(table.shape[1]):
            own = table[:, feature].tolist()
            there = [v for i, v in enumerate(own) if i < 7 and chooses[i]]
            lacking = [v for i, v in enumerate(own) if i >= 7 and chooses[i]]
            if by_pairs(there, lacking) > best + 1e-9:
                above.add((layer, feature))
    assert above <= listed
    assert found.frame["score"].is_monotonic_decreasing


def test_equal_scores_are_ordered_by_the_gap_in_typical_maxima(lab: Lab, german) -> None:
    frame: Any = lab.contrast(*german, layers=[3], k=8, progress=False).frame
    chooses = Sides.of(*([lab.tokens(t) for t in side] for side in german), seed=0).chooses
    gaps = []
    for row in frame.itertuples():
        own, peak = [], 0.0
        for place, text in enumerate((*german[0], *german[1])):
            f = lab.sae(layer=3).encode(activation(lab, text, 3))[:, row.feature]
            own.append(float(f.mean()))
            peak = max(peak, float(f.max()) * bool(chooses[place]))
        there = np.mean([v for i, v in enumerate(own) if i < 7 and chooses[i]])
        lacking = np.mean([v for i, v in enumerate(own) if i >= 7 and chooses[i]])
        gaps.append((there - lacking) / max(peak, lab.suite.typical_maximum(Site(3), row.feature)))
    ties = frame["score"].eq(frame["score"].shift(-1))
    assert ties.sum() >= 3
    assert all(gaps[i] >= gaps[i + 1] - 1e-6 for i in range(len(gaps) - 1) if ties[i])


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 4, (17, 5)).astype(float)  # many ties
    sides = random.random((17, 3)) < 0.4
    found = auroc(values, sides)
    for i in range(5):
        for j in range(3):
            pairs = by_pairs(values[sides[:, j], i].tolist(), values[~sides[:, j], i].tolist())
            assert found[i, j] == pytest.approx(pairs)


@pytest.mark.parametrize("concept", ["language:de", "language:hu", "capitals:upper"])
def test_the_feature_of_a_known_concept_is_found_and_holds(lab: Lab, concept: str) -> None:
    found: Any = lab.contrast(*stories(concept, 12), progress=False).frame
    assert concept in set(found["label"][:5])
    assert found["held_out"][0] >= 0.95 > found["control"][0]


def test_texts_that_do_not_differ_find_nothing_beyond_the_control(lab: Lab) -> None:
    alike = [d.text[:120] for d, _ in zip(documents(77, ("story",)), range(40), strict=False)]
    found: Any = lab.contrast(alike[:20], alike[20:], layers=LAYERS, progress=False).frame
    assert found["score"][0] >= 0.75  # the choosing half is fooled
    assert found["held_out"][0] < found["control"][0]
    assert 0.6 < found["control"][0] < 1


def test_held_out_texts_have_no_part_in_the_choice(lab: Lab, german) -> None:
    sides = Sides.of(*([lab.tokens(t) for t in side] for side in german), seed=0)
    other = iter(stories("language:fr", 7, seed=5)[1])
    swapped = [
        [t if sides.chooses[i + 7 * j] else next(other) for i, t in enumerate(side)]
        for j, side in enumerate(german)
    ]
    before: Any = lab.contrast(*german, layers=[3], progress=False).frame
    after: Any = lab.contrast(*swapped, layers=[3], progress=False).frame
    assert swapped != [*german]
    chosen = ["feature", "score"]
    pd.testing.assert_frame_equal(before[chosen], after[chosen])
    assert list(before["held_out"]) != list(after["held_out"])


def test_scales_are_those_of_the_texts_that_choose(lab: Lab, german) -> None:
    bare = wb.Suite(None, model="pocket")
    bare.use(lab.sae(layer=3), Site(3))
    sides = Sides.of(*([lab.tokens(t) for t in side] for side in german), seed=0)
    [reading] = module.read_texts(lab.engine, bare, sides, [Site(3)], progress=False)
    peaks = torch.stack(
        [
            lab.sae(layer=3).encode(activation(lab, text, 3)).max(0).values
            for text in (*german[0], *german[1])
        ]
    )[:, reading.features]
    own = peaks[torch.from_numpy(sides.chooses)].max(0).values
    expected = torch.where(own > 0, own, 1.0)
    torch.testing.assert_close(torch.from_numpy(reading.scale), expected, rtol=1e-3, atol=1e-3)
    assert (expected < peaks.max(0).values - 0.1).any()


def test_little_memory_gives_the_same(lab: Lab, german, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lab.contrast(*german, progress=False)
    passes: list[tuple[int, int]] = []

    def watched(model: object, prompts: Sequence, sites: Sequence, **options: object) -> object:
        passes.append((len(prompts), len(sites)))
        return trace(model, prompts, sites, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(module, "trace", watched)
    monkeypatch.setattr(module, "SITES", 3)
    monkeypatch.setattr(module, "BYTES", 1_500_000)
    parts = lab.contrast(*german, progress=False)
    assert {sites for _, sites in passes} == {3, 2}
    assert 1 < max(texts for texts, _ in passes) < 7
    pd.testing.assert_frame_equal(parts.frame, whole.frame, rtol=1e-3)
    for site, one in whole.directions.items():
        torch.testing.assert_close(parts.directions[site].vector, one.vector, rtol=1e-3, atol=1e-4)


def test_a_seed_fixes_everything_and_another_changes_the_halves(lab: Lab, german) -> None:
    options: dict = {"layers": [3], "progress": False}
    first, again = (lab.contrast(*german, seed=4, **options).frame for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(lab.contrast(*german, seed=5, **options).frame)


def test_the_direction_is_the_difference_of_means_and_can_be_steered_by(lab: Lab, german) -> None:
    direction = lab.contrast(*german, layers=[3], progress=False).direction(3)
    there, lacking = (
        torch.stack([activation(lab, text, 3).mean(0) for text in side]) for side in german
    )
    expected = there.mean(0) - lacking.mean(0)
    torch.testing.assert_close(direction.vector, expected, rtol=1e-4, atol=1e-4)
    chooses = Sides.of(*([lab.tokens(t) for t in side] for side in german), seed=0).chooses
    scores = []
    for half in (chooses, ~chooses):
        p, n = torch.from_numpy(half[:7]), torch.from_numpy(half[7:])
        v = there[p].mean(0) - lacking[n].mean(0)
        scores.append(by_pairs((there[~p] @ v).tolist(), (lacking[~n] @ v).tolist()))
    assert direction.held_out == pytest.approx(np.mean(scores))

    prompt, edit = lab.tokens("Once upon a time"), direction.steer(1.5, when="prompt")
    plain, steered = (
        trace(lab.engine, [prompt], [Site(3)], edits=edits, source=direction.source)
        for edits in ([], [edit])
    )
    added = (steered.activations[Site(3)] - plain.activations[Site(3)])[0]
    torch.testing.assert_close(added[1:], (1.5 * expected).expand(len(prompt) - 1, -1), rtol=1e-3,
                               atol=1e-3)  # fmt: skip
    assert (added[0] == 0).all()  # <bos>
    options: dict = {"source": direction.source, "max_new_tokens": 8}
    texts = [
        generate(lab.engine, [prompt], edits=[direction.steer(s)], **options)[0].text
        for s in (-2.0, 2.0)
    ]
    assert texts[0] != texts[1]


def test_a_random_direction_has_the_norm_asked_for() -> None:
    one, other = (random_direction(Site(2), 16, 3.5, seed) for seed in (0, 1))
    assert float(one.vector.norm()) == pytest.approx(3.5)
    assert not torch.equal(one.vector, other.vector)
    with pytest.raises(ValueError, match="no direction at layer 4"):
        Directions({Site(2): one.vector[None]}).sae_at(Site(4))


def test_one_text_a_side_is_ranked_without_held_out_scores(lab: Lab) -> None:
    found: Any = lab.contrast(["Der Hund schläft."], ["The dog sleeps."], progress=False)
    assert found.frame["held_out"].isna().all()
    assert found.frame["control"].isna().all()
    assert found.frame["score"][0] == 1
    assert "cannot be split" in repr(found)
    assert "cannot be split" in found._repr_html_()
    assert np.isnan(found.direction(3).held_out)
    assert (found.frame["positive"] > found.frame["negative"]).all()


def test_a_repeated_text_counts_once(lab: Lab, german) -> None:
    options: dict = {"layers": [3], "progress": False}
    once = lab.contrast(*german, **options)
    twice = lab.contrast([*german[0], german[0][2]], german[1], **options)
    pd.testing.assert_frame_equal(once.frame, twice.frame)
    assert twice.notes == ("texts that came again were left out: 1",)
    assert once.notes == ()


def test_bad_input_is_named(lab: Lab, german) -> None:
    there, lacking = german
    options: dict = {"layers": [3], "progress": False}
    with pytest.raises(TypeError, match=r"positive is a list of texts: write \[text\]"):
        lab.contrast("ein Text", lacking, **options)
    with pytest.raises(TypeError, match="negative is a list"):
        lab.contrast(there, None, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="a prompt is a text"):
        lab.contrast([3.5], lacking, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="positive is empty"):
        lab.contrast([], lacking, **options)
    with pytest.raises(ValueError, match="negative is empty"):
        lab.contrast(there, [], **options)
    with pytest.raises(ValueError, match="prompt is empty"):
        lab.contrast([*there, ""], lacking, **options)
    with pytest.raises(ValueError, match=r"stands in positive and in negative \(1 such\)"):
        lab.contrast(there, [*lacking, there[0]], **options)
    with pytest.raises(ValueError, match="k must be at least 1"):
        lab.contrast(there, lacking, k=0, **options)
    with pytest.raises(ValueError, match="pool must be 'mean' or 'max'"):
        lab.contrast(there, lacking, pool="sum", **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"at layers \[99\]"):
        lab.contrast(there, lacking, layers=[3, 99])
    with pytest.raises(ValueError, match="unknown kind"):
        lab.contrast(there, lacking, kinds=("residual",))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="there is no SAE of kinds"):
        lab.contrast(there, lacking, kinds=("transcoder",))
    with pytest.raises(ValueError, match=r"no direction at layer 4.*layer 3"):
        lab.contrast(there, lacking, **options).direction(4)


def test_nothing_is_downloaded_unless_a_layer_is_named(
    lab: Lab, german, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.suite, "at_hand", lambda site: site.layer == 2)
    assert set(lab.contrast(*german, progress=False).frame["layer"]) == {2}
    monkeypatch.setattr(lab.suite, "at_hand", lambda site: False)
    with pytest.raises(ValueError, match=r"name layers=\[\.\.\.\] to fetch"):
        lab.contrast(*german, progress=False)
    assert set(lab.contrast(*german, layers=[4], progress=False).frame["layer"]) == {4}


def test_a_suite_without_calibration_will_do(lab: Lab, german) -> None:
    bare = Lab(lab.engine, wb.Suite(None, model="pocket"))
    bare.use(lab.sae(layer=3))
    found: Any = bare.contrast(*german, progress=False)
    assert set(found.frame["layer"]) == {3}
    assert found.frame["held_out"][0] > 0.9


def test_a_bar_is_shown_unless_it_is_not_wanted(
    lab: Lab, german, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.contrast(*german, layers=[3], progress=False)
    assert capsys.readouterr().err == ""
    lab.contrast(*german, layers=[3])
    assert "reading texts: 100%" in capsys.readouterr().err


def test_notes_and_labels_are_shown_as_text() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    frame = pd.DataFrame({"label": [hostile]})
    for shown in (
        wb.Contrast(frame, {}, (f"remark on {hostile!r}",)),
        wb.Autosteer(hostile, (), frame, (f"no feature made {hostile!r} likelier",)),
    ):
        page = shown._repr_html_()
        assert "<img" not in page
        assert page.count("&lt;img src=x") == 2
