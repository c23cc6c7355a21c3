"""The engine: run a model once, or let it write, with edits at any site.

Both calls are one nnsight trace. `_intercept` stops the model at each wanted site of each forward pass and hands the
activation to a function, which may return a changed one. `trace` drives a single pass; `generate` drives its own
decoding loop (prefill, then one token a pass), so that sampling, streaming, stopping and edits share one clock.

The model itself is never changed: edits exist for the length of a trace.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from nnsight.intervention.interleaver import OutOfOrderError
from nnsight.intervention.tracer import InterleavingTracer
from torch import Tensor
from transformers import DynamicCache

from workbench.binding import FeatureSource, Program, bind, patch_difference
from workbench.edits import Edit, Scope
from workbench.models import Busy, Model
from workbench.receipts import Receipt, Recorder
from workbench.sites import Site
from workbench.tokens import Tokens, tokens_of

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Prompts side by side, padded on the left."""

    ids: Tensor
    """``(batch, pos)`` token ids."""
    positions: Tensor
    """``(batch, pos)`` position in the own prompt; negative for padding."""
    lengths: Tensor
    """``(batch, 1)`` tokens of each prompt."""

    @classmethod
    def of(cls, prompts: Sequence[Tokens], pad: int, device: torch.device) -> Batch:
        """Pad `prompts` to the longest."""
        width = max(len(prompt) for prompt in prompts)
        rows = [[pad] * (width - len(prompt)) + list(prompt.ids) for prompt in prompts]
        lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
        positions = torch.arange(width, device=device) - (width - lengths)
        return cls(torch.tensor(rows, device=device), positions, lengths)

    @property
    def attention_mask(self) -> Tensor | None:
        """``(batch, pos)``, or None where nothing is padded."""
        return None if bool((self.positions >= 0).all()) else (self.positions >= 0).long()


@dataclass(frozen=True)
class Trace:
    """What one forward pass left behind, on the CPU."""

    activations: dict[Site, Tensor]
    """``(batch, pos, d_in)`` at each site asked for, after the edits at that site; rows of padding are zero."""
    logits: Tensor
    """``(batch, pos, vocabulary)``, soft-capped as the model does."""
    receipts: tuple[Receipt, ...]
    """What the edits did, a receipt for each prompt."""


@dataclass(frozen=True)
class Generation:
    """A text that a model wrote."""

    prompt: Tokens
    """What it was given."""
    text: str
    """What it wrote, special tokens left out."""
    ids: tuple[int, ...]
    """Prompt and new tokens."""
    tokens: Tokens
    """The new tokens with their strings."""
    logprobs: tuple[float, ...]
    """Log-probability of each new token, in nats, as the (edited) model gave it at temperature 1."""
    finish: str
    """``"end"`` for an end-of-sequence token, ``"length"``, ``"context"`` or ``"stopped"``."""
    receipt: Receipt
    """What the edits did."""

    def __str__(self) -> str:
        return "".join(
            s for s, special in zip(self.prompt.strings, self.prompt.special, strict=True) if not special
        ) + self.text


@dataclass(frozen=True)
class Step:
    """One step of a generation, as a `stream` function gets it."""

    index: int
    """0 for the first new token."""
    ids: tuple[int, ...]
    """The new token of each prompt."""
    strings: tuple[str, ...]
    """What to show for them."""
    logits: Tensor
    """``(batch, vocabulary)`` that they were drawn from."""


class LiveEdits:
    """Edits that another thread may change while a model writes; a change holds from the next token on."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = tuple(edits)

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits at present."""
        return self._edits

    def replace(self, index: int, edit: Edit) -> None:
        """Put `edit` in place `index`.

        Raises:
            IndexError: If there is no such place.
            ValueError: If it acts at another site, which a running trace cannot begin to visit.
        """
        old = self._edits[index]
        if edit.site != old.site:
            raise ValueError(f"edit {index} acts at {old.site} and cannot move to {edit.site} while running")
        # One assignment, so that a reader sees the old list or the new one.
        self._edits = (*self._edits[:index], edit, *self._edits[index + 1 :])


def trace(
    model: Model,
    prompts: Sequence[Tokens],
    sites: Sequence[Site] = (),
    *,
    edits: Sequence[Edit] = (),
    source: FeatureSource | None = None,
    busy: Busy = "wait",
) -> Trace:
    """One forward pass over `prompts`, reading `sites` under `edits`.

    Args:
        model: The model.
        prompts: One or more prompts, batched.
        sites: What to read, in any order.
        edits: What to change.
        source: SAEs and calibration for the edits.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a site or a feature does not exist.
    """
    wanted = {site.check(model.config) for site in sites}
    with model.turn.take(busy=busy), torch.inference_mode():
        program = _checked(bind(edits, source), model)
        batch = Batch.of(prompts, _pad(model), model.device)
        surgeon = _Surgeon(program, batch)
        kept: dict[Site, Tensor] = {}

        def visit(site: Site, x: Tensor) -> Tensor | None:
            changed = surgeon.visit(site, x)
            if site in wanted:
                kept[site] = x if changed is None else changed
            return changed

        def drive() -> Tensor:
            surgeon.start_pass(batch.positions)
            return model.module(
                input_ids=batch.ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.positions.clamp(min=0),
                use_cache=False,
            ).logits

        logits = _intercept(model, sorted(wanted.union(program.sites)), visit, drive)
        padding = (batch.positions < 0)[..., None]
        activations = {s: kept[s].masked_fill(padding, 0).cpu() for s in sorted(wanted)}
        return Trace(activations, logits.cpu(), surgeon.recorder.receipts())


def generate(
    model: Model,
    prompts: Sequence[Tokens],
    *,
    edits: Sequence[Edit] | LiveEdits = (),
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
        prompts: One or more prompts. Each has its own random stream, so a prompt's text does not depend on its company.
        edits: What to change, fixed or live.
        source: SAEs and calibration for the edits.
        max_new_tokens: Most tokens to write; fewer if the context ends first.
        min_new_tokens: No end-of-sequence token before these.
        temperature: 0 for the most likely token always.
        top_p: Draw from the smallest set of tokens that holds this probability (Holtzman et al. 2020,
            arXiv 1904.09751).
        seed: Fixes the random streams.
        stream: Called after each token.
        stop: Set it from another thread and the generation ends within one token.
        use_cache: False to run over the whole text at every step, which is slow and gives the same.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If a number is out of range, or a feature does not exist.
    """
    _check_sampling(max_new_tokens, min_new_tokens, temperature, top_p, seed)
    live = edits if isinstance(edits, LiveEdits) else LiveEdits(edits)
    stop = stop or threading.Event()
    with model.turn.take(busy=busy, stop=stop), torch.inference_mode():
        program = _checked(bind(live.edits, source), model)
        surgeon = _Surgeon(program, Batch.of(prompts, _pad(model), model.device))
        writer = _Writer(model, prompts, surgeon, temperature, top_p, seed)
        limit = min(max_new_tokens, model.context - max(len(p) for p in prompts))

        def drive() -> str:
            return writer.write(limit, min_new_tokens, stream, stop, live, source, use_cache=use_cache)

        finish = _intercept(model, program.sites, surgeon.visit, drive)
        if finish == "length" and limit < max_new_tokens:
            finish = "context"
        return writer.generations(finish)


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
    try:
        for _ in tracer.iter[:]:
            for site in sites:
                x = site.read(model.nnsight)
                changed = visit(site, x)
                if changed is not None:
                    site.write(model.nnsight, changed)
    except OutOfOrderError:
        # An open loop ends by asking for a pass that never comes. Before the end of the run the same error
        # would mean that a site was asked for in the wrong order.
        if not results:
            raise


class _Surgeon:
    """Applies a program to the activations of one run and keeps the record."""

    def __init__(self, program: Program, batch: Batch) -> None:
        self.program = program
        self.batch = batch
        self.recorder = Recorder(len(program.edits), len(batch.ids))
        self._watched: dict[tuple[Site, int], Tensor] = {}
        self._pending: dict[Site, Tensor] = {}
        self._masks: dict[Scope, Tensor] = {}
        self._positions = batch.positions

    def start_pass(self, positions: Tensor) -> None:
        """Prepare for a forward pass over tokens at `positions` ``(batch, pos)``."""
        self._positions = positions
        self._watched.clear()
        self._pending.clear()
        self._masks = {s: s.mask(positions, self.batch.lengths) for s in set(self.program.scopes)}
        self.recorder.start_pass(positions, self.batch.lengths)

    def visit(self, site: Site, x: Tensor) -> Tensor | None:
        """What `x` ``(batch, pos, d_in)`` becomes, or None if nothing touches it."""
        for index, sae in self.program.watches.get(site, ()):
            self._watched[site, index] = sae.encode_features(x, [index])[..., 0]
        if site in self.program.groups:
            self._difference(site, x)
        total = self._pending.pop(site, None)
        for number, patch, sae in self.program.patches.get(site, ()):
            difference = patch_difference(patch, sae, x, self._positions)
            difference = difference * self._masks[patch.scope][..., None]
            self.recorder.add(number, difference.norm(dim=-1), x)
            total = difference if total is None else total + difference
        if total is None:
            return None
        return (x + total).to(x.dtype) if x.dtype == torch.float32 else (x.float() + total).to(x.dtype)

    def _difference(self, site: Site, x: Tensor) -> None:
        """Put the difference that the group at `site` makes where it will be written."""
        group = self.program.groups[site]
        masks = [self._masks[self.program.scopes[term.number]] for term in group.terms]
        for i, term in enumerate(group.terms):
            if term.condition is not None:
                watch, above = term.condition
                masks[i] = masks[i] & (self._watched[watch] > above)
        coefficients = group.coefficients(x).float() * torch.stack(masks, -1)
        rows = group.rows.float()
        norms = coefficients.abs() * rows.norm(dim=-1)
        for i, term in enumerate(group.terms):
            self.recorder.add(term.number, norms[..., i], x)
        target = site.writes_at
        difference = coefficients @ rows
        self._pending[target] = self._pending[target] + difference if target in self._pending else difference


class _Writer:
    """The decoding loop of one generation."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Tokens],
        surgeon: _Surgeon,
        temperature: float,
        top_p: float,
        seed: int,
    ) -> None:
        self.model, self.prompts, self.surgeon = model, prompts, surgeon
        self.temperature, self.top_p = temperature, top_p
        self.random = [torch.Generator().manual_seed(seed) for _ in prompts]
        self.ids: list[list[int]] = [[] for _ in prompts]
        self.logprobs: list[list[float]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)

    def write(
        self,
        limit: int,
        least: int,
        stream: Callable[[Step], None] | None,
        stop: threading.Event,
        live: LiveEdits,
        source: FeatureSource | None,
        *,
        use_cache: bool,
    ) -> str:
        """Write up to `limit` tokens; returns why it ended."""
        batch, config = self.surgeon.batch, self.model.module.config
        cache = DynamicCache(config=config) if use_cache else None  # pyright: ignore[reportArgumentType]
        ids, positions, mask = batch.ids, batch.positions, batch.attention_mask
        bound = live.edits
        for index in range(limit):
            if stop.is_set():
                return "stopped"
            if live.edits is not bound:
                bound = live.edits
                self.surgeon.program = _checked(bind(bound, source), self.model)
            self.surgeon.start_pass(positions)
            out = self.model.module(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions.clamp(min=0),
                past_key_values=cache,
                use_cache=use_cache,
                logits_to_keep=1,
            )
            logits = out.logits[:, -1].float()
            new = self._choose(logits, index < least)
            if stream is not None:
                stream(self._step(index, new, logits))
            if all(self.ended):
                return "end"
            last = positions[:, -1:] + 1
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            column = new[:, None].to(ids.device)
            ids = column if use_cache else torch.cat([ids, column], 1)
            positions = last if use_cache else torch.cat([positions, last], 1)
        return "length"

    def _choose(self, logits: Tensor, must_go_on: bool) -> Tensor:  # noqa: FBT001 (private)
        """The next token of each prompt ``(batch,)``, on the CPU."""
        if must_go_on:
            logits = logits.clone()
            logits[:, list(self.model.end_tokens)] = float("-inf")
        chosen = sample(logits, self.temperature, self.top_p, self.random)
        scores = torch.log_softmax(logits, -1).gather(1, chosen[:, None].to(logits.device))[:, 0].tolist()
        pad = _pad(self.model)
        for row, token in enumerate(chosen.tolist()):
            if self.ended[row]:
                chosen[row] = pad
                continue
            self.ids[row].append(token)
            self.logprobs[row].append(scores[row])
            self.ended[row] = token in self.model.end_tokens
        return chosen

    def _step(self, index: int, new: Tensor, logits: Tensor) -> Step:
        ids = tuple(new.tolist())
        return Step(index, ids, tokens_of(self.model.tokenizer, ids).strings, logits)

    def generations(self, finish: str) -> list[Generation]:
        """The finished texts."""
        receipts = self.surgeon.recorder.receipts()
        tokenizer = self.model.tokenizer
        return [
            Generation(
                prompt=prompt,
                text=tokenizer.decode(ids, skip_special_tokens=True),
                ids=(*prompt.ids, *ids),
                tokens=tokens_of(tokenizer, ids),
                logprobs=tuple(logprobs),
                finish="end" if ended else finish,
                receipt=receipt,
            )
            for prompt, ids, logprobs, ended, receipt in zip(
                self.prompts, self.ids, self.logprobs, self.ended, receipts, strict=True
            )
        ]


def sample(
    logits: Tensor, temperature: float, top_p: float, random: Sequence[torch.Generator]
) -> Tensor:
    """Draw a token for each row ``(batch,)`` from `logits` ``(batch, vocabulary)``, each with its own generator."""
    if temperature == 0:
        return logits.argmax(-1).cpu()
    probabilities = torch.softmax(logits / temperature, -1).cpu()
    if top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        # A token stays if those before it do not reach `top_p`, so that at least one does.
        dropped = ordered.cumsum(-1) - ordered >= top_p
        probabilities = torch.zeros_like(probabilities).scatter(1, order, ordered.masked_fill(dropped, 0))
    rows = zip(probabilities, random, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def _check_sampling(most: int, least: int, temperature: float, top_p: float, seed: int) -> None:
    if most < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {most}")
    if not 0 <= least <= most:
        raise ValueError(f"min_new_tokens must be 0 to max_new_tokens ({most}), got {least}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 (greedy) or more, got {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, got {seed!r}")


def _checked(program: Program, model: Model) -> Program:
    for site in program.sites:
        site.check(model.config)
    return program


def _pad(model: Model) -> int:
    pad = model.tokenizer.pad_token_id
    return pad if pad is not None else model.end_tokens[0]
