"""The engine: run a model once, or let it write, with edits at any site.

Both calls are one nnsight trace. `_intercept` stops the model at each wanted site of each forward
pass and hands the activation to a function, which may return a changed one. `trace` drives a single
pass; `generate` drives its own decoding loop (prefill, then one token a pass), so that sampling,
streaming, stopping and edits share one clock.

The model itself is never changed: edits exist for the length of a trace.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeVar

import torch
from nnsight.intervention.interleaver import OutOfOrderError
from nnsight.intervention.tracer import InterleavingTracer
from torch import Tensor
from transformers import DynamicCache

from workbench.binding import FeatureSource, Group, Program, bind
from workbench.edits import Edit, Scope, When, check_edit, edit_list
from workbench.models import Busy, Model
from workbench.receipts import Receipt, Recorder
from workbench.sites import Site
from workbench.tokens import Tokens, strings_of, tokens_of

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
        """Pad `prompts` to the longest.

        Raises:
            TypeError: If one is not `Tokens`.
            ValueError: If there are none.
        """
        if not prompts:
            raise ValueError("there are no prompts: give at least one")
        for prompt in prompts:
            if not isinstance(prompt, Tokens):
                raise TypeError(
                    f"prompts are Tokens, made by workbench.tokens.tokenize; got {prompt!r}"
                )
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
    """``(batch, pos, d_in)`` at each site asked for, after the edits there; zero at padding."""
    logits: Tensor
    """``(batch, pos, vocabulary)``, soft-capped as the model does; zero at padding."""
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
    """Log-probability of each new token, in nats, as the edited model gave it at temperature 1."""
    finish: str
    """``"end"``: an end-of-sequence token; ``"length"``: `max_new_tokens`; ``"context"``: no room
    for another position; ``"stopped"``: asked to."""
    receipt: Receipt
    """What the edits did."""

    def __str__(self) -> str:
        return self.prompt.text + self.text


@dataclass(frozen=True)
class Step:
    """One step of a generation, as a `stream` function gets it."""

    index: int
    """0 for the first new token."""
    ids: tuple[int, ...]
    """The new token of each prompt; padding for one that has ended."""
    strings: tuple[str, ...]
    """What to show for them."""
    logits: Tensor
    """``(batch, vocabulary)`` of the model, before temperature and `top_p`."""


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
            if not new <= old:
                raise ValueError(
                    f"edit {index} needs {', '.join(map(str, sorted(old)))} and cannot move to "
                    f"{', '.join(map(str, sorted(new - old)))} while running"
                )
            edits[index] = edit
            self._edits = tuple(edits)


def _sites_of(edit: Edit) -> set[Site]:
    return {edit.site, edit.condition_site} if isinstance(edit, When) else {edit.site}


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
    # No inference mode here: its tensors could not be used to train a probe on.
    with model.turn.take(busy=busy), torch.no_grad():
        program = bind(edits, source, device=model.device).check(model.config)
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
        receipts = surgeon.recorder.receipts()

    def finished(x: Tensor) -> Tensor:
        # Without padding nothing is copied: the logits of a long text are as large as a layer.
        if batch.attention_mask is not None:
            x = x.masked_fill((batch.positions < 0)[..., None], 0)
        return x.cpu()

    activations = {site: finished(kept[site]) for site in sorted(wanted)}
    return Trace(activations, finished(logits), receipts)


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
        prompts: One or more prompts. Each has its own random stream, so a prompt's text does not
            depend on its company.
        edits: What to change, fixed or live. A fixed edit that never acts is warned of.
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
    _check_sampling(max_new_tokens, min_new_tokens, temperature, top_p, seed)
    live = edits if isinstance(edits, LiveEdits) else LiveEdits(edits)
    stop = stop or threading.Event()
    with model.turn.take(busy=busy, stop=stop), torch.inference_mode():
        bound = live.edits
        program = bind(bound, source, device=model.device).check(model.config)
        batch = Batch.of(prompts, _pad(model), model.device)
        # A live edit may rest at 0 for a whole text: its receipt says so, and that is enough.
        surgeon = _Surgeon(program, batch, warns=live is not edits)
        writer = _Writer(
            model,
            prompts,
            surgeon,
            most=max_new_tokens,
            least=min_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )

        def rebind() -> Program | None:
            nonlocal bound
            latest = live.edits
            if latest is bound:
                return None
            bound = latest
            return bind(bound, source, device=model.device).check(model.config)

        def drive() -> None:
            writer.write(stream, stop, rebind, use_cache=use_cache)

        _intercept(model, program.sites, surgeon.visit, drive)
        return writer.generations()


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
        # An open loop ends by asking for a pass that never comes. Before the end of the run the
        # same error would mean that a site was asked for in the wrong order.
        if not results:
            raise


class _Surgeon:
    """Applies a program to the activations of one run and keeps the record."""

    def __init__(self, program: Program, batch: Batch, *, warns: bool = True) -> None:
        self.program = program
        self.batch = batch
        self.recorder = Recorder(len(program.edits), batch.lengths, warns=warns)
        self._watched: dict[Site, Tensor] = {}
        self._pending: dict[Site, list[tuple[Group, Tensor]]] = {}
        self._masks: dict[Scope, Tensor] = {}
        self._positions = batch.positions
        self._step = -1

    def start_pass(self, positions: Tensor) -> None:
        """Prepare for the next forward pass, over tokens at `positions` ``(batch, pos)``.

        A row of negative positions is left alone.
        """
        self._positions = positions
        self._watched.clear()
        self._pending.clear()
        self._step += 1
        if self._generated:
            # One new token a row, so where a scope holds needs no arithmetic on positions.
            alive = positions >= 0
            nowhere = torch.zeros_like(alive)
            self._masks = {
                s: alive if s.holds(self._step) else nowhere for s in self.program.scopes
            }
        else:
            self._masks = {s: s.mask(positions, self.batch.lengths) for s in self.program.scopes}
        self.recorder.start_pass(positions)

    @property
    def _generated(self) -> bool:
        """Whether this pass reads one new token of each row, and nothing else."""
        return self._step > 0 and self._positions.shape[1] == 1

    def visit(self, site: Site, x: Tensor) -> Tensor | None:
        """What `x` ``(batch, pos, d_in)`` becomes, or None if nothing touches it."""
        program = self.program
        if site in program.watches:
            self._watched[site] = program.watches[site].activations(x)
        group = program.groups.get(site)
        if group is not None and not self._asleep(group):
            found = self._coefficients(group, x)
            self._pending.setdefault(site.writes_at, []).append((group, found))
        additions = list(self._additions(site, x))
        if not additions:
            return None
        sizes = x.float().norm(dim=-1)
        for numbers, norms, _ in additions:
            self.recorder.add(numbers, norms, sizes)
        return (x.float() + sum(difference for _, _, difference in additions)).to(x.dtype)

    def _additions(self, site: Site, x: Tensor) -> Iterator[tuple[tuple[int, ...], Tensor, Tensor]]:
        """Which edits add at `site`, the norms ``(batch, pos, edit)`` and the difference."""
        for group, coefficients in self._pending.pop(site, ()):
            norms = coefficients.abs() * group.row_norms
            yield group.numbers, norms, coefficients @ group.rows
        if self._generated:
            return
        for patch in self.program.patches.get(site, ()):
            difference = patch.difference(x, self._positions)
            # Filled and not multiplied: padding may hold NaN, and NaN times 0 is NaN.
            mask = self._masks[patch.patch.scope][..., None]
            difference = difference.masked_fill(~mask, 0)
            yield (patch.number,), difference.norm(dim=-1, keepdim=True), difference

    def _coefficients(self, group: Group, x: Tensor) -> Tensor:
        """What the edits of `group` add of their decoder rows ``(batch, pos, term)``."""
        masks = [self._masks[scope] for scope in group.scopes]
        if len(masks) == 1:
            mask = masks[0][..., None]
        else:
            mask = torch.stack(masks, -1)[..., group.scope_of_term]
        if group.conditions:
            mask = mask.expand(*x.shape[:-1], len(group.terms)).clone()
        for site, terms, places, above in group.conditions:
            mask[..., terms] &= self._watched[site][..., places] > above
        return group.coefficients(x).masked_fill(~mask, 0)

    def _asleep(self, group: Group) -> bool:
        """Whether no edit of `group` can act in this pass."""
        return self._generated and not any(scope.holds(self._step) for scope in group.scopes)


class _Writer:
    """The decoding loop of one generation."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Tokens],
        surgeon: _Surgeon,
        *,
        most: int,
        least: int,
        temperature: float,
        top_p: float,
        seed: int,
    ) -> None:
        self.model, self.prompts, self.surgeon = model, prompts, surgeon
        self.most, self.least = most, least
        self.temperature, self.top_p = temperature, top_p
        self.end, self.pad = frozenset(model.end_tokens), _pad(model)
        # The same seed for each: a prompt's text must not depend on its place in the batch.
        self.random = [torch.Generator().manual_seed(seed) for _ in prompts]
        self.ids: list[list[int]] = [[] for _ in prompts]
        self.logprobs: list[list[float]] = [[] for _ in prompts]
        self.finish = ["context" if len(p) >= model.context else "" for p in prompts]

    def write(
        self,
        stream: Callable[[Step], None] | None,
        stop: threading.Event,
        rebind: Callable[[], Program | None],
        *,
        use_cache: bool,
    ) -> None:
        """Write until every prompt has a reason to end.

        Args:
            stream: Called after each token.
            stop: Ends the writing before the next pass.
            rebind: Gives a changed program, or None.
            use_cache: Whether to keep keys and values from pass to pass.
        """
        batch = self.surgeon.batch
        cache = DynamicCache(config=self.model.config) if use_cache else None
        ids, positions, mask = batch.ids, batch.positions, batch.attention_mask
        for index in range(self.most):
            if stop.is_set():
                self.finish = [finish or "stopped" for finish in self.finish]
            if all(self.finish):
                return
            self.surgeon.program = rebind() or self.surgeon.program
            self.surgeon.start_pass(positions)
            logits = self._forward(ids, positions, mask, cache)
            new = self._choose(logits, goes_on=index < self.least)
            if stream is not None:
                chosen = tuple(new.tolist())
                strings = strings_of(self.model.tokenizer, chosen)
                stream(Step(index, chosen, strings, logits))
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            column, last = new[:, None].to(ids.device), self._next(positions)
            ids = column if use_cache else torch.cat([ids, column], 1)
            positions = last if use_cache else torch.cat([positions, last], 1)

    def _forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: DynamicCache | None
    ) -> Tensor:
        """Logits ``(batch, vocabulary)`` of the next token, in float32."""
        out = self.model.module(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions.clamp(min=0),
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1,
        )
        logits = out.logits[:, -1].float()
        if not bool(logits.isfinite().all()):
            raise ValueError(
                "the model gave NaN or infinity: an edit is too strong for the model's number "
                "format; lower its strength"
            )
        return logits

    def _next(self, positions: Tensor) -> Tensor:
        """Position of the next token of each prompt ``(batch, 1)``; -1 for one that has ended."""
        last = positions[:, -1:] + 1
        if not any(self.finish):
            return last
        ended = torch.tensor([[bool(finish)] for finish in self.finish], device=last.device)
        return last.masked_fill(ended, -1)

    def _choose(self, logits: Tensor, *, goes_on: bool) -> Tensor:
        """The next token of each prompt ``(batch,)``, on the CPU."""
        allowed = logits
        if goes_on and self.end:
            allowed = logits.clone()
            allowed[:, list(self.end)] = float("-inf")
        chosen = sample(allowed, self.temperature, self.top_p, self.random)
        index = chosen[:, None].to(logits.device)
        scores = torch.log_softmax(logits, -1).gather(1, index)[:, 0].tolist()
        for row, token in enumerate(chosen.tolist()):
            if self.finish[row]:
                chosen[row] = self.pad
                continue
            self.ids[row].append(token)
            self.logprobs[row].append(scores[row])
            self.finish[row] = self._reason(row, token)
        return chosen

    def _reason(self, row: int, token: int) -> str:
        """Why the row ends after `token`; empty if it goes on."""
        if token in self.end:
            return "end"
        written = len(self.ids[row])
        if written == self.most:
            return "length"
        return "context" if len(self.prompts[row]) + written >= self.model.context else ""

    def generations(self) -> list[Generation]:
        """The finished texts."""
        tokenizer, receipts = self.model.tokenizer, self.surgeon.recorder.receipts()
        return [
            Generation(
                prompt=prompt,
                text=tokenizer.decode(ids, skip_special_tokens=True),
                ids=(*prompt.ids, *ids),
                tokens=tokens_of(tokenizer, ids),
                logprobs=tuple(logprobs),
                finish=finish,
                receipt=receipt,
            )
            for prompt, ids, logprobs, finish, receipt in zip(
                self.prompts, self.ids, self.logprobs, self.finish, receipts, strict=True
            )
        ]


def sample(
    logits: Tensor, temperature: float, top_p: float, random: Sequence[torch.Generator]
) -> Tensor:
    """Draw a token for each row ``(batch,)`` from `logits` ``(batch, vocabulary)``.

    Args:
        logits: Natural logarithms, up to a constant for each row.
        temperature: What they are divided by; 0 for the largest.
        top_p: Share of the probability (after the temperature) that may be drawn from.
        random: A generator for each row.
    """
    if temperature == 0:
        return logits.argmax(-1).cpu()
    # The largest is brought to 0 first, so that a small temperature cannot overflow.
    scores = (logits - logits.amax(-1, keepdim=True)) / temperature
    probabilities = torch.softmax(scores, -1).cpu()
    if top_p < 1:
        ordered, order = probabilities.sort(descending=True, stable=True)
        # A token stays if those before it do not reach `top_p`, so that at least one does.
        dropped = ordered.cumsum(-1) - ordered >= top_p
        kept = ordered.masked_fill(dropped, 0)
        probabilities = torch.zeros_like(probabilities).scatter(1, order, kept)
    rows = zip(probabilities, random, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def _check_sampling(most: int, least: int, temperature: float, top_p: float, seed: int) -> None:
    whole = {"max_new_tokens": most, "min_new_tokens": least, "seed": seed}
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
    for name, value in {"temperature": temperature, "top_p": top_p}.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {value!r}")
    if most < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {most}")
    if not 0 <= least <= most:
        raise ValueError(f"min_new_tokens must be 0 to max_new_tokens ({most}), got {least}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 (greedy) or more, got {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be 0 to 2^63 - 1, got {seed}")


def _pad(model: Model) -> int:
    pad = model.tokenizer.pad_token_id
    return next(iter(model.end_tokens), 0) if pad is None else pad
