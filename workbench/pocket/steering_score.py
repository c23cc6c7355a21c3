"""Score steering where the truth is known: does a feature bring its concept in, at what price?

For each persistent concept, features and strengths are tried on some prompts, the best that keeps
the text fluent is kept, and the table reports it on other prompts. Its rivals go through the same
search: a difference-of-means vector (the mean activation of text with the concept less that of text
without; Rimsky et al. 2024, arXiv 2312.06681) and, with the norm that won, a random direction.

The share of a concept is that of its words among all words that betray any value of the same
factor, as counted by
`workbench.pocket.corpus.markers`. The price is the mean loss of the new tokens under the unsteered
model, less that of the model's own unsteered text.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.engine.directions import Directions
from workbench.engine.edits import Steer
from workbench.engine.receipts import NoEffectWarning
from workbench.engine.tracing import generate, trace
from workbench.models import Model
from workbench.pocket.corpus import documents
from workbench.pocket.corpus.concepts import FACTOR_VALUES
from workbench.pocket.corpus.markers import share
from workbench.sites import Site
from workbench.tokens import Tokens, tokenize, tokens_of

BUDGET = 1.5
"""Most nats by which the price may exceed unsteered text."""
ABSENT = 0.02
"""Least share that counts as there: five times nothing would be a single word."""
STRENGTHS = (0.75, 1.25, 2.0, 3.0)
"""Multiples of a feature's typical maximum that are tried."""
PROMPT_TOKENS, NEW_TOKENS = 24, 40


@dataclass(frozen=True)
class Outcome:
    """What one direction at one strength did on some prompts."""

    share: float
    """Words of the concept among words of its factor."""
    price: float
    """Nats a token above unsteered text, under the unsteered model."""


@dataclass(frozen=True)
class Bench:
    """Prompts of one concept and the unsteered texts that they give."""

    model: Model
    concept: str
    prompts: list[Tokens]
    base: Outcome
    base_loss: float

    @classmethod
    def of(cls, model: Model, concept: str, prompts: list[Tokens]) -> Bench:
        """Write the unsteered texts."""
        texts, loss = _write(model, prompts, (), None)
        return cls(model, concept, prompts, Outcome(_share(texts, concept), 0.0), loss)

    def try_out(self, site: Site, direction: Tensor, size: float) -> Outcome:
        """Steer by `size` times `direction` ``(d,)`` at `site`."""
        source = Directions({site: direction[None]})
        edit = Steer((site.layer, 0), size, kind=site.kind, unit="raw")
        texts, loss = _write(self.model, self.prompts, (edit,), source)
        return Outcome(_share(texts, self.concept), loss - self.base_loss)


@dataclass(frozen=True)
class Choice:
    """The direction and size that won on the prompts for choosing."""

    site: Site
    direction: Tensor
    size: float
    strength: float
    outcome: Outcome


def prompts_without(model: Model, concept: str, count: int, seed: int) -> list[Tokens]:
    """Beginnings of held-out stories that hold another value of the concept's factor throughout."""
    factor = concept.split(":")[0]
    found: list[Tokens] = []
    for document in documents(seed, ("story",)):
        tokens = tokenize(model.tokenizer, document.text)
        head = tokens_of(model.tokenizer, tokens.ids[:PROMPT_TOKENS])
        length = len(model.tokenizer.decode(head.ids, skip_special_tokens=True))
        held, at = set(), 0
        for piece in document.pieces:
            if at < length:
                held |= {c for c in piece.concepts if c.startswith(f"{factor}:")}
            at += len(piece.text)
        if len(held) == 1 and concept not in held:
            found.append(head)
        if len(found) == count:
            return found
    raise AssertionError("documents never end")


def choose(
    bench: Bench,
    candidates: Sequence[tuple[Site, Tensor, float]],
    strengths: Sequence[float] = STRENGTHS,
) -> Choice:
    """The candidate and strength with the highest share within the budget, or the cheapest.

    Args:
        bench: Prompts for choosing.
        candidates: Site, unit direction and the size that strength 1 stands for.
        strengths: Multiples of that size.
    """
    tried = []
    for site, direction, unit in candidates:
        for strength in strengths:
            outcome = bench.try_out(site, direction, strength * unit)
            tried.append(Choice(site, direction, strength * unit, strength, outcome))
            if outcome.price > BUDGET:
                break  # stronger costs more
    affordable = [t for t in tried if t.outcome.price <= BUDGET]
    if not affordable:
        return min(tried, key=lambda t: t.outcome.price)
    return max(affordable, key=lambda t: t.outcome.share)


def succeeds(outcome: Outcome, base: Outcome) -> bool:
    """Fivefold or above 0.6, within the budget; an absent concept counts as one word in 50."""
    raised = outcome.share >= 5 * max(base.share, ABSENT) or (outcome.share > 0.6 > base.share)
    return raised and outcome.price <= BUDGET


def mean_difference(
    activation: Tensor, labels: Tensor, concept_column: int, factor_columns: Sequence[int]
) -> Tensor:
    """Mean activation with the concept less that with another value of its factor ``(d,)``.

    Args:
        activation: ``(token, d)``.
        labels: ``(token, concept)`` bool.
        concept_column: The concept's.
        factor_columns: Those of all values of the factor.
    """
    has = labels[:, concept_column]
    other = labels[:, list(factor_columns)].any(1) & ~has
    return activation[has].mean(0) - activation[other].mean(0)


def scorable() -> tuple[str, ...]:
    """Concepts whose share in a text can be counted, which that of a speaker's role cannot."""
    return tuple(
        f"{factor}:{value}"
        for factor, values in FACTOR_VALUES.items()
        for value in values
        if factor != "role" and value != "normal"
    )


def _write(
    model: Model, prompts: list[Tokens], edits: tuple[Steer, ...], source: Directions | None
) -> tuple[list[str], float]:
    """Texts, and the mean loss of their tokens under the unsteered model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        written = generate(
            model,
            prompts,
            edits=edits,
            source=source,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            temperature=1.0,
        )
    whole = [tokens_of(model.tokenizer, g.ids) for g in written]
    logprobs = trace(model, whole).logits[:, :-1].log_softmax(-1)
    ids = torch.tensor([g.ids[-NEW_TOKENS:] for g in written])
    losses = -logprobs[:, -NEW_TOKENS:].gather(2, ids[..., None])
    return [g.text for g in written], float(losses.mean())


def _share(texts: list[str], concept: str) -> float:
    counts = [share(text, concept) for text in texts]
    return sum(own for own, _ in counts) / max(sum(total for _, total in counts), 1)
