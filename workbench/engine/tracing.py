"""The engine: run a model once, backwards too, or let it write, with edits at any site.

Each call is one nnsight trace. `_intercept` stops the model at each wanted site of each forward
pass and hands the activation to a function, which may return a changed one. `trace` and `gradients`
drive a single pass; `generate` drives the decoding loop of `workbench.engine.writing`. What happens
to an activation is the business of `workbench.engine.surgeon`.

The model itself is never changed: edits exist for the length of a trace.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from nnsight.intervention.interleaver import OutOfOrderError
from nnsight.intervention.tracer import InterleavingTracer
from torch import Tensor

from workbench.engine.binding import FeatureSource, bind, check_program
from workbench.engine.edits import Edit
from workbench.engine.live import Edits, EditTable, LiveEdits
from workbench.engine.program import Program
from workbench.engine.receipts import Receipt, Recorder
from workbench.engine.surgeon import Batch, Surgeon
from workbench.engine.writing import Generation, Step, Writer, check_sampling, padding_of, sample
from workbench.models import Busy, Model
from workbench.sites import Site
from workbench.tokens import Tokens

__all__ = [
    "Batch",
    "Generation",
    "Gradients",
    "LiveEdits",
    "Step",
    "Trace",
    "generate",
    "gradients",
    "pullbacks",
    "sample",
    "trace",
]

T = TypeVar("T")
Score = Callable[[Tensor, Mapping[Site, Tensor]], Tensor]
"""From logits ``(batch, pos, vocabulary)`` and activations ``(batch, pos, d_in)`` to one number."""


@dataclass(frozen=True)
class Trace:
    """What one forward pass left behind, on the CPU."""

    activations: dict[Site, Tensor]
    """``(batch, pos, d_in)`` at each site asked for, after the edits there; zero at padding."""
    logits: Tensor
    """``(batch, pos, vocabulary)``, soft-capped as the model does; zero at padding."""
    receipts: tuple[Receipt, ...]
    """What the edits did, a receipt for each prompt."""


def trace(
    model: Model,
    prompts: Sequence[Tokens],
    sites: Sequence[Site] = (),
    *,
    edits: Sequence[Edit] = (),
    each: Sequence[Sequence[Edit]] | None = None,
    source: FeatureSource | None = None,
    busy: Busy = "wait",
) -> Trace:
    """One forward pass over `prompts`, reading `sites` under `edits`.

    Args:
        model: The model.
        prompts: One or more prompts, batched.
        sites: What to read, in any order.
        edits: What to change.
        each: Instead of `edits`, a list of edits for each prompt: its own.
        source: SAEs and calibration for the edits.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a site or a feature does not exist.
    """
    # No inference mode here: its tensors could not be used to train a probe on.
    with model.turn.take(busy=busy), torch.no_grad():
        table = _Table(model, prompts, EditTable.of(len(prompts), edits, each), source)
        return _one_pass(model, table.surgeon(), sites).finished()


@dataclass(frozen=True)
class Gradients(Trace):
    """What one pass forward and back left behind, on the CPU."""

    gradients: dict[Site, Tensor]
    """``(batch, pos, d_in)`` at each site asked for but a transcoder's input; zero at padding."""
    score: float
    """The number whose gradients they are."""


def gradients(
    model: Model,
    prompts: Sequence[Tokens],
    sites: Sequence[Site],
    score: Score,
    *,
    edits: Sequence[Edit] = (),
    each: Sequence[Sequence[Edit]] | None = None,
    source: FeatureSource | None = None,
    busy: Busy = "wait",
) -> Gradients:
    """One pass forward and one back: how a number changes with the activations at `sites`.

    The model is taken as it runs, with `edits`: the gradient flows through what they do, and at a
    site that they change it is that of the changed activation. A transcoder's input is read and has
    no gradient, since nothing can be written there: ask at `Site.writes_at` too.

    Args:
        model: The model.
        prompts: One or more prompts, batched on the left as in `trace`.
        sites: Where to read, and to take the gradient.
        score: What is differentiated. For several prompts a sum over them, of which each then has
            the gradient that it has alone.
        edits: What to change.
        each: Instead of `edits`, a list of edits for each prompt: its own.
        source: SAEs and calibration for the edits.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a site or a feature does not exist, or the score is no single number or does
            not depend on the model.
    """
    with model.turn.take(busy=busy), torch.inference_mode(mode=False), torch.enable_grad():
        table = _Table(model, prompts, EditTable.of(len(prompts), edits, each), source)
        found = _one_pass(model, table.surgeon(), sites, leaves=(leaves := {}))
        value = score(found.logits, found.activations)
        if value.numel() != 1 or not value.requires_grad:
            raise ValueError(
                "score must make one number of the logits or the activations, and keep its "
                f"gradient; got {value!r}"
            )
        # Zero where nothing leads to the score, as after the position or above the layer it reads.
        slopes = torch.autograd.grad(
            value, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        done = found.finished()
        kept = {site: found.cut(x) for site, x in zip(leaves, slopes, strict=True)}
        return Gradients(done.activations, done.logits, done.receipts, kept, float(value.detach()))


def pullbacks(
    model: Model,
    prompt: Tokens,
    cuts: Sequence[Site],
    covectors: Mapping[Site, Sequence[tuple[int, Tensor]]],
    consume: Callable[[Site, int, Tensor], None],
    *,
    edits: Sequence[Edit] = (),
    source: FeatureSource | None = None,
    busy: Busy = "wait",
) -> None:
    """How numbers at each of `cuts` change with the activation at the cut before.

    The graph is cut at every one of them, so a number costs a backward pass through the layers
    between two cuts and no more, and one forward pass serves all. Nothing is kept.

    Args:
        model: The model.
        prompt: The prompt.
        cuts: Where the graph is cut. A gradient ends at a cut; at one that is not the whole stream
            it goes around it as well.
        covectors: For cuts other than the first: of each number a token and the gradient there
            ``(d,)``.
        consume: Gets the cut, the place of the number in its list, and its gradient at the cut
            before ``(pos, d)``, on the model's device.
        edits: What to change.
        source: SAEs and calibration for the edits.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a site or a feature does not exist, or a covector is at no cut or the first.
    """
    before = {after: cut for cut, after in pairwise(sorted(set(cuts)))}
    lost = sorted(set(covectors) - set(before))
    if lost:
        there = ", ".join(map(str, before)) or "none"
        raise ValueError(f"nothing is cut off before {lost[0]}; there are cuts before {there}")
    with model.turn.take(busy=busy), torch.inference_mode(mode=False), torch.enable_grad():
        table = _Table(model, [prompt], EditTable.of(1, edits, None), source)
        leaves: dict[Site, Tensor] = {}
        found = _one_pass(model, table.surgeon(), cuts, leaves=leaves, cut=True)
        for site, numbers in covectors.items():
            above, below = found.activations[site], leaves[before[site]]
            for place, (token, gradient) in enumerate(numbers):
                number = above[0, token] @ gradient.to(above)
                [pulled] = torch.autograd.grad(number, below, retain_graph=True)
                consume(site, place, pulled[0])


@dataclass(frozen=True, eq=False)
class _Pass:
    """A forward pass as it was, on the model's device."""

    surgeon: Surgeon
    activations: dict[Site, Tensor]
    logits: Tensor

    def finished(self) -> Trace:
        """The same as a value."""
        activations = {site: self.cut(x) for site, x in sorted(self.activations.items())}
        return Trace(activations, self.cut(self.logits), self.surgeon.recorder.receipts())

    def cut(self, x: Tensor) -> Tensor:
        """``(batch, pos, ...)`` on the CPU, without unedited twins, and zero at padding."""
        batch = self.surgeon.batch
        x = x.detach()[: len(batch)]
        # Without padding nothing is copied: the logits of a long text are as large as a layer.
        if batch.attention_mask is not None:
            x = x.masked_fill((batch.positions[: len(batch)] < 0)[..., None], 0)
        return x.cpu()


def _one_pass(
    model: Model,
    surgeon: Surgeon,
    sites: Sequence[Site],
    *,
    leaves: dict[Site, Tensor] | None = None,
    cut: bool = False,
) -> _Pass:
    """Run the model once, reading `sites` after the edits there.

    `leaves` is filled with a zero for each site that is added to its activation: the gradient of
    those is that of the activations, also where the model's weights have none. With `cut` the model
    goes on from the leaf alone, and what was read keeps the graph below.
    """
    wanted = {site.check(model.config) for site in sites}
    batch, kept = surgeon.batch, {}

    def visit(site: Site, x: Tensor) -> Tensor | None:
        changed = surgeon.visit(site, x)
        if site not in wanted:
            return changed
        kept[site] = x if changed is None else changed
        if leaves is None or site.writes_at != site:
            return changed
        if cut:
            leaves[site] = kept[site].detach().requires_grad_()
            return leaves[site]
        leaves[site] = torch.zeros_like(kept[site], requires_grad=True)
        kept[site] = kept[site] + leaves[site]
        return kept[site]

    def drive() -> Tensor:
        surgeon.start_pass(batch.positions)
        return model.module(
            input_ids=batch.ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.positions.clamp(min=0),
            use_cache=False,
        ).logits

    logits = _intercept(model, sorted(wanted.union(surgeon.program.sites)), visit, drive)
    return _Pass(surgeon, kept, logits)


def read(
    model: Model,
    ids: Tensor,
    sites: Sequence[Site],
    consume: Callable[[Site, Tensor], None],
    *,
    busy: Busy = "wait",
) -> None:
    """One forward pass over full rows, handing on each activation as the model reaches it.

    For long jobs over much text: nothing is kept, and logits are computed of the last position
    alone, because those of a batch may be larger than all activations together.

    Args:
        model: The model.
        ids: ``(row, pos)`` token ids; rows of the same length.
        sites: What to read, in any order.
        consume: Gets each site with its activation ``(row, pos, d_in)``, on the model's device, in
            execution order.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a site does not exist.
    """
    wanted = sorted({site.check(model.config) for site in sites})

    def drive() -> None:
        model.module(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=1)

    with model.turn.take(busy=busy), torch.no_grad():
        _intercept(model, wanted, lambda site, x: consume(site, x.detach()), drive)


def generate(
    model: Model,
    prompts: Sequence[Tokens],
    *,
    edits: Edits = (),
    each: Sequence[Edits] | None = None,
    source: FeatureSource | None = None,
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    stream: Callable[[Step], None] | None = None,
    stop: threading.Event | None = None,
    use_cache: bool = True,
    busy: Busy = "wait",
) -> list[Generation]:
    """Let the model continue each of `prompts`.

    Args:
        model: The model.
        prompts: One or more prompts. Each has its own random stream, so a prompt's text does not
            depend on its company.
        edits: What to change, fixed or live. A fixed edit that never acts is warned of.
        each: Instead of `edits`, a list of edits for each prompt: its own, fixed or live.
        source: SAEs and calibration for the edits.
        max_new_tokens: Most tokens to write; fewer if the context ends first.
        min_new_tokens: No end-of-sequence token before these.
        temperature: 0 for the most likely token always.
        top_p: Draw from the smallest set of tokens that holds this probability (Holtzman et al.
            2020, arXiv 1904.09751).
        seed: Fixes the random streams.
        stream: Called after each token, in this thread.
        stop: Set it from another thread and the generation ends within one token.
        use_cache: False to run over the whole text at every step, which is slow and gives the same.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a number is out of range, a feature does not exist, or an edit makes the
            model overflow.
    """
    check_sampling(max_new_tokens, min_new_tokens, temperature, top_p, seed)
    stop = stop or threading.Event()
    with model.turn.take(busy=busy, stop=stop), torch.inference_mode():
        table = _Table(model, prompts, EditTable.of(len(prompts), edits, each), source)
        surgeon = table.surgeon()
        writer = Writer(
            model,
            prompts,
            surgeon,
            most=max_new_tokens,
            least=min_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )

        def drive() -> None:
            writer.write(stream, stop, table.rebind, use_cache=use_cache)

        _intercept(model, surgeon.program.sites, surgeon.visit, drive)
        return writer.generations()


class _Table:
    """The edits of a batch, bound to a model and a source; again whenever a live one changes."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Tokens],
        table: EditTable,
        source: FeatureSource | None,
    ) -> None:
        self._model, self._table, self._source = model, table, source
        twins = table.frozen_rows
        self._batch = Batch.of(prompts, padding_of(model), model.device, twins)
        # A twin has no edits.
        self._rows = (*table.rows, *(() for _ in twins))
        self._bound = table.snapshot

    def surgeon(self) -> Surgeon:
        """What applies the edits, with a record to begin."""
        # A live edit may rest at 0 for a whole text: its receipt says so, and that is enough.
        recorder = Recorder(self._table.rows, self._batch.lengths, warns=self._table.fixed)
        return Surgeon(self._program(), self._batch, recorder)

    def rebind(self) -> Program | None:
        """The program of the present edits, or None if they are those of the last one."""
        latest = self._table.snapshot
        if all(new is old for new, old in zip(latest, self._bound, strict=True)):
            return None
        self._bound = latest
        return self._program()

    def _program(self) -> Program:
        edits = self._table.edits(self._bound)
        rows, device = self._rows, self._model.device
        program = bind(edits, self._source, rows=rows, device=device)
        return check_program(program, self._model.config)


def _intercept(
    model: Model,
    sites: Sequence[Site],
    visit: Callable[[Site, Tensor], Tensor | None],
    drive: Callable[[], T],
) -> T:
    """Run `drive`, which calls the model any number of times, stopping at `sites` in every call.

    `visit` gets the activation ``(batch, pos, d_in)`` and returns a replacement or None.
    """
    if not sites:
        return drive()
    results: list[T] = []

    def run(*_: object, **__: object) -> T:
        results.append(drive())
        return results[0]

    # nnsight wants an input to batch; `drive` brings its own.
    with model.nnsight.trace(torch.tensor([[0]]), fn=run) as tracer:
        _serve(model, tracer, sites, visit, results)
    return results[0]


def _serve(
    model: Model,
    tracer: InterleavingTracer,
    sites: Sequence[Site],
    visit: Callable[[Site, Tensor], Tensor | None],
    results: list,
) -> None:
    """Stop at `sites` in every pass, until `results` holds what the run returned."""
    # Found once: to look a module up by its path takes as long as to stop there.
    places = [site.find(model.nnsight) for site in sites]
    try:
        for _ in tracer.iter[:]:
            for place in places:
                changed = visit(place.site, place.read())
                if changed is not None:
                    place.write(changed)
    except OutOfOrderError:
        # An open loop ends by asking for a pass that never comes. Before the end of the run the
        # same error would mean that a site was asked for in the wrong order.
        if not results:
            raise
