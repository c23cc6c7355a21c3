"""A pass on a Ray cluster on this machine, workers killed or not, says what one process says."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from index.conftest import corpus, indexed, tables

from workbench.index.count import CHUNK
from workbench.index.files import Journal
from workbench.models import Model

TEXTS = corpus(300, seed=2)
"""More than 20 chunks at one row a batch."""


@pytest.fixture(scope="module")
def alone(model: Model, suite: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("index") / "alone.duckdb"
    assert indexed(model, suite, path, TEXTS, batch=1).finished
    return tables(path)


def on_ray(path: Path, *, kill: tuple[int, ...] = (), stop: int | None = None) -> dict[str, Any]:
    job = {"path": str(path), "texts": TEXTS, "kill": kill, "stop": stop, "workers": 2}
    here = Path(__file__)
    paths = [str(here.parents[2]), str(here.parents[1])]  # also of Ray's workers
    done = subprocess.run(
        # -P: the conftest beside the script is not the one that it wants.
        [sys.executable, "-P", str(here.with_name("ray_side.py"))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def same(found: dict[str, list[tuple]], wanted: dict[str, list[tuple]]) -> None:
    for name in wanted:
        assert found[name] == wanted[name], name


@pytest.mark.slow
def test_killed_workers_change_nothing(alone: Any, tmp_path: Path) -> None:
    path = tmp_path / "i.duckdb"
    said = on_ray(path, kill=(150, 220))
    assert said["finished"]
    assert len(set(said["killed"])) == 2
    assert not said["left"]
    same(tables(path), alone)


@pytest.mark.slow
def test_begun_alone_gone_on_with_ray_and_ended_alone(
    model: Model, suite: Any, alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.index.corpus.TOGETHER", 1)
    path, stop = tmp_path / "i.duckdb", threading.Event()

    def stopping() -> Iterator[str]:
        for number, text in enumerate(TEXTS):
            if number == 20:
                stop.set()
            yield text

    def batches() -> int:
        with Journal(path.with_name(f"{path.name}.building"), None) as journal:
            return journal.meta["batches"]

    assert not indexed(model, suite, path, stopping(), batch=1, stop=stop).finished
    begun = batches()
    assert begun % CHUNK, "it stopped inside a chunk"
    assert not on_ray(path, stop=200)["finished"]
    assert batches() > begun + CHUNK
    assert batches() % CHUNK == 0
    indexed(model, suite, path, TEXTS, batch=1)
    same(tables(path), alone)


class InPlace:
    """As much of Ray as is used, without a cluster: calls by value, done at once."""

    __spec__ = ModuleSpec("ray", None)

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.killed = 0

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def put(self, value: Any) -> Any:
        return pickle.loads(pickle.dumps(value))

    get = put

    def kill(self, actor: Any) -> None:
        self.killed += 1

    def remote(self, of: type) -> Any:
        def made(*arguments: Any) -> Any:
            worker = of(*arguments)

            def count(batches: Any) -> Any:
                self.counted.append(len(batches))
                return worker.count(self.put(batches))

            return SimpleNamespace(count=SimpleNamespace(remote=count))

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=made))


def test_chunks_counted_by_workers_merge_to_what_one_process_counts(
    model: Model, suite: Any, alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = InPlace()
    monkeypatch.setitem(sys.modules, "ray", ray)  # pyright: ignore[reportArgumentType]
    path = tmp_path / "i.duckdb"
    assert indexed(model, suite, path, TEXTS, batch=1, ray=3).finished
    assert set(ray.counted[:-1]) == {CHUNK}
    assert 0 < ray.counted[-1] < CHUNK, "the last chunk is to be a part of one"
    assert len(ray.counted) > 12
    assert ray.killed == 3
    same(tables(path), alone)


def test_no_workers_are_refused(model: Model, suite: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ray=0: give the number of workers"):
        indexed(model, suite, tmp_path / "i.duckdb", TEXTS, ray=0)
