"""Texts as full rows of tokens: where they come from, how they are packed, where a pass stands.

Documents follow one another in one stream, each closed by the tokenizer's end-of-sequence token; a
row is ``<bos>`` and the next ``context - 1`` tokens of the stream. Only tokens of documents are
scored: ``<bos>`` never is (its activation is huge and means nothing), and neither are the tokens
that close a document or fill the last row.

The stream depends on the texts and the context alone, so a pass that was broken off goes on at a
`Position` and meets the same rows as one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

Texts = str | Path | Iterable[Any]
"""A path, or an iterable of texts, `Path`s and rows that have ``"text"``."""

WINDOW = 16
"""Tokens to either side of an example whose activations are kept."""
GAP = 2 * WINDOW + 1
"""Between pieces of different documents in `Rows.place`, so that no window reaches across."""
CONTENT = 8
"""Passages that agree in so many tokens up to the example count as one."""
PIECE = 2**20
"""Characters of a file that are at most one document, so that a file of any length fits."""
TOGETHER = 64
"""Documents that are tokenized at once."""


@dataclass(frozen=True)
class Text:
    """One document before it is tokenized."""

    text: str
    size: int
    """What it adds to the progress bar: 1, or bytes of its file."""


def total_size(texts: Texts) -> tuple[int | None, str]:
    """What the sizes of all documents sum to, and its unit; None where nobody knows before."""
    if isinstance(texts, str | Path):
        return _file(texts).stat().st_size, "B"
    items = texts if isinstance(texts, list | tuple) else ()
    if items and all(isinstance(item, Path) for item in items):
        return sum(path.stat().st_size for path in items), "B"
    has_length = hasattr(texts, "__len__") and not any(isinstance(item, Path) for item in items)
    return (len(texts) if has_length else None), "doc"  # pyright: ignore[reportArgumentType]


def read_texts(texts: Texts) -> Iterator[Text]:
    """The documents of `texts`, one after the other.

    Args:
        texts: A path, or an iterable of texts, `Path`s, and rows with ``"text"`` such as those of
            a Hugging Face dataset. A file is one document, or several if it is longer than a
            million characters; a ``.jsonl`` file has one in each line's ``"text"``.

    Raises:
        ValueError: For a lone string that is no file.
        TypeError: For an item that is none of these; says which.
    """
    for number, item in enumerate([_file(texts)] if isinstance(texts, str | Path) else texts):
        if isinstance(item, Path):
            yield from _of_file(item)
        elif isinstance(item, str):
            yield Text(item, 1)
        elif isinstance(item, Mapping) and isinstance(item.get("text"), str):
            yield Text(item["text"], 1)
        else:
            found = f"a row with {sorted(item)}" if isinstance(item, Mapping) else repr(item)[:60]
            raise TypeError(
                f"text {number} is {found}; give strings, Paths or rows that have 'text'"
            )


def _file(path: str | Path) -> Path:
    if len(str(path)) > 4096 or not Path(path).is_file():
        raise ValueError(
            f"texts={str(path)[:40]!r} is no file; a single text is given in a list: [text]"
        )
    return Path(path)


def _of_file(path: Path) -> Iterator[Text]:
    with path.open(encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            for line in file:
                yield Text(json.loads(line)["text"], len(line.encode()))
            return
        # Whole lines, so that no word is cut; a file without any is cut where it must be.
        while piece := file.read(PIECE):
            piece += file.readline(PIECE)
            yield Text(piece, len(piece.encode()))


@dataclass(frozen=True)
class Position:
    """Between which two tokens of the stream a pass stands."""

    document: int = 0
    """The document that the next row begins in."""
    offset: int = 0
    """Tokens of it, its closing one included, that were used."""
    start: int = 0
    """Tokens of all documents before it."""
    digest: str = ""
    """Over the texts that were begun."""
    texts: int = 0
    """How many those are."""


@dataclass(frozen=True)
class Document:
    """A document as it is stored."""

    number: int
    start: int
    """Tokens of all documents before it."""
    ids: np.ndarray
    """``(token,)`` int32."""


@dataclass(frozen=True)
class Rows:
    """Some full rows, ready for the model, with what is known of each token."""

    ids: np.ndarray
    """``(row, pos)`` int64."""
    scored: np.ndarray
    """``(token,)`` int64: flat places in `ids` of the tokens that are scored; the rest is theirs,
    `token` counting them."""
    where: np.ndarray
    """``(token,)`` int64: tokens of all documents before it."""
    row: np.ndarray
    """``(token,)`` int64."""
    place: np.ndarray
    """``(token,)`` int64, ascending: neighbours differ by 1, pieces by more than a window."""
    before: np.ndarray
    """``(token,)`` uint8: tokens to the left in the same piece, at most `WINDOW`."""
    after: np.ndarray
    """``(token,)`` uint8: the same to the right."""
    content: np.ndarray
    """``(token,)`` uint32: hash of the last `CONTENT` tokens."""
    documents: list[Document] = field(default_factory=list)
    """Documents that begin here."""
    size: int = 0
    """What they add to the progress bar."""
    then: Position = field(default_factory=Position)
    """Where the pass stands after these rows."""


def chained(digest: str, text: str) -> str:
    """The digest over one more text."""
    return hashlib.blake2b(
        f"{digest}\n{text}".encode("utf-8", "replace"), digest_size=16
    ).hexdigest()


class Packer:
    """Packs texts into rows."""

    def __init__(
        self, tokenizer: Any, texts: Texts, *, context: int, rows: int, at: Position | None = None
    ) -> None:
        """Begin at the first text, or go on.

        Args:
            tokenizer: Of transformers.
            texts: See `read_texts`; the same as before where a pass goes on.
            context: Tokens of a row.
            rows: Rows to give at once.
            at: Where to go on.

        Raises:
            ValueError: If the texts differ from those of the pass that is to go on.
        """
        self._tokenizer, self._context, self._rows = tokenizer, context, rows
        self._bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._close = self._bos if eos is None else eos
        if self._close is None:
            raise ValueError("the tokenizer has neither <eos> nor <bos> to close a document with")
        self._position = Position()
        self._texts = read_texts(texts)
        self.skipped = 0
        """Size of the texts that were passed over to go on."""
        self._size = 0
        self._queue: list[tuple[Text, list[int]]] = []
        self._document: list[int] = []
        if at is not None:
            self._go_on(at)

    def _go_on(self, at: Position) -> None:
        digest, last = "", None
        for text in islice(self._texts, at.texts):
            digest, last = chained(digest, text.text), text
            self.skipped += text.size
        if digest != at.digest:
            raise ValueError(
                f"the first {at.texts} texts are not those that this index was begun with: give "
                "the same texts in the same order, or another path"
            )
        self._position = at
        if last is not None and at.texts > at.document:
            # The last text that was begun is the one that the next row begins in.
            self._document = self._tokenized([last])[0]

    def __iter__(self) -> Iterator[Rows]:
        while (found := self._next()) is not None:
            yield found

    def _next(self) -> Rows | None:
        width = self._context - (self._bos is not None)
        ids = np.full((self._rows, width), self._close, np.int64)
        where = np.full((self._rows, width), -1, np.int64)
        place = np.full((self._rows, width), -1, np.int64)
        begun: list[Document] = []
        size, pieces, used = 0, 0, 0
        for row in range(self._rows):
            at = 0
            while at < width:
                if self._position.texts == self._position.document and not self._begin(begun):
                    break
                size += self._size
                self._size = 0
                here, offset = self._position, self._position.offset
                part = self._document[offset : offset + width - at]
                span = slice(at, at + len(part))
                ids[row, span] = part
                scored = min(len(part), len(self._document) - 1 - offset)
                counted = np.arange(scored)
                where[row, at : at + scored] = here.start + offset + counted
                place[row, at : at + scored] = (row * width + at) + pieces * GAP + counted
                at, pieces = at + len(part), pieces + 1
                self._advance(len(part))
            used += at > 0
            if at < width:
                break
        if not used:
            return None
        return self._finish(ids[:used], where[:used], place[:used], begun, size)

    def _begin(self, begun: list[Document]) -> bool:
        """Take up the next text; False if there is none."""
        if not self._queue:
            texts = list(islice(self._texts, TOGETHER))
            self._queue = list(zip(texts, self._tokenized(texts), strict=True))[::-1]
        if not self._queue:
            return False
        text, self._document = self._queue.pop()
        here = self._position
        self._size += text.size
        digest = chained(here.digest, text.text)
        self._position = replace(here, offset=0, digest=digest, texts=here.texts + 1)
        ids = np.array(self._document[:-1], np.int32)
        begun.append(Document(here.document, here.start, ids))
        return True

    def _advance(self, count: int) -> None:
        here = self._position
        offset = here.offset + count
        if offset < len(self._document):
            self._position = replace(here, offset=offset)
            return
        tokens = len(self._document) - 1
        self._position = replace(
            here, document=here.document + 1, offset=0, start=here.start + tokens
        )

    def _tokenized(self, texts: list[Text]) -> list[list[int]]:
        if not texts:
            return []
        found = self._tokenizer(
            [text.text for text in texts], add_special_tokens=False, verbose=False
        )["input_ids"]
        return [[*ids, self._close] for ids in found]

    def _finish(
        self,
        ids: np.ndarray,
        where: np.ndarray,
        place: np.ndarray,
        begun: list[Document],
        size: int,
    ) -> Rows:
        if self._bos is not None:
            ids, where, place = (
                np.pad(x, ((0, 0), (1, 0)), constant_values=fill)
                for x, fill in ((ids, self._bos), (where, -1), (place, -1))
            )
            where[ids == self._bos] = -1  # one that the text itself spells out
        scored = np.flatnonzero(where.ravel() >= 0)
        token, place = ids.ravel()[scored], place.ravel()[scored]
        before, after = _extents(place)
        return Rows(
            ids=ids,
            scored=scored,
            where=where.ravel()[scored],
            row=scored // ids.shape[1],
            place=place,
            before=before,
            after=after,
            content=_content(token, place),
            documents=begun,
            size=size,
            then=self._position,
        )


def _extents(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many neighbours each token has in its piece, left and right, up to a window."""
    before, after = np.zeros((2, len(place)), np.uint8)
    for step in range(1, WINDOW + 1):
        near = place[step:] - place[:-step] == step
        before[step:] += near
        after[:-step] += near
    return before, after


def _content(token: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Hash of the last tokens up to each, within its piece."""
    own = mix(token.astype(np.uint64) + np.uint64(1))
    total = own.copy()
    for step in range(1, min(CONTENT, len(token))):
        near = place[step:] - place[:-step] == step
        total[step:] += np.where(near, own[:-step], 0) * np.uint64(_ODD**step % 2**64)
    return (mix(total) >> np.uint64(32)).astype(np.uint32)


_ODD = 0x9E3779B97F4A7C15


def mix(x: np.ndarray) -> np.ndarray:
    """A bijection of uint64 whose results look random: splitmix64's finaliser.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 14.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
