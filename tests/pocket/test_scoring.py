"""The scores against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from workbench.pocket.dataset import LabelledRows
from workbench.pocket.scoring import (
    WINDOW,
    Found,
    Halves,
    Search,
    auroc_table,
    f1_table,
    probe,
    score_local,
    windows,
)
from workbench.pocket.steering_score import BUDGET, Outcome, mean_difference, succeeds
from workbench.pocket.suite_training import calibrate
from workbench.sae import SAE, SAEConfig
from workbench.sites import Site

RNG = np.random.default_rng(0)


def test_f1_is_scikit_learns() -> None:
    active, labels = RNG.random((200, 5)) > 0.6, RNG.random((200, 3)) > 0.7
    table = f1_table(torch.from_numpy(active), torch.from_numpy(labels))
    for i in range(5):
        for j in range(3):
            assert float(table[i, j]) == pytest.approx(
                f1_score(labels[:, j], active[:, i]), abs=1e-6
            )


def test_auroc_is_scikit_learns_with_ties_and_left_out_windows() -> None:
    scores = RNG.integers(0, 6, (120, 4)).astype(float)
    labels = RNG.random((120, 3)) > 0.5
    admitted = np.stack([RNG.random(120) > 0.3, np.ones(120, bool), np.ones(120, bool)], 1)
    table = auroc_table(scores, labels, admitted)
    for i in range(4):
        for j in range(3):
            rows = admitted[:, j]
            expected = roc_auc_score(labels[rows, j], scores[rows, i])
            assert table[i, j] == pytest.approx(expected, abs=1e-9)


def test_auroc_of_a_concept_without_examples_is_chance() -> None:
    assert auroc_table(
        RNG.random((10, 2)), np.zeros((10, 1), bool), np.ones((10, 1), bool)
    ).tolist() == [[0.5], [0.5]]


def test_search_reports_the_half_that_it_did_not_choose_on() -> None:
    """Feature 0 is right on the first half only, feature 1 a little right on both."""
    labels = torch.arange(80) % 2 == 0
    first = torch.arange(80) < 40
    activation = torch.zeros(80, 2)
    activation[:, 0] = (labels & first).float()
    activation[:, 1] = labels.float()
    activation[0, 1] = 0
    search = Search({})
    score_local(search, Site(0), activation, labels[:, None], Halves(first, ~first), ("c",))
    found = search.best["c"]
    assert (found.index, found.chosen, found.score, found.support) == (0, 1.0, 0.0, 20)


def test_search_keeps_the_better_of_two_sites() -> None:
    search = Search({})
    search.offer(Found("c", Site(0), 1, 0.0, 0.5, 0.9, 10))
    search.offer(Found("c", Site(1), 2, 0.0, 0.7, 0.1, 10))
    search.offer(Found("c", Site(2), 3, 0.0, 0.6, 1.0, 10))
    assert search.best["c"].site == Site(1)


def test_windows_admit_only_stretches_with_one_value() -> None:
    concepts = ("language:de", "language:en", "role:user")
    labels = np.zeros((2, 2 * WINDOW + 1, 3), bool)
    labels[0, 1 : WINDOW + 1, 0] = True  # German throughout
    labels[0, WINDOW + 1 :, 1] = True  # English throughout
    labels[1, 1 : WINDOW // 2, 0] = True  # changes within the window
    labels[1, WINDOW // 2 : WINDOW + 1, 1] = True
    keep = np.ones(labels.shape[:2], bool)
    keep[:, 0] = False
    rows = LabelledRows(
        np.zeros(keep.shape), labels, concepts, np.zeros(keep.shape), np.zeros(keep.shape)
    )
    activation = torch.arange(4 * WINDOW, dtype=torch.float32)[:, None]
    means, held, admitted, owner = windows(activation, rows, keep, concepts)
    assert means[:, 0].tolist() == [(2 * i * WINDOW + WINDOW - 1) / 2 for i in range(4)]
    assert held[:2, :2].tolist() == [[True, False], [False, True]]
    assert admitted[:2, :2].all()
    assert not admitted[2:, :2].any()
    assert not admitted[:, 2].any()
    assert owner.tolist() == [0, 0, 1, 1]


def test_probe_finds_the_two_features_that_matter() -> None:
    x = RNG.normal(size=(600, 8))
    y = x[:, 3] + x[:, 6] > 0
    first = np.arange(600) % 2 == 0
    one, two = (probe(x, y, first, k, roc_auc_score) for k in (1, 2))
    assert one < 0.95 < two


@pytest.mark.parametrize(
    ("share", "price", "base", "expected"),
    [
        (0.5, 1.0, 0.1, True),
        (0.49, 1.0, 0.1, False),
        (0.61, 1.0, 0.4, True),
        (0.61, BUDGET + 0.01, 0.1, False),
        (0.09, 0.1, 0.0, False),
        (0.1, 0.1, 0.0, True),
        (0.7, 0.1, 0.65, False),
    ],
)
def test_success_needs_the_rise_and_the_fluency(
    share: float, price: float, base: float, *, expected: bool
) -> None:
    assert succeeds(Outcome(share, price), Outcome(base, 0.0)) is expected


def test_mean_difference_compares_within_the_factor() -> None:
    labels = torch.tensor([[1, 0], [0, 1], [0, 0]], dtype=torch.bool)
    activation = torch.tensor([[3.0], [1.0], [100.0]])
    assert mean_difference(activation, labels, 0, [0, 1]).tolist() == [2.0]


def test_calibration_by_hand() -> None:
    """Feature 0 is the input itself, feature 1 never fires."""
    sae = SAE(
        W_enc=torch.tensor([[1.0, 0.0]]),
        b_enc=torch.tensor([0.0, -1.0]),
        W_dec=torch.ones(2, 1),
        b_dec=torch.zeros(1),
        threshold=torch.tensor([0.5, 0.5]),
        activation="jumprelu",
        config=SAEConfig("", 0, "res", 2, None, "", 1, 1, 2),
    )
    x = torch.arange(1, 401, dtype=torch.float32)[:, None] - 200
    found = calibrate(sae, x, x)
    active = [float(v) for v in x if v > 0.5]
    assert found.l0 == pytest.approx(len(active) / 400)
    assert found.density.tolist() == pytest.approx([len(active) / 400, 0.0])
    assert float(found.maximum[0]) == pytest.approx(np.quantile(active, 0.99), rel=0.01)
    assert float(found.maximum[1]) == 0.0
    assert found.norm == pytest.approx(float(x.abs().mean()))
