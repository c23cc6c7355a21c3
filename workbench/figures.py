"""Plotly figures from arrays: pure, returned, never shown.

A figure cannot know whether the page around it is light or dark. So its ground is transparent and
every colour has a contrast of at least 3 (text: 4) both on white and on JupyterLab's dark grey.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

if TYPE_CHECKING:
    from workbench.analysis.lineage import Kin, Lineage

INK, GRID = "#787878", "rgba(128, 128, 128, 0.22)"
"""Text and axes; lines behind the data."""
LINE, LIMIT = "#3f84c5", "#c85a00"
"""Blue for data, orange for limits: every kind of colour vision tells them apart."""
BAND, BAND_INK = "rgba(0, 158, 115, 0.16)", "#0b8a66"
"""Green where it is safe, with its label."""
_NONE, _BLUE, _ORANGE = "rgba(128, 128, 128, 0.07)", "63, 132, 197", "200, 90, 0"
SEQUENTIAL = [[0.0, _NONE], [0.001, f"rgba({_BLUE}, 0.15)"], [1.0, f"rgba({_BLUE}, 1)"]]
"""From nothing to the maximum."""
DIVERGING = [
    [0.0, f"rgba({_BLUE}, 1)"],
    [0.499, f"rgba({_BLUE}, 0.15)"],
    [0.5, _NONE],
    [0.501, f"rgba({_ORANGE}, 0.15)"],
    [1.0, f"rgba({_ORANGE}, 1)"],
]
"""From less over no difference to more."""
BIRTHS = {
    "carried": ("carried over", "#787878", "circle"),
    "mlp": ("written by the MLP", BAND_INK, "square"),
    "attention": ("written by attention", LINE, "diamond"),
    "new": ("new", "#b5519a", "triangle-up"),
    "": ("birth not known", "#9a9a9a", "circle"),
}
"""Where a feature comes from: what the legend says, colour and shape."""
TIES = {"similar": "dot", "carries": "solid", "causes": "dash"}
"""How the ties between two features are drawn."""
_SUBLAYERS = {"att": "attention", "mlp": "mlp", "transcoder": "mlp", "embed": "carried"}
_UNSEEN = "\u200b"
"""Keeps rows of the same name apart: Plotly would draw them as one."""


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
    # Here, not above: a lab that only draws widgets opens sooner without it.
    from plotly.subplots import make_subplots

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


def heatmap(
    values: Any,
    *,
    tokens: Sequence[str],
    features: Sequence[str],
    title: str = "",
    unit: str = "feature activation",
    masked: Sequence[int] = (0,),
    difference: bool = False,
) -> go.Figure:
    """Features (rows, the first on top) by tokens (columns).

    A colour is the stronger the more the feature fires, and a zero is as good as the page itself,
    whatever its colour. Masked columns are plain grey, a NaN is left blank.

    Args:
        values: ``(pos, feature)``.
        tokens: What to write below the columns.
        features: What to write beside the rows.
        title: Of the figure.
        unit: Of the values, beside the colours.
        masked: Columns that are not scored, ``<bos>`` if left out.
        difference: The values are differences: blue for less, orange for more.

    Raises:
        ValueError: If the axes do not fit the values.
    """
    shown = np.array(values, dtype=float, ndmin=2)
    if shown.shape != (len(tokens), len(features)):
        raise ValueError(
            f"values has shape {shown.shape}; {len(tokens)} tokens and {len(features)} features "
            f"need ({len(tokens)}, {len(features)})"
        )
    shown[list(masked)] = np.nan
    largest = float(np.nanmax(np.abs(shown), initial=0.0)) or 1.0
    words = [html.escape(token.strip() or token).replace("\n", "↵") for token in tokens]
    off = ", ".join(words[column] for column in masked)
    figure = go.Figure(
        go.Heatmap(
            z=shown.T,
            x=[f"{word} ({column})" for column, word in enumerate(words)],
            y=[f"{html.escape(name)}{_UNSEEN * row}" for row, name in enumerate(features)],
            zmin=-largest if difference else 0.0,
            zmax=largest,
            colorscale=DIVERGING if difference else SEQUENTIAL,
            colorbar={"title": {"text": html.escape(unit), "side": "right"}, "thickness": 12},
            hovertemplate="%{y}<br>%{x}: %{z:.4g}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    axes = {"gridcolor": GRID, "showgrid": False, "zeroline": False, "ticks": ""}
    figure.update_xaxes(
        title_text=f"token{f' ({off} not scored)' if off else ''}",
        tickvals=list(range(len(words))),
        ticktext=words,
        tickangle=-45,
        **axes,
    )
    figure.update_yaxes(autorange="reversed", **axes)
    figure.update_layout(
        template="none",
        title={"text": html.escape(title), "x": 0, "xref": "paper", "font": {"size": 15}},
        font={"color": INK, "size": 12},
        height=150 + 20 * len(features),
        margin={"l": 20, "r": 16, "t": 56, "b": 20},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
    )
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(automargin=True)
    for column in masked:
        figure.add_vrect(column - 0.5, column + 0.5, fillcolor=GRID, line_width=0, layer="below")
    return figure


def evolution(
    lineage: Lineage,
    sizes: Sequence[float] | None = None,
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
    unit: str = "feature activation",
    threshold: float = -1.0,
) -> go.Figure:
    """A feature through the layers: rows are layers, columns kinds of site, as the model is built.

    The area of a mark says its size, its colour and shape where the feature comes from; hollow
    marks are no kin of the origin. Lines are ties: dotted for similar, whole for carried, dashed
    for caused.

    Args:
        lineage: What to draw.
        sizes: Of each of its kin, such as the activation on a token; all alike if left out.
        labels: What each stands for.
        title: Of the figure.
        unit: Of the sizes.
        threshold: Kin and ties with a smaller margin above the null are left out.

    Raises:
        ValueError: If there are more or fewer sizes or labels than kin.
    """
    given = [1.0] * len(lineage.kin) if sizes is None else [max(0.0, float(v)) for v in sizes]
    names = [""] * len(lineage.kin) if labels is None else list(labels)
    if not len(given) == len(names) == len(lineage.kin):
        raise ValueError(
            f"{len(given)} sizes and {len(names)} labels for {len(lineage.kin)} kin: give one each"
        )
    kinds = list(dict.fromkeys(one.site.kind for one in sorted(lineage.kin, key=_kind_order)))
    rows = [
        (one, size, name)
        for one, size, name in zip(lineage.kin, given, names, strict=True)
        if one.margin >= threshold or (one.site, one.index) == lineage.origin
    ]
    places = {
        (one.site, one.index): (kinds.index(one.site.kind), one.site.layer) for one, *_ in rows
    }
    figure = go.Figure()
    _ties(figure, lineage, places, threshold)
    _marks(figure, lineage, rows, places, unit)
    layers = [one.site.layer for one in lineage.kin]
    figure.update_xaxes(tickvals=list(range(len(kinds))), ticktext=kinds, showgrid=False)
    figure.update_xaxes(zeroline=False, range=[-0.5, len(kinds) - 0.5])
    figure.update_yaxes(title_text="layer", gridcolor=GRID, zeroline=False, dtick=1)
    figure.update_yaxes(range=[min(layers) - 0.6, max(layers) + 0.6])
    figure.update_layout(
        template="none",
        title={"text": html.escape(title), "x": 0, "xref": "paper", "font": {"size": 15}},
        font={"color": INK, "size": 12},
        height=190 + 34 * len(set(layers)),
        margin={"l": 56, "r": 16, "t": 56, "b": 56},
        legend={"itemsizing": "constant"},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
    )
    return figure


def _kind_order(one: Kin) -> int:
    return ("embed", "att", "transcoder", "mlp", "res").index(one.site.kind)


def _ties(figure: go.Figure, lineage: Lineage, places: dict[Any, Any], threshold: float) -> None:
    """Lines between features; a trace for each tie and each of three widths."""
    effects = [abs(link.strength) for link in lineage.links if link.tie == "causes"]
    drawn: dict[tuple[str, int], list[Any]] = {}
    for link in lineage.links:
        largest = max(effects) or 1.0 if link.tie == "causes" else 1.0
        if link.source in places and link.target in places and link.margin / largest >= threshold:
            width = 1 + min(2, int(3 * abs(link.strength) / largest))
            drawn.setdefault((link.tie, width), []).append(link)
    said = set()
    for (tie, width), links in sorted(drawn.items()):
        ends = [(places[link.source], places[link.target]) for link in links]
        figure.add_scatter(
            x=[x for (a, _), (b, _) in ends for x in (a, b, None)],
            y=[y for (_, a), (_, b) in ends for y in (a, b, None)],
            mode="lines",
            name=tie,
            legendgroup=tie,
            showlegend=tie not in said,
            line={"color": INK, "width": width, "dash": TIES[tie]},
            opacity=0.55,
            hoverinfo="skip",
        )
        said.add(tie)


def _marks(
    figure: go.Figure,
    lineage: Lineage,
    rows: Sequence[tuple[Kin, float, str]],
    places: dict[Any, Any],
    unit: str,
) -> None:
    """Features; a trace for each birth, and one more for those that are no kin."""
    largest = max((size for _, size, _ in rows), default=0.0) or 1.0
    groups: dict[tuple[str, bool], list[tuple[Kin, float, str]]] = {}
    for row in rows:
        birth = row[0].birth or _SUBLAYERS.get(row[0].site.kind, "")
        counts = row[0].counts or (row[0].site, row[0].index) == lineage.origin
        groups.setdefault((birth, counts), []).append(row)
    for (birth, counts), group in groups.items():
        words, colour, shape = BIRTHS[birth]
        at = [places[one.site, one.index] for one, *_ in group]
        origin = [(one.site, one.index) == lineage.origin for one, *_ in group]
        figure.add_scatter(
            x=[x for x, _ in at],
            y=[y for _, y in at],
            mode="markers",
            name=words if counts else f"{words}, below the null",
            marker={
                "size": [5 + 19 * (size / largest) ** 0.5 for _, size, _ in group],
                "color": colour,
                "symbol": shape if counts else f"{shape}-open",
                "opacity": 1.0 if counts else 0.5,
                "line": {"color": [LIMIT if it else colour for it in origin], "width": 2},
            },
            customdata=[
                [f"{one.site} {one.index} {html.escape(name)}", size, one.cosine, one.null]
                for one, size, name in group
            ],
            hovertemplate=(
                f"%{{customdata[0]}}<br>{html.escape(unit)} %{{customdata[1]:.4g}}<br>"
                "cosine %{customdata[2]:.3f}, null %{customdata[3]:.3f}<extra></extra>"
            ),
        )


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


def circuit(
    nodes: pd.DataFrame, edges: pd.DataFrame, *, tokens: Sequence[str], title: str = ""
) -> go.Figure:
    """A circuit: tokens from left to right, layers from bottom to top, as in the model.

    Blue carries to the target, orange against it; width and size say how much. Circles are
    features, diamonds what the SAEs leave over, squares embeddings, the star is the target.

    Args:
        nodes: As `workbench.analysis.circuit.Circuit.nodes_frame` makes them.
        edges: As its `workbench.analysis.circuit.Circuit.edges_frame` makes them.
        tokens: The prompt.
        title: Of the figure.
    """
    placed = _placed(nodes)
    figure = go.Figure()
    for lines in _edge_lines(placed, edges):
        figure.add_trace(lines)
    figure.add_trace(_dots(placed))
    columns = sorted({int(p) for p in placed["position"]})
    layers = sorted({int(y) for y in placed["level"]})
    names = placed.drop_duplicates("level").set_index("level")["row"]
    axes = {"gridcolor": GRID, "zeroline": False, "ticks": "", "showgrid": True}
    figure.update_xaxes(
        tickvals=[placed.loc[placed["position"] == p, "centre"].iloc[0] for p in columns],
        ticktext=[f"{html.escape(tokens[p].strip() or tokens[p])}<br>{p}" for p in columns],
        title_text="token",
        **(axes | {"showgrid": False}),
    )
    figure.update_yaxes(
        tickvals=layers,
        ticktext=[names[level] for level in layers],
        range=[layers[0] - 0.4, layers[-1] + 0.5],
        **axes,
    )
    for edge in sorted({*placed["left"], *placed["right"]}):
        figure.add_vline(edge, line={"color": GRID, "width": 1, "dash": "dot"}, layer="below")
    figure.update_layout(
        template="none",
        title={"text": html.escape(title), "x": 0, "xref": "paper", "font": {"size": 15}},
        font={"color": INK, "size": 12},
        showlegend=False,
        height=150 + 84 * len(layers),
        margin={"l": 20, "r": 20, "t": 56 if title else 20, "b": 20},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def _placed(nodes: pd.DataFrame) -> pd.DataFrame:
    """The nodes with their places: columns as wide as what is in them, layers as levels.

    Adds ``level, row, left, right, centre, x``.
    """
    placed: Any = nodes.copy()
    found = sorted({int(layer) for layer in nodes["layer"].dropna()})
    level = {layer: place + 1 for place, layer in enumerate(found)}
    placed["level"] = [
        0 if kind == "token" else len(found) + 1 if kind == "target" else level[int(layer)]
        for kind, layer in zip(nodes["node"], nodes["layer"].fillna(-1), strict=True)
    ]
    placed["row"] = [
        "embedding" if at == 0 else "target" if at > len(found) else f"layer {found[at - 1]}"
        for at in placed["level"]
    ]
    cells = placed.groupby(["position", "level"])
    place, count = cells.cumcount(), cells["name"].transform("size")
    widths = count.groupby(placed["position"]).max()
    left = widths.cumsum() - widths
    placed["left"] = placed["position"].map(left).astype(float)
    placed["right"] = placed["position"].map(left + widths).astype(float)
    placed["centre"] = (placed["left"] + placed["right"]) / 2
    placed["x"] = placed["centre"] + place - (count - 1) / 2
    return placed


_SYMBOLS = {"feature": "circle", "error": "diamond", "token": "square", "target": "star"}


def _dots(placed: Any) -> go.Scatter:
    """The nodes, the strongest features with their label."""
    sizes = placed["attribution"].abs().where(placed["node"] != "target", 0.0)
    largest = float(sizes.max()) or 1.0
    features = placed["node"] == "feature"
    named = set(sizes[features].nlargest(8).index)
    hover, texts = [], []
    for row in placed.itertuples():
        what = html.escape(str(row.label)) or ("no label" if row.node == "feature" else row.node)
        lines = [f"<b>{html.escape(str(row.name))}</b>", what, html.escape(repr(row.token))]
        if row.node == "feature":
            lines += [f"activation {row.activation:.3g}", f"estimate {row.estimate:+.3g}"]
        hover.append("<br>".join([*lines, f"attribution {row.attribution:+.3g}"]))
        short = str(row.label)[:16] or (str(row.feature) if row.node == "feature" else "")
        text = str(row.token).strip() if row.node == "target" else short
        texts.append(html.escape(text) if row.Index in named or row.node == "target" else "")
    return go.Scatter(
        x=placed["x"].tolist(),
        y=placed["level"].tolist(),
        mode="markers+text",
        text=texts,
        textposition="top center",
        textfont={"color": INK, "size": 11},
        customdata=list(placed["name"]),
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        marker={
            "symbol": [_SYMBOLS[node] for node in placed["node"]],
            "size": [16 if n == "target" else 7 + 15 * (s / largest) ** 0.5
                     for n, s in zip(placed["node"], sizes, strict=True)],
            "color": [LINE if a >= 0 else LIMIT for a in placed["attribution"]],
            "opacity": 1,
            "line": {"width": 0},
        },
    )  # fmt: skip


def _edge_lines(placed: Any, edges: Any) -> list[go.Scatter]:
    """The edges, the weakest first so that the strongest lie on top."""
    at = placed.set_index("name")[["x", "level"]]
    largest = float(edges["weight"].abs().max()) if len(edges) else 1.0
    lines = []
    for edge in edges.iloc[::-1].itertuples():
        share = abs(edge.weight) / largest
        (x0, y0), (x1, y1) = at.loc[edge.source], at.loc[edge.target]
        colour = _BLUE if edge.weight >= 0 else _ORANGE
        what = f"{edge.source} → {edge.target}<br>{edge.weight:+.3g}"
        lines.append(
            go.Scatter(
                # A point in the middle, for the pointer to find.
                x=[x0, (x0 + x1) / 2, x1],
                y=[y0, (y0 + y1) / 2, y1],
                mode="lines",
                line={
                    "color": f"rgba({colour}, {0.4 + 0.55 * share:.3f})",
                    "width": 0.8 + 5 * share,
                },
                hovertext=html.escape(what).replace("&lt;br&gt;", "<br>"),
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    return lines


CURVES = (
    (LINE, "solid"),
    (LIMIT, "dash"),
    (BAND_INK, "dot"),
    ("#b5519a", "dashdot"),
    (INK, "longdash"),
)
"""Colour and dashes of each line where there are several."""


def training_curves(
    history: pd.DataFrame, *, targets: Mapping[str, float], title: str = ""
) -> go.Figure:
    """Loss, L0 and dead features of SAEs over the tokens that they were trained on.

    Args:
        history: Columns ``name, tokens, fvu, l0, dead``.
        targets: The L0 that each SAE is trained towards, by name.
        title: Of the figure.
    """
    heads = ("FVU (log axis)", "L0 (active features a token)", "dead features (share)")
    from plotly.subplots import make_subplots  # see calibration_curve

    figure = make_subplots(rows=1, cols=3, subplot_titles=heads, horizontal_spacing=0.08)
    for number, name in enumerate(targets):
        own = history[history["name"] == name]
        colour, dash = CURVES[number % len(CURVES)]
        for column, key in enumerate(("fvu", "l0", "dead"), start=1):
            line = go.Scatter(
                x=own["tokens"],
                y=own[key],
                name=html.escape(name),
                legendgroup=str(number),
                showlegend=column == 1,
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
            )
            figure.add_trace(line, row=1, col=column)
    for target in sorted(set(targets.values())):
        figure.add_hline(target, line={"color": INK, "width": 1, "dash": "dot"}, row=1, col=2)  # pyright: ignore[reportArgumentType]
    figure.update_xaxes(title_text="tokens trained on", gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, rangemode="tozero")
    figure.update_yaxes(type="log", row=1, col=1)
    figure.update_yaxes(tickformat=".1%", row=1, col=3)
    figure.update_layout(
        template="none",
        title={"text": html.escape(title), "x": 0, "xref": "paper", "font": {"size": 15}},
        font={"color": INK, "size": 12},
        height=372,
        margin={"l": 56, "r": 16, "t": 74, "b": 84},
        legend={"orientation": "h", "yanchor": "top", "y": -0.25, "x": 0},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        hovermode="x",
    )
    return figure
