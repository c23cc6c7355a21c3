"""Writes the texts of a steering run, and measures them when they are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from workbench.analysis.fluency import fluency
from workbench.analysis.shifts import shifts
from workbench.engine.tracing import Generation, generate
from workbench.panels.steering_draft import Draft
from workbench.panels.steering_texts import (
    TITLES,
    Column,
    Plan,
    ending,
    meter,
    prompt_tokens,
    receipt_lines,
    silent,
)
from workbench.recipes.recipe import Settings

if TYPE_CHECKING:
    from workbench.lab import Lab
    from workbench.widgets import SteeringPanel

Written = dict[str, tuple[Generation, Column]]
"""By column: the text, and what was shown of it."""


class TextWriter:
    """Writes drafts into a widget; keeps the unsteered text, which sliders do not change."""

    def __init__(self, lab: Lab, widget: SteeringPanel) -> None:
        self._lab, self._widget = lab, widget
        self._plain: tuple[object, Generation, list[dict[str, Any]]] | None = None

    def write(
        self, draft: Draft, stop: threading.Event, superseded: Callable[[], bool]
    ) -> dict[str, str]:
        """Write every text of a draft, then measure and show them.

        Args:
            draft: What to write.
            stop: Ends the writing within one token.
            superseded: Whether a newer run waits, so that nobody would read the measures.

        Returns:
            Warnings by the row's id.
        """
        widget = self._widget
        columns = [{"id": p.column, "title": TITLES[p.column], "note": p.note} for p in draft.plans]
        run = widget.start(
            total=draft.settings.max_new_tokens,
            columns=columns,
            prompt_tokens=prompt_tokens(draft.plans[0].prompt),
        )
        written: Written = {}
        # The unsteered text comes first: the steered one is read against it.
        for plan in sorted(draft.plans, key=lambda plan: plan.column != "plain"):
            if stop.is_set():
                break
            edited = plan.source is not None
            column = Column(widget, run, plan.column, self._lab.tokenizer, keeps=edited)
            text = self._text(plan, draft.settings, column, stop)
            written[plan.column] = text, column
            if edited and not (stop.is_set() and superseded()):
                self._note_shifts(text, column)
        if stop.is_set() and superseded():
            widget.finish(run, state="stopped")
            return draft.unfinished
        return self._conclude(run, draft, written, stopped=stop.is_set())

    def _text(
        self, plan: Plan, settings: Settings, column: Column, stop: threading.Event
    ) -> Generation:
        """Write one text; the unsteered one only if it is not known."""
        key = (plan.prompt.ids, settings)
        if plan.column == "plain" and self._plain is not None and self._plain[0] == key:
            column.tokens = self._plain[2]
            self._widget.stream(column.run, "plain", column.tokens)
            return self._plain[1]
        text = generate(
            self._lab.engine,
            [plan.prompt],
            edits=plan.edits,
            source=plan.source,
            stream=column,
            stop=stop,
            **asdict(settings),
        )[0]
        if plan.column == "plain" and text.finish != "stopped":
            self._plain = (key, text, column.tokens)
        return text

    def _conclude(
        self, run: int, draft: Draft, written: Written, *, stopped: bool
    ) -> dict[str, str]:
        """Measure what was written, and show all of it; gives the rows' warnings."""
        texts = {name: text for name, (text, _) in written.items() if len(text.tokens)}
        steered = written.get("steered")
        acts = steered[0].receipt.acts if steered else ()
        rows = draft.live.rows
        # A text that was stopped before its first token says nothing of its edits.
        quiet = silent(rows, acts) if "steered" in texts else {}
        named = {row.id: str(row) for row in rows}
        context = self._lab.engine.context
        self._widget.finish(
            run,
            state="stopped" if stopped else "done",
            receipt=receipt_lines(rows, acts, draft.idle) if steered else [],
            warnings=[
                *(f"{named[row]} {text}" for row, text in quiet.items()),
                *draft.warnings,
                *draft.live.warnings,
                *filter(None, (ending(name, text, context) for name, text in texts.items())),
            ],
            rate=steered[1].rate() if steered else None,
            texts={name: column.tokens for name, (_, column) in written.items()},
            meters=self._meters(texts),
        )
        return quiet | draft.unfinished

    def _note_shifts(self, text: Generation, column: Column) -> None:
        """Note at each token of an edited text how far the edits moved it."""
        found = shifts(self._lab.engine, text, column.logits)
        for token, shift in zip(column.tokens, found, strict=False):
            token |= {"shift": shift.nats, "p_before": shift.p_before}
        column.logits.clear()  # hundreds of megabytes for a large vocabulary

    def _meters(self, texts: Mapping[str, Generation]) -> dict[str, dict[str, Any]]:
        """How each text reads, against the unsteered one."""
        twins = [texts["plain"]] * len(texts) if "plain" in texts else None
        found = fluency(self._lab.engine, list(texts.values()), twins=twins)
        return {name: meter(one) for name, one in zip(texts, found, strict=True)}
