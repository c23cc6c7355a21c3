"""Figures: they hold the numbers that they were given, and can be read on light and on dark."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workbench import figures
from workbench.figures import Curve, calibration_curve

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
