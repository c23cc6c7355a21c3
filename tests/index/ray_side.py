"""Run by the test beside it: an index on a Ray cluster of this machine, in a process of its own.

Of its own because Ray leaves processes and handles to be collected when Python ends, which the
tests, where warnings are errors, would not forgive. Reads a JSON object from its input: ``path``,
``texts``, numbers of texts at which to ``kill`` a worker, at which to ``stop``, and of ``workers``.
Prints another: whether the index is ``finished``, what was ``killed``, and who is ``left``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import ray

from tests.conftest import RandomSuite, byte_tokenizer, loud_module, random_sae
from workbench.index import Shape, build
from workbench.index import corpus as corpus_module
from workbench.models import wrap
from workbench.sites import Site


def workers() -> list[int]:
    """Ray's processes of ours that count."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process.pid)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def left(patience: float = 60.0) -> list[int]:
    """Who still counts, once all had the time to end: Ray does not wait for what it kills."""
    end = time.monotonic() + patience
    while (there := workers()) and time.monotonic() < end:
        time.sleep(0.1)
    return there


def started(attempts: int = 4) -> None:
    """Start Ray on this machine; it waits half a minute for itself, which a busy one may exceed."""
    for more in reversed(range(attempts)):
        try:
            ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
        except Exception as error:
            ray.shutdown()
            if not more or "timed out during startup" not in str(error):
                raise
        else:
            return


def main() -> None:
    """Do as the input says."""
    job: dict[str, Any] = json.load(sys.stdin)
    stop, killed = threading.Event(), []
    corpus_module.TOGETHER = 1

    def texts() -> Iterator[str]:
        for number, text in enumerate(job["texts"]):
            if number == job["stop"]:
                stop.set()
            if number in job["kill"]:
                there = workers()
                os.kill(there[0], signal.SIGKILL)
                killed.append(there[0])
            yield text

    model = wrap(loud_module(), byte_tokenizer(), name="loud")
    sites = [Site(0, "embed")] + [
        Site(layer, kind) for layer in range(3) for kind in ("att", "transcoder", "mlp", "res")
    ]
    saes = {s: random_sae(s, s.width(model.config), 100 + i) for i, s in enumerate(sites)}
    started()
    index = build(
        model,
        RandomSuite(saes),
        texts(),
        [Site(1, "res"), Site(0, "mlp")],
        path=job["path"],
        shape=Shape(top=5, bins=4, stratified=2),
        context=24,
        batch=1,
        progress=False,
        stop=stop,
        ray=job["workers"],
    )
    said = {"finished": index.finished, "killed": killed, "left": left()}
    ray.shutdown()
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
