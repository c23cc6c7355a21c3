"""The widgets against their limits: real Python widgets drawn by Chromium, with no Jupyter between.

The bridge of the widget tests carries the messages, so a figure holds serialising, transport and
drawing, and leaves out Jupyter's own network.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

from tests import chromium
from tests.widgets import samples
from tests.widgets.bridge import Bridge
from tests.widgets.conftest import ARGUMENTS
from workbench.lab import Lab
from workbench.sites import Site


@contextmanager
def bridge() -> Iterator[Bridge]:
    """A page of Chromium that real widgets can be shown on.

    Raises:
        RuntimeError: If there is no Chromium; the message says how to get one.
    """
    path = chromium.find()
    if path is None:
        raise RuntimeError(chromium.HELP)
    with sync_playwright() as playwright, pytest.MonkeyPatch.context() as patch:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield Bridge(browser.new_page(viewport={"width": 1100, "height": 900}), patch)
        browser.close()


def redraw(page: Bridge, positions: int = 128, features: int = 100, rounds: int = 15) -> float:
    """Median milliseconds from new values in Python to the painted heatmap."""
    widget, draw = samples.large_heatmap(positions, features), random.Random(0)
    page.show(widget)
    times = []
    for _ in range(rounds + 1):
        values = samples.random_values(positions, features, draw)
        times.append(page.redraw_ms(widget, values=values))
    widget.close()
    return statistics.median(times[1:])


def slider(lab: Lab, page: Bridge, rounds: int = 9) -> float:
    """Median milliseconds from a number typed on the page to the first changed token painted there.

    The whole way: page, kernel, a restarted text, its first token, page.
    """
    index = int(lab.suite.maxima(Site(3)).argmax())
    panel = lab.steering("Once upon a time", features=[(3, index)], max_new_tokens=8)
    host = page.show(panel.widget)
    panel.start()
    page.until(lambda: panel.widget.status.get("state") == "done")
    entry = host.get_by_role("spinbutton", name="as a number")
    times = []
    for number in range(rounds + 1):
        run = panel.widget.run

        def written(run: int = run) -> bool:
            tokens = page.custom("tokens")
            return any(m["run"] > run and m["column"] == "steered" for m in tokens)

        entry.fill(f"{1 + number / 10}")
        start = time.perf_counter()
        entry.press("Enter")
        page.until(written)
        page.painted()
        times.append(1000 * (time.perf_counter() - start))
        page.until(lambda: panel.widget.status.get("state") == "done")
    panel.widget.close()
    return statistics.median(times[1:])


def rows(lab: Lab) -> Iterator[tuple[str, str, str]]:
    """``(what, measured, target)`` of every benchmark."""
    with bridge() as page:
        yield "redraw of a 128 x 100 heatmap, Python to paint", f"{redraw(page):.0f} ms", "< 50 ms"
        yield (
            "slider on the page to first token under it",
            f"{slider(lab, page):.0f} ms",
            "< 100 ms",
        )
