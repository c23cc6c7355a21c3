"""Plotly figures from arrays: pure, returned, never shown.

A figure cannot know whether the page around it is light or dark. So its ground is transparent and
every colour has a contrast of at least 3 (text: 4) both on white and on JupyterLab's dark grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

INK, GRID = "#787878", "rgba(128, 128, 128, 0.22)"
"""Text and axes; lines behind the data."""
LINE, LIMIT = "#3f84c5", "#c85a00"
"""Blue for data, orange for limits: every kind of colour vision tells them apart."""
BAND, BAND_INK = "rgba(0, 158, 115, 0.16)", "#0b8a66"
"""Green where it is safe, with its label."""


@dataclass(frozen=True)
class Curve:
    """One curve of a figure of several, and the axis that it has to itself."""

    name: str
    """Title of the vertical axis."""
    unit: str
    """Its unit."""
    values: Sequence[float]
    """``(point,)``"""
    limit: float | None = None
    """What the values should stay below."""
    height: float = 1.0
    """Share of the figure's height, as a weight."""


def calibration_curve(
    strength: Sequence[float],
    curves: Sequence[Curve],
    *,
    band: tuple[float, float],
    best: float,
    neutral: float,
    title: str,
    axis: str,
) -> go.Figure:
    """Curves over strength, one below the other, with the safe band shaded.

    Args:
        strength: ``(point,)``, ascending.
        curves: From the top down; the best strength is marked on the first.
        band: Lowest and highest strength that are safe.
        best: The strength to mark.
        neutral: The strength that changes nothing.
        title: Of the figure.
        axis: Title of the strength's axis, unit included.
    """
    figure = make_subplots(
        rows=len(curves),
        shared_xaxes=True,
        vertical_spacing=0.07,
        row_heights=[curve.height for curve in curves],
    )
    for row, curve in enumerate(curves, start=1):
        _draw(figure, row, strength, curve)
    low, high = band
    figure.add_vrect(low, high, fillcolor=BAND, line_width=0, layer="below")
    figure.add_vline(neutral, line={"color": INK, "width": 1, "dash": "dot"})
    _say(figure, 1, (low + high) / 2, f"fluent from {low:g} to {high:g}", BAND_INK)
    for place, at in enumerate(strength):
        if at == best and curves:
            _mark(figure, best, curves[0].values[place])
    figure.update_xaxes(title_text=axis, row=len(curves), col=1)
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 15}},
        font={"color": INK, "size": 12},
        showlegend=False,
        height=130 + 330 * sum(curve.height for curve in curves) / 2,
        margin={"l": 78, "r": 16, "t": 64, "b": 56},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        hovermode="x",
    )
    return figure


def _draw(figure: go.Figure, row: int, strength: Sequence[float], curve: Curve) -> None:
    """One curve with its axes and its limit."""
    figure.add_scatter(
        x=list(strength),
        y=list(curve.values),
        row=row,
        col=1,
        name=curve.name,
        mode="lines+markers",
        line={"color": LINE, "width": 2},
        marker={"color": LINE, "size": 5},
        hovertemplate=f"{curve.name} %{{y:.3g}} {curve.unit}<extra></extra>",
    )
    lines = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "row": row, "col": 1}
    figure.update_xaxes(**lines)
    title = {"text": f"{curve.name}<br>({curve.unit})", "font": {"size": 12}}
    figure.update_yaxes(title=title, rangemode="tozero", nticks=5, **lines)
    if curve.limit is not None:
        dotted = {"color": LIMIT, "width": 1.5, "dash": "dash"}
        figure.add_hline(curve.limit, row=row, col=1, line=dotted)  # pyright: ignore[reportArgumentType]
        figure.add_annotation(
            text=f"limit {curve.limit:g}",
            x=0,
            xref="x domain",
            xanchor="left",
            y=curve.limit,
            yanchor="bottom",
            showarrow=False,
            font={"color": LIMIT, "size": 11},
            row=row,
            col=1,
        )


def _say(figure: go.Figure, row: int, x: float, text: str, colour: str) -> None:
    """A label above a panel."""
    figure.add_annotation(
        text=text,
        x=x,
        y=1,
        yref="y domain",
        yanchor="bottom",
        showarrow=False,
        font={"color": colour, "size": 12},
        row=row,
        col=1,
    )


def _mark(figure: go.Figure, x: float, y: float) -> None:
    """The best point of the first curve."""
    figure.add_scatter(
        x=[x],
        y=[y],
        row=1,
        col=1,
        mode="markers+text",
        text=[f"best {x:g}"],
        textposition="top center",
        textfont={"color": INK, "size": 12},
        marker={"color": LIMIT, "size": 9, "symbol": "diamond"},
        hoverinfo="skip",
    )
