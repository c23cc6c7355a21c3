"""What may be looked at to label a feature, and what is held out to score the label.

Passages where a feature fires come from the index, strongest and of the whole range, and from a
pool of random documents of the index, which the model reads once for all features of a site. The
pool also gives what no index can: passages where the feature does *not* fire, known token by token.

A passage counts as one where the feature fires if it reaches `CLEAR` of its maximum somewhere, as
one where it is quiet if it fires nowhere; what lies between counts as neither. The documents are
divided in two: nothing that a label is scored on is of a document that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from workbench.engine.binding import FeatureSource
from workbench.engine.tracing import read
from workbench.index import Index
from workbench.index.corpus import WINDOW, mix
from workbench.models import Model
from workbench.sites import Site
from workbench.tokens import strings_of

T = TypeVar("T")

CLEAR = 0.25
"""Share of a feature's maximum from which on it counts as clearly firing."""
LENGTH = 2 * WINDOW + 1
"""Tokens of a passage, as in the index."""
SHORTEST = 8
ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Passage:
    """Some tokens in a row and how much one feature fires on each."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    document: int

    @property
    def text(self) -> str:
        """The passage in one string."""
        return "".join(self.tokens)

    @property
    def peak(self) -> float:
        """Its largest activation."""
        return max(self.activations)


@dataclass(frozen=True)
class Material:
    """What is known of one feature, divided in two."""

    site: Site
    index: int
    maximum: float
    shown: tuple[Passage, ...]
    """Where it fires, strongest first: to make a label from."""
    quiet: tuple[Passage, ...]
    """Where it does not, to make a label from."""
    held: tuple[Passage, ...]
    """Where it fires: to score a label on."""
    held_quiet: tuple[Passage, ...]
    """Where it does not, to score a label on."""
    promoted: tuple[str, ...] = ()
    """Tokens that it makes most likely, where that is known and stands out."""

    def clear(self, passage: Passage) -> list[bool]:
        """Where in a passage the feature fires clearly."""
        return [a >= CLEAR * self.maximum for a in passage.activations]


@dataclass(frozen=True)
class _Active:
    """The non-zero activations of a site, ordered by feature."""

    features: np.ndarray
    tokens: np.ndarray
    values: np.ndarray


class Pool:
    """Random documents of an index, and what every feature of some sites does on them."""

    def __init__(
        self,
        index: Index,
        model: Model,
        source: FeatureSource,
        sites: Iterable[Site],
        *,
        tokens: int = 24_576,
        context: int = 128,
        seed: int = 0,
    ) -> None:
        """Read the documents with the model.

        Args:
            index: Where the documents are.
            model: The model of the index.
            source: Gives the SAEs of the index.
            sites: Whose features.
            tokens: How many tokens to read, about.
            context: Tokens of a row.
            seed: Chooses the documents.
        """
        self._index = index
        context = min(context, model.context)
        ids, document = self._rows(model, max(1, tokens // context), context, seed)
        self.ids = ids
        """``(row, pos)`` what the model reads."""
        strings = strings_of(model.tokenizer, ids.ravel().tolist())
        self._passages = _cut(document)
        self._document = document.ravel()
        self._strings = strings
        self._active: dict[Site, _Active] = {}
        self._read(model, source, sorted(set(sites)), ids)

    def _rows(
        self, model: Model, rows: int, context: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and number of the document ``(row, pos)``, -1 for what belongs to none."""
        tokenizer = model.tokenizer
        bos = tokenizer.bos_token_id
        close = bos if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        width = context - (bos is not None)
        stream: list[int] = []
        owner: list[int] = []
        order = np.random.default_rng(seed).permutation(self._index.meta["documents"])
        for number in order.tolist():
            found = self._index.ids(number)
            stream += [*found.tolist(), close]
            owner += [number] * len(found) + [-1]
            if len(stream) >= rows * width:
                break
        missing = -len(stream) % width
        stream += [close] * missing
        owner += [-1] * missing
        ids = np.array(stream, np.int64).reshape(-1, width)[:rows]
        document = np.array(owner, np.int64).reshape(-1, width)[:rows]
        if bos is not None:
            ids = np.pad(ids, ((0, 0), (1, 0)), constant_values=bos)
            document = np.pad(document, ((0, 0), (1, 0)), constant_values=-1)
        return ids, document

    def _read(
        self, model: Model, source: FeatureSource, sites: Sequence[Site], ids: np.ndarray
    ) -> None:
        parts: dict[Site, list[tuple[np.ndarray, ...]]] = {site: [] for site in sites}
        offset = 0

        def consume(site: Site, x: Tensor) -> None:
            sae = source.sae_at(site)
            flat = x.reshape(-1, x.shape[-1]).to(sae.W_enc.device)
            rows, features, values = sae.encode_sparse(flat)
            parts[site].append(
                (features.cpu().numpy(), rows.cpu().numpy() + offset, values.float().cpu().numpy())
            )

        for start in range(0, len(ids), ROWS_AT_ONCE):
            batch = torch.from_numpy(ids[start : start + ROWS_AT_ONCE])
            read(model, batch, sites, consume)
            offset += batch.numel()
        for site, found in parts.items():
            features, tokens, values = map(np.concatenate, zip(*found, strict=True))
            order = np.argsort(features, kind="stable")
            self._active[site] = _Active(features[order], tokens[order], values[order])

    def __len__(self) -> int:
        return len(self._passages)

    def activations(self, site: Site, index: int) -> np.ndarray:
        """Of one feature on every token of the pool ``(token,)``."""
        active = self._active[site]
        span = slice(*np.searchsorted(active.features, [index, index + 1]))
        out = np.zeros(len(self._strings), np.float32)
        out[active.tokens[span]] = active.values[span]
        return out

    def passages(self, site: Site, index: int, *, quiet: int | None = None) -> list[Passage]:
        """The passages of the pool, with the activations of one feature.

        Args:
            site: Its site.
            index: Its number.
            quiet: Of the passages where it fires nowhere only so many, evenly over the pool.
        """
        values = self.activations(site, index)
        peaks = [float(values[start:stop].max()) for start, stop in self._passages]
        silent = [i for i, peak in enumerate(peaks) if peak == 0]
        kept = {*silent} if quiet is None else {*_evenly(silent, quiet)}
        return [
            Passage(
                self._strings[start:stop],
                tuple(values[start:stop].tolist()),
                int(self._document[start]),
            )
            for i, (start, stop) in enumerate(self._passages)
            if peaks[i] > 0 or i in kept
        ]


def material(
    index: Index,
    pool: Pool,
    site: Site,
    feature: int,
    *,
    most: int = 24,
    promoted: Sequence[str] = (),
) -> Material:
    """What is known of a feature, divided in what may be looked at and what is held out.

    Args:
        index: Where it fires most, and over its whole range.
        pool: Where it fires and where not.
        site: Its site.
        feature: Its number.
        most: Passages of each sort.
        promoted: Tokens that it makes most likely.
    """
    record = index.feature(site, feature)
    found = pool.passages(site, feature, quiet=5 * most)  # enough for both halves
    maximum = max([record.maximum, *(p.peak for p in found)])
    known = [Passage(e.tokens, e.activations, e.document) for e in record.top + record.stratified]
    fires = _different(
        sorted(
            (p for p in [*known, *found] if p.peak > 0 and p.peak >= CLEAR * maximum),
            key=lambda p: -p.peak,
        )
    )
    quiet = [p for p in found if p.peak == 0]
    halves = _halves(fires, quiet)
    shown, held = ([p for p in fires if halves[p.document] == half] for half in (0, 1))
    quiet, held_quiet = ([p for p in quiet if halves[p.document] == half] for half in (0, 1))
    return Material(
        site,
        feature,
        maximum,
        _evenly(shown, most),
        _evenly(quiet, 2 * most),
        _evenly(held, most),
        _evenly(held_quiet, 2 * most),
        tuple(promoted),
    )


def _different(passages: Iterable[Passage]) -> list[Passage]:
    """One of each text, and of passages that overlap the strongest."""
    seen: set[str] = set()
    kept = []
    for passage in passages:
        middle = passage.tokens[len(passage.tokens) // 4 : -len(passage.tokens) // 4 or None]
        key = "".join(middle)
        if key not in seen:
            seen.add(key)
            kept.append(passage)
    return kept


def _halves(fires: Sequence[Passage], quiet: Sequence[Passage]) -> dict[int, int]:
    """Which half each document belongs to.

    Those where the feature fires by turns, so that both halves have some; the others by hash.
    """
    halves: dict[int, int] = {}
    for passage in fires:
        halves.setdefault(passage.document, len(halves) % 2)
    for passage in quiet:
        half = int(mix(np.array([passage.document + 1], np.uint64))[0] & np.uint64(1))
        halves.setdefault(passage.document, half)
    return halves


def _evenly(passages: Sequence[T], most: int) -> tuple[T, ...]:
    """At most so many, evenly over their order."""
    if len(passages) <= most:
        return tuple(passages)
    places = np.linspace(0, len(passages) - 1, most).round().astype(int)
    return tuple(passages[i] for i in places)


def _cut(document: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of passages of `LENGTH` tokens, each of one document in one row."""
    flat, width = document.ravel(), document.shape[1]
    edges = np.flatnonzero(np.diff(flat, prepend=-2) != 0).tolist()
    edges = sorted({*edges, *range(0, len(flat), width), len(flat)})
    found = []
    for start, stop in pairwise(edges):
        if flat[start] < 0:
            continue
        for begin in range(start, stop, LENGTH):
            end = min(begin + LENGTH, stop)
            if end - begin >= SHORTEST:
                found.append((begin, end))
    return found
