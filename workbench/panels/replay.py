"""A steering panel without a model: recorded texts, from one to the other by the sliders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from workbench.panels.base import Panel
from workbench.panels.steering_takes import SteeringRecord
from workbench.widgets import SteeringPanel


class SteeringReplay(Panel[SteeringPanel]):
    """Recorded texts of a steering panel; nothing is computed."""

    def __init__(self, record: SteeringRecord) -> None:
        """Show a recording.

        Args:
            record: The texts.

        Raises:
            ValueError: If there is none.
        """
        self.record = record
        """What is shown, to save again."""
        self.widget = record.widget()

    def __repr__(self) -> str:
        return f"<SteeringReplay of {self.record.model}: {len(self.record.takes)} texts>"

    @property
    def text(self) -> str:
        """The steered text that is shown, prompt left out."""
        return _text(self.widget.takes[self.widget.take], "steered")

    @property
    def unsteered(self) -> str:
        """Its twin without the edits."""
        return _text(self.widget.takes[self.widget.take], "plain")

    def show(self, number: int) -> None:
        """Show a text by its number, as in `to_frame`.

        Raises:
            ValueError: If there is none.
        """
        count = len(self.widget.takes)
        if not -count <= number < count:
            raise ValueError(f"there is no text {number}: there are 0 to {count - 1}")
        self.widget.take = number % count

    def to_frame(self) -> pd.DataFrame:
        """One row a recorded text.

        Returns:
            Columns ``prompt, edits, seed, steered, unsteered, verdict``.
        """
        rows = [
            {
                "prompt": take["run_prompt"] or take["prompt"],
                "edits": edits_in_words(take),
                "seed": take["settings"]["seed"],
                "steered": _text(take, "steered"),
                "unsteered": _text(take, "plain"),
                "verdict": take["meters"].get("steered", {}).get("verdict", ""),
            }
            for take in self.widget.takes
        ]
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Write the recording to a file; `wb.open_steering` opens it.

        Returns:
            The path.
        """
        return self.record.save(path)


def edits_in_words(take: dict[str, Any]) -> str:
    """The rows that act, in a line such as ``"5 res 231 steer 2"``."""
    from workbench.widgets.steering_twin import row_words

    return "; ".join(row_words(row) for row in take["rows"] if not row["muted"])


def open_steering(path: str | Path) -> SteeringReplay:
    """Open recorded texts of a steering panel, with no model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is something else, was cut off, or holds no text.
    """
    return SteeringReplay(SteeringRecord.open(path))


def _text(take: dict[str, Any], column: str) -> str:
    return "".join(token["text"] for token in take["texts"].get(column, ()))
