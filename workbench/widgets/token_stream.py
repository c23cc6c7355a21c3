"""Tokens on their way to the page: coalesced, numbered by run, safe from any thread.

1. ``start`` begins a run with a new number; what an older run still had to send is dropped.
2. ``add`` keeps tokens until a message may be sent. Messages come from a budget of `PER_SECOND`
   with a burst of two (steered and unsteered), because the Jupyter server silently drops widget
   messages above 1,000 a second, and no reader needs more repaints.
3. ``finish`` sends the rest and returns the run's final texts.

No timer and no thread of its own: tokens wait for the next ``add`` or for ``finish``. So messages
leave from the thread that generates: hosted notebooks without background updates need that.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from workbench.widgets.base import refuse_unknown

NUMBERS = ("shift", "entropy", "p", "p_before")
TOKEN_KEYS = ("text", *NUMBERS, "top")
PER_SECOND = 22.0
BURST = 2.0


class TokenStream:
    """Creates the coalescing sender of one panel.

    Args:
        send: Sends one message, a JSON-ready dict, to the page.
        clock: Seconds; a test passes its own.
    """

    def __init__(
        self, send: Callable[[dict[str, Any]], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run = 0
        self.lock = threading.RLock()
        self._send = send
        self._clock = clock
        self._budget, self._budget_at = BURST, clock()
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._streamed: dict[str, list[dict[str, Any]]] = {}

    def start(self, columns: Iterable[str]) -> int:
        """Begin a run and forget the one before.

        Args:
            columns: Ids of the texts that it will write.

        Returns:
            The new run's number; larger than every earlier one.
        """
        with self.lock:
            self.run += 1
            self._waiting = {}
            self._streamed = {column: [] for column in columns}
            return self.run

    def add(self, run: int, column: str, tokens: Iterable[Mapping[str, Any]]) -> bool:
        """Queue tokens for a column, and send what the budget allows.

        Args:
            run: Number that `start` gave.
            column: Id of one of the run's texts.
            tokens: See `json_token`.

        Returns:
            False if another run has begun: the caller can stop.
        """
        ready = [json_token(token) for token in tokens]
        with self.lock:
            if run != self.run:
                return False
            self._check(column)
            self._streamed[column].extend(ready)
            if ready:
                # Re-inserting keeps the dict in the order in which columns began to wait.
                self._waiting.setdefault(column, []).extend(ready)
            self._refill()
            while self._waiting and self._budget >= 1:
                self._budget -= 1
                self._send_next()
            return True

    def finish(
        self, run: int, texts: Mapping[str, Iterable[Mapping[str, Any]]] | None = None
    ) -> dict[str, list[dict[str, Any]]] | None:
        """Send what waits and give the final texts, per column.

        Args:
            run: Number that `start` gave.
            texts: Tokens that take the place of a column's streamed ones.

        Returns:
            None if another run has begun.
        """
        with self.lock:
            if run != self.run:
                return None
            for column in texts or {}:
                self._check(column)
            while self._waiting:
                self._send_next()
            known = {name: [json_token(t) for t in each] for name, each in (texts or {}).items()}
            return {**self._streamed, **known}

    def _check(self, column: str) -> None:
        if column not in self._streamed:
            raise ValueError(f"column is {column!r}; this run has: {', '.join(self._streamed)}.")

    def _send_next(self) -> None:
        column = next(iter(self._waiting))
        tokens = self._waiting.pop(column)
        self._send({"type": "tokens", "run": self.run, "column": column, "tokens": tokens})

    def _refill(self) -> None:
        now = self._clock()
        self._budget = min(BURST, self._budget + PER_SECOND * (now - self._budget_at))
        self._budget_at = now


def json_token(token: Mapping[str, Any]) -> dict[str, Any]:
    """A token with plain finite numbers only, since JSON has no NaN.

    Args:
        token: ``text`` (str); ``shift``, ``entropy``, ``p``, ``p_before`` (numbers or None);
            ``top``: (text, p) pairs.

    Raises:
        TypeError: If a key is unknown.
    """
    refuse_unknown("token", token, TOKEN_KEYS)
    plain: dict[str, Any] = {"text": str(token["text"])}
    for key in NUMBERS:
        value = token.get(key)
        if value is not None and math.isfinite(value):
            plain[key] = float(value)
    if token.get("top"):
        plain["top"] = [[str(text), float(p)] for text, p in token["top"]]
    return plain
