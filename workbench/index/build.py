"""One pass over a corpus: rows of tokens through model and SAEs, into an index."""

from __future__ import annotations

import shutil
import signal
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tqdm.auto import tqdm

from workbench.engine.binding import FeatureSource
from workbench.files import writable
from workbench.index.cluster import counted
from workbench.index.corpus import (
    Document,
    Packer,
    Position,
    Rows,
    Texts,
    chained,
    read_texts,
    total_size,
)
from workbench.index.count import CHUNK, Counter
from workbench.index.files import BUILDING, FORMAT, Journal, attach, check_identity, read_meta
from workbench.index.identity import KnownSite, identity_of, of_sae
from workbench.index.plan import PAIRS, Settings, settings_for
from workbench.index.publish import publish
from workbench.index.reading import Index
from workbench.index.state import Shape
from workbench.models import Model
from workbench.sites import Site

COMMIT_SECONDS = 30.0
"""Least time between two commits, which a kill may cost."""
COMMIT_SHARE = 0.03
"""Of the time, what commits may take at most."""


def build(
    model: Model,
    source: FeatureSource,
    texts: Texts,
    sites: Sequence[Site],
    *,
    path: str | Path | None = None,
    shape: Shape,
    context: int = 128,
    batch: int | None = None,
    memory: str | int | None = None,
    pairs: int = PAIRS,
    progress: bool = True,
    stop: threading.Event | None = None,
    ray: int | None = None,
) -> Index:
    """Index a corpus, or go on with a pass that was begun.

    Args:
        model: The model.
        source: Its SAEs.
        texts: See `workbench.index.corpus.read_texts`; the same again to go on.
        sites: Where.
        path: The file; one that lives as long as the index is in use if left out.
        shape: What to keep of each feature.
        context: Tokens of a row.
        batch: Rows at once; as many as fit, up to 4,096 tokens, if left out.
        memory: See `workbench.index.plan.settings_for`.
        pairs: Partners of each feature to keep.
        progress: Whether to show a bar.
        stop: Set it, or interrupt, and the pass stops after the batch at hand: what it found can be
            read, and the same call goes on.
        ray: Count on so many workers of a Ray cluster: see `workbench.index.cluster`.

    Raises:
        NotAnIndexError: If `path` holds something else; it is left as it is.
        OSError: If `path` is a folder, or lies where nothing can be written.
        ValueError: If `path` holds the index of something else, `texts` hold no token, or the job
            does not fit.
        BlockingIOError: If another pass is at work on it.
    """
    sites = tuple(sorted({site.check(model.config) for site in sites}))
    if not sites:
        raise ValueError("there is no site to index: open the lab with SAEs, or name sites")
    known = [_known(source, site) for site in sites]
    folder = Path(mkdtemp(prefix="workbench-index-")) if path is None else None
    path = folder / "index.duckdb" if folder else _place(path or "")
    building = path.with_name(f"{path.name}.building")
    with ExitStack() as undo:
        if folder:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = settings_for(
            model,
            [one.d_sae for one in known],
            shape,
            context=context,
            batch=batch,
            memory=memory,
            pairs=pairs,
            begun=_begun(path, building),
        )
        identity = identity_of(model, known, settings)
        there = _finished(path, identity, texts)
        if there is not None:
            return there
        with Journal(building, identity) as journal:
            run = Pass(model, source, texts, known, settings, journal)
            done = run.go(progress=progress, stop=stop or threading.Event(), ray=ray)
            found = run.summary()
            if found["tokens"]:
                publish(
                    path,
                    journal,
                    known,
                    run.counter.states,
                    run.counter.sample,
                    pairs=settings.pairs,
                    tokenizer=model.tokenizer,
                    meta={"model": model.name, "identity": identity, "finished": done, **found},
                )
        if done:
            building.unlink()
        if not found["tokens"]:
            what = "hold no token" if found["documents"] else "is empty"
            raise ValueError(f"texts {what}: give at least one text that says something")
        index = Index.open(path)
        if folder:
            undo.pop_all()
            weakref.finalize(index, shutil.rmtree, folder, ignore_errors=True)
        return index


def _place(path: str | Path) -> Path:
    """Where to write; a finished index may lie where nothing can be written."""
    return Path(path) if Path(path).is_file() else writable(path)


def _known(source: FeatureSource, site: Site) -> KnownSite:
    """What is to be known of a site, without holding on to its SAE."""
    sae = source.sae_at(site)
    return KnownSite(site, sae.config.d_sae, sae.name, of_sae(sae))


def _finished(path: Path, identity: dict[str, Any], texts: Texts) -> Index | None:
    """The finished index that is at `path` already, if it is of the same."""
    if not path.exists():
        return None
    there = Index.open(path)
    check_identity(path, there.identity, identity)
    if there.finished:
        _check_texts(there, texts)
        return there
    there.close()
    return None


def _begun(path: Path, building: Path) -> dict[str, Any] | None:
    """Settings of the index or the pass that is there."""
    for file, form in ((path, FORMAT), (building, BUILDING)):
        if file.exists():
            with closing(attach(file)) as connection:
                return read_meta(connection, file, form)["identity"]["settings"]
    return None


class Pass:
    """A pass at work: the loop that feeds a `Counter`, and what is stored meanwhile."""

    def __init__(
        self,
        model: Model,
        source: FeatureSource,
        texts: Texts,
        known: Sequence[KnownSite],
        settings: Settings,
        journal: Journal,
    ) -> None:
        self.texts, self.journal = texts, journal
        position = journal.position
        self.counter = Counter(
            model,
            source,
            known,
            settings,
            arrays=None if position is None else journal.state(),
            batches=journal.meta.get("batches", 0),
            tokens=journal.meta.get("tokens", 0),
        )
        self.packer = Packer(
            model.tokenizer, texts, context=settings.context, rows=settings.batch, at=position
        )
        self.position = position or Position()
        self._documents: list[Document] = []

    def go(self, *, progress: bool, stop: threading.Event, ray: int | None = None) -> bool:
        """Read on to the end of the corpus, or until asked to stop; True at the end."""
        total, unit = total_size(self.texts)
        bar = tqdm(
            total=total,
            initial=self.packer.skipped,
            unit=unit,
            unit_scale=unit == "B",
            desc="index",
            disable=not progress,
        )
        done, last, cost = True, time.perf_counter(), 0.0
        began, before = last, self.counter.tokens
        with bar, _interruptible(stop), closing(self._steps(ray)) as steps:
            for size in steps:
                bar.update(size)
                now = time.perf_counter()
                rate = (self.counter.tokens - before) / (now - began)
                bar.set_postfix_str(f"{rate:,.0f} tokens/s")
                if stop.is_set():
                    done = False
                    break
                if now - last > max(COMMIT_SECONDS, cost / COMMIT_SHARE):
                    self.commit()
                    last = time.perf_counter()
                    cost = last - now
            self.commit()
        return done

    def _steps(self, ray: int | None) -> Generator[int]:
        """Count on, and say how much of the texts was read, some at a time."""
        rows = iter(self.packer)
        for one in rows:
            # With Ray only until a chunk begins, where a pass without it may have stopped inside.
            if ray is not None and self.counter.batches % CHUNK == 0:
                rows = chain([one], rows)
                break
            self.take(one)
            yield one.size
        else:
            return
        chunks = iter(lambda: list(islice(rows, CHUNK)), [])
        with closing(counted(self.counter, chunks, ray)) as found:
            for batches, merge in found:
                merge()
                self._passed(batches)
                yield sum(one.size for one in batches)

    def take(self, rows: Rows) -> None:
        """Count the features of some rows at every site."""
        self.counter.take(rows)
        self._passed([rows])

    def _passed(self, batches: Sequence[Rows]) -> None:
        for rows in batches:
            self.position = rows.then
            self._documents += rows.documents

    def summary(self) -> dict[str, Any]:
        """What the index says of the pass."""
        return {
            "tokens": self.counter.tokens,
            "sampled": self.counter.sample.tokens,
            "documents": self.position.texts,
            "digest": self.position.digest,
            "bins": self.counter.settings.shape.bins,
        }

    def commit(self) -> None:
        """Store everything."""
        progress = {"batches": self.counter.batches, "tokens": self.counter.tokens}
        self.journal.commit(self.position, progress, self.counter.arrays(), self._documents)
        self._documents = []


@contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C set `stop`, so that no batch is counted half; the second interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_texts(index: Index, texts: Texts) -> None:
    """Refuse other texts than those of a finished index."""
    digest, count = "", 0
    for text in read_texts(texts):
        digest, count = chained(digest, text.text), count + 1
    if (digest, count) != (index.meta["digest"], index.meta["documents"]):
        raise ValueError(
            f"{index.path} is the finished index of {index.meta['documents']} other texts: give "
            "another path, or delete it"
        )
