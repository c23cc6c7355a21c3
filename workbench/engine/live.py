"""The edits of a batch: each prompt's own, and those that change while the model writes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from workbench.engine.edits import Edit, Freeze, When, check_edit, edit_list
from workbench.sites import Site


class LiveEdits:
    """Edits that another thread may change while a model writes.

    A change holds from the next token on. What was already written stays as it was; only without a
    cache, where each pass reads the whole text again, does it reach back.
    """

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edit_list(edits)
        self._lock = threading.Lock()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits at present."""
        return self._edits

    def replace(self, index: int, edit: Edit) -> None:
        """Put `edit` in place `index`.

        Raises:
            IndexError: If there is no such place.
            TypeError: If it is not an edit.
            ValueError: If it needs a site that the old one did not, which a running trace cannot
                begin to visit.
        """
        check_edit(index, edit)
        # Two sliders may move at once; without the lock one of the two changes could be lost.
        with self._lock:
            edits = list(self._edits)
            if not 0 <= index < len(edits):
                raise IndexError(f"there is no edit {index}; there are {len(edits)}, from 0")
            old, new = _sites_of(edits[index]), _sites_of(edit)
            if isinstance(edit, Freeze) and not isinstance(edits[index], Freeze):
                raise ValueError(
                    f"edit {index} cannot become a Freeze while running: the unedited run that it "
                    "holds on to would have to begin with the text"
                )
            if not new <= old:
                raise ValueError(
                    f"edit {index} needs {', '.join(map(str, sorted(old)))} and cannot move to "
                    f"{', '.join(map(str, sorted(new - old)))} while running"
                )
            edits[index] = edit
            self._edits = edit_list(edits)


def _sites_of(edit: Edit) -> set[Site]:
    return {edit.site, edit.condition_site} if isinstance(edit, When) else {edit.site}


Edits = Sequence[Edit] | LiveEdits
"""Edits of one prompt, fixed or live."""


class EditTable:
    """Which edits each prompt of a batch has, every edit listed once.

    An edit that several prompts share is computed once. A live one keeps its place in the list
    while it changes.
    """

    def __init__(self, rows: Sequence[Edits]) -> None:
        self._live: list[LiveEdits] = []
        slots: dict[tuple[object, int], int] = {}
        self._slots: list[Edit | tuple[int, int]] = []
        found = []
        for row in rows:
            if isinstance(row, LiveEdits):
                if all(row is not other for other in self._live):
                    self._live.append(row)
                found.append(self._live_row(row, slots))
            else:
                found.append(self._fixed_row(edit_list(row), slots))
        self.rows: tuple[tuple[int, ...], ...] = tuple(found)
        """For each prompt the places of its edits in the list."""

    @classmethod
    def of(
        cls,
        count: int,
        edits: Edits,
        each: Sequence[Edits] | None,
    ) -> EditTable:
        """The table for `count` prompts that all have `edits`, or `each` its own.

        Raises:
            TypeError: If something is not an edit.
            ValueError: If both are given, or `each` has another length.
        """
        if each is None:
            return cls([edits] * count)
        if isinstance(edits, LiveEdits) or len(edits):
            raise ValueError("edits are for all prompts and each= has every prompt's own: give one")
        if isinstance(each, LiveEdits | str) or len(each) != count:
            raise ValueError(
                f"each= needs a list of edits for each of the {count} prompts, got {len(each)}"
            )
        return cls(each)

    def _live_row(self, row: LiveEdits, slots: dict) -> tuple[int, ...]:
        source = next(i for i, other in enumerate(self._live) if other is row)
        return tuple(self._slot((row, i), (source, i), slots) for i in range(len(row.edits)))

    def _fixed_row(self, row: Sequence[Edit], slots: dict) -> tuple[int, ...]:
        # The same edit twice in a row counts twice, so the second is another entry.
        counted = [(edit, sum(edit == other for other in row[:i])) for i, edit in enumerate(row)]
        return tuple(self._slot(key, key[0], slots) for key in counted)

    def _slot(self, key: tuple, content: Edit | tuple[int, int], slots: dict) -> int:
        if key not in slots:
            slots[key] = len(self._slots)
            self._slots.append(content)
        return slots[key]

    @property
    def snapshot(self) -> tuple[tuple[Edit, ...], ...]:
        """The live lists at present: equal, by identity, as long as nothing changed."""
        return tuple(live.edits for live in self._live)

    def edits(self, snapshot: tuple[tuple[Edit, ...], ...]) -> tuple[Edit, ...]:
        """The list, with the live edits of `snapshot`."""
        return tuple(
            snapshot[slot[0]][slot[1]] if isinstance(slot, tuple) else slot for slot in self._slots
        )

    @property
    def fixed(self) -> tuple[bool, ...]:
        """Which edits of the list are not live."""
        return tuple(not isinstance(slot, tuple) for slot in self._slots)

    @property
    def frozen_rows(self) -> tuple[int, ...]:
        """The prompts that have a `Freeze`, and so need an unedited twin beside them."""
        edits = self.edits(self.snapshot)
        return tuple(
            number
            for number, row in enumerate(self.rows)
            if any(isinstance(edits[place], Freeze) for place in row)
        )
