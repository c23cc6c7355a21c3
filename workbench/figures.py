"""Plotly figures from arrays: pure, returned, never shown.

A figure cannot know whether the page around it is light or dark, so the ground is transparent and
every colour has a contrast of at least 3 on white and on JupyterLab's dark grey, text at least 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

INK, GRID = "#7a7a7a", "rgba(128, 128, 128, 0.25)"
"""Text and axes; lines behind the data."""
LINE, LIMIT = "#3b82c4", "#d55e00"
"""Blue for the data, vermillion (Okabe and Ito) for limits."""
BAND = "rgba(0, 158, 115, 0.18)"
"""Green for where it is safe; a label says so, too."""


def calibration_curve(
    strength: Sequence[float],
    curves: Mapping[str, tuple[Sequence[float], float | None]],
    *,
    band: tuple[float, float],
    best: float,
    neutral: float,
    title: str,
    unit: str,
) -> go.Figure:
    """Curves over strength, one below the other, with the safe band shaded.

    Args:
        strength: ``(point,)``, ascending.
        curves: From the name of a vertical axis, unit included, to its values ``(point,)`` and the
            limit that they should stay below, if there is one. The first is what is wanted.
        band: Lowest and highest strength that are safe.
        best: Strength to mark on the first curve.
        neutral: Strength that changes nothing.
        title: Of the figure.
        unit: Of the strength.
    """
    heights = [2.0] + [1.5] * (len(curves) - 1)
    figure = make_subplots(
        rows=len(curves), cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=heights
    )
    for row, (name, (values, limit)) in enumerate(curves.items(), start=1):
        figure.add_scatter(
            x=list(strength), y=list(values), row=row, col=1, mode="lines+markers",
            line={"color": LINE, "width": 2}, marker={"color": LINE, "size": 6},
            hovertemplate="%{x:g}: %{y:.3g}<extra></extra>",
        )
        figure.update_yaxes(title_text=name, row=row, col=1)
        if limit is not None:
            figure.add_hline(limit, row=row, col=1, line={"color": LIMIT, "width": 1.5, "dash": "dot"})
            figure.add_annotation(
                text=f"fluent up to {limit:g}", x=1, xref="x domain", xanchor="right",
                y=limit, yanchor="bottom", showarrow=False, row=row, col=1, font={"color": LIMIT},
            )
    return figure
