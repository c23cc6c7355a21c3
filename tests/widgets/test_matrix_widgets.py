"""The heatmap and the evolution map: pixels, selection, keyboard, scales, large matrices."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Locator, Position

from tests.widgets import samples
from tests.widgets.bridge import Bridge
from workbench.widgets import EvolutionMap, FeatureHeatmap, float32_bytes
from workbench.widgets.matrix import MatrixWidget

pytestmark = pytest.mark.browser

LADDER = [0.0, 0.01, 1.0, 2.0, 4.0, 8.0, 16.0]


def ladder(**changes: Any) -> FeatureHeatmap:
    """One feature whose values rise from token to token, and one that is always off."""
    traits: dict[str, Any] = {
        "tokens": [f" t{position}" for position in range(len(LADDER))],
        "features": [{"id": 5, "label": "rising"}, {"id": 6, "label": "off", "max": 3.0}],
        "values": float32_bytes([[value, 0.0] for value in LADDER]),
    }
    return FeatureHeatmap(**{**traits, **changes})


def spot(canvas: Locator, column: int, line: int) -> Position:
    """The middle of a cell, in pixels of the canvas' box, when nothing is scrolled."""
    place = {k: float(v) for k, v in canvas.evaluate("c => ({...c.dataset})").items()}
    return {
        "x": place["left"] + (column + 0.5) * place["cell"],
        "y": place["top"] + (line + 0.5) * place["row"],
    }


def colour(canvas: Locator, column: int, line: int) -> tuple[int, int, int]:
    """The colour of the middle of a cell."""
    data = canvas.evaluate(
        """(c, {x, y}) => {
            const ratio = c.width / c.clientWidth;
            const got = c.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data;
            return [got[0], got[1], got[2]];
        }""",
        spot(canvas, column, line),
    )
    return data[0], data[1], data[2]


def luminance(rgb: tuple[int, int, int]) -> float:
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_colours_are_ordered_by_value(
    open_bridge: Callable[..., Bridge], scale: str, *, dark: bool
) -> None:
    bridge = open_bridge(dark=dark)
    canvas = bridge.show(ladder(scale=scale)).locator("canvas")
    seen = [luminance(colour(canvas, column, 0)) for column in range(len(LADDER))]
    steps = [(b - a) * (1 if dark else -1) for a, b in pairwise(seen)]
    assert all(step >= 0 for step in steps)
    # "A little" is not "off", and every doubling shows.
    assert steps[0] > 1
    assert all(step > 1 for step in steps[2:])
    assert colour(canvas, 3, 1) == colour(canvas, 0, 0)


def test_log_tells_small_values_apart(bridge: Bridge) -> None:
    widget = ladder()
    host = bridge.show(widget)
    canvas = host.locator("canvas")
    linear = abs(luminance(colour(canvas, 1, 0)) - luminance(colour(canvas, 2, 0)))
    host.get_by_role("button", name="log").click()
    bridge.until(lambda: widget.scale == "log")
    bridge.painted()
    assert abs(luminance(colour(canvas, 1, 0)) - luminance(colour(canvas, 2, 0))) > 2 * linear
    assert host.locator(".wb-legend-zero").is_visible()


def test_masked_positions_are_hatched_and_left_out_of_the_scale(bridge: Bridge) -> None:
    values = float32_bytes([[1000.0, 0.0]] + [[value, 0.0] for value in LADDER[1:]])
    plain = bridge.show(ladder())
    masked = bridge.show(ladder(values=values, masked=[0]))
    assert "not scored (BOS)" in (masked.locator(".wb-legend").text_content() or "")
    assert plain.locator(".wb-legend-masked").is_hidden()
    pair = plain.locator("canvas"), masked.locator("canvas")
    assert colour(pair[0], 6, 0) == colour(pair[1], 6, 0)
    pair[1].hover(position=spot(pair[1], 0, 0))
    assert "not scored" in (masked.locator(".wb-card").text_content() or "")


def test_hover_shows_exact_numbers(bridge: Bridge) -> None:
    host = bridge.show(samples.heatmap())
    canvas, card = host.locator("canvas"), host.locator(".wb-card")
    canvas.hover(position=spot(canvas, 6, 0))
    text = card.text_content() or ""
    assert "␣Paris" in text
    assert "231 · capital cities" in text
    assert "11.8" in text
    assert "95 %" in text
    # The row's name: the whole label, which the gutter has no room for.
    canvas.hover(position={"x": 40, "y": spot(canvas, 0, 2)["y"]})
    assert samples.FEATURES[2][1] in (card.text_content() or "")
    canvas.hover(position=spot(canvas, 16, -1))
    assert (card.text_content() or "").startswith("↵")
    bridge.page.mouse.move(5, 890)
    assert card.is_hidden()


@pytest.mark.parametrize(
    ("make", "line", "want"),
    [(samples.heatmap, 3, [6, 3]), (samples.evolution, 4, [19, 6])],
    ids=["heatmap", "evolution"],
)
def test_click_selects(
    bridge: Bridge, make: Callable[[], MatrixWidget], line: int, want: list[int]
) -> None:
    widget = make()
    heard: list[tuple[int | None, int | None]] = []
    widget.on_select(lambda first, second: heard.append((first, second)))
    canvas = bridge.show(widget).locator("canvas")
    canvas.click(position=spot(canvas, 6, line))
    bridge.until(lambda: widget.selected == want)
    bridge.page.keyboard.press("Escape")
    bridge.until(lambda: widget.selected == [])
    assert heard == [(want[0], want[1]), (None, None)]


def test_keys_move_select_and_clear(bridge: Bridge) -> None:
    widget = samples.heatmap()
    host = bridge.show(widget)
    plot = host.get_by_role("application")
    plot.focus()
    for key in ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "Enter"]:
        bridge.page.keyboard.press(key)
    # The first arrow enters at the first cell.
    bridge.until(lambda: widget.selected == [2, 1])
    assert "␣capital" in (host.locator(".wb-card").text_content() or "")
    assert "␣capital" in (host.locator(".wb-sr").text_content() or "")
    bridge.page.keyboard.press("End")
    bridge.page.keyboard.press("Space")
    bridge.until(lambda: widget.selected == [len(samples.TOKENS) - 1, 1])
    bridge.page.keyboard.press("Escape")
    bridge.until(lambda: widget.selected == [])
    assert host.locator(".wb-card").is_hidden()


def test_a_resting_mouse_does_not_take_the_cell_from_the_keys(bridge: Bridge) -> None:
    widget = samples.large_heatmap(60, 100)
    canvas = bridge.show(widget).locator("canvas")
    canvas.click(position=spot(canvas, 5, 20))
    for _ in range(12):
        bridge.page.keyboard.press("ArrowDown")
        bridge.painted()
    bridge.page.keyboard.press("Enter")
    bridge.until(lambda: widget.selected == [5, 32])


def test_up_is_a_later_layer(bridge: Bridge) -> None:
    widget = samples.evolution(selected=[17, 6])
    bridge.show(widget).get_by_role("application").focus()
    bridge.page.keyboard.press("ArrowUp")
    bridge.page.keyboard.press("Enter")
    bridge.until(lambda: widget.selected == [18, 6])


def test_python_selects_and_the_page_scrolls_there(bridge: Bridge) -> None:
    widget = samples.large_heatmap(128, 100)
    host = bridge.show(widget)
    scroller = host.locator(".wb-scroller")
    assert scroller.evaluate("s => [s.scrollLeft, s.scrollTop]") == [0, 0]
    widget.selected = [120, 90]
    bridge.painted()
    left, top = scroller.evaluate("s => [s.scrollLeft, s.scrollTop]")
    assert left > 500
    assert top > 500
    assert "630 · feature number 90" in (host.locator(".wb-strip-caption").text_content() or "")


def test_token_strip_selects_and_follows_the_feature(bridge: Bridge) -> None:
    widget = samples.heatmap(selected=[6, 0])
    host = bridge.show(widget)
    strip = host.locator(".wb-strip span")
    shade = "s => getComputedStyle(s).backgroundColor"
    assert strip.nth(6).evaluate(shade) != strip.nth(4).evaluate(shade)
    assert "231 · capital cities" in (host.locator(".wb-strip-caption").text_content() or "")
    strip.nth(10).click()
    bridge.until(lambda: widget.selected == [10, 0])
    assert strip.nth(16).text_content() == "↵\n"


def test_a_new_shape_is_one_message(bridge: Bridge) -> None:
    widget = ladder(selected=[1, 1])
    host = bridge.show(widget)
    canvas = host.locator("canvas")
    before = len(bridge.sent)
    widget.update(tokens=[" a", " b"], features=[{"id": 1}], values=float32_bytes([[0.0], [3.0]]))
    bridge.painted()
    assert len(bridge.sent) == before + 1
    assert widget.selected == []
    assert luminance(colour(canvas, 0, 0)) > luminance(colour(canvas, 1, 0))
    assert host.locator(".wb-strip").text_content() == " a b"
    with pytest.raises(ValueError, match=r"8 bytes; 2 tokens x 2 features need 16"):
        widget.update(features=[{"id": 1}, {"id": 2}])
    widget.values = b"\0" * 4
    bridge.painted()
    assert "1 values for 2 tokens × 1 features" in (host.text_content() or "")


def test_large_matrix_draws_what_is_visible_only(bridge: Bridge) -> None:
    widget = samples.large_heatmap(512, 1000)
    canvas = bridge.show(widget).locator("canvas")
    width, height = canvas.evaluate("c => [c.clientWidth, c.clientHeight]")
    assert width <= 1100
    assert height <= 700
    scroller = canvas.locator("xpath=ancestor::*[contains(@class, 'wb-scroller')]")
    before = canvas.evaluate("c => c.toDataURL()")
    scroller.evaluate("s => { s.scrollLeft = s.scrollWidth; s.scrollTop = s.scrollHeight; }")
    bridge.painted()
    assert canvas.evaluate("c => c.toDataURL()") != before
    assert bridge.redraw_ms(widget, values=bytes(len(widget.values))) > 0
    assert canvas.evaluate("c => c.toDataURL()") != before


def test_evolution_chart_follows_the_token(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    title, lines = host.locator(".wb-chart-title"), host.locator(".wb-series")
    assert "␣Paris at position 6 (strongest at the origin)" in (title.text_content() or "")
    assert host.locator(".wb-series-name").all_text_contents() == ["res", "mlp", "att"]
    points = (lines.nth(0).get_attribute("points") or "").split()
    assert len(points) == 8
    widget.selected = [17, 14]
    bridge.painted()
    assert "␣Tokyo at position 14" in (title.text_content() or "")
    assert (lines.nth(0).get_attribute("points") or "").split() != points
    host.locator(".wb-chart svg").hover(position={"x": 500, "y": 90})
    assert "cosine to the origin" in (host.locator(".wb-card").text_content() or "")


def test_records_are_checked() -> None:
    with pytest.raises(TypeError, match=r"feature 0 has no 'lable'. Did you mean 'label'\?"):
        FeatureHeatmap(tokens=[], features=[{"id": 1, "lable": "x"}])
    with pytest.raises(TypeError, match=r"site 0 lacks 'cosine'"):
        EvolutionMap(tokens=[], sites=[{"layer": 1, "kind": "res", "index": 3}])
    with pytest.raises(
        ValueError, match=r"0 bytes; 7 tokens x 2 features need 56 .*\(tokens, features\)"
    ):
        ladder(values=b"")
    with pytest.raises(TypeError, match=r"Did you mean 'tokens'"):
        ladder().update(token=[])


def test_select_handler_errors_are_shown(bridge: Bridge) -> None:
    widget = samples.heatmap()

    @widget.on_select
    def _fail(position: int, row: int) -> None:
        raise KeyError(f"no run for {position}, {row}")

    host = bridge.show(widget)
    canvas = host.locator("canvas")
    canvas.click(position=spot(canvas, 2, 1))
    bridge.until(lambda: widget.error)
    bridge.painted()
    assert "on_select: KeyError: 'no run for 2, 1'" in (
        host.get_by_role("alert").text_content() or ""
    )


def test_twins_name_the_peaks() -> None:
    heatmap = samples.heatmap().static_html()
    assert "<td>231</td><td>capital cities</td><td>11.8</td><td>␣Paris (6)</td>" in heatmap
    assert "positions 0 not scored" in heatmap
    assert "<td>5 res (origin)</td><td>231</td>" in samples.evolution().static_html()
