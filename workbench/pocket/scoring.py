"""Score features against the truth.

Local concepts: a feature predicts the label of a token by firing above a threshold. Feature and
threshold are chosen on one half of the rows and F1 is reported on the other half.

Persistent concepts: the mean activation over 16 tokens separates stretches that have the concept
from stretches that have another value of the same factor. The feature is chosen by AUROC on one
half and reported on the other half.

Both stand beside the same search over shuffled labels, which shows what the search alone can find
by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.pocket.corpus.concepts import FACTOR_VALUES, LOCAL
from workbench.pocket.dataset import LabelledRows
from workbench.sites import Site

THRESHOLDS = (0.0, 0.1, 0.25, 0.5)
"""Firing thresholds that are tried, as shares of the feature's maximum."""
WINDOW = 16
"""Tokens over which a persistent concept is judged."""


@dataclass(frozen=True)
class Found:
    """The best feature for a concept, as chosen on one half of the text."""

    concept: str
    site: Site
    index: int
    threshold: float
    """Activation above which it counts as firing; 0 for persistent concepts."""
    chosen: float
    """F1 or AUROC on the half it was chosen on."""
    score: float
    """The same on the other half."""
    support: int
    """Tokens or windows with the concept on the other half."""


@dataclass(frozen=True)
class Halves:
    """Which of the scored positions belong to which half, ``(token,)`` each."""

    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, rows: LabelledRows, keep: np.ndarray) -> Halves:
        """Even and odd rows; `keep` ``(row, pos)`` says which positions are scored."""
        even = np.broadcast_to((np.arange(len(keep)) % 2 == 0)[:, None], keep.shape)[keep]
        return cls(torch.from_numpy(even), torch.from_numpy(~even))


def f1_table(active: Tensor, labels: Tensor) -> Tensor:
    """F1 of each feature at predicting each label ``(feature, concept)``.

    Args:
        active: ``(token, feature)`` bool.
        labels: ``(token, concept)`` bool.
    """
    hits = active.float().T @ labels.float()
    total = active.sum(0, dtype=torch.float32)[:, None] + labels.sum(0, dtype=torch.float32)[None]
    return 2 * hits / total.clamp(min=1)


def auroc_table(scores: np.ndarray, labels: np.ndarray, admitted: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each feature for each label ``(feature, concept)``.

    Ties count half. By the rank-sum identity (Hanley and McNeil 1982): ``(R - n(n + 1)/2) / (n m)``
    with ``R`` the ranks of the
    ``n`` positives among ``m`` negatives.

    Args:
        scores: ``(window, feature)``.
        labels: ``(window, concept)`` bool.
        admitted: ``(window, concept)`` bool; windows that are neither are left out of that concept.
    """
    out = np.full((scores.shape[1], labels.shape[1]), 0.5)
    for sets in _same_columns(admitted):
        rows = admitted[:, sets[0]]
        ranks = pd.DataFrame(scores[rows]).rank().to_numpy()
        positive = labels[rows][:, sets].astype(float)
        n = positive.sum(0)
        m = len(positive) - n
        sums = ranks.T @ positive
        with np.errstate(invalid="ignore", divide="ignore"):
            area = (sums - n * (n + 1) / 2) / (n * m)
        out[:, sets] = np.where((n > 0) & (m > 0), area, 0.5)
    return out


def _same_columns(admitted: np.ndarray) -> Iterator[list[int]]:
    """Groups of concepts that admit the same windows: the values of one factor."""
    groups: dict[bytes, list[int]] = {}
    for column in range(admitted.shape[1]):
        groups.setdefault(admitted[:, column].tobytes(), []).append(column)
    yield from groups.values()


def windows(
    activation: Tensor, rows: LabelledRows, keep: np.ndarray, concepts: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means over stretches of `WINDOW` tokens that have one value of every named factor throughout.

    Args:
        activation: ``(token, feature)`` of the kept positions, in order.
        rows: The text.
        keep: ``(row, pos)`` bool.
        concepts: Persistent concepts.

    Returns:
        Means ``(window, feature)``, labels and admitted ``(window, concept)``, and row of each
        window ``(window,)``.
    """
    index = np.cumsum(keep.reshape(-1)).reshape(keep.shape) - 1
    columns = [rows.concepts.index(concept) for concept in concepts]
    factor_of = [concept.split(":")[0] for concept in concepts]
    means, labels, admitted, owner = [], [], [], []
    for row in range(len(keep)):
        for start in range(1, keep.shape[1] - WINDOW + 1, WINDOW):
            part = slice(start, start + WINDOW)
            if not keep[row, part].all():
                continue
            held: np.ndarray = rows.labels[row, part][:, columns]
            whole, none = held.min(0), ~held.max(0)
            known = {f for f, w in zip(factor_of, whole, strict=True) if w}
            means.append(activation[index[row, start] : index[row, start] + WINDOW].mean(0).numpy())
            labels.append(whole)
            admitted.append(
                [(w or n) and f in known for w, n, f in zip(whole, none, factor_of, strict=True)]
            )
            owner.append(row)
    return np.array(means), np.array(labels), np.array(admitted), np.array(owner)


@dataclass
class Search:
    """The best feature of each concept so far, over the sites that were shown."""

    best: dict[str, Found]

    def offer(self, found: Found) -> None:
        """Keep `found` if its chosen score beats what is there."""
        if found.concept not in self.best or found.chosen > self.best[found.concept].chosen:
            self.best[found.concept] = found


def score_local(
    search: Search,
    site: Site,
    activation: Tensor,
    labels: Tensor,
    halves: Halves,
    names: tuple[str, ...] = LOCAL,
) -> None:
    """Offer the best feature of `site` for each local concept.

    Args:
        search: Where the best ones are kept.
        site: The site.
        activation: ``(token, feature)``.
        labels: ``(token, concept)`` bool, in the order of `names`.
        halves: Which tokens choose and which report.
        names: Concepts.
    """
    peak = activation.max(0).values
    tables = [
        f1_table(activation[halves.first] > peak * share, labels[halves.first])
        for share in THRESHOLDS
    ]
    table = torch.stack(tables)
    for column, name in enumerate(names):
        threshold, feature = divmod(int(table[:, :, column].argmax()), table.shape[1])
        level = float(peak[feature]) * THRESHOLDS[threshold]
        fires = activation[halves.second][:, feature, None] > level
        truth = labels[halves.second][:, column, None]
        search.offer(
            Found(
                name,
                site,
                feature,
                level,
                float(table[threshold, feature, column]),
                float(f1_table(fires, truth)),
                int(truth.sum()),
            )
        )


def score_persistent(
    search: Search,
    site: Site,
    means: np.ndarray,
    labels: np.ndarray,
    admitted: np.ndarray,
    first: np.ndarray,
    names: tuple[str, ...],
) -> None:
    """Offer the best feature of `site` for each persistent concept.

    `means`, `labels` and `admitted` are as `windows` returns them.
    `first` ``(window,)`` says which windows choose.
    """
    table = auroc_table(means[first], labels[first], admitted[first])
    best = table.argmax(0)
    for column, name in enumerate(names):
        feature = int(best[column])
        other = ~first
        score = auroc_table(
            means[other][:, [feature]], labels[other][:, [column]], admitted[other][:, [column]]
        )
        search.offer(
            Found(
                name,
                site,
                feature,
                0.0,
                float(table[feature, column]),
                float(score[0, 0]),
                int(labels[other][:, column].sum()),
            )
        )


def probe(
    activation: np.ndarray,
    labels: np.ndarray,
    first: np.ndarray,
    k: int,
    measure: Callable[..., float],
) -> float:
    """Score of a logistic regression on the `k` features that differ most (sparse probing).

    After Gurnee et al. 2023 (arXiv 2305.01610): features are ranked by the difference of their
    means, scaled by their spread.

    Args:
        activation: ``(example, feature)``.
        labels: ``(example,)`` bool.
        first: ``(example,)`` bool: fitted on these, scored on the others.
        k: Number of features.
        measure: Takes truth and predicted probability.
    """
    from sklearn.linear_model import LogisticRegression

    x, y = activation[first], labels[first]
    gap = np.abs(x[y].mean(0) - x[~y].mean(0)) / (x.std(0) + 1e-6)
    chosen = np.argsort(-gap)[:k]
    scale = x[:, chosen].std(0) + 1e-6
    model = LogisticRegression(max_iter=300, class_weight="balanced").fit(x[:, chosen] / scale, y)
    other = ~first
    return measure(labels[other], model.predict_proba(activation[other][:, chosen] / scale)[:, 1])


def factor_of(concept: str) -> str:
    """The factor of a persistent concept.

    >>> factor_of("language:de")
    'language'
    """
    factor = concept.split(":")[0]
    if factor not in FACTOR_VALUES:
        raise ValueError(f"{concept!r} is not a persistent concept")
    return factor
