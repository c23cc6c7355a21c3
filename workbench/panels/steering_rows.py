"""Rows of the steering panel: from what the page shows to what can be run, and back.

The widget's rows are the one record of what is set. Here they become `workbench.recipes.rows.Row`,
and a `Row` becomes what the page needs beside it: label, slider, units, safe band and formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench.engine.edits import Unit
from workbench.recipes.rows import AMOUNTS, MODES, Above, Mode, Row
from workbench.sites import Site, check_kind

if TYPE_CHECKING:
    from workbench.lab import Lab

UNITS: dict[Unit, str] = {"max": "× max", "norm": "× norm", "raw": "activation"}
"""What a slider's unit is called on the page."""
ENDS: dict[tuple[str, Unit], tuple[float, float, float]] = {
    ("steer", "max"): (-4.0, 4.0, 0.1),
    ("steer", "norm"): (-1.0, 1.0, 0.02),
    ("steer", "raw"): (-100.0, 100.0, 1.0),
    ("clamp", "max"): (0.0, 4.0, 0.1),
    ("clamp", "norm"): (0.0, 1.0, 0.02),
    ("clamp", "raw"): (0.0, 100.0, 1.0),
    ("scale", "raw"): (-4.0, 8.0, 0.1),
}
"""Low end, high end and step of a slider, by mode and unit."""
START = {"steer": 0.0, "clamp": 1.0, "scale": 1.0}
"""Where a slider stands when its mode is chosen."""
FORMULAS = {
    "steer": "{x}' = {x} + s · d",
    "clamp": "{x}' = {x} + (v − f) · d",
    "scale": "{x}' = {x} + (s − 1) · f · d",
    "ablate": "{x}' = {x} + (m − f) · d, with m = 0 or the feature's mean",
    "patch": "{x}' = {x} + (f_other − f) · d",
    "splice": "{x}' = SAE({r}), and + ({x} − SAE({r})) with the error term",
}
"""What each mode does; see `workbench.engine.edits`."""


@dataclass(frozen=True)
class Reading:
    """The rows of the page, as far as they say something that can be run."""

    rows: tuple[Row, ...]
    """All that are complete, muted ones included, in the page's order."""
    unfinished: dict[str, str]
    """Id of a row that says nothing yet, such as a patch without a text, and why."""


def read_rows(shown: Iterable[Mapping[str, Any]], sets: Mapping[str, Row]) -> Reading:
    """What the page's rows say.

    Args:
        shown: The widget's rows.
        sets: By id the rows whose ``keep`` or ``drop`` the page does not show.
    """
    rows: list[Row] = []
    unfinished: dict[str, str] = {}
    for each in shown:
        try:
            row = row_of(each)
            if row.mode == "splice" and row.id in sets:
                row = replace(row, keep=sets[row.id].keep, drop=sets[row.id].drop)
            if row.mode == "patch" and not row.other.strip():
                raise ValueError("give the text that the patch takes the feature from")
            rows.append(row)
        except ValueError as error:
            unfinished[str(each["id"])] = str(error)
    return Reading(tuple(rows), unfinished)


def row_of(shown: Mapping[str, Any]) -> Row:
    """The row that one of the widget's says.

    Raises:
        ValueError: If it says nothing that can be run.
    """
    above = shown.get("above")
    units: dict[str, Unit] = {name: unit for unit, name in UNITS.items()}
    unit = units.get(shown["unit"], "raw")
    index = shown.get("index")
    return Row(
        id=shown["id"],
        layer=shown["layer"],
        kind=check_kind(shown["kind"]),
        index=-1 if index is None else index,
        mode=shown["mode"],
        value=float(shown["value"]) if shown["mode"] in AMOUNTS else 0.0,
        unit=unit if shown["mode"] in ("steer", "clamp") else "max",
        when=shown["when"],
        where=shown["where"],
        above=None if above is None else Above(**above),
        to=shown["to"],
        error=shown["error"],
        other=shown["other"],
        muted=shown["muted"],
        solo=shown["solo"],
    )


def shown_row(
    lab: Lab, row: Row, *, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """A row as the widget shows it.

    Args:
        lab: For labels and calibration.
        row: What to show.
        low: Left end of the slider, if not the usual one.
        high: Right end.
    """
    shown: dict[str, Any] = {
        "id": row.id,
        "layer": row.layer,
        "kind": row.kind,
        "index": None if row.mode == "splice" else row.index,
        "label": label_of(lab, row),
        "mode": row.mode,
        "modes": modes_of(row),
        "slider": row.mode in AMOUNTS,
        "to": row.to,
        "error": row.error,
        "other": row.other,
        "when": row.when,
        "where": row.where,
        "above": None if row.above is None else vars(row.above).copy(),
        "formula": formula_of(row),
        "muted": row.muted,
        "solo": row.solo,
    }
    return shown | slider_of(lab, row, low=low, high=high)


def slider_of(
    lab: Lab, row: Row, *, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """Ends, unit, neutral place and safe band of a row's slider."""
    if row.mode not in AMOUNTS:
        return {"value": 0.0, "low": 0.0, "high": 1.0, "unit": "", "safe": None}
    unit: Unit = "raw" if row.mode == "scale" else row.unit
    ends = ENDS[row.mode, unit]
    # A value from a recipe or from code may lie beyond the usual ends.
    least = min(ends[0] if low is None else low, row.value)
    most = max(ends[1] if high is None else high, row.value)
    tested = lab.suite.tested_strength(row.site, row.index)
    safe = tested is not None and (row.mode, unit) == ("steer", "max")
    return {
        "value": row.value,
        "low": least,
        "high": most,
        "step": ends[2],
        "unit": "×" if row.mode == "scale" else UNITS[unit],
        "neutral": 1.0 if row.mode == "scale" else 0.0,
        "safe": [0.0, tested] if safe else None,
    }


def new_row(
    lab: Lab, taken: Iterable[str], site: Site, index: int, mode: Mode = "steer", **more: Any
) -> Row:
    """A row for a feature, with the unit that is known for it.

    Args:
        lab: The lab.
        taken: Ids that are in use.
        site: Where the feature is.
        index: Which it is; -1 for a splice.
        mode: What to do with it.
        more: Other fields of `Row`.

    Raises:
        ValueError: If there is no such site, SAE or feature.
    """
    site.check(lab.engine.config)
    sae = lab.suite.sae_at(site)
    if mode != "splice":
        sae.check_index(index)
    used = {*taken}
    number = next(i for i in range(len(used) + 1) if f"row{i}" not in used)
    row = Row(
        id=f"row{number}",
        layer=site.layer,
        kind=site.kind,
        index=index,
        mode=mode,
        unit=unit_of(lab, site, index) if mode in ("steer", "clamp") else "max",
    )
    if (
        mode in ("steer", "clamp")
        and row.unit == "norm"
        and not lab.suite.knows_norm(site.writes_at)
    ):
        lab.prepare((replace(row, value=1.0).edit(lab),))
    return replace(row, **{"value": START.get(mode, 0.0)} | more)


def unit_of(lab: Lab, site: Site, index: int) -> Unit:
    """Multiples of the typical maximum where it is known, else shares of the layer's norm."""
    try:
        lab.suite.typical_maximum(site, index)
    except ValueError:
        return "norm"
    return "max"


def with_mode(lab: Lab, row: Row) -> dict[str, Any]:
    """What changes on the page when a row's mode was changed: its slider starts anew."""
    value = START.get(row.mode, 0.0)
    unit = unit_of(lab, row.site, row.index) if row.mode in ("steer", "clamp") else "max"
    started = replace(row, value=value, unit=unit)
    keys = ("slider", "formula", "value", "low", "high", "step", "unit", "neutral", "safe")
    shown = shown_row(lab, started)
    return {key: shown[key] for key in keys if key in shown}


def modes_of(row: Row) -> list[str]:
    """The modes that a row can have."""
    if row.mode == "splice":
        return ["splice"]
    return [
        mode
        for mode in MODES
        # What a transcoder reads is only read: there is nothing to put another text's into.
        if mode != "splice" and not (mode == "patch" and row.kind == "transcoder")
    ]


def label_of(lab: Lab, row: Row) -> str:
    """What the row's feature stands for; for a splice which features it keeps."""
    if row.mode != "splice":
        return lab.suite.label(row.site, row.index)
    if row.keep is not None:
        return f"SAE reconstruction from {_few(row.keep)} only"
    return "SAE reconstruction" + (f" without {_few(row.drop)}" if row.drop else "")


def formula_of(row: Row) -> str:
    """The formula of the row's mode; of a transcoder what it reads is not what it writes."""
    wide = row.kind == "transcoder"
    formula = FORMULAS[row.mode].format(x="y" if wide else "x", r="x")
    return formula + (": x what the MLP reads, y what it writes" if wide else "")


def _few(features: Sequence[int]) -> str:
    shown = ", ".join(map(str, features[:4]))
    return shown + (f" and {len(features) - 4} more" if len(features) > 4 else "")
