"""Recorded texts of the steering panel: each with the settings that wrote it, as one JSON file.

A *take* is what the panel showed when a text was finished: prompt, rows, settings, all texts with
their measures, the receipt. Takes that differ only in their strengths form a group, and within one
a slider goes from text to text, with no model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from workbench.files import readable, write_whole
from workbench.widgets import SteeringPanel
from workbench.widgets.steering_panel import CHECKS, TAKE

FORMAT = "workbench-steering"
VERSION = 1
MOST = 200
"""Takes that a panel remembers; the oldest go first."""
_OWN = ("value", "low", "high", "step", "recorded", "safe", "warning", "formula", "modes")
"""What may differ between the rows of one group."""

Take = dict[str, Any]


class Takes:
    """The texts that were written in a panel, the newest of each setting."""

    def __init__(self) -> None:
        self.all: list[Take] = []
        """In the order in which they were written."""

    def note(self, widget: SteeringPanel, rows: Sequence[Mapping[str, Any]], code: str) -> None:
        """Keep what a panel shows.

        Args:
            widget: With the finished texts.
            rows: What they were written with: the page may have moved on.
            code: The lines that write them.
        """
        take = {name: copy.deepcopy(getattr(widget, name)) for name in TAKE}
        take |= {"rows": copy.deepcopy(list(rows)), "code": code}
        alike = _group(take), _values(take)
        kept = [one for one in self.all if (_group(one), _values(one)) != alike]
        self.all = [*kept, take][-MOST:]


@dataclass(frozen=True)
class SteeringRecord:
    """The texts of a steering panel, without its model."""

    model: str
    """Name of the model that wrote them."""
    takes: tuple[Take, ...]
    """See `workbench.widgets.SteeringPanel.takes`."""

    def save(self, path: str | Path) -> Path:
        """Write it as one JSON file.

        Returns:
            The path.

        Raises:
            ValueError: If there is no text.
        """
        self._check_texts()
        data = {"format": FORMAT, "version": VERSION, "model": self.model, "takes": self.takes}
        return write_whole(path, json.dumps(data, ensure_ascii=False) + "\n")

    @classmethod
    def open(cls, path: str | Path) -> SteeringRecord:
        """Read what `save` wrote.

        Raises:
            OSError: If there is no such file, or it is a folder.
            ValueError: If it is something else, was cut off, or is of a newer workbench.
        """
        path = readable(path, "a recording of a steering panel")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path} is no recording of a steering panel, or was cut off on its way ({error})"
            ) from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            got = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise ValueError(
                f"{path} is no recording of a steering panel: its format is {got!r} and not "
                f"{FORMAT!r}; wb.open_run opens runs, wb.open_recipe recipes"
            )
        if data.get("version") != VERSION:
            raise ValueError(
                f"{path} is of version {data.get('version')!r} and this workbench reads {VERSION}: "
                "update sae-workbench"
            )
        try:
            return cls(str(data["model"]), tuple(map(_checked, data["takes"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged: {type(error).__name__}: {error}. Save the panel again"
            ) from error

    def widget(self) -> SteeringPanel:
        """A panel that shows the texts; the newest first.

        Raises:
            ValueError: If there is none.
        """
        self._check_texts()
        takes = browsable(self.takes)
        newest = {name: value for name, value in takes[-1].items() if name in TAKE}
        return SteeringPanel(
            title="Steering",
            subtitle=f"{self.model} · recorded texts, no model",
            recorded=True,
            run=1,
            takes=takes,
            take=len(takes) - 1,
            **newest,
        )

    def _check_texts(self) -> None:
        if not self.takes:
            raise ValueError(
                "no text was recorded: press Run, or call panel.record([0, 1, 2]), before you save"
            )


def browsable(takes: Sequence[Take]) -> list[Take]:
    """Takes with ``group``, and with sliders that step from one recorded value to the next."""
    keys = [_group(take) for take in takes]
    order = list(dict.fromkeys(keys))
    found = []
    for take, key in zip(takes, keys, strict=True):
        mates = [one for one, other in zip(takes, keys, strict=True) if other == key]
        rows = [
            {**row, **_slider(row, [one["rows"][at] for one in mates])}
            for at, row in enumerate(take["rows"])
        ]
        found.append({**take, "rows": rows, "group": order.index(key)})
    return found


def _slider(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ends and step of a row's slider, from its values in all takes of the group."""
    values = sorted({float(one["value"]) for one in rows})
    if not row["slider"] or len(values) < 2:
        return {"recorded": values if row["slider"] else []}
    step = round(min(b - a for a, b in pairwise(values)), 6) or 0.000001
    return {"recorded": values, "low": values[0], "high": values[-1], "step": step}


def _group(take: Take) -> str:
    """What takes have in common between which sliders lead."""
    rows = [{key: v for key, v in row.items() if key not in _OWN} for row in take["rows"]]
    names = ("prompt", "turns", "settings", "freeze", "baselines", "baseline_prompt")
    return json.dumps([rows, *(take[name] for name in names)], sort_keys=True)


def _values(take: Take) -> list[float]:
    return [row["value"] for row in take["rows"]]


def _checked(take: Mapping[str, Any]) -> Take:
    """A take from a file, with every record in the form that the page draws.

    Raises:
        KeyError: If a part is missing.
        ValueError: If a part is not what it must be.
    """
    found = {name: CHECKS.get(name, lambda value: value)(take[name]) for name in TAKE}
    for name, kind in (("texts", dict), ("meters", dict), ("status", dict), ("code", str)):
        if not isinstance(found[name], kind):
            raise ValueError(f"{name} is {found[name]!r}")
    for tokens in found["texts"].values():
        for token in tokens:
            if not isinstance(token["text"], str):
                raise ValueError(f"a token is {token!r}")
    return found
