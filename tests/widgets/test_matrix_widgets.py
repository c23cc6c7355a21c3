"""The heatmap and the evolution map: pixels, selection, keyboard, scales, large matrices."""

from __future__ import annotations

import html
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


def spot(canvas: Locator, column: int, line: float) -> Position:
    """The middle of a cell, in pixels of the canvas' box, when nothing is scrolled."""
    place = {k: float(v) for k, v in canvas.evaluate("c => ({...c.dataset})").items()}
    return {
        "x": place["left"] + (column + 0.5) * place["cell"],
        "y": place["top"] + (line + 0.5) * place["row"],
    }


def colour(canvas: Locator, column: int, line: float) -> tuple[int, int, int]:
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
    bridge.show(widget).locator(".wb-scroller").focus()
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


def test_records_are_checked() -> None:
    with pytest.raises(TypeError, match=r"feature 0 has no 'lable'. Did you mean 'label'\?"):
        FeatureHeatmap(tokens=[], features=[{"id": 1, "lable": "x"}])
    with pytest.raises(TypeError, match=r"node 0 lacks 'index'"):
        EvolutionMap(tokens=[], nodes=[{"layer": 1, "kind": "res", "cosine": 0.3}])
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


# ------------------------------------------------------------- rows of the heatmap: order, pins


def names(host: Locator) -> list[str]:
    """The numbers of the rows as they are drawn, read from the hover card line by line."""
    canvas, card = host.locator("canvas"), host.locator(".wb-card-title")
    lines = round((canvas.evaluate("c => c.clientHeight - c.dataset.top - 34")) / 22)
    found = []
    for line in range(lines):
        canvas.hover(position={"x": 60, "y": spot(canvas, 0, line)["y"]})
        found.append((card.text_content() or "").removeprefix("feature ").split(" of ")[0])
    return found


def ids(*rows: int) -> list[str]:
    return [str(samples.FEATURES[row][0]) for row in rows]


def test_rows_of_a_site_stand_under_a_rule(bridge: Bridge) -> None:
    canvas = bridge.show(samples.grouped_heatmap()).locator("canvas")
    plain = bridge.show(samples.heatmap()).locator("canvas")
    between = """(c, line) => {
        const y = Number(c.dataset.top) + line * Number(c.dataset.row) - 1;
        return [...c.getContext('2d').getImageData(40, y, 1, 1).data];
    }"""
    ruled = [line for line in range(12) if canvas.evaluate(between, line)[3] > 0]
    assert ruled == [3, 7]
    assert not any(plain.evaluate(between, line)[3] for line in range(12))


def test_the_order_is_switched_in_the_widget_and_by_python(bridge: Bridge) -> None:
    widget = samples.grouped_heatmap()
    host = bridge.show(widget)
    assert names(host) == ids(*range(12))
    host.get_by_role("button", name="clustered").click()
    bridge.until(lambda: widget.order == "clustered")
    bridge.painted()
    assert names(host) == ids(*widget.orders["clustered"])
    canvas = host.locator("canvas")
    canvas.click(position=spot(canvas, 5, 0))
    bridge.until(lambda: widget.selected == [5, 2])
    bridge.page.keyboard.press("ArrowDown")
    bridge.page.keyboard.press("Enter")
    bridge.until(lambda: widget.selected == [5, 1])
    widget.order = "measure"
    bridge.painted()
    assert host.get_by_role("button", name="measure").get_attribute("aria-pressed") == "true"
    assert names(host) == ids(*range(12))
    assert bridge.show(samples.heatmap()).get_by_role("button", name="measure").count() == 0


def test_a_row_that_moved_keeps_its_colours(bridge: Bridge) -> None:
    widget = samples.grouped_heatmap()
    canvas = bridge.show(widget).locator("canvas")
    before = [colour(canvas, 6, line) for line in range(12)]
    widget.order = "clustered"
    bridge.painted()
    after = [colour(canvas, 6, line) for line in range(12)]
    assert after == [before[row] for row in widget.orders["clustered"]]
    assert after != before


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("CAPITAL", [0, 2]),
        ("capital seat", [2]),
        ("23", [0]),
        ("4 res", [7, 8, 9, 10, 11]),
        ("mlp", [3, 4, 5, 6]),
        ("rivers 5", [7]),
    ],
)
def test_the_filter_box_leaves_rows_out(bridge: Bridge, text: str, rows: list[int]) -> None:
    widget = samples.grouped_heatmap()
    host = bridge.show(widget)
    box = host.get_by_role("searchbox", name="Filter the rows by label or number")
    box.press_sequentially(text)
    assert names(host) == ids(*rows)
    assert host.locator(".wb-filter-count").text_content() == f"{len(rows)} of 12 rows"
    bridge.until(lambda: widget.filter == text)
    canvas = host.locator("canvas")
    canvas.click(position=spot(canvas, 2, len(rows) - 1))
    bridge.until(lambda: widget.selected == [2, rows[-1]])
    box.press("Escape")
    bridge.until(lambda: widget.filter == "")
    assert names(host) == ids(*range(12))


def test_a_filter_that_finds_nothing_says_so_and_can_be_changed(bridge: Bridge) -> None:
    widget = samples.grouped_heatmap(filter="nothing like it", selected=[2, 3])
    host = bridge.show(widget)
    assert "No row has these words" in (host.locator(".wb-empty").text_content() or "")
    assert host.locator("canvas").is_hidden()
    host.get_by_role("searchbox").fill("")
    bridge.painted()
    assert host.locator("canvas").is_visible()
    assert widget.selected == [2, 3]
    bridge.until(lambda: widget.filter == "")


def test_python_filters(bridge: Bridge) -> None:
    widget = samples.grouped_heatmap()
    host = bridge.show(widget)
    widget.filter = "seasons"
    bridge.painted()
    assert names(host) == ids(9)
    assert host.get_by_role("searchbox").input_value() == "seasons"


def test_p_pins_a_row_to_the_top_and_releases_it(bridge: Bridge) -> None:
    widget = samples.grouped_heatmap()
    host = bridge.show(widget)
    host.get_by_role("application").focus()
    for key in [*["ArrowDown"] * 5, "p"]:
        bridge.page.keyboard.press(key)
    bridge.until(lambda: widget.pinned == [4])
    assert "4 mlp 17 pinned to the top" in (host.locator(".wb-sr").text_content() or "")
    # The cursor stayed on its line: one further down is the row that came next.
    bridge.page.keyboard.press("ArrowDown")
    bridge.page.keyboard.press("P")
    bridge.until(lambda: widget.pinned == [4, 5])
    assert names(host) == ids(4, 5, 0, 1, 2, 3, 6, 7, 8, 9, 10, 11)
    host.get_by_role("button", name="clustered").click()
    host.get_by_role("searchbox").fill("seasons")
    bridge.painted()
    assert names(host) == ids(4, 5, 9)
    host.get_by_role("application").focus()
    canvas = host.locator("canvas")
    canvas.hover(position=spot(canvas, 3, 0))
    bridge.page.keyboard.press("p")
    bridge.until(lambda: widget.pinned == [5])
    widget.pinned = [11]
    bridge.painted()
    assert names(host) == ids(11, 9)


def test_the_pin_of_a_row_is_clicked(bridge: Bridge) -> None:
    widget = samples.grouped_heatmap(selected=[3, 1])
    host = bridge.show(widget)
    canvas = host.locator("canvas")
    left = float(canvas.get_attribute("data-left") or 0)
    pin: Position = {"x": left - 10, "y": spot(canvas, 0, 6)["y"]}
    canvas.hover(position=pin)
    assert canvas.locator("xpath=../..").evaluate("s => getComputedStyle(s).cursor") == "pointer"
    canvas.click(position=pin)
    bridge.until(lambda: widget.pinned == [6])
    canvas.click(position={"x": left - 60, "y": spot(canvas, 0, 3)["y"]})
    bridge.painted()
    assert names(host)[0] == ids(6)[0]
    canvas.click(position={"x": left - 10, "y": spot(canvas, 0, 0)["y"]})
    bridge.until(lambda: widget.pinned == [])
    assert widget.selected == [3, 1]


def test_pinned_rows_stay_when_the_others_scroll(bridge: Bridge) -> None:
    widget = samples.large_heatmap(40, 200)
    widget.pinned = [150, 3]
    host = bridge.show(widget)
    canvas, scroller = host.locator("canvas"), host.locator(".wb-scroller")
    before = [colour(canvas, column, line) for line in (0, 1) for column in range(20)]
    below = [colour(canvas, column, 5) for column in range(20)]
    scroller.evaluate("s => { s.scrollTop = 22 * 60; }")
    bridge.painted()
    assert [colour(canvas, column, line) for line in (0, 1) for column in range(20)] == before
    assert [colour(canvas, column, 5) for column in range(20)] != below
    assert names(host)[:4] == [str(7 * row) for row in (150, 3, 61, 62)]
    canvas.click(position=spot(canvas, 4, 1))
    bridge.until(lambda: widget.selected == [4, 3])
    canvas.click(position=spot(canvas, 4, 2))
    bridge.until(lambda: widget.selected == [4, 61])
    # Upwards out of the middle: the row comes from under the pinned ones, not behind them.
    for key in ["ArrowUp"] * 2:
        bridge.page.keyboard.press(key)
        bridge.painted()
    assert names(host)[2] == str(7 * 59)


def test_no_end_of_pins_hides_the_rest(bridge: Bridge) -> None:
    widget = samples.large_heatmap(10, 100)
    widget.pinned = list(range(60))
    host = bridge.show(widget)
    host.get_by_role("application").focus()
    scroller = host.locator(".wb-scroller")
    scroller.evaluate("s => { s.scrollTop = s.scrollHeight; }")
    bridge.painted()
    assert names(host)[-1] == str(7 * 99)
    assert names(host)[0] == "0"


def test_each_row_by_its_own_maximum(bridge: Bridge) -> None:
    values = float32_bytes([[100.0, 1.0], [50.0, 0.5], [0.0, 0.0]])
    widget = FeatureHeatmap(tokens=["a", "b", "c"], features=[{"id": 1}, {"id": 2}], values=values)
    host = bridge.show(widget)
    canvas = host.locator("canvas")
    assert colour(canvas, 0, 0) != colour(canvas, 0, 1)
    host.get_by_role("button", name="per row").click()
    bridge.until(lambda: widget.scale == "row")
    bridge.painted()
    assert [colour(canvas, c, 0) for c in range(3)] == [colour(canvas, c, 1) for c in range(3)]
    assert colour(canvas, 0, 0) != colour(canvas, 1, 0)
    assert "share of the row's maximum" in (host.locator(".wb-legend").text_content() or "")


# ------------------------------------------------------------------------------------ two runs


def halves(canvas: Locator, column: int, line: int) -> list[tuple[int, int, int]]:
    """The colours of the upper and the lower half of a cell."""
    return [colour(canvas, column, line + part) for part in (-0.25, 0.25)]


def test_both_runs_in_the_halves_of_a_cell(bridge: Bridge) -> None:
    widget = samples.compared_heatmap(view="both")
    alone = samples.heatmap(values=widget.values, tokens=widget.tokens)
    canvas, single = (bridge.show(w).locator("canvas") for w in (widget, alone))
    first, second = halves(canvas, samples.EXCHANGED, 1)
    assert first == colour(single, samples.EXCHANGED, 1)
    assert luminance(second) > luminance(first)
    canvas.hover(position=spot(canvas, samples.EXCHANGED, 1))
    card = bridge.page.locator(".wb-card").first.text_content() or ""
    for part in ["␣France → ␣Hungary", "France9.1", "Hungary1.1", "change−8"]:
        assert part in card


@pytest.mark.parametrize("dark", [False, True])
def test_a_difference_has_two_hues_and_no_colour_for_none(
    open_bridge: Callable[..., Bridge], *, dark: bool
) -> None:
    bridge = open_bridge(dark=dark)
    values, others = [[5.0], [1.0], [3.0], [0.0], [2.0]], [[1.0], [5.0], [3.0], [0.1], [0.0]]
    tokens = ["a", "b", "c", "d", "e"]
    widget = FeatureHeatmap(
        tokens=tokens,
        features=[{"id": 1}],
        values=float32_bytes(values),
        other_tokens=tokens,
        other_values=float32_bytes(others),
        positions=[list(range(5))] * 2,
    )
    host = bridge.show(widget)
    canvas = host.locator("canvas")
    less, more, none, little, half = (colour(canvas, column, 0) for column in range(5))
    assert less[2] > less[0]  # blue
    assert more[0] > more[2]  # orange
    assert max(none) - min(none) < 16
    # As strong one way as the other, and what is half as large lies between.
    assert luminance(less) == pytest.approx(luminance(more), abs=26)
    assert abs(luminance(none) - luminance(less)) > abs(luminance(none) - luminance(half)) > 20
    assert little != none
    assert host.locator(".wb-legend-bar b").all_text_contents() == ["−4", "0", "4"]
    assert "other − run" in (host.locator(".wb-legend-unit").text_content() or "")


def test_a_token_of_one_run_only_is_hatched(bridge: Bridge) -> None:
    widget = samples.compared_heatmap()
    host = bridge.show(widget)
    canvas, card = host.locator("canvas"), host.locator(".wb-card")
    canvas.hover(position=spot(canvas, samples.REMOVED, 0))
    text = card.text_content() or ""
    assert text.startswith("− ,")
    assert "Hungaryno such token" in text
    assert "7 → none" in text
    assert "change" not in text
    canvas.hover(position=spot(canvas, samples.ADDED, 0))
    assert (card.text_content() or "").startswith("+ ␣single")
    bridge.page.mouse.move(5, 890)
    # Hatching: more than one colour along the cell, where a plain cell has one.
    colours = """(c, {x, y}) => {
        const ratio = c.width / c.clientWidth;
        const got = c.getContext('2d').getImageData((x - 6) * ratio, y * ratio, 12, 1).data;
        return new Set(new Uint32Array(got.buffer)).size;
    }"""
    assert canvas.evaluate(colours, spot(canvas, samples.REMOVED, 4)) > 1
    assert canvas.evaluate(colours, spot(canvas, samples.ADDED, 4)) > 1
    assert canvas.evaluate(colours, spot(canvas, samples.ADDED + 1, 4)) == 1
    strips = host.locator(".wb-strip")
    assert strips.nth(0).text_content() == "".join(samples.TOKENS).replace("\n", "↵\n")
    assert " Hungary" in (strips.nth(1).text_content() or "")
    assert strips.nth(1).locator("span[data-new]").all_text_contents() == [" Hungary", " single"]


def test_runs_are_switched_between_both_and_difference(bridge: Bridge) -> None:
    widget = samples.compared_heatmap()
    host = bridge.show(widget)
    canvas = host.locator("canvas")
    assert len(set(halves(canvas, samples.EXCHANGED, 1))) == 1
    host.get_by_role("button", name="both").click()
    bridge.until(lambda: widget.view == "both")
    bridge.painted()
    assert len(set(halves(canvas, samples.EXCHANGED, 1))) == 2
    assert "upper half of a cell: France" in (host.locator(".wb-legend").text_content() or "")
    widget.view = "difference"
    bridge.painted()
    assert len(set(halves(canvas, samples.EXCHANGED, 1))) == 1
    assert bridge.show(samples.heatmap()).get_by_role("button", name="both").is_hidden()


def test_a_second_run_must_fit() -> None:
    with pytest.raises(ValueError, match="a second run needs other_values of 1248 bytes"):
        samples.heatmap(other_values=b"1234")
    with pytest.raises(ValueError, match=r"got 1296 bytes and \[27, 27\]"):
        samples.compared_heatmap(positions=[list(range(27))])
    with pytest.raises(ValueError, match="order 'wrong' must name each of the 12 rows once"):
        samples.heatmap(orders={"wrong": [0, 0, *range(2, 12)]})


def test_new_features_clear_what_belonged_to_the_old(bridge: Bridge) -> None:
    widget = samples.compared_heatmap(pinned=[3], orders={"a": list(range(12))}, order="a")
    host = bridge.show(widget)
    widget.update(features=widget.features[:2] * 6, orders={"b": list(range(12))}, order="b")
    assert (widget.pinned, widget.order) == ([], "b")
    widget.update(tokens=["x"], features=[{"id": 4}], values=float32_bytes([[2.0]]), masked=[])
    bridge.painted()
    assert (widget.pinned, widget.orders, widget.order, widget.other_values) == ([], {}, "", b"")
    assert names(host) == ["4"]
    assert host.locator(".wb-strip").all_text_contents() == ["x"]


def test_tokens_of_two_runs_are_named_as_in_the_page() -> None:
    widget = samples.compared_heatmap()
    columns = (1, samples.EXCHANGED, samples.REMOVED, samples.ADDED)
    assert [widget.token(c) for c in columns] == [
        "The", " France →  Hungary", "− ,", "+  single"
    ]  # fmt: skip


def test_twins_name_the_peaks() -> None:
    heatmap = samples.heatmap().static_html()
    assert "<td>231</td><td>capital cities</td><td>11.8</td><td>␣Paris (6)</td>" in heatmap
    assert "position 0 not scored" in heatmap
    words = "".join(samples.TOKENS[1:]).strip()
    assert f"<p><b>Text</b>: {html.escape(words)}</p>" in heatmap
    assert "<td>5 res (origin)</td><td>231</td>" in samples.evolution().static_html()
