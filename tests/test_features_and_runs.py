"""Sparse features, rankings, and a run that is saved and opened without a model."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import RandomSuite

from workbench.engine.receipts import Receipt
from workbench.engine.tracing import trace
from workbench.features import Features, logit_effects, similar_order
from workbench.models import Model
from workbench.runs import Run, open_run
from workbench.sites import Site
from workbench.tokens import tokenize

SITE = Site(1, "res")


@pytest.fixture(scope="module")
def run(model: Model, suite: RandomSuite) -> Run:
    tokens = tokenize(model.tokenizer, "Grüße aus Wien 🙂")
    read = trace(model, [tokens], list(suite.saes))
    features = {
        site: Features.encode(sae, site, tokens, read.activations[site][0])
        for site, sae in suite.saes.items()
    }
    return Run(
        model="loud",
        tokens=tokens,
        logits=read.logits[0],
        activations={site: x[0] for site, x in read.activations.items()},
        receipt=Receipt(()),
        _features=features,
        _labels={"res/1/3": "three"},
    )


def dense_by_hand(run: Run, suite: RandomSuite) -> torch.Tensor:
    sae = suite.saes[SITE]
    assert sae.threshold is not None
    pre = run.activations[SITE] @ sae.W_enc + sae.b_enc
    return torch.where(pre > sae.threshold, pre, torch.zeros_like(pre))


def test_sparse_is_the_dense_encoding(run: Run, suite: RandomSuite) -> None:
    expected = dense_by_hand(run, suite)
    assert (expected > 0).any()
    torch.testing.assert_close(run.features(1).dense(), expected)
    torch.testing.assert_close(run.features(1).columns([5, 2, 5]), expected[:, [5, 2, 5]])
    assert run.features(1).columns([]).shape == (len(run.tokens), 0)


@pytest.mark.parametrize("by", ["max", "sum", "count"])
def test_top_ranks_by_measure_and_leaves_bos_out(run: Run, suite: RandomSuite, by: str) -> None:
    scored = dense_by_hand(run, suite)[1:]
    measure = {"max": scored.amax(0), "sum": scored.sum(0), "count": (scored > 0).float().sum(0)}[
        by
    ]
    top = run.features(1).top(7, by=by)  # pyright: ignore[reportArgumentType]
    assert measure[top].tolist() == sorted(measure.tolist(), reverse=True)[:7]


def test_weighted_puts_rare_features_first(run: Run, suite: RandomSuite) -> None:
    density = torch.rand(40, generator=torch.Generator().manual_seed(1)) * 0.1
    density[7] = 0.0  # never seen: counts as the rarest that was
    peak = dense_by_hand(run, suite)[1:].amax(0)
    assert peak[7] > 0
    expected = [float(peak[i] / max(density[i], density[density > 0].min())) for i in range(40)]
    scores = run.features(1).scores("weighted", density=density)
    assert scores.tolist() == pytest.approx(expected, rel=1e-5)
    top = run.features(1).top(5, by="weighted", density=density)
    assert top == sorted(range(40), key=lambda i: -expected[i])[:5]
    assert top != run.features(1).top(5)


def test_nobody_knows_a_density(run: Run) -> None:
    with pytest.raises(ValueError, match=r"nobody measured that at layer 1 res; use by='max'"):
        run.top(1, by="weighted")
    with pytest.raises(ValueError, match=r"density=\(0, 0.1\) cannot be told apart at layer 1 res"):
        run.top(1, density=(0, 0.1))


def test_filters_keep_the_order(run: Run) -> None:
    density = torch.linspace(0, 0.39, 40)
    named = replace(
        run, _labels={f"res/1/{i}": f"Number {i}" for i in range(40)}, _densities={SITE: density}
    )
    every = named.strongest(1, k=40)
    assert named.strongest(1, k=40, label="number 1") == [i for i in every if str(i)[0] == "1"]
    assert named.strongest(1, k=3, density=(0.1, 0.2)) == [i for i in every if 10 <= i <= 20][:3]
    assert named.strongest(1, label="nothing like it") == []
    assert (
        list(named.top(1, k=2, label="Number 2")["feature"])
        == [i for i in every if str(i)[0] == "2"][:2]
    )


def test_alike_rows_stand_together() -> None:
    """Three groups of columns, shuffled: each group comes out in one piece, the first in front."""
    seed = torch.Generator().manual_seed(0)
    centres = torch.eye(12)[:, :3] * 5
    group = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1, 0])
    columns = centres[:, group] + 0.3 * torch.rand(12, 9, generator=seed)
    order = similar_order(columns)
    assert order[0] == 0
    assert sorted(order) == list(range(9))
    found = group[order].tolist()
    assert sum(a != b for a, b in pairwise(found)) == 2
    silent = torch.cat([columns, torch.zeros(12, 1)], -1)
    assert similar_order(silent)[-1] == 9
    assert similar_order(columns[:, :0]) == []


def test_a_feature_of_bos_alone_is_never_ranked(run: Run) -> None:
    found = run.features(1)
    only_bos = Features(
        SITE, found.tokens, torch.tensor([0]), torch.tensor([9]), torch.tensor([1e6]), found.d_sae
    )
    assert only_bos.top(3) == []
    assert only_bos.to_frame().empty


def test_frame_is_strongest_first_within_a_position(run: Run) -> None:
    frame = run.features(1).to_frame(lambda i: f"feature {i}")
    assert list(frame.columns) == ["position", "token", "feature", "activation", "label"]
    rows = list(zip(frame["position"], -frame["activation"], strict=True))
    assert rows == sorted(rows)
    assert rows[0][0] == 1
    assert list(frame["label"]) == [f"feature {i}" for i in frame["feature"]]


def test_top_of_a_run_tells_where_each_peaks(run: Run, suite: RandomSuite) -> None:
    dense = dense_by_hand(run, suite)
    for row in run.top(1, k=5).to_dict("records"):
        column = dense[1:, row["feature"]]
        assert row["activation"] == pytest.approx(float(column.max()), rel=1e-5)
        assert row["position"] == int(column.argmax()) + 1
        assert row["token"] == run.tokens.strings[int(column.argmax()) + 1]


def test_saved_run_opens_without_a_model(run: Run, tmp_path: Path) -> None:
    opened = open_run(run.save(tmp_path / "a.run"))
    assert opened.tokens == run.tokens
    assert opened.sites == run.sites
    torch.testing.assert_close(opened.logits, run.logits)
    for site in run.sites:
        torch.testing.assert_close(
            opened.features(site.layer, site.kind).dense(),
            run.features(site.layer, site.kind).dense(),
        )
        torch.testing.assert_close(opened.activations[site], run.activations[site])
    assert opened.label(SITE, 3) == "three"
    assert opened.top(1, k=5).equals(run.top(1, k=5))


def test_a_recording_keeps_what_was_known_of_its_features(run: Run, tmp_path: Path) -> None:
    density, maximum = torch.linspace(0, 0.39, 40), torch.arange(40.0)
    known = replace(run, _densities={SITE: density}, _maxima={SITE: maximum})
    opened = open_run(known.save(tmp_path / "b.run"))
    assert torch.equal(opened.density(SITE), density)  # pyright: ignore[reportArgumentType]
    assert opened.typical_maximum(SITE, 3) == 3.0
    assert opened.typical_maximum(SITE, 0) is None
    assert opened.density(Site(0, "res")) is None
    assert opened.strongest(1, by="weighted") == known.strongest(1, by="weighted")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a saved run"):
        open_run(tmp_path / "other.safetensors")


def test_errors_name_what_there_is(run: Run) -> None:
    with pytest.raises(ValueError, match=r"layer 7 res is not in this run; it has embed; "):
        run.activation(7)
    with pytest.raises(ValueError, match="unknown kind of site 'resid'"):
        run.activation(0, "resid")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="feature 99 does not exist at layer 1 res: 0 to 39"):
        run.features(1).of(99)
    with pytest.raises(ValueError, match="by must be one of"):
        run.features(1).top(3, by="mean")  # pyright: ignore[reportArgumentType]


def test_logit_effects_are_the_direct_path(model: Model) -> None:
    """Through the gain of the final norm and the unembedding, written out."""
    module = model.module
    direction = torch.randn(24, generator=torch.Generator().manual_seed(0))
    effects = logit_effects(module, direction)
    gain = 1 + module.model.norm.weight  # pyright: ignore
    expected = module.lm_head.weight @ (gain * direction)  # pyright: ignore
    torch.testing.assert_close(effects, expected.detach())
    assert effects.std() > 0
