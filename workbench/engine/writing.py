"""The decoding loop: a pass over the prompt, then one token a pass.

Sampling, streaming, stopping and edits share this one clock.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from workbench.engine.program import Program
from workbench.engine.receipts import Receipt
from workbench.engine.surgeon import Surgeon
from workbench.models import Model
from workbench.tokens import Tokens, strings_of, tokens_of


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
    """``"end"``: an end-of-sequence token; ``"length"``: ``max_new_tokens``; ``"context"``: no room
    for another position; ``"stopped"``: asked to."""
    receipt: Receipt
    """What the edits did."""

    def __str__(self) -> str:
        return self.prompt.text + self.text

    def _repr_pretty_(self, printer: Any, *_: object) -> None:
        """What IPython shows of it, alone or in a list: the text, and what the edits did."""
        receipt = [str(self.receipt)] if self.receipt.acts else []
        printer.text("\n".join([f"<{self}>", *receipt]))


@dataclass(frozen=True)
class Step:
    """One step of a generation, as a ``stream`` function gets it."""

    index: int
    """0 for the first new token."""
    ids: tuple[int, ...]
    """The new token of each prompt; padding for one that has ended."""
    strings: tuple[str, ...]
    """What to show for them."""
    logits: Tensor
    """``(batch, vocabulary)`` of the model, before temperature and ``top_p``."""


class Writer:
    """The decoding loop of one generation."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Tokens],
        surgeon: Surgeon,
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
        self.end, self.pad = frozenset(model.end_tokens), padding_of(model)
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
            if (program := rebind()) is not None:
                self.surgeon.use(program)
            self.surgeon.start_pass(positions, self._alive if use_cache and index else None)
            logits = self._forward(ids, positions, mask, cache)[: len(batch)]
            new = self._choose(logits, goes_on=index < self.least)
            if stream is not None:
                chosen = tuple(new.tolist())
                strings = strings_of(self.model.tokenizer, chosen)
                stream(Step(index, chosen, strings, logits))
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            # A twin reads what the prompt that it belongs to has chosen.
            new = new if not batch.twins else new[list(batch.layout)]
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
        alive = torch.tensor(self._alive, device=last.device)[:, None]
        return last.masked_fill(~alive, -1)

    @property
    def _alive(self) -> tuple[bool, ...]:
        """Which rows of the batch still write."""
        return tuple(not self.finish[row] for row in self.surgeon.batch.layout)

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


def check_sampling(most: int, least: int, temperature: float, top_p: float, seed: int) -> None:
    """Refuse settings that mean nothing.

    Raises:
        TypeError: If one is no number.
        ValueError: If one is out of range.
    """
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


def padding_of(model: Model) -> int:
    """The id to pad with."""
    pad = model.tokenizer.pad_token_id
    return next(iter(model.end_tokens), 0) if pad is None else pad
