"""Training SAEs in the background, with the curves drawn meanwhile.

One job trains; what the page sees is sent at most ten times a second and holds a bounded number of
points, however long the run. A step and the reading of what is trained so far exclude each other,
so that an SAE is never taken in the middle of a step.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, cast

import pandas as pd

from workbench.analysis.side_by_side import side_by_side
from workbench.figures import training_curves
from workbench.index.corpus import Texts, read_texts
from workbench.panels.base import Panel
from workbench.panels.jobs import LatestJob
from workbench.sae import SAE
from workbench.sites import Kind, Site, check_kind
from workbench.training import ActivationStream, Measured, Together, TrainConfig
from workbench.widgets import TrainingCurves, float32_bytes

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.lab import Lab

State = Literal["reading", "running", "stopping", "stopped", "finished", "failed"]

PAUSE = 0.1
"""Seconds between two updates of the page, at least."""
POINTS = 240
"""Of a curve on the page; the table keeps all."""


class Training(Panel[TrainingCurves]):
    """SAEs that are trained side by side; displays as their curves."""

    def __init__(
        self,
        lab: Lab,
        texts: Texts,
        configs: Mapping[str, TrainConfig],
        *,
        layer: int,
        kind: Kind = "res",
        context: int = 128,
        pool: int = 32_768,
        reuse: int = 1,
        seed: int = 0,
        synchronous: bool = False,
    ) -> None:
        """Begin to train.

        Args:
            lab: The model.
            texts: What to train on: a path, or an iterable of texts, `Path`s or rows with
                ``"text"``.
            configs: What to train, by the name that each SAE is to have.
            layer: Layer of the site.
            kind: Kind of site.
            context: Tokens of a row that the model reads.
            pool: Tokens whose activations are kept and shuffled.
            reuse: How often each activation is used: reading costs more than a step on a small
                model.
            seed: Of the shuffling; that of the weights is in each configuration.
            synchronous: Train in the thread that calls `wait`, for front ends that show no updates
                from others: show the panel in one cell and wait in the next; interrupt the kernel
                to stop.

        Raises:
            TypeError: If a configuration is none.
            ValueError: If there is none, they do not fit together, or there is no such site.
        """
        self.lab = lab
        self.site = Site(layer, check_kind(kind))
        stream = ActivationStream(
            lab.engine, texts, self.site, context=context, pool=pool, reuse=reuse, seed=seed
        )
        self._together = Together(stream, configs)
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._page = threading.Lock()
        self._shown = 0.0
        self._began = monotonic()
        self._asked = self._ended = False
        self.widget = TrainingCurves(
            title=f"Training {_count(len(configs))} at {self.site}",
            subtitle=f"{lab.engine.name} · batches of {self._together.batch_size:,} tokens",
            names=list(configs),
            targets=[config.target_l0 for config in configs.values()],
            dead_tokens=max(config.dead_tokens for config in configs.values()),
            total=self._together.steps * self._together.batch_size,
            code=_code(
                lab.engine.name,
                configs,
                self.site,
                context=context,
                pool=pool,
                reuse=reuse,
                seed=seed,
            ),
        )
        self.widget.on("stop", self.stop)
        self.job = LatestJob(self._failed, synchronous=synchronous)
        self._begun = not synchronous
        if synchronous:
            self.widget.status = "begins with .wait()"
        else:
            self.job.submit(self._train)

    # ------------------------------------------------------------------------ for the user

    def __repr__(self) -> str:
        together = self._together
        done = f"step {together.step_count:,} of {together.steps:,}"
        return f"<Training of {', '.join(together.trainers)} at {self.site}: {self.state}, {done}>"

    @property
    def state(self) -> State:
        """What goes on; only in the first three is anything to come."""
        return cast("State", self.widget.state)

    def wait(self, timeout: float | None = None) -> dict[str, SAE]:
        """Wait for the end, and take the SAEs; where training is synchronous, train.

        Interrupting the kernel stops the training; what was trained so far is returned then.

        Args:
            timeout: Seconds to wait at most for the background.

        Raises:
            TimeoutError: If the time is up first; training goes on.
            RuntimeError: If training failed.
        """
        if not self._begun:
            self._begun = True
            self.job.submit(self._train)
        end = None if timeout is None else monotonic() + timeout
        try:
            while not self.job.join(0.1):  # in short pieces, so that an interrupt comes through
                if end is not None and monotonic() > end:
                    raise TimeoutError(f"not done after {timeout:g} s: {self.widget.status}")
        except KeyboardInterrupt:
            self.stop()
            self.job.join()
        if self._failure is not None:
            raise RuntimeError(f"training failed: {self._failure}") from self._failure
        return self.saes

    def stop(self) -> None:
        """Ask for an end after the step at hand; what was trained stays."""
        with self._page:
            self._asked = True
            if not self._ended:
                self.widget.state = "stopping"
        self.job.stop()

    @property
    def saes(self) -> dict[str, SAE]:
        """The SAEs by name, as far as they are trained, for `Lab.use` and `SAE.save`.

        Raises:
            ValueError: If nothing was trained yet.
        """
        with self._lock:
            if not self._together.step_count:
                raise ValueError(
                    "nothing was trained: it ended before the first step; train again"
                    if self._ended
                    else "nothing is trained yet: training.wait() waits for the end"
                )
            return self._together.saes(model=self.lab.engine.name)

    @property
    def history(self) -> pd.DataFrame:
        """What was measured on the way.

        Returns:
            Columns ``name, step, tokens, loss, fvu, l0, dead, lr, sparsity``; see
            `workbench.training.Measured`.
        """
        with self._lock:
            return self._together.frame()

    def figure(self) -> go.Figure:
        """The curves as a Plotly figure."""
        configs = {n: t.config.target_l0 for n, t in self._together.trainers.items()}
        return training_curves(self.history, targets=configs, title=self.widget.title)

    def evaluate(self, texts: Texts, *, others: Mapping[str, SAE] | None = None) -> pd.DataFrame:
        """The SAEs side by side on texts that they were not trained on.

        Args:
            texts: Some thousand tokens at least; each text is cut to the model's context.
            others: More SAEs of the same site to set beside them, by names of their own.

        Returns:
            See `workbench.analysis.side_by_side`.

        Raises:
            ValueError: If nothing was trained yet, or one of `others` has the name of a trained
                one.
        """
        saes = self.saes
        twice = [name for name in others or {} if name in saes]
        if twice:
            raise ValueError(
                f"others has {', '.join(map(repr, twice))}, which is the name of an SAE that was "
                f"trained here ({', '.join(map(repr, saes))}): give it another name"
            )
        saes |= others or {}
        room = self.lab.engine.context - 1
        ids = self.lab.tokenizer(
            [text.text for text in read_texts(texts)], add_special_tokens=False, verbose=False
        )["input_ids"]
        return side_by_side(self.lab.engine, saes, [self.lab.tokens(one[:room]) for one in ids])

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write every SAE in SAELens' format, each in a folder of its name below `folder`.

        Returns:
            The folders; `Lab.sae` opens each of them again.
        """
        return {name: sae.save(Path(folder) / name) for name, sae in self.saes.items()}

    # ---------------------------------------------------------------------------- the work

    def _train(self, stop: threading.Event) -> None:
        together = self._together

        def reading() -> None:
            if stop.is_set():
                raise _Stopped
            self._show("reading" if not together.step_count else "running")

        self._show("reading", now=True)
        try:
            while not together.finished and not stop.is_set() and not self._asked:
                # Reading waits for others who use the model, so it is outside the lock.
                together.stream.prepare(together.batch_size, during=reading)
                if not together.step_count:
                    self._began = monotonic()
                with self._lock:
                    together.step()
                self._show("running")
        except (_Stopped, KeyboardInterrupt):
            pass
        self._show("finished" if together.finished else "stopped", now=True)

    def _show(self, state: State, *, now: bool = False) -> None:
        """Let the page know, unless it was told a moment ago."""
        moment = monotonic()
        if not now and moment - self._shown < PAUSE:
            return
        self._shown = moment
        widget, together = self.widget, self._together
        rows = float32_bytes(points(together.history, list(together.trainers)))
        with self._page, widget.hold_sync():
            self._ended = state in ("finished", "stopped", "failed")
            widget.points = rows
            widget.done = together.step_count / together.steps
            widget.state = "stopping" if self._asked and not self._ended else state
            widget.status = self._status(state, moment - self._began)

    def _status(self, state: State, seconds: float) -> str:
        together = self._together
        if state == "reading":
            return f"reading activations: {together.stream.tokens_read:,} tokens"
        parts = [f"step {together.step_count:,} of {together.steps:,}"]
        if together.step_count:
            parts.append(f"{together.tokens / max(seconds, 1e-9):,.0f} tokens/s")
        if state == "running" and together.step_count:
            left = seconds * (together.steps / together.step_count - 1)
            parts.append(f"{left:,.0f} s left")
        elif state != "running":
            parts = [state, *parts, f"{seconds:,.0f} s"]
        if together.stream.passes > 1:
            parts.append(f"the texts are short: begun {together.stream.passes} times")
        return " · ".join(parts)

    def _failed(self, error: BaseException) -> None:
        self._failure = error
        self._show("failed", now=True)
        self.widget.error = f"{type(error).__name__}: {error}"


class _Stopped(Exception):  # noqa: N818 (no error: the reader wants it)
    """Ends the filling of the pool."""


def points(history: list[Measured], names: list[str]) -> list[list[float]]:
    """Rows for the page: of each SAE at most `POINTS`, evenly, the last included."""
    rows = []
    for number, name in enumerate(names):
        own = [one for one in history if one.name == name]
        every = -(-len(own) // POINTS) or 1
        for one in own[(len(own) - 1) % every :: every]:
            rows.append([number, one.tokens, one.fvu, one.l0, one.dead])
    return rows


def _count(number: int) -> str:
    return "an SAE" if number == 1 else f"{number} SAEs"


def _code(model: str, configs: Mapping[str, TrainConfig], site: Site, **options: int) -> str:
    """The lines that train the same; ``texts`` is the reader's to name."""
    lines = [f"lab = wb.open({model!r})", "configs = {"]
    for name, config in configs.items():
        plain = TrainConfig(activation=config.activation)
        chosen: dict[str, Any] = {"activation": config.activation}
        chosen |= {k: v for k, v in vars(config).items() if v != getattr(plain, k)}
        lines.append(f"    {name!r}: wb.TrainConfig({_words(chosen)}),")
    usual = inspect.signature(Training).parameters
    kind = {} if site.kind == "res" else {"kind": site.kind}
    chosen = {k: v for k, v in options.items() if v != usual[k].default}
    words = _words({"layer": site.layer, **kind, **chosen})
    return "\n".join([*lines, "}", f"training = lab.train_saes(texts, configs, {words})"])


def _words(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
