"""The same pass on Ray: chunks of rows go to workers that hold the model and the SAEs.

Rows are packed here, as in a pass without Ray, and what the workers find is merged here in the
order of the corpus. A chunk is as many batches as `workbench.index.build` adds up before it adds
them to the whole, so the sums are rounded as they would be by one process, and the index is the
same to the last bit on equal machines. A worker that is killed is started anew by Ray and does its
chunk again.

Needs the extra: ``pip install sae-workbench[ray]``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from workbench.index.corpus import Rows
from workbench.index.count import Counter
from workbench.index.identity import KnownSite
from workbench.index.plan import Settings
from workbench.models import Model, wrap
from workbench.sae import SAE
from workbench.sites import Site

AHEAD = 2
"""Chunks for each worker that are under way: one at work, one that waits for it."""
RESTARTS = 10
"""How often a worker that died is started anew before the pass gives up."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs, by value: it may be on a machine without our files."""

    module: Any
    tokenizer: Any
    name: str
    saes: Mapping[Site, SAE]
    known: Sequence[KnownSite]
    settings: Settings

    def sae_at(self, site: Site) -> SAE:
        """The SAE of a site."""
        return self.saes[site]


class Worker:
    """Counts the features of chunks, each from nothing."""

    def __init__(self, job: Job, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.job = job
        self.model = wrap(job.module, job.tokenizer, name=job.name)

    def count(self, batches: Sequence[Rows]) -> dict[str, np.ndarray]:
        """What a `Counter` has after one chunk."""
        part = Counter(self.model, self.job, self.job.known, self.job.settings)  # pyright: ignore[reportArgumentType]
        for rows in batches:
            part.take(rows)
        return part.arrays()


def counted(
    counter: Counter, chunks: Iterator[list[Rows]], workers: int
) -> Generator[tuple[list[Rows], Callable[[], None]]]:
    """Count `chunks` on Ray: each, in their order, with what merges it into `counter`.

    Args:
        counter: The whole, up to the first chunk.
        chunks: Batches of rows.
        workers: How many to use, in the cluster that Ray is connected to, or is told of by
            ``RAY_ADDRESS``; on this machine where it is neither.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: If `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"ray={workers}: give the number of workers, 1 or more")
    if find_spec("ray") is None:
        raise ImportError("ray=... needs Ray: pip install 'sae-workbench[ray]'")
    ray: Any = import_module("ray")
    began = not ray.is_initialized()
    if began:
        ray.init(log_to_driver=False, include_dashboard=False)
    pool: list[Any] = []
    try:
        # Held to the end: Ray drops what nobody holds, and a worker that starts anew asks for it.
        job = ray.put(_job(counter))
        pool = _pool(ray, job, workers, gpu=counter.model.device.type == "cuda")
        waiting: deque[tuple[list[Rows], Any]] = deque()
        for number, chunk in enumerate(chunks):
            worker = pool[number % workers]
            waiting.append((chunk, worker.count.remote(chunk)))
            if len(waiting) >= AHEAD * workers:
                yield _next(ray, counter, waiting)
        while waiting:
            yield _next(ray, counter, waiting)
    finally:
        for worker in pool:
            ray.kill(worker)
        if began:
            ray.shutdown()


def _job(counter: Counter) -> Job:
    model: Model = counter.model
    saes = {one.site: counter.source.sae_at(one.site) for one in counter.known}
    return Job(model.module, model.tokenizer, model.name, saes, counter.known, counter.settings)


def _pool(ray: Any, job: Any, workers: int, *, gpu: bool) -> list[Any]:
    cpus = int(ray.cluster_resources().get("CPU", 1))
    threads = max(1, cpus // workers)
    options = {
        "num_cpus": min(threads, cpus / workers),
        "num_gpus": int(gpu),
        "max_restarts": RESTARTS,
        "max_task_retries": RESTARTS,
    }
    actor = ray.remote(Worker)
    return [actor.options(**options).remote(job, threads) for _ in range(workers)]


def _next(
    ray: Any, counter: Counter, waiting: deque[tuple[list[Rows], Any]]
) -> tuple[list[Rows], Callable[[], None]]:
    chunk, reference = waiting.popleft()
    arrays = ray.get(reference)
    return chunk, lambda: counter.merge(chunk, arrays)
