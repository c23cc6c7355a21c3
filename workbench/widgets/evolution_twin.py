"""The evolution map as plain HTML: for viewers that have no kernel and run no script."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from workbench.widgets.base import table, visible

MAPS = 4
"""Of several maps: a notebook holds the twin of everything that it shows."""
ROWS = 60
"""Of one map; kin before the rest where there are more."""


def twin(widget: Any) -> str:
    """Maps as tables, last layer first, with each feature's peak; what was edited.

    Args:
        widget: The `EvolutionMap`.
    """
    parts = [widget.static_heading(), widget.static_text()]
    parts += [f"<p>{html.escape(one['text'])}</p>" for one in widget.edits]
    peaks = widget.peaks()
    for number, one in enumerate(widget.maps[:MAPS]):
        rows = [row for row, node in enumerate(widget.nodes) if node.get("map", 0) == number]
        parts.append(_map(widget, one, rows, peaks))
    left = len(widget.maps) - MAPS
    if left > 0:
        parts.append(f"<p>and {left} maps more</p>")
    return "".join(parts)


def _map(
    widget: Any, one: Mapping[str, Any], rows: list[int], peaks: list[tuple[float, int]]
) -> str:
    nodes = widget.nodes
    shown = [row for row in rows if len(rows) <= ROWS or _counts(nodes[row])][-ROWS:]
    heads = ["layer", "feature", "label", "cosine", "null", "born", "maximum", "on token"]
    body = [_row(widget, one, row, peaks[row]) for row in reversed(shown)]
    title = f"<p><b>{html.escape(one['title'])}</b></p>" if one["title"] else ""
    left = len(rows) - len(shown)
    more = f"<p>{left} sites without kin are left out</p>" if left else ""
    return title + table(heads, body) + more


def _row(widget: Any, one: Mapping[str, Any], row: int, peak: tuple[float, int]) -> list[object]:
    node, (value, position) = widget.nodes[row], peak
    origin = " (origin)" if row == one["origin"] else ""
    return [
        f"{node['layer']} {node['kind']}{origin}",
        node["index"],
        node.get("label") or "",
        _number(node.get("cosine")),
        _number(node.get("null")),
        ", ".join(filter(None, (node.get("birth"), node.get("trend")))),
        f"{value:.4g}",
        f"{visible(widget.tokens[position])} ({position})" if position >= 0 else "",
    ]


def _counts(node: Mapping[str, Any]) -> bool:
    """Whether a node is kin; where nothing is known of its null it is."""
    cosine, null = node.get("cosine"), node.get("null")
    return cosine is None or null is None or cosine > null


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
