"""Searches, how fast and how often right: ``python -m tests.benchmarks.search``.

Speed is over an index of random features, labels and examples (``--features``), with decoders as
wide as pocket's and, beside it, as Gemma 2 2B's. Recall is on pocket, where it is known what a
feature stands for: a concept's query is a word, a token or texts that have it, and the features
that carry its label are what should come back. ``recall`` is the share of the first five (of as
many as there are, if fewer) that carry it, over all features and over those alone that have a
label: most features have none and are no error.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import torch

from workbench.index import Index
from workbench.index.by_model import Decoders
from workbench.index.files import FORMAT, attach, write_meta
from workbench.index.publish import TABLES
from workbench.index.search import Search, labels_of
from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.pocket.corpus.concepts import LOCAL, PERSISTENT
from workbench.pocket.dataset import LabelledRows, labelled_rows
from workbench.sites import Site

SEED, ROWS = 91, 300
"""Of the labelled text; nothing else uses this seed."""
EACH, WINDOW = 8, 16
"""Texts on each side, and their tokens."""
WIDTH, PASSAGES = 16_384, 20


# Recall.


def recall(lab: Lab) -> Iterator[tuple[str, str, str]]:
    """Recall of each search, over the concepts that some feature is labelled with."""
    lab.suite.own = None  # the truth is what the suite brings
    labels = labels_of(lab.suite)
    search = Search(lab.feature_index, labels=labels, model=lab.engine, suite=lab.suite)
    carriers: dict[str, list[tuple[Site, int]]] = {}
    for site, mine in labels.items():
        for index, label in mine.items():
            carriers.setdefault(label, []).append((site, index))
    text = labelled_rows(lab.tokenizer, SEED, ROWS, (*PERSISTENT, *LOCAL))
    concepts = [name for name in carriers if name in text.concepts]
    local = [name for name in concepts if name in LOCAL]

    def row(what: str, cases: list[tuple[str, dict[str, Any]]]) -> tuple[str, str, str]:
        shares: dict[bool, list[float]] = {False: [], True: []}
        some = 0
        for concept, options in cases:
            others = len(carriers[concept]) - (options["by"] == "decoder")
            for labelled in shares:
                found = search.find(**options, labelled=labelled, k=5)
                hits = found["label"].tolist().count(concept)
                shares[labelled].append(hits / min(5, others))
                some += labelled is False and hits > 0
        means = [statistics.mean(shares[labelled]) for labelled in (False, True)]
        return (
            f"recall@5, {what} ({len(cases)} queries)",
            f"{means[0]:.2f} / {means[1]:.2f}",
            f"some carrier among the first five: {some / len(cases):.2f}",
        )

    yield row("label", [(c, {"by": "label", "query": c}) for c in concepts])
    tokens = {c: typical(lab, text, c) for c in local}
    usable = [c for c in local if tokens[c]]
    yield row("example, a token", [(c, {"by": "example", "query": tokens[c][0]}) for c in usable])
    yield row(
        "example, a regular expression",
        [(c, {"by": "example", "query": any_of(tokens[c]), "regex": True}) for c in usable],
    )
    yield row("output", [(c, {"by": "output", "query": tokens[c][0]}) for c in usable])
    yield row(
        "decoder",
        [
            (c, {"by": "decoder", "like": (site.layer, index), "kind": site.kind})
            for c in concepts
            if len(carriers[c]) > 1
            for site, index in carriers[c][:3]
        ],
    )
    cases = []
    for concept in concepts:
        sides = windows(lab, text, concept)
        if sides:
            cases.append((concept, {"by": "fires", "positive": sides[0], "negative": sides[1]}))
    yield row("fires", cases)
    density = lab.feature_index.densities((4, "res"))
    found = search.find(by="density", density=(1e-3, 1e-2), layers=[4], kinds=["res"], k=10**6)
    right = set(np.flatnonzero((density >= 1e-3) & (density <= 1e-2))) == set(found["feature"])
    yield "density range, all and no others", str(right), "True"


def typical(lab: Lab, text: LabelledRows, concept: str) -> list[str]:
    """Tokens that are mostly of a concept, the most frequent first."""
    column = text.labels[..., text.concepts.index(concept)]
    have = np.bincount(text.ids[column], minlength=lab.engine.config.vocab_size)
    every = np.bincount(text.ids.ravel(), minlength=len(have))
    order = np.argsort(-(have**2) / np.maximum(every, 1), kind="stable")
    chosen = [int(i) for i in order[:30] if have[i] > 0.5 * every[i] and have[i] > 2]
    strings = [lab.tokenizer.decode([i]) for i in chosen]
    return [one for one in strings if one and "�" not in one]


def any_of(strings: list[str]) -> str:
    """A regular expression for any of them."""
    return "|".join(re.escape(one) for one in sorted(strings, key=len, reverse=True))


def windows(lab: Lab, text: LabelledRows, concept: str) -> tuple[list[str], list[str]] | None:
    """Stretches with the concept and without; of a factor's values, those with another value."""
    column = text.labels[..., text.concepts.index(concept)]
    lasting = concept in PERSISTENT
    factor = concept.split(":")[0] + ":"
    others = [i for i, name in enumerate(text.concepts) if name.startswith(factor)]
    sides: tuple[list[str], list[str]] = ([], [])
    for row in range(len(column)):
        for start in range(1, column.shape[1] - WINDOW, WINDOW):
            part = slice(start, start + WINDOW)
            has = column[row, part]
            there = has.all() if lasting else has.any()
            lacks = not has.any()
            if lasting:
                lacks &= bool(text.labels[row, part][:, others].any(1).all())
            if (there or lacks) and len(sides[not there]) < EACH:
                sides[not there].append(lab.tokenizer.decode(text.ids[row, part]))
                break  # one of each row
    positive, negative = sides
    return (positive, negative) if min(len(positive), len(negative)) == EACH else None


# Speed.


def synthetic(path: Path, features: int) -> Index:
    """An index of random features at sites of 16k, over a corpus of a million random tokens."""
    sites, tokens, length = features // WIDTH, 1_000_000, 500
    path.unlink(missing_ok=True)
    connection: duckdb.DuckDBPyConnection = attach(path, write=True)
    run = connection.execute
    run("SELECT setseed(0.5)")
    run(TABLES.format(id="USMALLINT"))
    run(f"INSERT INTO db.sites SELECT i, i, 'res', {WIDTH}, 'random' FROM range({sites}) r(i)")
    run("INSERT INTO db.vocabulary SELECT i, ' w' || i, false FROM range(4096) r(i)")
    run(f"""
        INSERT INTO db.documents SELECT i // {length}, (i // {length}) * {length},
            list((4096 * random() * random())::INTEGER % 4096)
        FROM range({tokens}) r(i) GROUP BY ALL ORDER BY 1""")
    each = f"FROM range({sites}) s(site), range({WIDTH}) f(feature)"
    run(f"""
        INSERT INTO db.features SELECT site, feature, (1e5 * pow(10, -4 * random()))::BIGINT,
            1, 1, 2, 100 {each} ORDER BY ALL""")
    run(f"""
        INSERT INTO db.histograms SELECT site, feature, 60 + bin, 1 + (1000 * random())::INTEGER
        {each}, range(20) b(bin) ORDER BY site, feature, bin""")
    run(f"""
        INSERT INTO db.examples SELECT site, feature, -1, rank,
            ({tokens // length - 1} * random())::INTEGER, ({length - 1} * random())::INTEGER,
            20 - rank, '\\x00\\x00\\x00'::BLOB
        {each}, range({PASSAGES}) e(rank) ORDER BY site, feature, rank""")
    settings = {"tokens": tokens, "documents": tokens // length, "sampled": 100, "bins": 4}
    identity = {"saes": {}, "settings": {}}
    write_meta(
        connection,
        {"format": FORMAT, "model": "random", "finished": True, "identity": identity, **settings},
    )
    run("CHECKPOINT db")
    connection.close()
    return Index.open(path)


def latency(lab: Lab, features: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Milliseconds of each search once it has what it needs, and what that took."""
    start = time.perf_counter()
    index = synthetic(folder / "random.duckdb", features)
    count = sum(index.widths.values())
    size = index.path.stat().st_size / 2**20
    yield (
        f"an index of {count:,} random features",
        f"{time.perf_counter() - start:.0f} s",
        f"{size:.0f} MB",
    )
    random = np.random.default_rng(0)
    words = [f"{a}{b}" for a in "bcdfghklmnprst" for b in ("an", "er", "il", "on", "ut", "ath")]
    labels = {
        site: {
            i: " ".join(map(words.__getitem__, row))
            for i, row in enumerate(random.integers(len(words), size=(d_sae, 5)).tolist())
        }
        for site, d_sae in index.widths.items()
    }
    search = Search(index, labels=labels)
    narrow: dict[str, Any] = {"density": (1e-4, 1e-2)}
    cases: dict[str, Callable[[], Any]] = {
        "label, two words": lambda: search.find("ban koth"),
        "label, and a density range": lambda: search.find("ban koth", **narrow),
        "example, a token": lambda: search.find(" w77 ", by="example"),
        "example, a regular expression": lambda: search.find(
            r"w1\d7 w\d+", by="example", regex=True
        ),
        "density range": lambda: search.find(by="density", **narrow),
    }
    for name, ask in cases.items():
        yield timed(name, ask)
    for d_model in (lab.engine.config.hidden_size, 2304):
        # One random decoder, read once a site: more would not be in the processor's cache either.
        sites, rows = list(index.widths), torch.randn(WIDTH, d_model)
        copies = [rows.clone() for _ in range(min(len(sites), 2**28 // (WIDTH * d_model) or 1))]
        saes = {
            site: SimpleNamespace(W_dec=copies[n % len(copies)]) for n, site in enumerate(sites)
        }
        decoders = Decoders(None, SimpleNamespace(sae_at=saes.__getitem__))  # pyright: ignore[reportArgumentType]
        one = torch.randn(d_model)
        yield timed(
            f"decoder or output, products at d_model {d_model:,}",
            lambda d=decoders, s=sites, v=one: [d.products(site, v) for site in s],
        )


def timed(name: str, ask: Callable[[], Any]) -> tuple[str, str, str]:
    """The median of some calls after the first, on whatever else the machine does."""
    waits = []
    for _ in range(8):
        start = time.perf_counter()
        ask()
        waits.append(1e3 * (time.perf_counter() - start))
    return (
        f"  {name}",
        f"{statistics.median(waits[1:]):.0f} ms",
        f"target < 100 ms; fastest {min(waits):.0f} ms, first {waits[0]:.0f} ms",
    )


def main() -> None:
    """Print a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=2**20)
    parser.add_argument("--index", type=Path, help="pocket's index, if it is not the shipped one")
    parser.add_argument("--only", choices=["recall", "latency"])
    options: Any = parser.parse_args()
    lab = open_lab()
    if options.index:
        lab.feature_index = Index.open(options.index)
    sys.stdout.write(f"{lab}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name:
        parts = {
            "recall": lambda: recall(lab),
            "latency": lambda: latency(lab, options.features, Path(name)),
        }
        for part, rows in parts.items():
            if options.only in (None, part):
                for what, measured, target in rows():
                    sys.stdout.write(f"{what:58} {measured:>12}   {target}\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
