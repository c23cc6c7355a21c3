"""Which SAEs stay open: as many as fit a memory budget, the least recently used out first."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from workbench.sae.base import SAE

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Shelf:
    """Open SAEs by key.

    A mapped SAE counts whole although its pages come and go with use: it may grow to that. The one
    asked for last always stays, even where it alone is over the budget, because there is no use in
    an SAE that is closed before it is read. What a caller still holds lives on until it lets go.
    """

    def __init__(self, budget: int | None = None) -> None:
        """Make an empty shelf.

        Args:
            budget: Bytes that the open SAEs may have together; None for no limit.
        """
        self.budget = budget
        self._open: OrderedDict[Hashable, SAE] = OrderedDict()
        # Counted once: to add up all tensors at each use takes as long as to encode a prompt.
        self._sizes: dict[Hashable, int] = {}
        # Held while loading too: two threads that ask for one SAE must not load it twice.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        limit = "" if self.budget is None else f" of {self.budget / 1e6:,.0f}"
        return f"<Shelf: {len(self)} SAEs open, {self.bytes / 1e6:,.0f}{limit} MB>"

    def __len__(self) -> int:
        return len(self._open)

    @property
    def bytes(self) -> int:
        """Bytes of the open SAEs."""
        return sum(self._sizes.values())

    def get(self, key: Hashable, load: Callable[[], SAE]) -> SAE:
        """The SAE of `key`, loaded if it is not open."""
        with self._lock:
            if key not in self._open:
                self._open[key] = load()
                self._sizes[key] = size_of(self._open[key])
            self._open.move_to_end(key)
            while self.budget is not None and len(self._open) > 1 and self.bytes > self.budget:
                del self._sizes[self._open.popitem(last=False)[0]]
            return self._open[key]

    def forget(self, key: Hashable) -> None:
        """Close the SAE of `key`, if it is open."""
        with self._lock:
            self._open.pop(key, None)
            self._sizes.pop(key, None)


def size_of(sae: Any) -> int:
    """Bytes of an SAE's tensors."""
    return sum(value.nbytes for value in vars(sae).values() if isinstance(value, Tensor))


def parse_bytes(amount: str | int | None) -> int | None:
    """Bytes of an amount such as ``"8GB"``; numbers and None as they are.

    >>> parse_bytes("1.5 GB"), parse_bytes("2GiB"), parse_bytes(300)
    (1500000000, 2147483648, 300)

    Raises:
        ValueError: If it is no amount of memory.
    """
    if amount is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?b|)\s*", str(amount), re.IGNORECASE)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"memory={amount!r}: give an amount such as '8GB', or bytes")
    return int(float(found[1]) * UNITS[found[2].upper().removeprefix("B")])
