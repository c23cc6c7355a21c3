"""How good automatic labels are where the truth is known: ``python -m tests.benchmarks.labels``.

On pocket every label of the suite names the concept that its feature stands for, and the corpus
says of every token which concepts it belongs to. For each labelled feature an automatic label is
made from the index, with no network and no look at the concept. Then:

- named: the label's rule is tried on fresh text, and of all concepts the one whose tokens it finds
  best (F1 over tokens) is taken for what it names;
- the score that the label got from its own held-out passages is compared with the scores of labels
  that were dealt to other features: AUROC of telling the two apart, 0.5 if the score says nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from workbench.index import Index
from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.labels.automatic import Rule, automatic_label, detection
from workbench.labels.examples import LENGTH, Material, Pool, material
from workbench.labels.records import Label
from workbench.pocket.corpus import documents
from workbench.pocket.corpus.concepts import CONCEPTS, PERSISTENT
from workbench.pocket.dataset import labelled_rows
from workbench.sae.suite import Labelled
from workbench.tokens import strings_of

INDEXED, FRESH = 8, 91
"""Seeds of the corpora that are indexed, as pocket's own index, and tried on."""


@dataclass(frozen=True)
class Text:
    """Fresh text with the truth of every token."""

    passages: list[list[str]]
    truth: np.ndarray
    """``(token, concept)`` bool, the tokens of all passages in a row."""

    @classmethod
    def of(cls, lab: Lab, rows: int) -> Text:
        """So many rows of the corpus."""
        found = labelled_rows(lab.tokenizer, FRESH, rows, CONCEPTS)
        passages, truth = [], []
        for ids, labels in zip(found.ids, found.labels, strict=True):
            strings = strings_of(lab.tokenizer, ids.tolist())
            for start in range(1, len(strings) - LENGTH + 1, LENGTH):
                passages.append(list(strings[start : start + LENGTH]))
                truth.append(labels[start : start + LENGTH])
        return cls(passages, np.concatenate(truth))

    def ranked(self, rule: Rule) -> list[str]:
        """The concepts whose tokens a rule finds, best first."""
        marks = np.array([mark for tokens in self.passages for mark in rule.marks(tokens)], float)
        hits = marks @ self.truth
        f1 = 2 * hits / np.maximum(marks.sum() + self.truth.sum(0), 1)
        return [CONCEPTS[i] for i in np.argsort(-f1, kind="stable")]


def auroc(higher: list[float], lower: list[float]) -> float:
    """Chance that one of `higher` is above one of `lower`; ties count half."""
    a, b = np.array(higher)[:, None], np.array(lower)[None]
    return float((a > b).mean() + (a == b).mean() / 2)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, help="an index of pocket; one is made if left out")
    parser.add_argument("--documents", type=int, default=800, help="of the index that is made")
    parser.add_argument("--rows", type=int, default=600, help="of fresh text")
    parser.add_argument("--kind", help="only features of this kind of site")
    parser.add_argument("--show", type=int, default=12, help="labels to print")
    options: Any = parser.parse_args()
    lab = open_lab()
    with tempfile.TemporaryDirectory() as folder:
        index = (
            Index.open(options.index)
            if options.index
            else lab.index(
                [d.text for d in islice(documents(INDEXED), options.documents)],
                path=Path(folder, "index.duckdb"),
            )
        )
        lab.suite.own = None  # the truth is what the suite brings
        features = [f for f in lab.suite.find("") if options.kind in (None, f.site.kind)]
        report(lab, index, features, Text.of(lab, options.rows), options.show)
        index.close()


def report(lab: Lab, index: Index, features: list[Labelled], text: Text, show: int) -> None:
    """Label, score and compare, and print."""
    out = sys.stdout.write
    out(f"{index}\n{len(features)} features with a known concept of {len(CONCEPTS)}\n")
    start = time.perf_counter()
    pool = Pool(index, lab.engine, lab.suite, {f.site for f in features})
    pooled = time.perf_counter()
    materials = [material(index, pool, f.site, f.index) for f in features]
    labels = [automatic_label(one) for one in materials]
    took = (time.perf_counter() - pooled) / len(features)
    out(f"pool of {len(pool)} passages: {pooled - start:.1f} s; a label: {1e3 * took:.0f} ms\n\n")
    known = [
        (f, m, label)
        for f, m, label in zip(features, materials, labels, strict=True)
        if label is not None
    ]
    out(f"{'features that fire in the index':56} {len(known):>7}\n")
    names(known, text, out, show)
    scores(known, out)


def names(known: list[tuple[Labelled, Material, Label]], text: Text, out: Any, show: int) -> None:
    """How often the label names the concept."""
    found = [(f, label, text.ranked(Rule.of(label.details))) for f, _, label in known]
    order = np.random.default_rng(0).permutation(len(found))
    dealt = [found[i][2] for i in order]
    for name, chosen in (
        ("all", lambda f: True),
        ("concepts of passages", lambda f: f.label in PERSISTENT),
        ("concepts of tokens", lambda f: f.label not in PERSISTENT),
    ):
        mine = [i for i, (f, _, _) in enumerate(found) if chosen(f)]
        for k in (1, 3):
            true = np.mean([found[i][0].label in found[i][2][:k] for i in mine])
            other = np.mean([found[i][0].label in dealt[i][:k] for i in mine])
            what = f"names the concept, in the first {k}: {name} ({len(mine)})"
            out(f"{what:56} {true:>7.0%}   dealt to another feature {other:.0%}\n")
    out(f"\n{'concept':22} {'named':22} {'score':>5}  label\n")
    for i in order[:show]:
        f, label, ranked = found[i]
        score = "-" if label.score is None else f"{label.score:.2f}"
        out(f"{f.label:22} {ranked[0]:22} {score:>5}  {label.text}\n")
    kinds = Counter(label.details["rule"]["kind"] for _, label, _ in found)
    out(f"\nkinds of rule: {dict(kinds.most_common())}\n")


def scores(known: list[tuple[Labelled, Material, Label]], out: Any) -> None:
    """How well the score tells a label from one that was dealt to the feature."""
    random = np.random.default_rng(1)
    true, shuffled = [], []
    for i, (f, m, label) in enumerate(known):
        others = [o for g, _, o in known if g.label != f.label]
        rule = Rule.of(others[random.integers(len(others))].details)
        other = detection(rule, m.held, m.held_quiet)
        if label.score is not None and other is not None:
            true.append(label.score)
            shuffled.append(other)
        del i
    out(f"\n{'labels that could be scored':56} {len(true):>7}\n")
    out(f"{'mean score of labels on held-out passages':56} {np.mean(true):>7.3f}\n")
    out(f"{'mean score of labels of another concept':56} {np.mean(shuffled):>7.3f}\n")
    out(f"{'AUROC, true above shuffled':56} {auroc(true, shuffled):>7.3f}\n")


if __name__ == "__main__":
    main()
