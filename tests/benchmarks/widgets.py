"""The widgets against their limits: real Python widgets drawn by Chromium, with no Jupyter between.

The bridge of the widget tests carries the messages, so a figure holds serialising, transport and
drawing, and leaves out Jupyter's own network.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

from tests import chromium
from tests.conftest import CHROMIUM
from tests.widgets import samples
from tests.widgets.bridge import Bridge
from workbench.lab import Lab
from workbench.lab import open as open_lab
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
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield Bridge(browser.new_page(viewport={"width": 1100, "height": 900}), patch)
        browser.close()


def redraw(page: Bridge, positions: int = 128, features: int = 100, rounds: int = 15) -> float:
    """Median milliseconds from new values in Python to the painted heatmap."""
    widget, draw = samples.large_heatmap(positions, features), random.Random(0)
    page.show(widget)
    # Two matrices in turn: the page cannot tell, and half a million random numbers take seconds.
    values = [samples.random_values(positions, features, draw) for _ in range(2)]
    times = [page.redraw_ms(widget, values=values[n % 2]) for n in range(rounds + 1)]
    widget.close()
    return statistics.median(times[1:])


def floor(page: Bridge, rounds: int = 15) -> float:
    """Median milliseconds of the same way with nothing to carry or to draw: one cell."""
    return redraw(page, 1, 1, rounds)


SCROLL = """async (scroller, frames) => {
    for (let i = 0; i < frames; i += 1) {
        scroller.scrollTop += 190;
        scroller.scrollLeft += 61;
        await new Promise(requestAnimationFrame);
    }
}"""


def page_work(page: Bridge, act: Callable[[], object]) -> float:
    """Milliseconds of the page's own processor time for what `act` makes it do.

    The time of its main thread, so that neither the way to the page nor other programs count.
    """
    session = page.page.context.new_cdp_session(page.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in found if one["name"] == "TaskDuration")

    before = spent()
    act()
    after = spent()
    session.detach()
    return 1000 * (after - before)


def reading(page: Bridge, positions: int, features: int, rounds: int = 15) -> float:
    """Milliseconds of the page's work to take in new values and draw them."""
    widget = samples.large_heatmap(positions, features)
    page.show(widget)

    def again() -> None:
        for _ in range(rounds):
            page.page.evaluate("id => bridge.again(id, 'values')", widget.model_id)

    time_spent = page_work(page, again) / rounds
    widget.close()
    return time_spent


def scrolling(page: Bridge, positions: int, features: int, frames: int = 60) -> float:
    """Milliseconds of the page's work for one frame of scrolling, two rows pinned."""
    widget = samples.large_heatmap(positions, features)
    widget.pinned = [features - 1, features // 2]
    scroller = page.show(widget).locator(".wb-scroller")
    time_spent = page_work(page, lambda: scroller.evaluate(SCROLL, frames)) / frames
    widget.close()
    return time_spent


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
        yield "redraw of one cell, Python to paint: the way itself", f"{floor(page):.0f} ms", ""
        for positions, features, target in ((64, 50, ""), (128, 100, "< 50 ms"), (512, 1000, "")):
            what = f"redraw of a {positions} x {features} heatmap, Python to paint"
            yield what, f"{redraw(page, positions, features):.0f} ms", target
            yield "  processor time of the page", f"{reading(page, positions, features):.0f} ms", ""
        what = "scrolling a 512 x 1000 heatmap: processor time of a frame"
        yield what, f"{scrolling(page, 512, 1000):.0f} ms", "< 16 ms"
        yield (
            "slider on the page to first token under it",
            f"{slider(lab, page):.0f} ms",
            "< 100 ms",
        )


def main() -> None:
    """Print a row as soon as it is measured."""
    for what, measured, target in rows(open_lab()):
        sys.stdout.write(f"{what:66} {measured:>9}   {target and 'target ' + target}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
