"""One way of timing for both sides."""

import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 9


def timed(function: Callable[[], Any]) -> float:
    """Median milliseconds after a warm-up."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])
