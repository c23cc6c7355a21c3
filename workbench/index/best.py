"""The best few entries of each of many groups, whatever order they come in.

An entry is one token at which a feature fires. Groups are features (the strongest tokens) or ranges
of a feature's activation (a random sample of each). What is kept depends on the set of entries
offered and not on their order, so two parts of a corpus can be indexed apart and merged.
"""

from __future__ import annotations

import numpy as np

from workbench.index.corpus import WINDOW

ENTRY = np.dtype(
    [
        ("key", np.uint32),  # what the entries of a group are ordered by, smallest first
        ("content", np.uint32),  # of the entries with the same only the first is kept
        ("where", np.int64),  # token of the corpus; -1 where there is no entry
        ("value", np.float32),
        ("largest", np.float32),  # activation that 255 in the window stands for
        ("before", np.uint8),  # tokens of the window to the left that belong to the passage
        ("after", np.uint8),
        ("window", np.uint8, 2 * WINDOW + 1),
    ]
)
LEAST_WAITING = 4096
"""Candidates that may wait to be sorted in, whatever the size of the rest."""
NO_LIMIT = np.uint32(2**32 - 1)


class Best:
    """At most `size` entries of each group, those with the smallest keys.

    Of equal keys the first in the corpus wins. Room is made for a group when it gets its first
    entry: most ranges of most features never do.
    """

    def __init__(self, groups: int, size: int) -> None:
        self.size = size
        self.slot = np.full(groups, -1, np.int32)
        """``(group,)`` row of `entries`, or -1."""
        self.limit = np.full(groups, NO_LIMIT)
        """``(group,)`` largest key that still gets in."""
        self.entries = np.zeros((0, size), ENTRY)
        self.used = 0
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._wait = 0

    def admits(self, group: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Which candidates may get in: places, ascending."""
        return np.flatnonzero(key <= self.limit[group])

    def offer(self, group: np.ndarray, found: np.ndarray) -> None:
        """Take in what belongs to the best, now or later: sorting in many at once is cheaper.

        Args:
            group: Group of each candidate ``(candidate,)``.
            found: The candidates, as `ENTRY`.
        """
        if len(found):
            self._waiting.append((group, found))
            self._wait += len(found)
        if self._wait > max(LEAST_WAITING, self.used * self.size // 4):
            self.settle()

    def settle(self) -> None:
        """Sort in the candidates that wait."""
        if not self._waiting:
            return
        group, found = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._wait = [], 0
        groups, index = np.unique(group, return_inverse=True)
        self._make_room(groups)
        old = self.entries[self.slot[groups]]
        there = old["where"] >= 0
        entries = np.concatenate([old[there], found])
        index = np.concatenate([np.repeat(np.arange(len(groups)), there.sum(1)), index])
        kept, rank = self._choose(index, entries)
        rows = np.zeros((len(groups), self.size), ENTRY)
        rows["where"] = -1
        rows[index[kept], rank] = entries[kept]
        self.entries[self.slot[groups]] = rows
        full = rows["where"][:, -1] >= 0
        self.limit[groups[full]] = rows["key"][full, -1]

    def _choose(self, index: np.ndarray, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the entries to keep, and the rank of each in its group."""
        wide = index.astype(np.uint64) << np.uint64(32)
        order = np.lexsort((entries["where"], wide | entries["key"]))
        # Of those with the same content the first in this order stays.
        said = (wide | entries["content"])[order]
        alike = np.argsort(said, kind="stable")
        again = alike[1:][np.diff(said[alike]) == 0]
        order = np.delete(order, again)
        rank = ranks(index[order])
        return order[rank < self.size], rank[rank < self.size]

    def _make_room(self, groups: np.ndarray) -> None:
        new = groups[self.slot[groups] < 0]
        self.slot[new] = np.arange(self.used, self.used + len(new))
        self.used += len(new)
        if self.used > len(self.entries):
            more = np.zeros((max(self.used, 2 * len(self.entries)), self.size), ENTRY)
            more["where"] = -1
            more[: len(self.entries)] = self.entries
            self.entries = more

    def merge(self, other: Best) -> None:
        """Take in what `other` kept of another part of the corpus."""
        self.offer(*other.kept())
        self.settle()

    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """``(group, entry)`` of all that is kept, ordered by group, then by rank."""
        self.settle()
        groups = np.flatnonzero(self.slot >= 0)
        rows = self.entries[self.slot[groups]]
        there = rows["where"] >= 0
        return np.repeat(groups, there.sum(1)), rows[there]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, to be stored."""
        group, entries = self.kept()
        return {"group": group, "entries": entries}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], groups: int, size: int) -> Best:
        """What `arrays` gave."""
        best = cls(groups, size)
        best.offer(arrays["group"], arrays["entries"])
        best.settle()
        return best


def ranks(ordered: np.ndarray) -> np.ndarray:
    """The place of each within the run of equals that it belongs to."""
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts = np.diff(np.append(first, len(ordered)))
    return np.arange(len(ordered)) - np.repeat(first, counts)
