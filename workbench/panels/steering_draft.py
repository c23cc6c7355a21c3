"""What a run of the steering panel will write: all of it checked before anything is shown."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.engine.binding import bind, check_program
from workbench.engine.edits import Edit
from workbench.engine.live import LiveEdits
from workbench.panels.steering_rows import read_rows
from workbench.panels.steering_texts import Plan, baseline_plan
from workbench.recipes.recipe import Settings, frozen
from workbench.recipes.rows import Row, acting
from workbench.tokens import Prompt

if TYPE_CHECKING:
    from workbench.lab import Lab


class LiveRows:
    """The rows of a text, and their edits, which a slider may change while it is written."""

    def __init__(self, rows: Sequence[Row], edits: Sequence[Edit], held: Sequence[Edit]) -> None:
        """Start with `rows`, their `edits`, and the freezes that come after them."""
        self._rows, self._lock = list(rows), threading.Lock()
        self.edits = LiveEdits([*edits, *held])
        self.warnings: list[str] = []
        """What to say of the text because of what was changed on the way."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows as they are now."""
        return tuple(self._rows)

    def set(self, row: Row, lab: Lab) -> bool:
        """Let a row's new value act from the next token on; False if only a new text can show it.

        A row that has no part in the text changes nothing, and that is done.
        """
        with self._lock:
            at = next((i for i, each in enumerate(self._rows) if each.id == row.id), None)
            if at is None:
                return True
            if self._rows[at].mode != row.mode or row.mode == "patch":
                return False
            self.edits.replace(at, row.edit(lab))
            self._rows[at] = row
            self.warnings = [
                "a value was changed while the text was written: press Run for the text of the "
                "copied code"
            ]
            return True


@dataclass(frozen=True)
class Draft:
    """Everything that one run needs."""

    plans: tuple[Plan, ...]
    """The texts in the order of their columns: steered, plain, baselines."""
    live: LiveRows
    settings: Settings
    unfinished: dict[str, str]
    """Rows that say nothing yet, by id."""
    idle: tuple[str, ...]
    """Lines of the receipt for rows that have no part in it."""
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        lab: Lab,
        text: Prompt,
        shown: Sequence[dict],
        sets: dict[str, Row],
        settings: Settings,
        *,
        freeze: str,
        baselines: Sequence[str],
        instruction: str,
    ) -> Draft:
        """Check everything, without touching what is shown.

        Args:
            lab: The lab.
            text: Text or turns.
            shown: The widget's rows.
            sets: See `read_rows`.
            settings: Of the sampler.
            freeze: See `workbench.recipes.recipe.Recipe`.
            baselines: Ids of those that are on.
            instruction: For plain prompting.

        Raises:
            ValueError: If the prompt, a site, a feature or an edit cannot be.
        """
        reading = read_rows(shown, sets)
        rows = acting(reading.rows)
        prompt = lab.tokens(text)
        edits = tuple(row.edit(lab) for row in rows)
        held = frozen(edits, lab, freeze)
        lab.prepare(edits)
        check_program(bind(edits, lab.suite), lab.engine.config)
        live = LiveRows(rows, edits, held)
        plans = [Plan("steered", prompt, live.edits, lab.suite), Plan("plain", prompt)]
        warnings = [f"{name}: {why}" for name, why in reading.unfinished.items()]
        for name in baselines:
            try:
                all_edits = (*edits, *held)
                plans.append(baseline_plan(lab, name, text, all_edits, instruction, settings.seed))
            except ValueError as error:
                warnings.append(str(error))
        idle = tuple(
            f"{row}: {'muted' if row.muted else 'not on solo'}"
            for row in reading.rows
            if row not in rows
        )
        return cls(tuple(plans), live, settings, reading.unfinished, idle, tuple(warnings))
