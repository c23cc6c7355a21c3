"""Causes and circuits of the shipped model, by the calls that a notebook makes."""

from __future__ import annotations

from pathlib import Path

import pytest

import workbench as wb
from workbench.lab import Lab
from workbench.runs import Run, open_run
from workbench.sites import Site


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    return lab.run("The capital of France is")


def test_a_run_gives_the_circuit_of_a_next_token(run: Run) -> None:
    found = run.circuit(" Paris", layers=[3, 5, 7], floor=0.02)
    assert found.sites == (Site(3), Site(5), Site(7))
    assert len(found.features) == 20
    assert all(node.label == run.label(node.site, node.index) for node in found.features)  # pyright: ignore
    faithful = found.faithfulness
    assert faithful is not None
    assert faithful.model == pytest.approx(found.score)
    assert faithful.faithfulness_with_errors > 0.4
    assert faithful.completeness < 0.6
    against = run.circuit(" Paris", against=" Berlin", layers=[5], k=5)
    assert against.score == pytest.approx(float(run.logits[-1, against.target.token]
                                          - run.logits[-1, against.target.against[0]]))  # fmt: skip


def test_the_average_of_two_slopes_ranks_as_ablations_do(run: Run) -> None:
    found = run.attribution(" Paris", dimmed=3, sites=[Site(layer) for layer in range(8)])
    assert found.check(30).rank_correlation > 0.8


def test_a_run_and_the_index_say_what_a_feature_causes(lab: Lab, run: Run) -> None:
    feature = (3, 144)
    found = run.causes(feature, estimate=5)
    assert {site for site, _ in found.estimates} <= set(found.changes)
    assert min(found.changes) == Site(4, "att")
    assert found.links(1)
    over = lab.causes(feature, sites=[Site(4), Site(5)], tokens=200)
    assert list(over.changes) == [Site(4), Site(5)]
    assert over.tokens is None
    assert over.count > 0
    assert over.links(1)


def test_without_a_model_or_with_edits_it_says_so(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("The capital of France is")  # of which nothing was asked
    recorded = open_run(run.save(tmp_path / "run.safetensors"))
    for call in (lambda: recorded.circuit(" Paris"), lambda: recorded.causes((3, 144))):
        with pytest.raises(ValueError, match="a recorded run has no model"):
            call()
    edited = lab.run("The capital of France is", edits=[wb.Ablate((3, 144))])
    with pytest.raises(ValueError, match="this run was edited"):
        edited.causes((3, 144))
    assert edited.circuit(" Paris", layers=[5], k=3).faithfulness is None
