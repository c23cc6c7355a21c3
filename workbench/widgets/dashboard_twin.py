"""The feature dashboard as plain HTML: for viewers that have no kernel and run no script."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.widgets.base import table, visible

PASSAGES = 8
"""Of each list of passages: a notebook holds the twin of every dashboard that it shows."""


def twin(board: Any) -> str:
    """Everything that the dashboard says, as escaped tables and lists.

    Args:
        board: The `FeatureDashboard`.
    """
    parts = [board.static_heading(), _label(board.label)]
    parts += [_paragraph("Note", board.note), _paragraph("Missing", board.missing)]
    if board.remedy:
        parts.append(f"<pre>{html.escape(board.remedy)}</pre>")
    facts = [[one["name"], one["value"], one.get("hint", "")] for one in board.facts]
    parts.append(_table("Figures", ("", "", ""), facts))
    for title, rows in (("Promotes", board.promoted), ("Suppresses", board.suppressed)):
        shown = [[visible(one["token"]), f"{one['effect']:+.3g}"] for one in rows]
        parts.append(_table(title, ("output token", "effect"), shown))
    parts.append(_paragraph("Effect", board.output_note))
    parts.append(_histogram(board.histogram))
    parts.append(_passages("Strongest passages", board.top[:PASSAGES]))
    parts.append(_passages("Over the whole range", _thinned(board.spread)))
    if board.tried["tokens"]:
        values = enumerate(board.tried["values"])
        peak = max((v for p, v in values if p not in board.tried["masked"]), default=0.0)
        parts.append(_paragraph("Tried", f"{board.tried['text']} (maximum {peak:.4g})"))
    for group in board.neighbours:
        rows = [[_name(one), one["label"], f"{one['cosine']:.3f}"] for one in group["rows"]]
        title = f"Nearest at {group['title']}"
        parts.append(_table(title, ("feature", "label", "decoder cosine"), rows))
    rows = [
        [_name(one), one["label"], f"{one['together']} of {one['of']}", f"{one['lift']:.3g}"]
        for one in board.cofiring
    ]
    heads = ("feature", "label", "on tokens of this one", "times chance")
    parts.append(_table("Fires together with", heads, rows))
    return "".join(parts)


def _label(label: Mapping[str, str]) -> str:
    text = label["text"] or "no label"
    about = html.escape(label["about"])
    return f"<p><b>{html.escape(text)}</b>{f' ({about})' if about else ''}</p>"


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['layer']} {one['kind']} {one['index']}"


def _paragraph(title: str, text: str) -> str:
    return f"<p><b>{title}</b>: {html.escape(text)}</p>" if text else ""


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return f"<p><b>{html.escape(title)}</b></p>{table(heads, rows)}" if rows else ""


def _histogram(histogram: Mapping[str, Any]) -> str:
    edges, counts = histogram["edges"], histogram["counts"]
    if not counts:
        return ""
    words = f"{sum(counts):,} firings between {edges[0]:.3g} and {edges[-1]:.3g}"
    return _paragraph("Activations", f"{words}, most of them near {_mode(edges, counts):.3g}")


def _mode(edges: Sequence[float], counts: Sequence[int]) -> float:
    best = max(range(len(counts)), key=lambda i: counts[i])
    return (edges[best] + edges[best + 1]) / 2


def _thinned(passages: Sequence[Any]) -> list[Any]:
    """As many as are shown, evenly from the strongest to the weakest."""
    if len(passages) <= PASSAGES:
        return list(passages)
    last = len(passages) - 1
    return [passages[round(i * last / (PASSAGES - 1))] for i in range(PASSAGES)]


def _passages(title: str, passages: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(_passage(one) for one in passages)
    return f"<p><b>{title}</b></p><ul>{rows}</ul>" if rows else ""


def _passage(one: Mapping[str, Any]) -> str:
    at, tokens = one["at"], one["tokens"]
    before, after = "".join(tokens[:at]), "".join(tokens[at + 1 :])
    return (
        f"<li>{one['values'][at]:.4g}: {html.escape(before)}<b>{html.escape(tokens[at])}</b>"
        f"{html.escape(after)}</li>"
    )
