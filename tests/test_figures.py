"""Figures: they hold the numbers that they were given, and can be read on light and on dark."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from workbench import figures
from workbench.figures import Curve, calibration_curve, heatmap

STRENGTH, EFFECT, LOSS = [-1.0, 0.0, 0.5, 2.0], [0.1, 0.2, 0.7, 0.9], [0.5, 0.0, 0.3, 4.0]


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    figure = calibration_curve(
        STRENGTH,
        [Curve("effect", "typical maxima", EFFECT), Curve("loss", "nats a token", LOSS, 1.25)],
        band=(-1.0, 0.5),
        best=-1.0,
        neutral=0.0,
        title="topic:sea <b>",
        axis="steer by (typical maxima)",
    )
    return json.loads(str(figure.to_json()))


def test_curves_are_the_numbers_in_their_own_panels(drawn: dict[str, Any]) -> None:
    effect, loss, best = drawn["data"]
    assert (effect["x"], effect["y"], effect["yaxis"]) == (STRENGTH, EFFECT, "y")
    assert (loss["x"], loss["y"], loss["yaxis"]) == (STRENGTH, LOSS, "y2")
    assert (best["x"], best["y"], best["text"]) == ([-1.0], [0.1], ["best -1"])


def test_axes_say_their_units(drawn: dict[str, Any]) -> None:
    layout = drawn["layout"]
    assert layout["yaxis"]["title"]["text"] == "effect<br>(typical maxima)"
    assert layout["yaxis2"]["title"]["text"] == "loss<br>(nats a token)"
    assert layout["xaxis2"]["title"]["text"] == "steer by (typical maxima)"
    assert layout["xaxis"]["matches"] == "x2"


def test_band_limit_and_neutral_are_drawn_and_named(drawn: dict[str, Any]) -> None:
    shapes = drawn["layout"]["shapes"]
    bands = [s for s in shapes if s["type"] == "rect"]
    assert [(s["x0"], s["x1"], s["xref"]) for s in bands] == [(-1.0, 0.5, "x"), (-1.0, 0.5, "x2")]
    lines = [(s["x0"], s["x1"], s["y0"], s["y1"]) for s in shapes if s["type"] == "line"]
    assert (0, 1, 1.25, 1.25) in lines
    assert (0.0, 0.0, 0, 1) in lines
    said = [a["text"] for a in drawn["layout"]["annotations"]]
    assert sorted(said) == ["fluent from -1 to 0.5", "limit 1.25"]
    assert drawn["layout"]["showlegend"] is False


def luminance(colour: str) -> float:
    """Of WCAG 2.2, from ``#rrggbb``."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"])
@pytest.mark.parametrize(
    ("colour", "least"),
    [(figures.INK, 4), (figures.LINE, 3), (figures.LIMIT, 4), (figures.BAND_INK, 4)],
)
def test_colours_stand_out_on_light_and_dark(ground: str, colour: str, least: float) -> None:
    low, high = sorted([luminance(ground), luminance(colour)])
    assert (high + 0.05) / (low + 0.05) >= least


def test_ground_is_left_to_the_page(drawn: dict[str, Any]) -> None:
    for name in ("paper_bgcolor", "plot_bgcolor"):
        assert drawn["layout"][name].replace(" ", "").endswith(",0)")


# -------------------------------------------------------------------------------- the heatmap

VALUES = [[90.0, 80.0, 70.0], [0.0, 2.0, -1.0], [4.0, 0.0, float("nan")]]


@pytest.mark.parametrize("difference", [False, True])
def test_heatmap_holds_the_numbers(*, difference: bool) -> None:
    figure = heatmap(
        VALUES,
        tokens=["<bos>", " the", "\n"],
        features=["231 <b>", "7", "7"],
        title="a < b",
        difference=difference,
    )
    layout, one = figure.to_dict()["layout"], figure.data[0]
    shown = np.asarray(one["z"]).T
    assert np.isnan(shown[0]).all()  # masked
    np.testing.assert_array_equal(shown[1:], np.array(VALUES)[1:])
    assert [(s["x0"], s["x1"]) for s in layout["shapes"]] == [(-0.5, 0.5)]
    assert (one["zmin"], one["zmax"]) == (-4.0 if difference else 0.0, 4.0)
    assert list(one["x"]) == ["&lt;bos&gt; (0)", "the (1)", "↵ (2)"]
    assert list(layout["xaxis"]["ticktext"]) == ["&lt;bos&gt;", "the", "↵"]
    assert "&lt;bos&gt; not scored" in layout["xaxis"]["title"]["text"]
    assert one["y"][0] == "231 &lt;b&gt;"
    assert len(set(one["y"])) == 3
    assert layout["title"]["text"] == "a &lt; b"
    assert layout["yaxis"]["autorange"] == "reversed"


def test_heatmap_of_nothing_and_of_the_wrong_shape() -> None:
    empty = heatmap(np.zeros((2, 0)), tokens=["a", "b"], features=[])
    assert empty.data[0]["zmax"] == 1.0
    with pytest.raises(ValueError, match=r"shape \(3, 3\); 2 tokens and 3 features need \(2, 3\)"):
        heatmap(VALUES, tokens=["a", "b"], features=["1", "2", "3"])
