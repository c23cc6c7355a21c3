"""Where a text or a regular expression occurs in the corpus of an index, and what peaks there.

Everything is a mask over the tokens of the corpus, one after the other as the documents are: a
pattern is matched on the text once, and the passages that peak on a matched token are looked up by
that token. So a query costs one run over the text, however many features there are.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from workbench.index.reading import Index
from workbench.index.sample import spans


class Corpus:
    """The text of an index in memory, token by token: about 12 bytes a token."""

    def __init__(self, index: Index) -> None:
        rows = index.columns(
            "SELECT document, start::BIGINT AS start, len(ids) AS tokens FROM db.documents "
            "ORDER BY document"
        )
        ids = index.columns(
            "SELECT unnest(ids)::BIGINT AS id FROM "
            "(SELECT document, ids FROM db.documents ORDER BY document)"
        )["id"]
        strings = index.strings
        lengths = np.zeros(max(strings, default=0) + 1, np.int64)
        lengths[list(strings)] = [len(one) for one in strings.values()]
        self.starts = rows["start"]
        """``(document,)`` its first token."""
        self.ends = np.cumsum(lengths[ids])
        """``(token,)`` characters up to the end of each."""
        firsts = np.append(self.starts, len(ids))
        self._texts = [
            "".join(map(strings.__getitem__, ids[a:b].tolist()))
            for a, b in pairwise(firsts.tolist())
        ]

    def matched(self, pattern: re.Pattern[str]) -> np.ndarray:
        """``(token,)`` bool: the tokens that a match of `pattern` covers, in whole or in part."""
        found: list[tuple[int, int]] = []
        before = 0
        for text in self._texts:
            found += [(before + m.start(), before + m.end()) for m in pattern.finditer(text)]
            before += len(text)
        begin, end = np.array(found, np.int64).reshape(-1, 2).T
        some = begin < end  # an empty match, such as of "a*", is everywhere and says nothing
        first = np.searchsorted(self.ends, begin[some], "right")
        last = np.searchsorted(self.ends, end[some] - 1, "right")
        change = np.bincount(first, minlength=len(self.ends) + 1)
        change -= np.bincount(last + 1, minlength=len(change))
        return np.cumsum(change[:-1]) > 0

    def nearby(self, matched: np.ndarray, tokens: int) -> np.ndarray:
        """`matched` and up to so many `tokens` to either side, within each document."""
        out = matched.copy()
        document = np.repeat(
            np.arange(len(self.starts)), np.diff(np.append(self.starts, len(matched)))
        )
        for step in range(1, min(tokens, len(matched) - 1) + 1):
            same = document[step:] == document[:-step]
            out[step:] |= matched[:-step] & same
            out[:-step] |= matched[step:] & same
        return out

    def shown(self, token: int, *, around: int = 4) -> str:
        """A token with some of what stands before it."""
        document = int(np.searchsorted(self.starts, token, "right")) - 1
        text = self._texts[document]
        first = int(self.starts[document])
        origin = int(self.ends[first - 1]) if first else 0
        low = max(first, token - around)
        a = int(self.ends[low - 1]) - origin if low else 0
        b = (int(self.ends[token - 1]) if token else 0) - origin
        c = int(self.ends[token]) - origin
        return f"{text[max(a, 0) : b]}[{text[b:c]}]"


class Peaks:
    """The tokens that the passages of every feature peak on, the strongest and the sampled ones."""

    def __init__(self, index: Index, corpus: Corpus, bases: np.ndarray, count: int) -> None:
        """Read them.

        Args:
            index: The index.
            corpus: Its text.
            bases: ``(site,)`` number of each site's first feature.
            count: Features of all sites.
        """
        rows = index.columns("SELECT site, feature, document, position FROM db.examples")
        ref = bases[rows["site"]] + rows["feature"]
        token = corpus.starts[rows["document"]] + rows["position"]
        # Both in one number sort several times faster than one by the other; a passage that is
        # among the strongest and among the sampled ones counts once.
        packed = np.unique((token << 32) | ref)
        self._ref = (packed & (2**32 - 1)).astype(np.int32)
        """``(passage,)`` ordered by token."""
        self._first = np.searchsorted(packed, np.arange(len(corpus.ends) + 1) << 32)
        """``(token + 1,)`` first passage of each."""
        self.counts = np.bincount(self._ref, minlength=count)
        """``(feature,)`` passages of each."""

    def at(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The passages that peak inside `mask` ``(token,)``: token and feature of each."""
        tokens = np.flatnonzero(mask)
        first, many = self._first[tokens], self._first[tokens + 1] - self._first[tokens]
        return np.repeat(tokens, many), self._ref[spans(first, many)]
