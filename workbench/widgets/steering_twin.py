"""The steering panel as plain HTML: for viewers that have no kernel and run no script."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.widgets.base import table

TAKES = 24
"""Of recorded texts: a notebook holds the twin of everything that it shows."""
LETTERS = 400
"""Of a recorded text."""
_HEADS = ("layer", "feature", "label", "mode", "strength", "unit", "when", "remark")


def twin(panel: Any) -> str:
    """Prompt, rows, settings, every text with its meters, warnings and receipt.

    Args:
        panel: The `SteeringPanel`.
    """
    parts = [panel.static_heading(), _turns(panel.turns)]
    if panel.rows:
        parts.append(table(_HEADS, [_row(row) for row in panel.rows]))
    parts.append(f"<p>{html.escape(_settings(panel))}</p>")
    prompt = "" if panel.turns else panel.run_prompt or panel.prompt
    parts += [_text(panel, column, prompt) for column in panel.columns]
    parts.append(_list("Warnings", panel.warnings))
    parts.append(_list("Receipt", panel.receipt))
    return "".join(parts)


def takes_twin(takes: Sequence[Mapping[str, Any]]) -> str:
    """Recorded texts below each other, with what wrote them; empty for none or one.

    Args:
        takes: See `SteeringPanel.takes`.
    """
    if len(takes) < 2:
        return ""
    rows = [
        (
            "; ".join(map(row_words, take["rows"])),
            _short(take["run_prompt"]) + _short(_words(take, "steered"), LETTERS),
            meter_words(take["meters"].get("steered", {})),
        )
        for take in takes[-TAKES:]
    ]
    left = len(takes) - len(rows)
    more = f"<p>{left} earlier ones are left out</p>" if left > 0 else ""
    heads = ("edits", "steered text", "how it reads")
    return f"<p><b>Recorded texts ({len(takes)})</b></p>{table(heads, rows)}{more}"


def row_words(row: Mapping[str, Any]) -> str:
    """A row in a few words: "5 res 231 steer 2 × max"."""
    name = "all" if row["index"] is None else row["index"]
    words = f"{row['layer']} {row['kind']} {name} {row['mode']}"
    words += f" {row['value']:g} {row['unit']}" if row["slider"] else ""
    return f"{words} (muted)" if row["muted"] else words


def _words(take: Mapping[str, Any], column: str) -> str:
    text = "".join(token["text"] for token in take["texts"].get(column, ()))
    return text.replace("\n", "↵")  # a cell of a table would not show it


def _short(text: str, letters: int = 80) -> str:
    return text if len(text) <= letters else f"{text[:letters]}…"


def _row(row: Mapping[str, Any]) -> list[object]:
    remarks = ["muted"] if row["muted"] else []
    remarks += ["solo"] if row["solo"] else []
    if row["above"]:
        a = row["above"]
        remarks.append(f"if L{a['layer']} {a['kind']} {a['index']} > {a['value']:g}")
    if row["mode"] == "ablate":
        remarks.append(f"to {row['to']}")
    if row["mode"] == "splice":
        remarks.append("with the error term" if row["error"] else "without the error term")
    if row["mode"] == "patch":
        remarks.append(f"from {row['other']!r}")
    remarks += [row["warning"]] if row["warning"] else []
    return [
        f"{row['layer']} {row['kind']}",
        "all" if row["index"] is None else row["index"],
        row["label"],
        row["mode"],
        f"{row['value']:g}" if row["slider"] else "",
        row["unit"] if row["slider"] else "",
        f"{row['when']} {row['where']}".strip(),
        ", ".join(remarks),
    ]


def _settings(panel: Any) -> str:
    shown = [f"{name} {value:g}" for name, value in panel.settings.items()]
    frozen = {"": "", "att": "attention frozen", "all": "attention and MLPs frozen"}[panel.freeze]
    return " · ".join([*shown, *([frozen] if frozen else [])])


def _turns(turns: Sequence[Mapping[str, str]]) -> str:
    return "".join(
        f"<p><b>{html.escape(turn['role'])}</b>: {html.escape(turn['content'])}</p>"
        for turn in turns
    )


def _text(panel: Any, column: Mapping[str, str], prompt: str) -> str:
    text = html.escape("".join(token["text"] for token in panel.texts.get(column["id"], ())))
    facts = [column["note"], meter_words(panel.meters.get(column["id"], {}))]
    head = html.escape(" · ".join(fact for fact in facts if fact))
    title = html.escape(column["title"])
    return (
        f"<p><b>{title}</b>{' · ' + head if head else ''}</p>"
        f"<blockquote><i>{html.escape(prompt)}</i>{text}</blockquote>"
    )


def meter_words(meter: Mapping[str, Any]) -> str:
    """A column's fluency in words: "fluent, repetition 4 %, loss 2.10 nats a token (+0.30)".

    Args:
        meter: ``verdict``, ``repetition`` (share), ``loss`` and ``excess`` (nats a token); any may
            miss.
    """
    words = [str(meter["verdict"])] if meter.get("verdict") else []
    if meter.get("repetition") is not None:
        words.append(f"repetition {100 * meter['repetition']:.0f} %")
    if meter.get("loss") is not None:
        excess = meter.get("excess")
        beside = "" if excess is None else f" ({excess:+.2f})"
        words.append(f"loss {meter['loss']:.2f} nats a token{beside}")
    return ", ".join(words)


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<p><b>{title}</b></p><ul>{items}</ul>"
