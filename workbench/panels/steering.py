"""Edits that steer a text while it is written, beside its unsteered twin and baselines.

A run writes the unsteered text first (once for each prompt and setting, then kept), the steered one
after it with the same seed, and then the baselines. When all is written, the steered texts are read
once more without edits, for what `workbench.analysis.shifts` and `workbench.analysis.fluency` say
of them.

Handlers of the page only note and enqueue: one runner writes texts, where the latest request wins,
and one does errands (searches, features to add, files), of which none is lost.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.panels.base import Panel
from workbench.panels.jobs import Errands, LatestJob
from workbench.panels.last_texts import LastTexts
from workbench.panels.replay import SteeringReplay
from workbench.panels.steering_draft import Draft, LiveRows
from workbench.panels.steering_rows import Reading, new_row, read_rows, shown_row, with_mode
from workbench.panels.steering_search import search
from workbench.panels.steering_takes import SteeringRecord, Takes, browsable
from workbench.panels.steering_texts import BASELINES, check_baselines
from workbench.panels.steering_writer import TextWriter
from workbench.recipes.fields import check_finite
from workbench.recipes.recipe import Recipe, Settings, check_turns, open_recipe
from workbench.recipes.rows import Mode, Row
from workbench.sites import Kind, Site, check_kind, feature_at
from workbench.tokens import Prompt
from workbench.widgets import SteeringPanel
from workbench.widgets.steering_twin import row_words, takes_twin

if TYPE_CHECKING:
    from workbench.lab import Lab


MESSAGES = (
    *("run", "stop", "set", "add", "add_splice", "remove", "move", "settings"),
    *("baseline", "freeze", "search", "export", "open_recipe"),
)
"""What the page asks for; each has its handler below."""


class Steering(Panel[SteeringPanel]):
    """A row for each edit; text streams beside its unsteered twin."""

    def __init__(
        self,
        lab: Lab,
        prompt: Prompt = "",
        features: Sequence[tuple[int, int]] = (),
        *,
        kind: Kind = "res",
        strength: float = 0.0,
        mode: Mode = "steer",
        when: str = "both",
        low: float | None = None,
        high: float | None = None,
        max_new_tokens: int = 60,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seed: int = 0,
        baselines: Sequence[str] = (),
        baseline_prompt: str = "",
        recipe: Recipe | str | Path | None = None,
        synchronous: bool | None = None,
    ) -> None:
        """Make the panel; nothing runs before Run is pressed or a slider is moved.

        Args:
            lab: The model and its SAEs.
            prompt: What the texts begin with: a text, or the turns of a chat.
            features: ``(layer, index)`` of each row; more can be added on the page.
            kind: Kind of site of the features.
            strength: Where the sliders start, in multiples of the feature's typical maximum, or of
                the layer's mean norm where no typical maximum is known.
            mode: What to do with the features; see `workbench.recipes.rows.Row`.
            when: Where the edits act: ``"both"``, ``"prompt"`` or ``"generated"``.
            low: Left end of the sliders; -4 maxima or -1 norm if left out.
            high: Right end of the sliders; 4 maxima or 1 norm if left out.
            max_new_tokens: Length of the texts.
            temperature: See `workbench.engine.tracing.generate`.
            top_p: See there.
            seed: See there; the same for all texts.
            baselines: Which to write beside: ``"random"``, ``"feature"``, ``"prompt"``.
            baseline_prompt: The instruction that ``"prompt"`` puts before the text.
            recipe: A `Recipe` or its file, instead of prompt, features and settings.
            synchronous: Write in the calling thread, for front ends that show no updates from
                others; on Colab only, if None.

        Raises:
            ValueError: If a feature does not exist, or the recipe does not fit this lab.
        """
        self.lab = lab
        self._sets: dict[str, Row] = {}
        self._live: LiveRows | None = None
        self._searches = 0
        settings = Settings(
            max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
        )
        chat = not isinstance(prompt, str)
        check_finite("strength", strength)
        more: dict[str, Any] = {"when": when}
        if strength or mode == "steer":
            more["value"] = float(strength)
        rows: list[Row] = []
        for feature in features:
            taken = [row.id for row in rows]
            site, index = feature_at(feature, kind)
            rows.append(new_row(lab, taken, site, index, mode, **more))
        check_baselines(baselines)
        self.widget = SteeringPanel(
            title="Steering",
            subtitle=lab.engine.name,
            prompt="" if chat else prompt,
            turns=[dict(turn) for turn in check_turns(prompt)] if chat else [],
            chats=getattr(lab.tokenizer, "chat_template", None) is not None,
            rows=[shown_row(lab, row, low=low, high=high) for row in rows],
            sites=[{"layer": site.layer, "kind": site.kind} for site in lab.suite.sites],
            settings=asdict(settings),
            baselines=[{**one, "on": one["id"] in baselines} for one in BASELINES],
            baseline_prompt=baseline_prompt,
        )
        self._writer = TextWriter(lab, self.widget)
        self._takes = Takes()
        self._twin = LastTexts(self.widget, self._plain_html)
        self.job = LatestJob(self._failed, synchronous=synchronous)
        self.errands = Errands(self._errand_failed, synchronous=synchronous)
        for name in MESSAGES:
            self.widget.on(name, getattr(self, f"_on_{name}"))
        if recipe is not None:
            self.open(recipe)
        self._changed(starts=False)

    # ------------------------------------------------------------------------- for the user

    def __repr__(self) -> str:
        turns = len(self.widget.turns)
        start = f"a chat of {turns} turns" if turns else repr(self.widget.prompt)
        rows = "; ".join(row_words(row) for row in self.widget.rows) or "no edit"
        return f"<Steering of {self.lab.engine.name}: {start}, {rows}>"

    def _ipython_display_(self) -> None:
        self._twin.display()

    def start(self) -> None:
        """Write all texts with the present prompt, rows and settings; returns at once."""
        self.widget.error = ""
        self._update_code()
        self.job.submit(self._write)

    def stop(self) -> None:
        """Stop writing within one token."""
        self.job.stop()

    def record(self, values: Sequence[float], *, row: int = 0) -> Steering:
        """Write a text at each value of a slider, one after the other, and remember all of them.

        lab.steering("Once upon a time", [(5, 231)]).record([0, 1, 2, 4]).save("sea.steering")

        Args:
            values: What to set the slider to.
            row: Number of the row whose slider it is.

        Returns:
            The panel.

        Raises:
            ValueError: If there is no such row, it has no slider, or a text cannot be written.
        """
        count = len(self.widget.rows)
        if not 0 <= row < count or not self.widget.rows[row]["slider"]:
            raise ValueError(
                f"row {row} has no slider to move: there are {count} rows, counted from 0"
            )
        for value in values:
            check_finite("value", value)
            shown = self.widget.rows[row]
            low, high = min(shown["low"], value), max(shown["high"], value)
            self.widget.update_row(shown["id"], value=float(value), low=low, high=high)
            self.start()
            try:
                self.job.join()
            except KeyboardInterrupt:
                self.stop()
                raise
            if self.widget.status["state"] != "done":
                raise ValueError(f"no text was written at {value}: {self.widget.error}")
        return self

    def replay(self) -> SteeringReplay:
        """The texts that were written here, as a panel of its own that needs no model.

        Raises:
            ValueError: If none was written.
        """
        return SteeringReplay(self._record)

    def save(self, path: str | Path) -> Path:
        """Write all texts that were written here to a file, which `wb.open_steering` opens.

        Each is kept with its rows, settings, measures and receipt; the newest of each setting, 200
        at most. No model is needed to read them. For the settings alone see `recipe`.

        Returns:
            The path.

        Raises:
            ValueError: If none was written.
        """
        return self._record.save(path)

    def _still(self) -> SteeringPanel:
        """With the recorded texts, if there are some: in a saved page sliders lead to them."""
        return self.replay().widget if self._takes.all else self.widget

    @property
    def _record(self) -> SteeringRecord:
        return SteeringRecord(self.lab.engine.name, tuple(self._takes.all))

    def _plain_html(self) -> str:
        return self.widget.static_html() + takes_twin(browsable(self._takes.all))

    @property
    def text(self) -> str:
        """The steered text so far, prompt left out."""
        return "".join(token["text"] for token in self.widget.texts.get("steered", ()))

    @property
    def recipe(self) -> Recipe:
        """What the panel shows, to save, to share and to open again."""
        return Recipe.of(
            self.lab, self._text, self._reading.rows, self._settings, freeze=self.widget.freeze
        )

    def open(self, recipe: Recipe | str | Path) -> None:
        """Show a recipe: its prompt, rows and settings.

        Raises:
            ValueError: If something of it does not exist in this lab; nothing is changed then.
        """
        recipe = recipe if isinstance(recipe, Recipe) else open_recipe(recipe)
        obstacles = recipe.obstacles(self.lab)
        if obstacles:
            raise ValueError("this recipe does not fit: " + "; ".join(obstacles))
        rows = [shown_row(self.lab, row) for row in recipe.rows]
        problems = recipe.problems(self.lab)
        self.lab.prepare(recipe.edits(self.lab))
        self._sets = {row.id: row for row in recipe.rows if row.mode == "splice"}
        with self.widget.hold_sync():
            self.widget.prompt, self.widget.turns = recipe.prompt, list(map(dict, recipe.turns))
            self.widget.rows = rows
            self.widget.settings = asdict(recipe.settings)
            self.widget.freeze = recipe.freeze
            self.widget.warnings = problems
        self._changed(starts=False)

    # ------------------------------------------------------------------------ from the page

    def _on_run(self) -> None:
        self.start()

    def _on_stop(self) -> None:
        self.stop()

    def _on_set(self, id: str, key: str, value: Any) -> None:
        row = next((row for row in self._reading.rows if row.id == id), None)
        if key == "mode" and row is not None:
            self.widget.update_row(id, **with_mode(self.lab, row), warning="")
        if key == "value" and row is not None and self._set_live(row):
            self._update_code()
            return
        self._changed(starts=key == "value" or self._has_text)

    def add(self, feature: tuple[int, int], kind: Kind = "res") -> None:
        """Add a row for a feature ``(layer, index)``, as the page does; its slider stands at 0."""
        self._add(*feature_at(feature, kind), "steer")

    def _on_add(self, layer: int, kind: str, index: int) -> None:
        self._add(Site(layer, check_kind(kind)), index, "steer")

    def _on_add_splice(self, layer: int, kind: str) -> None:
        self._add(Site(layer, check_kind(kind)), -1, "splice")

    def _add(self, site: Site, index: int, mode: Mode) -> None:
        def errand() -> None:
            row = new_row(self.lab, [r["id"] for r in self.widget.rows], site, index, mode)
            self.widget.rows = [*self.widget.rows, shown_row(self.lab, row)]
            self._changed(starts=self._has_text and not row.neutral)

        self.errands.submit(errand)

    def _on_remove(self, id: str) -> None:
        self._check_row(id)
        gone = [row for row in self._reading.rows if row.id == id]
        self.widget.rows = [row for row in self.widget.rows if row["id"] != id]
        self._sets.pop(id, None)
        acted = any(not row.neutral and not row.muted for row in gone)
        self._changed(starts=self._has_text and acted)

    def _on_move(self, id: str, to: int) -> None:
        self._check_row(id)
        rows = list(self.widget.rows)
        row = next(row for row in rows if row["id"] == id)
        rows.remove(row)
        rows.insert(max(0, min(int(to), len(rows))), row)
        self.widget.rows = rows
        self._changed(starts=False)

    def _on_settings(self, key: str, value: Any) -> None:
        self._changed(starts=self._has_text)

    def _on_baseline(self, id: str, on: bool) -> None:  # noqa: FBT001 (the message's own field)
        self._changed(starts=self._has_text)

    def _on_freeze(self, value: str) -> None:
        self._changed(starts=self._has_text)

    def _on_search(self, how: str, query: str, other: str) -> None:
        self._searches += 1
        number = self._searches
        self.widget.found = {"state": "running", "how": how, "rows": [], "error": ""}

        def errand() -> None:
            if number != self._searches:  # a newer one waits
                return
            rows, error = [], ""
            try:
                rows = search(self.lab, how, query, other)
            except Exception as caught:
                error = str(caught)
            if number == self._searches:
                self.widget.found = {"state": "done", "how": how, "rows": rows, "error": error}

        self.errands.submit(errand)

    def _on_export(self, what: str) -> None:
        recipe = self.recipe if what == "recipe" else None

        def errand() -> None:
            text = recipe.to_json() if recipe else self.recipe.script(self.lab)
            self.widget.exported(what, text)

        self.errands.submit(errand)

    def _on_open_recipe(self, text: str) -> None:
        self.errands.submit(lambda: self.open(Recipe.from_json(text)))

    def _changed(self, *, starts: bool) -> None:
        """Take note of a change: other code, other warnings, and another text if one is wanted."""
        self._mark(self._reading.unfinished)
        self._update_code()
        if starts or self._running:
            self.start()

    # ------------------------------------------------------------------------- what is set

    def _check_row(self, id: str) -> None:
        ids = [row["id"] for row in self.widget.rows]
        if id not in ids:
            raise ValueError(f"there is no row {id!r}; there are {', '.join(ids) or 'none'}")

    @property
    def _reading(self) -> Reading:
        return read_rows(self.widget.rows, self._sets)

    @property
    def _text(self) -> Prompt:
        return [dict(turn) for turn in check_turns(self.widget.turns)] or self.widget.prompt

    @property
    def _settings(self) -> Settings:
        return Settings(**self.widget.settings)

    @property
    def _running(self) -> bool:
        return self.widget.status.get("state") == "running"

    @property
    def _has_text(self) -> bool:
        return bool(self.widget.texts) or self._running

    def _set_live(self, row: Row) -> bool:
        """Let a slider act on the text that is being written; False if a new text is needed."""
        if not self._running or self.widget.live != "next" or self._live is None:
            return False
        return self._live.set(row, self.lab)

    def _update_code(self) -> None:
        try:
            recipe = Recipe(
                model=self.lab.engine.name,
                rows=self._reading.rows,
                settings=self._settings,
                freeze=self.widget.freeze,
                prompt="" if self.widget.turns else self.widget.prompt,
                turns=tuple(self.widget.turns),
            )
        except ValueError:
            self.widget.code = ""  # Run says what is wrong
            return
        self.widget.code = recipe.code(self.lab)

    def _mark(self, warnings: Mapping[str, str]) -> None:
        """Show a warning at each row that has one; the page is told only of what is new."""
        for row in self.widget.rows:
            if row["warning"] != (text := warnings.get(row["id"], "")):
                self.widget.update_row(row["id"], warning=text)

    # ---------------------------------------------------------------------------- a run

    def _write(self, stop: threading.Event) -> None:
        widget = self.widget
        rows, code = copy.deepcopy(widget.rows), widget.code
        # What is wrong is said here, before the old texts are gone.
        draft = Draft.of(
            self.lab,
            self._text,
            rows,
            self._sets,
            self._settings,
            freeze=widget.freeze,
            baselines=[each["id"] for each in widget.baselines if each["on"]],
            instruction=widget.baseline_prompt,
        )
        self._live = draft.live
        warned = self._writer.write(draft, stop, lambda: self.job.waiting)
        self._mark(warned)
        if widget.status["state"] == "done" and not draft.live.warnings:
            written = [{**row, "warning": warned.get(row["id"], "")} for row in rows]
            self._takes.note(widget, written, code)
        self._twin.update()

    def _failed(self, error: BaseException) -> None:
        """Show what a text's job raised; an interrupt of the kernel is a Stop."""
        interrupted = isinstance(error, KeyboardInterrupt)
        message = "" if interrupted else f"{type(error).__name__}: {error}"
        if self._running:
            state = "stopped" if interrupted else "error"
            self.widget.finish(self.widget.run, state=state, error=message)
        else:
            self.widget.error = message

    def _errand_failed(self, error: BaseException) -> None:
        self.widget.error = str(error) or type(error).__name__
