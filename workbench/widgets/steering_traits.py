"""What the steering panel's traits may hold: checked copies, with the rare keys filled in.

The page draws what it is given. So a typo, a NaN, or a slider whose value lies outside its ends is
refused here, where the message names the row, the value and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from workbench.widgets.base import checked_records, refuse_unknown

MODES = ("steer", "clamp", "scale", "ablate", "patch", "splice")
WITHOUT_SLIDER = ("ablate", "patch", "splice")
WHEN = ("both", "prompt", "generated", "steps", "positions")
FREEZE = ("", "att", "all")
ROLES = ("user", "assistant")
HOW = ("index", "label", "text", "contrast")
EXPORTS = ("script", "recipe")
ROW_NEEDED = ("id", "layer", "kind")
ROW_OPTIONAL = (
    *("index", "label", "mode", "modes", "slider", "value", "low", "high", "step", "unit"),
    *("neutral", "safe", "to", "error", "other", "when", "where", "above", "formula"),
    *("muted", "solo", "warning", "recorded"),
)
SETTINGS: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, 100_000),
    "temperature": (float, 0, 100),
    "top_p": (float, 0, 1),
    "seed": (int, 0, 2**63 - 1),
}
"""Type, smallest and largest value of each setting of the sampler."""
DEFAULTS = {"max_new_tokens": 64, "temperature": 1.0, "top_p": 1.0, "seed": 0}


def checked_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the rows, complete.

    Args:
        rows: See `SteeringPanel.rows`.

    Raises:
        TypeError: If a key is missing or unknown.
        ValueError: If a value is not allowed, or two rows share an id.
    """
    checked = [
        checked_row(f"row {number}", row)
        for number, row in enumerate(checked_records("row", rows, ROW_NEEDED, ROW_OPTIONAL))
    ]
    refuse_doubles("row", [row["id"] for row in checked])
    return checked


def checked_row(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """One row, complete.

    Args:
        name: What the messages call it.
        given: Its keys, checked.
    """
    mode = given.get("mode", "steer")
    defaults: dict[str, Any] = {
        "index": None, "label": "", "mode": mode, "modes": [mode], "unit": "",
        "slider": mode not in WITHOUT_SLIDER, "value": 0.0, "low": 0.0, "high": 1.0, "step": 0.1,
        "neutral": 1 if mode == "scale" else 0, "safe": None, "to": "zero", "error": False,
        "other": "", "when": "both", "where": "", "above": None, "formula": "", "muted": False,
        "solo": False, "warning": "", "recorded": [],
    }  # fmt: skip
    row = {**defaults, **given}
    row["id"] = str(row["id"])
    allowed(f"{name}: mode", row["mode"], MODES)
    allowed(f"{name}: when", row["when"], WHEN)
    allowed(f"{name}: to", row["to"], ("zero", "mean"))
    for each in row["modes"]:
        allowed(f"{name}: modes", each, MODES)
    if row["slider"]:
        _check_slider(name, row)
    if row["above"] is not None:
        row["above"] = checked_condition(f"{name}: above", row["above"])
    return row


def _check_slider(name: str, row: Mapping[str, Any]) -> None:
    low, high, step = (
        finite(f"{name}: {key}", row[key], -1e9, 1e9) for key in ("low", "high", "step")
    )
    if not low < high or step <= 0:
        raise ValueError(f"{name}: low {low} must be below high {high}, and step {step} positive.")
    finite(f"{name}: value", row["value"], low, high)
    if row["safe"] is not None:
        ends = [finite(f"{name}: safe", end, -1e9, 1e9) for end in row["safe"]]
        if len(ends) != 2 or ends[0] > ends[1]:
            raise ValueError(f"{name}: safe is {row['safe']!r}; give [low, high], low not above.")


def checked_condition(name: str, above: Mapping[str, Any]) -> dict[str, Any]:
    """The feature and the activation above which an edit acts.

    Args:
        name: What it belongs to, for the messages.
        above: ``layer``, ``kind``, `index`, ``value``.
    """
    keys = ("layer", "kind", "index", "value")
    condition = checked_records(name, [above], keys, ())[0]
    return {
        "layer": int(condition["layer"]),
        "kind": str(condition["kind"]),
        "index": int(condition["index"]),
        "value": finite(f"{name}: value", condition["value"], -1e9, 1e9),
    }


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler's settings, complete and checked."""
    refuse_unknown("settings", settings, SETTINGS)
    settings = {**DEFAULTS, **settings}
    return {name: checked_setting(name, value) for name, value in settings.items()}


def checked_setting(name: str, value: Any) -> float:
    """One setting of the sampler.

    Raises:
        ValueError: If it is no number, or outside its range.
    """
    allowed("setting", name, tuple(SETTINGS))
    kind, least, most = SETTINGS[name]
    number = finite(name, value, least, most)
    if kind is int and number != int(number):
        raise ValueError(f"{name} is {value!r}; give a whole number.")
    return int(value) if kind is int else number


def checked_turns(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Copies of chat turns, each with a role that Gemma's template knows.

    Raises:
        ValueError: If a role is another one.
    """
    copies = checked_records("turn", turns, ("role", "content"), ())
    for number, turn in enumerate(copies):
        if turn["role"] == "system":
            raise ValueError(
                f"turn {number}: Gemma's template has no system turn; put the instruction at the "
                "beginning of the first user turn."
            )
        allowed(f"turn {number}: role", turn["role"], ROLES)
    return [{"role": turn["role"], "content": str(turn["content"])} for turn in copies]


def records(
    name: str,
    needed: Sequence[str],
    optional: Mapping[str, Any] | None = None,
    *,
    unique: str | None = None,
) -> Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]:
    """A check of a list of records; optional keys that are missing get their default.

    Args:
        name: What a record is, for the messages.
        needed: Keys that every record must have.
        optional: Other keys, each with its default.
        unique: Key of which no value may come twice.
    """
    defaults = dict(optional or {})

    def check(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        copies = checked_records(name, given, needed, list(defaults))
        if unique is not None:
            refuse_doubles(name, [copy[unique] for copy in copies])
        return [{**defaults, **copy} for copy in copies]

    return check


def allowed(name: str, value: object, values: Sequence[object]) -> None:
    """Refuse a value that is not in a list.

    Raises:
        ValueError: Names the value and the list.
    """
    if value not in values:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(map(repr, values))}.")


def finite(name: str, value: Any, least: float, most: float) -> float:
    """A number within its ends.

    Raises:
        ValueError: If it is none, not finite, or outside.
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not least <= number <= most:  # false for NaN too
        raise ValueError(f"{name} is {value!r}; give a number from {least:g} to {most:g}.")
    return float(number)


def refuse_doubles(name: str, ids: Iterable[object]) -> None:
    """Refuse two records with one id: messages could not tell them apart.

    Raises:
        ValueError: Names the id.
    """
    seen: set[object] = set()
    for each in ids:
        if each in seen:
            raise ValueError(f"two {name}s have the id {each!r}; give each its own.")
        seen.add(each)
