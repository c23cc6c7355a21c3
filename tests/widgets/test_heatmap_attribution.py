"""The heatmap's attributions, and what a click, a key and the buttons ask Python for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.widgets.bridge import Bridge
from tests.widgets.test_matrix_widgets import colour, luminance, spot
from workbench.widgets import FeatureHeatmap, float32_bytes

pytestmark = pytest.mark.browser

EFFECTS = [[9.0, 0.0], [0.0, -2.0], [1.0, 0.5], [-1.0, 0.0]]
"""Largest where nothing is scored; in the first row a plus and a minus of one size."""
VALUES = [[50.0, 1.0], [0.0, 4.0], [8.0, 2.0], [2.0, 0.0]]


def attributed(**changes: Any) -> FeatureHeatmap:
    traits: dict[str, Any] = {
        "tokens": ["<bos>", " a", " b", " c"],
        "features": [
            {"id": 5, "label": "more", "attribution": 0.0},
            {"id": 6, "label": "less", "max": 8.0, "attribution": -1.5},
        ],
        "values": float32_bytes(VALUES),
        "effects": float32_bytes(EFFECTS),
        "target": "␣Paris",
        "show": "attribution",
        "masked": [0],
    }
    return FeatureHeatmap(**{**traits, **changes})


@pytest.mark.parametrize("dark", [False, True])
def test_plus_and_minus_have_their_colours_and_zero_none(
    open_bridge: Callable[..., Bridge], *, dark: bool
) -> None:
    bridge = open_bridge(dark=dark)
    canvas = bridge.show(attributed()).locator("canvas")
    plus, minus, most = (colour(canvas, *cell) for cell in ((2, 0), (3, 0), (1, 1)))
    zero = colour(canvas, 3, 1)
    assert plus[0] > zero[0] - 60
    assert plus[0] > plus[2], "orange"
    assert minus[2] > minus[0], "blue"
    # One size, one step away from zero; the largest is the farthest, and <bos> does not set it.
    far = [abs(luminance(c) - luminance(zero)) for c in (plus, minus, most)]
    assert far[0] == pytest.approx(far[1], abs=35)
    assert far[2] > max(far[:2])
    assert colour(canvas, 1, 0) == zero


def test_the_switch_changes_colours_numbers_and_legend(bridge: Bridge) -> None:
    widget = attributed()
    host = bridge.show(widget)
    canvas, legend = host.locator("canvas"), host.locator(".wb-legend")
    assert "attribution to ␣Paris" in (legend.text_content() or "")
    assert "−2" in (legend.text_content() or "")
    before = colour(canvas, 1, 1)
    host.get_by_role("button", name="activation").click()
    bridge.until(lambda: widget.show == "activation")
    bridge.painted()
    assert colour(canvas, 1, 1) != before
    assert "feature activation" in (legend.text_content() or "")
    # Activations: the largest scored one is darkest, whatever its attribution.
    assert luminance(colour(canvas, 2, 0)) < luminance(colour(canvas, 1, 1))
    widget.show = "attribution"
    bridge.painted()
    assert colour(canvas, 1, 1) == before
    plain = bridge.show(attributed(effects=b"", target=""))
    assert plain.get_by_role("group", name="Values").is_hidden()
    assert "feature activation" in (plain.locator(".wb-legend").text_content() or "")


def test_hover_tells_activation_and_attribution(bridge: Bridge) -> None:
    host = bridge.show(attributed())
    canvas, card = host.locator("canvas"), host.locator(".wb-card")
    canvas.hover(position=spot(canvas, 1, 1))
    facts = dict(zip(*(card.locator(tag).all_text_contents() for tag in ("dt", "dd")), strict=True))
    assert facts == {
        "position": "1",
        "activation": "4",
        "attribution to ␣Paris": "−2",
        "share of its typical maximum": "50 %",
    }
    # Without a typical maximum the share is of the largest activation, not of an attribution.
    canvas.hover(position=spot(canvas, 3, 0))
    facts = dict(zip(*(card.locator(tag).all_text_contents() for tag in ("dt", "dd")), strict=True))
    assert facts["share of its maximum here"] == "25 %"
    assert facts["attribution to ␣Paris"] == "−1"
    canvas.hover(position={"x": 60, "y": spot(canvas, 0, 1)["y"]})
    facts = dict(zip(*(card.locator(tag).all_text_contents() for tag in ("dt", "dd")), strict=True))
    assert facts["largest attribution"] == "−2"
    assert facts["on"] == "␣a (1)"
    assert facts["attribution to ␣Paris, all tokens"] == "−1.5"


def test_the_strip_is_coloured_by_attribution(bridge: Bridge) -> None:
    host = bridge.show(attributed(selected=[2, 0]))
    strip = host.locator(".wb-strip span")
    shade = "s => getComputedStyle(s).backgroundColor"
    rgb = "rgb({}, {}, {})".format
    canvas = host.locator("canvas")
    assert strip.nth(2).evaluate(shade) == rgb(*colour(canvas, 2, 0))
    assert strip.nth(3).evaluate(shade) == rgb(*colour(canvas, 3, 0))
    assert strip.nth(1).evaluate(shade) == "rgba(0, 0, 0, 0)"


def test_new_tokens_or_features_drop_attributions_and_wrong_ones_are_refused() -> None:
    widget = attributed()
    with pytest.raises(ValueError, match="effects are those of one run and need 32 bytes; got 4"):
        attributed(effects=b"1234")
    with pytest.raises(ValueError, match="got 32, and other_values"):
        attributed(
            other_values=float32_bytes(VALUES),
            other_tokens=["", "", "", ""],
            positions=[[0, 1, 2, 3]] * 2,
        )
    widget.update(tokens=[" x"], values=float32_bytes([[1.0, 2.0]]))
    assert widget.effects == b""
    widget = attributed()
    widget.update(features=[{"id": 1}, {"id": 2}], values=float32_bytes(VALUES))
    assert widget.effects == b""
    assert widget.peaks() == [(8.0, 2), (4.0, 1)]


# ------------------------------------------------------------------------- asking Python for more


def test_clicks_and_enter_open_and_python_does_not(bridge: Bridge) -> None:
    widget = attributed()
    opened: list[int] = []
    widget.on_open(opened.append)
    host = bridge.show(widget)
    canvas = host.locator("canvas")
    canvas.click(position=spot(canvas, 2, 1))
    bridge.until(lambda: opened == [1])
    assert widget.selected == [2, 1]
    bridge.page.keyboard.press("Enter")  # again, though it is selected
    bridge.until(lambda: opened == [1, 1])
    name: Any = {"x": 60, "y": spot(canvas, 0, 0)["y"]}
    canvas.hover(position=name)
    assert host.locator(".wb-scroller").evaluate("s => s.style.cursor") == "pointer"
    canvas.click(position=name)
    bridge.until(lambda: opened == [1, 1, 0])
    assert widget.selected == [2, 1], "a name is no cell"
    host.locator(".wb-strip span").nth(3).click()
    bridge.until(lambda: opened == [1, 1, 0, 1])
    widget.selected = [1, 0]
    bridge.painted()
    host.get_by_role("application").focus()
    bridge.page.keyboard.press("Escape")
    bridge.until(lambda: widget.selected == [])
    left = float(canvas.get_attribute("data-left") or 0)
    canvas.click(position={"x": left - 10, "y": spot(canvas, 0, 0)["y"]})
    bridge.until(lambda: widget.pinned == [0])
    assert opened == [1, 1, 0, 1], "a pin does not open"


def test_buttons_act_on_the_selected_cell(bridge: Bridge) -> None:
    widget = attributed()
    heard: list[tuple[str, int, int]] = []
    host = bridge.show(widget)
    assert host.locator(".wb-strip-actions button").count() == 0
    for name in ("Steer", "Follow"):
        widget.on_action(name, lambda p, row, name=name: heard.append((name, p, row)))
    bridge.painted()
    steer, follow = (host.get_by_role("button", name=name) for name in ("Steer", "Follow"))
    assert steer.count() == 0, "nothing is selected"
    widget.selected = [2, 1]
    bridge.painted()
    follow.click()
    bridge.until(lambda: heard == [("Follow", 2, 1)])
    steer.focus()
    bridge.page.keyboard.press("Enter")
    bridge.until(lambda: heard == [("Follow", 2, 1), ("Steer", 2, 1)])
    widget.on_action("Fail", lambda *_: 1 / 0)
    bridge.painted()
    host.get_by_role("button", name="Fail").click()
    bridge.until(lambda: "Fail: ZeroDivisionError" in widget.error)


def test_a_saved_page_has_no_buttons(bridge: Bridge, tmp_path: Any) -> None:
    widget = attributed(selected=[2, 1])
    widget.on_action("Steer", lambda *_: None)
    bridge.page.goto(widget.save_html(tmp_path / "page.html").as_uri())
    assert bridge.page.locator(".wb-legend").text_content()
    assert bridge.page.get_by_role("button", name="Steer").count() == 0
    assert bridge.page.get_by_role("button", name="attribution").is_visible()
