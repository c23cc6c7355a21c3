"""Steering panel: rows of edits, and the steered text beside the unsteered twin and baselines.

The panel shows and asks; it computes nothing. A worker that generates does:

1. `run = panel.start(total=64)` empties the texts and gives the run its number;
2. `panel.stream(run, "steered", [token, ...])`, and other columns' ids, as tokens come, from any
   thread; False means that a newer run has begun;
3. `panel.finish(run, receipt=[...])` once, also after a stop (`state="stopped"`) or an error.

The page asks by messages; `panel.on(name, handler)` names who answers. What the page changed in a
row, a setting, a baseline or the freeze is in the trait before the handler is called. Handlers may
be called in any thread and must only enqueue; an exception in one is shown in the panel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import traitlets

from workbench.widgets import steering_traits as check
from workbench.widgets.asking import AskingWidget
from workbench.widgets.base import source, style
from workbench.widgets.steering_inbox import FIELDS, Inbox
from workbench.widgets.steering_twin import takes_twin, twin
from workbench.widgets.token_stream import TokenStream

_ENDS = ("done", "stopped", "error")
TAKE = (
    *("prompt", "turns", "rows", "settings", "freeze", "baselines", "baseline_prompt", "columns"),
    *("texts", "meters", "run_prompt", "prompt_tokens", "receipt", "warnings", "status", "code"),
)
"""Traits that a recorded text has of its own."""
_PAIR = [
    {"id": "steered", "title": "Steered", "note": ""},
    {"id": "plain", "title": "Unsteered", "note": ""},
]


class SteeringPanel(AskingWidget):
    """Creates a panel with one row an edit and one column a text.

    The page asks for run(), stop(), set(id, key, value), add(layer, kind, index),
    add_splice(layer, kind), remove(id), move(id, to), settings(key, value), baseline(id, on),
    freeze(value), search(how, query, other), export(what) and open_recipe(text).

    Example:
        >>> row = {"id": "a", "layer": 5, "kind": "res", "index": 231, "label": "capital cities",
        ...        "low": -8, "high": 8, "step": 0.5, "value": 0, "safe": [-4, 4], "unit": "× max"}
        >>> SteeringPanel(prompt="Once upon a time", rows=[row])
        SteeringPanel(1 edits, idle)
    """

    _esm = source(
        "shared.js",
        "steering_controls.js",
        "steering_slider.js",
        "steering_conditions.js",
        "steering_row.js",
        "steering_list.js",
        "steering_search.js",
        "steering_prompt.js",
        "text_column.js",
        "token_strip.js",
        "steering_texts.js",
        "steering_export.js",
        "steering_replay.js",
        "steering_panel.js",
    )
    _css = style("shared.css", "steering_rows.css", "steering_panel.css")
    _messages = FIELDS
    # The page keeps a slider's newest value in its own copy of `rows`: Jupyter would send it along
    # with the next trait and so undo what Python changed meanwhile.
    _from_page = ("prompt", "turns", "baseline_prompt", "live", "error", "take")

    prompt = traitlets.Unicode("").tag(sync=True)
    """Text of the prompt box."""

    turns = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Chat turns, ``role`` ("user", "assistant") and ``content``; [] = plain text, `prompt`
    counts."""

    chats = traitlets.Bool(default_value=False).tag(sync=True)
    """Whether the model has a chat template: the page then offers Text | Chat."""

    prompt_tokens = traitlets.List(traitlets.Dict()).tag(sync=True)
    """The newest run's prompt as the model read it: ``text``, ``special``."""

    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    """One edit each. Needed: `id` (str), ``layer``, ``kind``. Optional: `index` (None: the whole
    SAE), ``label``, ``mode``, ``modes`` (those offered), ``slider`` (whether a strength is set),
    ``value``, ``low``, ``high``, ``step``, ``unit``, ``neutral`` (where nothing is changed),
    ``safe`` ([lo, hi], drawn as a band), ``recorded`` (values at which there are texts), ``to``
    ("zero", "mean"; ablate), ``error`` (splice: with the error term), ``other`` (text that patch
    takes from), ``when`` and ``where`` ("0-3, 7"), ``above`` (condition: ``layer``, ``kind``,
    ``index``, ``value``), ``formula``, ``muted``, ``solo``, ``warning``."""

    sites = traitlets.List(traitlets.Dict()).tag(sync=True)
    """``layer`` and ``kind`` of every SAE, to choose a site to splice; [] = none is offered."""

    settings = traitlets.Dict(default_value=check.DEFAULTS).tag(sync=True)
    """The sampler: ``max_new_tokens``, ``temperature`` (0 is greedy), ``top_p``, ``seed``; what is
    left out has its default."""

    freeze = traitlets.Enum(check.FREEZE, "").tag(sync=True)
    """What is held at its unedited value: nothing, attention's outputs, or the MLPs' too."""

    live = traitlets.Enum(["restart", "next"], "restart").tag(sync=True)
    """What moving a slider does to a running text: start again, or act from the next token."""

    baselines = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Texts to compare with: `id`, `title`, `on`, ``hint``."""

    baseline_prompt = traitlets.Unicode("").tag(sync=True)
    """The instruction that the baseline "prompt" puts before the text."""

    columns = traitlets.List(traitlets.Dict(), default_value=_PAIR).tag(sync=True)
    """The texts shown, in order: `id`, `title`, ``note``; the first two are the pair."""

    texts = traitlets.Dict().tag(sync=True)
    """Column id -> final tokens: ``text``, ``p``, ``p_before``, ``top``, ``shift``
    (Kullback-Leibler divergence from unsteered, nats), ``entropy`` (nats). Set at the end of a
    run."""

    meters = traitlets.Dict().tag(sync=True)
    """Column id -> ``verdict`` ("fluent", "strained", "broken"), ``repetition`` (share), ``loss``
    and ``excess`` (nats a token, under the unsteered model)."""

    run = traitlets.Int(0).tag(sync=True)
    """Number of the newest run; messages of older ones are ignored."""

    run_prompt = traitlets.Unicode("").tag(sync=True)
    """Prompt of the newest run, shown muted before the texts; empty for a chat."""

    status = traitlets.Dict(default_value={"state": "idle"}).tag(sync=True)
    """``state`` ("idle", "running", "done", "stopped", "error"), ``done`` and ``total`` (tokens),
    ``rate`` (tokens a second)."""

    receipt = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """What the edits did, a line each."""

    warnings = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """What the reader must know about the texts, a line each."""

    script = traitlets.Unicode("").tag(sync=True)
    """The standalone script, once the page has asked for it."""

    recipe = traitlets.Unicode("").tag(sync=True)
    """The recipe as JSON, once the page has asked for it."""

    found = traitlets.Dict(default_value={"state": "idle"}).tag(sync=True)
    """The newest search: ``state`` ("idle", "running", "done"), ``how``, ``rows`` (``layer``,
    ``kind``, ``index``, ``label``, ``score``, ``note``), ``error``."""

    takes = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Recorded texts, to be browsed without a model: dictionaries of the traits named in `TAKE`,
    and ``group`` (int); within one a slider leads from one to the other."""

    take = traitlets.Int(0).tag(sync=True)
    """Which of them is shown."""

    recorded = traitlets.Bool(default_value=False).tag(sync=True)
    """Whether nobody writes texts: what would need a model is then disabled."""

    def __init__(self, **traits: Any) -> None:
        self._started = 0.0
        self._inbox = Inbox(self)
        super().__init__(**traits)
        self._stream = TokenStream(self.send)

    # --------------------------------------------------------------------- from the worker

    def start(
        self,
        *,
        total: int,
        prompt: str | None = None,
        columns: Sequence[Mapping[str, str]] | None = None,
        prompt_tokens: Sequence[Mapping[str, Any]] = (),
    ) -> int:
        """Begin a run: empty the texts and show it as running.

        Args:
            total: Tokens that the run will make at most.
            prompt: What the texts begin with; if None, the box's text, or nothing for a chat.
            columns: The texts that the run will write; the present ones if None.
            prompt_tokens: The prompt as the model reads it.

        Returns:
            The run's number, for `stream` and `finish`.
        """
        with self._stream.lock:
            with self.hold_sync():
                if columns is not None:
                    self.columns = list(columns)
                run = self._stream.start([column["id"] for column in self.columns])
                self._started = time.monotonic()
                self.run = run
                shown = "" if self.turns else self.prompt
                self.run_prompt = shown if prompt is None else prompt
                self.prompt_tokens = list(prompt_tokens)
                self.texts, self.meters, self.receipt, self.warnings = {}, {}, [], []
                self.status = {"state": "running", "done": 0, "total": total}
            self.send({"type": "reset", "run": run})
            return run

    def stream(self, run: int, column: str, tokens: Iterable[Mapping[str, Any]]) -> bool:
        """Show further tokens of a run. Thread-safe; coalesced to at most 25 messages a second.

        Args:
            run: Number that `start` gave.
            column: Id of one of the run's columns.
            tokens: Each with ``text``; ``shift`` (nats by which the edits moved the distribution),
                ``entropy`` (nats), ``p`` (the token's probability here), ``p_before`` (without the
                edits, after the same text) and ``top`` (most probable (text, p) pairs) are
                optional.

        Returns:
            False if the run is stale, so that its worker can stop.
        """
        return self._stream.add(run, column, tokens)

    def finish(
        self,
        run: int,
        *,
        state: str = "done",
        receipt: Sequence[str] = (),
        warnings: Sequence[str] = (),
        rate: float | None = None,
        error: str = "",
        texts: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
        meters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> bool:
        """End a run: the rest of its tokens, then texts, meters, status and receipt as traits.

        Args:
            run: Number that `start` gave.
            state: "done", "stopped" or "error".
            receipt: What the edits did.
            warnings: What the reader must know, such as an edit that did not act.
            rate: Tokens a second; measured from `start` if None.
            error: Text for the error box.
            texts: Tokens of the columns of which more is known than when they were streamed, such
                as a ``shift`` that a second pass measured; for the others the streamed ones.
            meters: See the trait.

        Returns:
            False if the run is stale; then nothing is changed.
        """
        check.allowed("state", state, _ENDS)
        with self._stream.lock:
            final = self._stream.finish(run, texts or {})
            if final is None:
                return False
            done = len(final.get("steered", ()))
            seconds = max(time.monotonic() - self._started, 1e-9)
            with self.hold_sync():
                self.texts = final
                self.meters = {name: dict(meter) for name, meter in (meters or {}).items()}
                self.status = {
                    "state": state,
                    "done": done,
                    "total": self.status.get("total", done),
                    "rate": done / seconds if rate is None else rate,
                }
                self.receipt, self.warnings = list(receipt), list(warnings)
                self.error = error
            return True

    def update_row(self, row: str, **changes: Any) -> dict[str, Any]:
        """Change a row from Python, with no message to the handlers; thread-safe.

        Args:
            row: Its id.
            **changes: New values by key.

        Returns:
            The row as it is now.
        """
        with self.lock:
            at = self._inbox.row_at(row)
            rows = [dict(each) for each in self.rows]
            rows[at].update(changes)
            self.rows = rows
            return self.rows[at]

    # ----------------------------------------------------------------------- from the page

    def exported(self, what: str, text: str) -> None:
        """Answer ``export``: keep the text in its trait, and tell the page to copy or save it.

        Args:
            what: "script" or "recipe".
            text: The whole file.
        """
        check.allowed("what", what, check.EXPORTS)
        self.set_trait(what, text)
        self.send({"type": "exported", "what": what})

    def _answer(self, name: str, content: Mapping[str, Any]) -> None:
        self._known(name)
        # No lock here: a synchronous handler writes a whole text.
        self._inbox.receive(name, content, self._call)

    @traitlets.validate("rows", "turns", "settings", "baselines", "columns", "prompt_tokens")
    def _check(self, proposal: Any) -> Any:
        return CHECKS[proposal["trait"].name](proposal["value"])

    # -------------------------------------------------------------------- without a kernel

    def summary(self) -> str:
        """Number of edits and state."""
        return f"{len(self.rows)} edits, {self.status['state']}"

    def static_html(self) -> str:
        """Prompt, rows, settings, all texts with their meters, and the receipt; recorded texts."""
        return twin(self) + takes_twin(self.takes)


CHECKS: dict[str, Callable[[Any], Any]] = {
    "rows": check.checked_rows,
    "turns": check.checked_turns,
    "settings": check.checked_settings,
    "baselines": check.records("baseline", ("id", "title"), {"on": False, "hint": ""}, unique="id"),
    "columns": check.records("column", ("id", "title"), {"note": ""}, unique="id"),
    "prompt_tokens": check.records("prompt token", ("text",), {"special": False}),
}
