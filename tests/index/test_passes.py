"""A pass that is stopped, killed or split says the same as one that is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index.conftest import CONTEXT, corpus, indexed, tables

from workbench.index import Index
from workbench.index.best import ENTRY, Best
from workbench.index.corpus import Packer, Rows
from workbench.index.files import Journal
from workbench.index.sample import TokenSample
from workbench.index.state import Shape, SiteState
from workbench.models import Model
from workbench.sites import Site

ROOT = Path(__file__).resolve().parents[2]
TEXTS = corpus(80, seed=1)


@pytest.fixture(scope="module")
def unbroken(model: Model, suite: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("index") / "whole.duckdb"
    assert indexed(model, suite, path, TEXTS, batch=2).finished
    return tables(path)


def same(found: dict[str, list[tuple]], wanted: dict[str, list[tuple]]) -> None:
    for name in wanted:
        assert found[name] == wanted[name], name


def stopping(after: int, stop: threading.Event) -> Iterator[str]:
    for number, text in enumerate(TEXTS):
        if number == after:
            stop.set()
        yield text


def test_stopped_and_gone_on(
    model: Model, suite: Any, unbroken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.index.corpus.TOGETHER", 1)
    path, seen = tmp_path / "i.duckdb", [0]
    for after in (9, 31, 32):
        stop = threading.Event()
        part = indexed(model, suite, path, stopping(after, stop), batch=2, stop=stop)
        assert not part.finished
        assert "stopped" in repr(part)
        assert part.tokens > seen[-1]
        assert int(part.frame((1, "res"))["fires"].to_numpy().sum()) > 0
        assert part.feature((1, "res"), 0).top
        seen.append(part.tokens)
        part.close()
        assert path.with_name("i.duckdb.building").exists()
    whole = indexed(model, suite, path, TEXTS, batch=2)
    assert whole.finished
    assert not path.with_name("i.duckdb.building").exists()
    same(tables(path), unbroken)


def test_an_interrupt_stops_after_the_batch(
    model: Model, suite: Any, unbroken: Any, tmp_path: Path
) -> None:
    def interrupted() -> Iterator[str]:
        for number, text in enumerate(TEXTS):
            if number == 70:
                os.kill(os.getpid(), signal.SIGINT)
            yield text

    before = signal.getsignal(signal.SIGINT)
    path = tmp_path / "i.duckdb"
    part = indexed(model, suite, path, interrupted(), batch=2)
    assert not part.finished
    assert signal.getsignal(signal.SIGINT) is before
    indexed(model, suite, path, TEXTS, batch=2)
    same(tables(path), unbroken)


KILLED = """
import json, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from conftest import RandomSuite, byte_tokenizer, loud_module, random_sae
from workbench.index import Shape, build
from workbench.models import wrap
from workbench.sites import Site
sys.modules["workbench.index.build"].COMMIT_SECONDS = 0
sys.modules["workbench.index.build"].COMMIT_SHARE = 1e9
sys.modules["workbench.index.corpus"].TOGETHER = 1
model = wrap(loud_module(), byte_tokenizer(), name="loud")
sites = [Site(0, "embed")] + [
    Site(layer, kind) for layer in range(3) for kind in ("att", "transcoder", "mlp", "res")
]
saes = {{s: random_sae(s, s.width(model.config), 100 + i) for i, s in enumerate(sites)}}

def texts():
    for number, text in enumerate(json.loads(Path({texts!r}).read_text())):
        print(number, flush=True)
        yield text

build(
    model, RandomSuite(saes), texts(), [Site(1, "res"), Site(0, "mlp")], path={path!r},
    shape=Shape(top=5, bins=4, stratified=2), context=24, batch=2, progress=False,
)
"""


@pytest.mark.slow
def test_killed_and_gone_on(model: Model, suite: Any, unbroken: Any, tmp_path: Path) -> None:
    path, texts = tmp_path / "i.duckdb", tmp_path / "texts.json"
    texts.write_text(json.dumps(TEXTS))
    code = KILLED.format(
        root=str(ROOT), tests=str(ROOT / "tests"), texts=str(texts), path=str(path)
    )
    for last in ("20", "60"):  # killed, gone on, killed again
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while process.stdout.readline().strip() != last:
            assert process.poll() is None
        with pytest.raises(BlockingIOError, match="in use by another pass"):
            indexed(model, suite, path, TEXTS, batch=2)
        time.sleep(0.02)  # into a batch or a commit
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it came to its end before it was killed"
        process.stdout.close()
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match="of a pass that did not end"):
        Index.open(path)
    with Journal(path.with_name("i.duckdb.building"), None) as journal:
        assert journal.position is not None
        assert journal.position.texts > 50
    indexed(model, suite, path, TEXTS, batch=2)
    same(tables(path), unbroken)


def test_a_finished_index_is_opened_and_others_are_refused(
    model: Model, suite: Any, tmp_path: Path
) -> None:
    path = tmp_path / "i.duckdb"
    first = indexed(model, suite, path, TEXTS[:9])
    stamp = path.stat().st_mtime_ns
    again = indexed(model, suite, path, iter(TEXTS[:9]))
    assert again.tokens == first.tokens
    for texts, options, message in (
        (TEXTS[:8], {}, "finished index of 9 other texts"),
        (TEXTS[1:10], {}, "finished index of 9 other texts"),
        (TEXTS[:9], {"sites": [Site(2, "res")]}, "made with saes = "),
        (TEXTS[:9], {"shape": Shape(top=6, bins=4, stratified=2)}, "made with settings = .*6"),
        (TEXTS[:9], {"batch": 3}, "made with settings"),
    ):
        with pytest.raises(ValueError, match=message):
            indexed(model, suite, path, texts, **options)
    assert path.stat().st_mtime_ns == stamp


def test_other_texts_do_not_go_on(model: Model, suite: Any, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    path = tmp_path / "i.duckdb"
    indexed(model, suite, path, TEXTS, batch=2, stop=stop)
    with pytest.raises(ValueError, match=r"first .* texts are not those .* begun with"):
        indexed(model, suite, path, ["something else", *TEXTS[1:]], batch=2)
    gone_on = indexed(model, suite, path, TEXTS, batch=None)
    assert gone_on.finished
    assert gone_on.identity["settings"]["batch"] == 2, "other batches round otherwise"


def test_other_weights_are_refused(model: Model, suite: Any, fresh: Model, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "i.duckdb"
    indexed(model, suite, path, TEXTS[:5])
    with torch.no_grad():
        next(fresh.module.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="made with weights"):
        indexed(fresh, suite, path, TEXTS[:5])


def test_a_second_writer_is_refused_and_a_reader_keeps_what_it_opened(
    model: Model, suite: Any, tmp_path: Path
) -> None:
    path, stop = tmp_path / "i.duckdb", threading.Event()
    stop.set()
    reader = indexed(model, suite, path, TEXTS, batch=2, stop=stop)
    held = reader.frame((1, "res"))

    def texts() -> Iterator[str]:
        for number, text in enumerate(TEXTS):
            if number == 70:
                with pytest.raises(BlockingIOError, match="in use by another pass"):
                    indexed(model, suite, path, TEXTS, batch=2)
            yield text

    whole = indexed(model, suite, path, texts(), batch=2)
    assert whole.finished
    assert reader.frame((1, "res")).equals(held)
    assert whole.frame((1, "res"))["fires"].to_numpy().sum() > held["fires"].to_numpy().sum()


# Parts that are merged.


def rows_of(tokenizer: Any, texts: list[str]) -> list[Rows]:
    return list(Packer(tokenizer, texts, context=CONTEXT, rows=3))


def active(rows: Rows, seed: int, d_sae: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    fires = random.random((len(rows.where), d_sae)) < 0.3
    tokens, features = np.nonzero(fires)
    return tokens, features, random.lognormal(0, 2, len(tokens)).astype(np.float32)


def test_chunks_indexed_apart_merge_exactly(model: Model) -> None:
    shape = Shape(top=4, bins=8, stratified=1)
    batches = rows_of(model.tokenizer, TEXTS)
    assert len(batches) > 12
    whole, parts = SiteState(12, shape), []
    for first in range(0, len(batches), 4):
        part = SiteState(12, shape)
        for number in range(first, min(first + 4, len(batches))):
            for state in (whole, part):
                state.add(batches[number], *active(batches[number], number))
        whole.close_chunk()
        part.close_chunk()
        parts.append(part)
    merged = SiteState(12, shape)
    for part in parts:
        merged.merge(SiteState.of(part.arrays(), 12, shape))
    for name, array in whole.arrays().items():
        assert np.array_equal(merged.arrays()[name], array), name
    assert whole.sums.any()
    with pytest.raises(ValueError, match=r"12 features with .* cannot be merged into 13"):
        SiteState(13, shape).merge(whole)


def test_the_best_do_not_depend_on_the_order() -> None:
    random = np.random.default_rng(0)
    entries = np.zeros(3000, ENTRY)
    entries["key"] = random.integers(0, 500, 3000)
    entries["content"] = random.integers(0, 300, 3000)
    entries["where"] = random.permutation(3000)
    group = random.integers(0, 20, 3000)
    wanted = None
    for _ in range(4):
        best, order = Best(20, 7), random.permutation(3000)
        for part in np.array_split(order, 11):
            best.offer(group[part], entries[part])
            best.settle()
            part = part[best.admits(group[part], entries["key"][part])]
            best.offer(group[part], entries[part])  # a second time changes nothing
        found = best.kept()
        for one in range(20):
            mine = sorted(
                (int(e["key"]), int(e["where"]), int(e["content"])) for e in entries[group == one]
            )
            firsts: dict[int, tuple[int, int]] = {}
            for key, where, content in mine:
                firsts.setdefault(content, (key, where))
            kept = found[1][found[0] == one]
            assert (
                list(zip(kept["key"].tolist(), kept["where"].tolist(), strict=True))
                == sorted(firsts.values())[:7]
            )
        wanted = wanted or found
        assert (found[1] == wanted[1]).all()


def test_the_sample_does_not_depend_on_the_order_or_on_parts(model: Model) -> None:
    batches = rows_of(model.tokenizer, TEXTS)
    sizes = (12, 12)

    def sampled(numbers: list[int]) -> TokenSample:
        sample = TokenSample(150, sizes)
        for number in numbers:
            rows = batches[number]
            chosen = sample.begin(rows.where)
            for site in range(2):
                tokens, features, _ = active(rows, 1000 * site + number)
                sample.add(site, chosen, tokens, features)
            sample.end()
        return sample

    numbers = list(range(len(batches)))
    one, other = sampled(numbers), sampled(numbers[::-1])
    merged = sampled(numbers[:5])
    merged.merge(sampled(numbers[5:]))
    for site in range(2):
        wanted = one.together(site, 12, 5)
        assert one.tokens == 150
        assert wanted[3].sum() > 100
        for sample in (other, merged):
            found = sample.together(site, 12, 5)
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_the_sample_is_a_fair_one() -> None:
    sample = TokenSample(2000, [1])
    for start in range(0, 40_000, 1000):
        where = np.arange(start, start + 1000)
        chosen = sample.begin(where)
        tokens = np.flatnonzero((where % 5 == 0) | (where < 10_000))
        sample.add(0, chosen, tokens, np.zeros(len(tokens), np.int64))
        sample.end()
    fires, *_ = sample.together(0, 1, 3)
    # 40 % of the tokens: 800 +- 22 of the sample.
    assert sample.tokens == 2000
    assert abs(int(fires[0]) - 800) < 90
