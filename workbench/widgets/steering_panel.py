"""Steering panel: sliders over features, and the steered text beside the unsteered twin.

The panel shows and asks; it computes nothing. A worker that generates does:

1. `run = panel.start(total=64)` empties both columns and gives the run its number;
2. `panel.stream(run, "steered", [token, ...])` and `... "plain" ...` as tokens come, from any
   thread; False means that a newer run has begun;
3. `panel.finish(run, receipt=[...])` once, also after a stop (`state="stopped"`) or an error.

The page calls back through `on_run`, `on_stop`, `on_change`, `on_mute`. Handlers may be called in
any thread and must only enqueue; an exception in one is shown in the panel.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import traitlets

from workbench.widgets.base import Handler, Widget, checked_records, source, style, table
from workbench.widgets.token_stream import TokenStream, json_token

_NEEDED = ("layer", "kind", "index", "label", "low", "high", "step", "value")
_OPTIONAL = ("safe", "unit", "mode", "muted", "neutral")
_ENDS = ("done", "stopped", "error")


class SteeringPanel(Widget):
    """Creates a panel with one slider a feature and two columns of text.

    Example:
        >>> row = {"layer": 5, "kind": "res", "index": 231, "label": "capital cities", "low": -8,
        ...        "high": 8, "step": 0.5, "value": 0, "safe": [-4, 4], "unit": "x max"}
        >>> SteeringPanel(prompt="Once upon a time", rows=[row])
        SteeringPanel(1 features, idle)
    """

    _esm = source("shared.js", "text_column.js", "steering_panel.js")
    _css = style("shared.css", "steering_panel.css")

    prompt = traitlets.Unicode("").tag(sync=True)
    """Text of the prompt box; comes back on Enter or Run."""

    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    """One slider each: `layer`, `kind`, `index`, `label`, `low`, `high`, `step`, `value`; optional
    `safe` ([lo, hi], drawn as a band), `unit` (str), `mode` ("steer", "clamp", "scale" ...),
    `muted` (bool), `neutral` (where nothing is changed: the mark and the reset; without it 1 for
    "scale", else 0)."""

    live = traitlets.Enum(["restart", "next"], "restart").tag(sync=True)
    """What moving a slider does to a running text: start again, or act from the next token."""

    run = traitlets.Int(0).tag(sync=True)
    """Number of the newest run; messages of older ones are ignored."""

    run_prompt = traitlets.Unicode("").tag(sync=True)
    """Prompt of the newest run, shown muted before both texts."""

    status = traitlets.Dict(default_value={"state": "idle"}).tag(sync=True)
    """`state` ("idle", "running", "done", "stopped", "error"), `done` and `total` (tokens), `rate`
    (tokens a second)."""

    steered = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Final tokens of the steered text: `text`, `shift`, `p`, `p_before`, `top`. Set at the end."""

    plain = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Final tokens of the unsteered twin, alike."""

    shift_unit = traitlets.Unicode("KL divergence from unsteered, nats").tag(sync=True)
    """What a token's `shift` measures."""

    receipt = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """What the edits did, a line each."""

    def __init__(self, **traits: Any) -> None:
        self._handlers: dict[str, list[Handler]] = {"run": [], "stop": [], "set": [], "mute": []}
        self._started = 0.0
        super().__init__(**traits)
        self._stream = TokenStream(self.send)
        self.on_msg(self._receive)

    # --------------------------------------------------------------------- from the worker

    def start(self, *, total: int, prompt: str | None = None) -> int:
        """Begin a run: empty both texts and show it as running.

        Args:
            total: Tokens that the run will make at most.
            prompt: Prompt of the run; the box's if None.

        Returns:
            The run's number, for `stream` and `finish`.
        """
        with self._stream.lock:
            run = self._stream.start()
            self._started = time.monotonic()
            with self.hold_sync():
                self.run = run
                self.run_prompt = self.prompt if prompt is None else prompt
                self.steered, self.plain, self.receipt = [], [], []
                self.status = {"state": "running", "done": 0, "total": total}
            self.send({"type": "reset", "run": run})
            return run

    def stream(self, run: int, column: str, tokens: Iterable[Mapping[str, Any]]) -> bool:
        """Show further tokens of a run. Thread-safe; coalesced to at most 25 messages a second.

        Args:
            run: Number that `start` gave.
            column: "steered" or "plain".
            tokens: Each with `text`; `shift` (how far the edit moved the distribution, in
                `shift_unit`), `p` (the token's probability here), `p_before` (without the edits,
                after the same text) and `top` (most probable (text, p) pairs) are optional.

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
        rate: float | None = None,
        error: str = "",
        steered: Iterable[Mapping[str, Any]] | None = None,
        plain: Iterable[Mapping[str, Any]] | None = None,
    ) -> bool:
        """End a run: the rest of its tokens, then both texts, status and receipt as traits.

        Args:
            run: Number that `start` gave.
            state: "done", "stopped" or "error".
            receipt: Lines for the receipt box.
            rate: Tokens a second; measured from `start` if None.
            error: Text for the error box.
            steered: The steered tokens where more is known of them than when they were streamed,
                such as a `shift` that a second pass measured; the streamed ones if None.
            plain: The unsteered tokens, alike.

        Returns:
            False if the run is stale; then nothing is changed.
        """
        if state not in _ENDS:
            raise ValueError(f"state is {state!r}; allowed: {', '.join(_ENDS)}.")
        with self._stream.lock:
            texts = self._stream.finish(run)
            if texts is None:
                return False
            if steered is not None:
                texts["steered"] = [json_token(token) for token in steered]
            if plain is not None:
                texts["plain"] = [json_token(token) for token in plain]
            done = len(texts["steered"])
            seconds = max(time.monotonic() - self._started, 1e-9)
            total = self.status.get("total", done)
            speed = done / seconds if rate is None else rate
            with self.hold_sync():
                self.steered, self.plain = texts["steered"], texts["plain"]
                self.status = {"state": state, "done": done, "total": total, "rate": speed}
                self.receipt = list(receipt)
                self.error = error
            return True

    def set_value(self, row: int, value: float) -> None:
        """Move a slider from Python; `on_change` is not called."""
        rows = [dict(each) for each in self.rows]
        rows[row]["value"] = value
        self.rows = rows

    # ----------------------------------------------------------------------- from the page

    def on_run(self, handler: Handler) -> Handler:
        """Call `handler(prompt)` when Run or Enter is pressed. Usable as a decorator."""
        self._handlers["run"].append(handler)
        return handler

    def on_stop(self, handler: Handler) -> Handler:
        """Call `handler()` when Stop is pressed. Usable as a decorator."""
        self._handlers["stop"].append(handler)
        return handler

    def on_change(self, handler: Handler) -> Handler:
        """Call `handler(row, value)` when a slider has moved. Usable as a decorator."""
        self._handlers["set"].append(handler)
        return handler

    def on_mute(self, handler: Handler) -> Handler:
        """Call `handler(row, muted)` when a feature is muted or not. Usable as a decorator."""
        self._handlers["mute"].append(handler)
        return handler

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        kind = content.get("type", "")
        name = "on_change" if kind == "set" else f"on_{kind}"
        self.call_handlers(name, [lambda: self._dispatch(name, kind, content)])

    def _dispatch(self, name: str, kind: str, content: dict[str, Any]) -> None:
        arguments: tuple[object, ...] = ()
        if kind == "run":
            self.prompt = str(content["prompt"])
            arguments = (self.prompt,)
        elif kind == "set":
            arguments = self._noted(content["row"], "value", float(content["value"]))
        elif kind == "mute":
            arguments = self._noted(content["row"], "muted", bool(content["muted"]))
        elif kind != "stop":
            raise ValueError(f"message type is {kind!r}; allowed: {', '.join(self._handlers)}.")
        self.call_handlers(name, self._handlers[kind], *arguments)

    def _noted(self, row: int, key: str, value: float) -> tuple[int, float]:
        """Keep a control's new state without sending it back, which would fight with the drag."""
        if not 0 <= row < len(self.rows) or not math.isfinite(value):
            raise ValueError(f"row {row} cannot be {value!r}; there are {len(self.rows)} rows.")
        self.rows[row][key] = value
        return row, value

    @traitlets.validate("rows")
    def _check_rows(self, proposal: Any) -> list[dict[str, Any]]:
        rows = checked_records("row", proposal["value"], _NEEDED, _OPTIONAL)
        for number, row in enumerate(rows):
            if not row["low"] < row["high"] or row["step"] <= 0:
                raise ValueError(
                    f"row {number}: low {row['low']} must be below high {row['high']}, and step "
                    f"{row['step']} positive."
                )
        return rows

    # -------------------------------------------------------------------- without a kernel

    def summary(self) -> str:
        """Number of features and state."""
        return f"{len(self.rows)} features, {self.status['state']}"

    def static_html(self) -> str:
        """Settings, both texts and the receipt."""
        heads = ["layer", "feature", "label", "strength", "unit"]
        body = [
            [
                f"{row['layer']} {row['kind']}",
                row["index"],
                row["label"],
                "muted" if row.get("muted") else f"{row['value']:g}",
                row.get("unit", ""),
            ]
            for row in self.rows
        ]
        parts = [self.static_heading(), table(heads, body)]
        prompt = html.escape(self.run_prompt or self.prompt)
        for name, tokens in (("steered", self.steered), ("unsteered", self.plain)):
            text = html.escape("".join(token["text"] for token in tokens))
            parts.append(f"<p><b>{name}</b></p><blockquote><i>{prompt}</i>{text}</blockquote>")
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self.receipt)
        return "".join([*parts, f"<ul>{lines}</ul>" if lines else ""])
