"""Full-text search over short labels, in memory.

DuckDB's own extension for this is fetched from its server when it is first used, and so is not at
hand offline. The measure is the one that it has: BM25 (Robertson and Zaragoza 2009, "The
probabilistic relevance framework", section 3.2), summed over the words of the query. A word of the
query also finds the words that begin with it, at a price, so that "capital" finds "capitals".

DuckDB cuts the labels into words and sorts them; words that begin alike then lie side by side, and
a query is arithmetic on a few slices.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence

import duckdb
import numpy as np

SATURATION, LENGTH = 1.2, 0.75
"""The usual ``k1`` and ``b``."""
BEGINNING = 3
"""Letters that a word needs to find others by their beginning."""
WORDS = r"""
CREATE TABLE words AS
SELECT word, ref, count(*) AS often, any_value(length) AS length FROM (
    SELECT ref, unnest(words) AS word, len(words) AS length FROM (
        SELECT ref, regexp_extract_all(lower(strip_accents(text)), '[\p{L}\p{N}]+') AS words
        FROM given
    )
) GROUP BY word, ref
"""
LAST = "\U0010ffff"


class Words:
    """The words of some texts."""

    def __init__(self, refs: Sequence[int] | np.ndarray, texts: Sequence[str]) -> None:
        """Take texts in.

        Args:
            refs: Number of each, from 0, all different.
            texts: The texts.
        """
        given = {"ref": np.asarray(refs, np.int64), "text": np.array(texts, object)}
        self._words: list[str] = []
        if not len(given["ref"]):
            return
        with duckdb.connect(":memory:", config={"threads": "2"}) as connection:
            connection.register("given", given)
            connection.execute(WORDS)
            counts = connection.execute(
                "SELECT word, count(*) FROM words GROUP BY word ORDER BY word"
            ).fetchall()
            rows = connection.execute(
                "SELECT ref, often, length FROM words ORDER BY word, ref"
            ).fetchnumpy()
        self._words = [word for word, _ in counts]
        self._first = np.cumsum([0, *(count for _, count in counts)])
        """``(word + 1,)`` where the entries of each begin."""
        self._ref = np.asarray(rows["ref"])
        often, length = np.asarray(rows["often"], float), np.asarray(rows["length"], float)
        self._lengths = np.zeros(int(given["ref"].max()) + 1)
        self._lengths[self._ref] = length
        self._count = int((self._lengths > 0).sum())
        mean = self._lengths.sum() / max(self._count, 1)
        self._part = often * (SATURATION + 1)
        self._part /= often + SATURATION * (1 - LENGTH + LENGTH * length / mean)

    def find(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        """The texts that have a word of `query`: their numbers and scores, by number."""
        if not self._words:
            return np.zeros(0, np.int64), np.zeros(0)
        total = np.zeros(len(self._lengths))
        for term in set(words_of(query)):
            best = np.zeros(len(total))
            for word, weight in self._meant(term):
                part = slice(self._first[word], self._first[word + 1])
                # A text has each word once among the entries.
                refs = self._ref[part]
                best[refs] = np.maximum(best[refs], weight * self._part[part])
            have = np.count_nonzero(best)
            total += best * np.log(1 + (self._count - have + 0.5) / (have + 0.5))
        found = np.flatnonzero(total)
        return found, total[found]

    def _meant(self, term: str) -> list[tuple[int, float]]:
        """The words that a word of the query stands for, and how much each counts."""
        low = bisect_left(self._words, term)
        high = low
        if len(term) >= BEGINNING:
            high = bisect_left(self._words, term + LAST)
        elif low < len(self._words) and self._words[low] == term:
            high = low + 1
        return [
            (word, 1.0 if found == term else 0.5 * len(term) / len(found))
            for word, found in enumerate(self._words[low:high], low)
        ]


def words_of(text: str) -> list[str]:
    """The words of a text, without case and accents.

    >>> words_of("Écoles, 3 maïs_2")
    ['ecoles', '3', 'mais', '2']
    """
    plain = unicodedata.normalize("NFD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return re.findall(r"[^\W_]+", plain.lower())
