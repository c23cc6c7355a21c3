"""The training curves in a real browser: what is drawn, what a reader can do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Locator

from tests.widgets.bridge import Bridge
from tests.widgets.training_samples import COUNT, NAMES, STEP, rows, training
from workbench.widgets import TrainingCurves, float32_bytes

pytestmark = pytest.mark.browser


def drawn_points(host: Locator, chart: int, name: str) -> list[tuple[float, float]]:
    """The corners of a line, in pixels of its chart."""
    line = host.locator(".wb-training-chart").nth(chart).locator(f'.wb-curve[data-name="{name}"]')
    pairs = (line.get_attribute("points") or "").split()
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs)]


def test_each_chart_has_a_line_for_each_sae_that_follows_its_figures(bridge: Bridge) -> None:
    host = bridge.show(training())
    bridge.painted()
    for chart, column in enumerate((2, 3, 4)):
        for number, name in enumerate(NAMES):
            wanted = [row[column] for row in rows() if row[0] == number]
            got = drawn_points(host, chart, name)
            assert len(got) == len(wanted) == COUNT
            # Further down is less, and equal steps of tokens are equal steps of pixels.
            order = sorted(range(COUNT), key=lambda i: wanted[i])
            heights = [got[i][1] for i in order]
            assert all(a >= b - 0.2 for a, b in pairwise(heights))
            steps = [b[0] - a[0] for a, b in pairwise(got)]
            assert max(steps) - min(steps) < 0.3
            assert min(steps) > 1


def test_the_target_is_drawn_at_the_height_of_its_value(bridge: Bridge) -> None:
    host = bridge.show(training())
    bridge.painted()
    target = host.locator('.wb-target[data-target="16"]')
    assert target.count() == 1
    # TopK's L0 is its target at every step.
    heights = {y for _, y in drawn_points(host, 1, "TopK")}
    assert {round(float(target.get_attribute("y1") or 0), 1)} == heights


def test_the_axis_reaches_to_the_end_of_the_training(bridge: Bridge) -> None:
    widget = training(total=60 * STEP)
    host = bridge.show(widget)
    bridge.painted()
    before = drawn_points(host, 0, "TopK")[-1][0]
    widget.total = 40 * STEP
    bridge.painted()
    after = drawn_points(host, 0, "TopK")[-1][0]
    width = host.locator(".wb-training-chart svg").first.evaluate("svg => svg.clientWidth")
    assert before < 0.75 * width
    assert after == pytest.approx(width - 12, abs=1)


def test_hover_shows_the_figures_of_that_moment_in_card_and_table(bridge: Bridge) -> None:
    host = bridge.show(training())
    bridge.painted()
    last = rows()[COUNT - 1]
    cell = host.locator(".wb-training-table tbody tr").first.locator("td")
    assert cell.nth(1).text_content() == f"{last[2]:.3f}"
    curves = host.locator(".wb-curves")
    curves.press("Home")
    bridge.painted()
    first = rows()[0]
    assert cell.nth(1).text_content() == f"{first[2]:.3f}"
    card = host.locator(".wb-card")
    assert "16.4k tokens" in (card.text_content() or "")
    assert f"FVU {first[2]:.3f} · L0 {first[3]:.1f}" in (card.text_content() or "")
    curves.press("Escape")
    bridge.painted()
    assert card.is_hidden()
    assert cell.nth(1).text_content() == f"{last[2]:.3f}"
    # The mouse does the same, at the chart that it is over.
    chart = host.locator(".wb-training-chart svg").nth(1)
    x = drawn_points(host, 1, "TopK")[9][0]
    chart.hover(position={"x": x, "y": 60})
    bridge.painted()
    tenth = rows()[9]
    assert cell.nth(2).text_content() == f"{tenth[3]:.1f}"
    bridge.page.mouse.move(2, 2)
    bridge.painted()
    assert card.is_hidden()


def test_stop_asks_once_and_says_that_it_was_heard(bridge: Bridge) -> None:
    widget = training()
    calls: list[str] = []

    def stop() -> None:
        calls.append("stop")
        widget.state = "stopping"

    widget.on("stop", stop)
    host = bridge.show(widget)
    button = host.locator(".wb-stop")
    button.click()
    bridge.until(lambda: calls)
    bridge.painted()
    assert button.text_content() == "Stopping…"
    assert button.is_disabled()
    widget.set_trait("state", "stopped")
    widget.status = "stopped · step 640 of 960"
    bridge.painted()
    assert button.is_hidden()
    assert host.get_by_role("status").text_content() == "stopped · step 640 of 960"
    assert calls == ["stop"]


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_nothing_is_left_to_stop_at_the_end(bridge: Bridge, state: str) -> None:
    host = bridge.show(training(state=state))
    assert host.locator(".wb-stop").is_hidden()


def test_a_handler_that_fails_is_shown(bridge: Bridge) -> None:
    widget = training()

    def stop() -> None:
        raise RuntimeError("no one there")

    widget.on("stop", stop)
    host = bridge.show(widget)
    host.locator(".wb-stop").click()
    bridge.until(lambda: widget.error)
    bridge.painted()
    assert "RuntimeError: no one there" in (host.get_by_role("alert").text_content() or "")


def test_points_that_come_later_are_drawn(bridge: Bridge) -> None:
    widget = training(points=b"", state="reading", status="reading activations: 0 tokens", done=0.0)
    host = bridge.show(widget)
    bridge.painted()
    assert drawn_points(host, 0, "TopK") == []
    assert "–" in (host.locator(".wb-training-table tbody").text_content() or "")
    widget.points = float32_bytes(rows(3))
    bridge.painted()
    assert len(drawn_points(host, 0, "TopK")) == 3


def test_lines_differ_without_colour(bridge: Bridge) -> None:
    host = bridge.show(training())
    bridge.painted()
    lines = host.locator(".wb-training-chart").first.locator(".wb-curve").all()
    assert len({line.get_attribute("stroke-dasharray") for line in lines}) == len(NAMES)


def test_narrow_pages_stack_the_charts(open_bridge: Callable[..., Bridge]) -> None:
    bridge = open_bridge(width=480)
    host = bridge.show(training())
    bridge.painted()
    tops = [chart.bounding_box() for chart in host.locator(".wb-training-chart").all()]
    assert len({box["x"] for box in tops if box}) == 1
    assert len({box["y"] for box in tops if box}) == 3


def test_the_page_can_change_nothing_but_dismiss_the_error() -> None:
    widget = training(error="x")
    before: Any = widget.points
    widget.set_state({"points": b"", "state": "finished", "error": ""})
    assert (widget.points, widget.state, widget.error) == (before, "running", "")


def test_a_point_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"points has 8 bytes: a point is 5 float32 numbers"):
        TrainingCurves(points=bytes(8))


def test_the_twin_has_first_and_last_figures_of_each() -> None:
    twin = training().static_html()
    for number, name in enumerate(NAMES):
        own = [row for row in rows() if row[0] == number]
        assert twin.count(f"<td>{name}</td>") == 8
        for row in (own[0], own[-1]):
            assert f"<td>{row[1]:,.0f}</td><td>{row[2]:.3f}</td><td>{row[3]:.1f}</td>" in twin
