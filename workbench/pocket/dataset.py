"""From documents to rows of tokens, with the concepts and the information of every token.

A row is ``<bos>``, then documents separated by ``<eos>``, cut at the context length. Every row
starts with a new document, so a prompt looks like the start of a row.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from workbench.pocket.corpus import KINDS, Document, documents
from workbench.pocket.language_model import CONTEXT

EOS, BOS = 1, 2


@dataclass(frozen=True)
class LabelledRows:
    """Rows of tokens with what is true of each token."""

    ids: np.ndarray
    """``(row, pos)`` token ids."""
    labels: np.ndarray
    """``(row, pos, concept)`` bool; position 0 and separators belong to nothing."""
    concepts: tuple[str, ...]
    """Names of the concepts, in the order of the last axis of `labels`."""
    nats: np.ndarray
    """``(row, pos)`` information of the choices that the token's text took, in nats."""
    kinds: np.ndarray
    """``(row, pos)`` name of the kind of document."""


def rows(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    count: int,
    kinds: tuple[str, ...] = tuple(KINDS),
) -> np.ndarray:
    """`count` rows ``(row, pos)`` of corpus `seed`, as uint16."""
    out = np.empty((count, CONTEXT), np.uint16)
    stream = _encoded_ids(tokenizer, seed, kinds)
    for row in tqdm(range(count), desc="documents", unit="row", disable=count < 2000):
        ids = [BOS]
        while len(ids) < CONTEXT:
            ids += next(stream)
            ids.append(EOS)
        out[row] = ids[:CONTEXT]
    return out


def _encoded_ids(
    tokenizer: PreTrainedTokenizerFast, seed: int, kinds: tuple[str, ...]
) -> Iterator[list[int]]:
    stream = documents(seed, kinds)
    backend = tokenizer.backend_tokenizer
    while True:
        batch = [document.text for document in islice(stream, 256)]
        for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
            yield encoding.ids


def encode(
    tokenizer: PreTrainedTokenizerFast, document: Document
) -> tuple[list[int], list[frozenset[str]], list[float]]:
    """Ids, concepts and information of each token of one document.

    A token takes the concepts of the piece in which it ends. A piece's information goes to its
    first token.
    """
    encoding = tokenizer.backend_tokenizer.encode(document.text, add_special_tokens=False)
    ends = [end for _, end, _ in document.spans()]
    concepts, nats, seen = [], [], -1
    for start, end in encoding.offsets:
        piece = bisect_left(ends, max(end, start + 1))
        concepts.append(document.pieces[piece].concepts)
        nats.append(sum(p.nats for p in document.pieces[seen + 1 : piece + 1]))
        seen = max(seen, piece)
    return encoding.ids, concepts, nats


def labelled_rows(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    count: int,
    concepts: tuple[str, ...],
    kinds: tuple[str, ...] = tuple(KINDS),
) -> LabelledRows:
    """As `rows`, and row for row the same tokens, with labels for `concepts`."""
    index = {name: i for i, name in enumerate(concepts)}
    ids = np.full((count, CONTEXT), EOS, np.uint16)
    labels = np.zeros((count, CONTEXT, len(concepts)), bool)
    nats = np.zeros((count, CONTEXT), np.float32)
    kind_names = np.full((count, CONTEXT), "", object)
    stream = documents(seed, kinds)
    for row in range(count):
        ids[row, 0], position = BOS, 1
        while position < CONTEXT:
            document = next(stream)
            for token, names, information in zip(*encode(tokenizer, document), strict=True):
                if position == CONTEXT:
                    break
                ids[row, position] = token
                labels[row, position, [index[n] for n in names if n in index]] = True
                nats[row, position] = information
                kind_names[row, position] = document.kind
                position += 1
            position += 1  # the separator
    return LabelledRows(ids, labels, concepts, nats, kind_names)
