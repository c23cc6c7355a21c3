"""The index against its limits: ``python -m tests.benchmarks.index``.

Speed is that of ``lab.index`` on all of pocket's sites at once, over that of the same rows through
forward pass and encoder products alone. Rows are prepared before, and both go over the same rows in
turn, so that a machine whose speed drifts does not decide it. Memory is read after each tenth of a
corpus.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.engine import resident
from workbench.engine.tracing import read
from workbench.index import Shape
from workbench.index import build as make
from workbench.index.build import Pass
from workbench.index.corpus import Packer, Rows
from workbench.index.files import Journal
from workbench.index.identity import KnownSite
from workbench.index.plan import Settings
from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.pocket.corpus import documents
from workbench.sites import Site

SEED, CONTEXT, ROWS = 77, 128, 32
SHAPE = Shape(top=20, bins=4, stratified=2)
BLOCK = 256
"""Tokens that the limit encodes at once, which is faster than all."""


def texts(count: int | None = None) -> Iterator[str]:
    """Documents of pocket's corpus."""
    return (document.text for document in islice(documents(SEED), count))


def limit(lab: Lab, rows: Rows) -> None:
    """Forward pass and encoder products, bias and ReLU included, and nothing kept."""

    def encode(site: Site, x: Tensor) -> None:
        sae = lab.suite.sae_at(site)
        with torch.inference_mode():
            for part in x.reshape(-1, x.shape[-1]).split(BLOCK):
                torch.relu(part @ sae.W_enc + sae.b_enc)

    read(lab.engine, torch.from_numpy(rows.ids), lab.suite.sites, encode)


def speed(lab: Lab, tokens: int, folder: Path, every: int = 1) -> Iterator[tuple[str, str, str]]:
    """The pass over `tokens` tokens, batches beside their limit, and what a commit costs.

    Args:
        lab: Pocket.
        tokens: How many.
        folder: For the files.
        every: How many batches for each whose limit is measured too, to spare time.
    """
    sites = lab.suite.sites
    settings = Settings(CONTEXT, ROWS, SHAPE)
    known = [KnownSite(site, lab.suite.sae_at(site).config.d_sae, "", "") for site in sites]
    with Journal(folder / "speed.building", {}) as journal:
        run = Pass(lab.engine, lab.suite, [], known, settings, journal)
        packer = Packer(lab.tokenizer, texts(), context=CONTEXT, rows=ROWS)
        times: list[tuple[float, float]] = []
        sizes, seen, tenth, spent = [], 0, tokens // 10, 0.0
        for number, rows in enumerate(packer):
            start = time.perf_counter()
            if number % every == 0:
                limit(lab, rows)
            middle = time.perf_counter()
            run.take(rows)
            end = time.perf_counter()
            spent += end - middle
            if number % every == 0:
                times.append((middle - start, end - middle))
            seen += len(rows.where)
            if seen // tenth > len(sizes):
                run.commit()
                sizes.append(resident())
                part = times[-tenth // (ROWS * CONTEXT * every) :]
                yield f"  speed up to {seen:,} tokens", f"{ratio(part):.2f}", ""
            if seen >= tokens:
                break
        start = time.perf_counter()
        run.commit()
        cost = time.perf_counter() - start
    per_token = spent / seen
    yield f"speed over {seen:,} tokens / (forward + products)", f"{ratio(times):.2f}", ">= 0.8"
    yield "  tokens a second", f"{1 / per_token:,.0f}", ""
    yield "  a commit, every 30 s or more", f"{cost:.1f} s", ""
    yield "  10 M tokens at this rate", f"{1e7 * per_token / 3600:.1f} h", ""
    growth = (sizes[-1] - sizes[len(sizes) // 2]) / 2**20
    yield "growth of memory over the second half", f"{growth:.0f} MB", "flat"


def ratio(times: list[tuple[float, float]]) -> float:
    """Speed, as the median of the ratios of neighbours."""
    return statistics.median(least / ours for least, ours in times)


def file(lab: Lab, folder: Path) -> Iterator[tuple[str, str, str]]:
    """A whole index: its size, and how fast it answers."""
    path = folder / "index.duckdb"
    start = time.perf_counter()
    index = make(
        lab.engine, lab.suite, texts(100), lab.suite.sites, path=path, shape=SHAPE, progress=False
    )
    took = time.perf_counter() - start
    features = sum(len(index.densities(site)) for site in index.sites)
    per_feature = path.stat().st_size / features
    yield f"index of {index.tokens:,} tokens", f"{took:.0f} s", ""
    yield "  bytes a feature", f"{per_feature:.0f}", ""
    waits: list[float] = []
    for number in range(40):
        start = time.perf_counter()
        index.feature((number % 8, "res"), number)
        waits.append(1e3 * (time.perf_counter() - start))
    yield "  everything of a feature", f"{statistics.median(waits):.0f} ms", "< 100 ms"
    start = time.perf_counter()
    index.frame((3, "res"))
    yield "  a table of all features of a site", f"{1e3 * (time.perf_counter() - start):.0f} ms", ""


def rows(lab: Lab, tokens: int = 300_000, every: int = 1) -> Iterator[tuple[str, str, str]]:
    """Name, figure and target of each measurement."""
    with tempfile.TemporaryDirectory() as name:
        yield from file(lab, Path(name))
        yield from speed(lab, tokens, Path(name), every)


def main() -> None:
    """Print a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--every", type=int, default=1, help="batches for each limit measured")
    options: Any = parser.parse_args()
    lab = open_lab()
    sys.stdout.write(f"{lab}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    for what, measured, target in rows(lab, options.tokens, options.every):
        sys.stdout.write(f"{what:60} {measured:>9}   {target and 'target ' + target}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
