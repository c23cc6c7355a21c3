"""How far edits moved what a model predicts, token by token.

A text that was written under edits is read once more without them: ``p`` of the edited model and
``q`` of the unedited one are then predictions *after the same text*, so their difference is the
edits' and not that of two texts. The shift of a token is the Kullback-Leibler divergence
``sum p log(p / q)`` of the prediction it was drawn from, in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from workbench.engine.tracing import Generation, trace
from workbench.models import Busy, Model
from workbench.tokens import tokens_of

ROUNDING = 1e-5
"""Divergence in nats below which a difference is that of two orders of summation."""
LOGITS = 2**27
"""Most logits of a text that are kept: 512 MB in float32; later tokens have no shift."""


@dataclass(frozen=True)
class Prediction:
    """What a model predicted at one step, and what was chosen of it."""

    p: float
    """Probability of the chosen token, at temperature 1."""
    entropy: float
    """Of the prediction, in nats."""
    top: tuple[tuple[str, float], ...]
    """The most probable other tokens."""


@dataclass(frozen=True)
class Shift:
    """How far edits moved one prediction."""

    nats: float
    """Kullback-Leibler divergence from the unedited prediction."""
    p_before: float
    """Probability of the chosen token without the edits."""


def prediction(logits: Tensor, chosen: int, tokenizer: Any, *, others: int = 3) -> Prediction:
    """What `logits` ``(vocabulary,)`` say of the token `chosen`.

    Args:
        logits: Of one step.
        chosen: Id of the token that was drawn.
        tokenizer: For the strings of the other tokens.
        others: How many of these.
    """
    logprobs = logits.float().log_softmax(-1)
    probabilities = logprobs.exp()
    # 0 log 0 is 0, and a token that cannot be drawn has log 0.
    entropy = -(probabilities * logprobs).nan_to_num(0.0).sum()
    best = probabilities.topk(min(others + 1, len(probabilities)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    top = [(tokenizer.decode([i]), p) for i, p in pairs if i != chosen][:others]
    return Prediction(float(probabilities[chosen]), float(entropy), tuple(top))


def shifts(
    model: Model, generation: Generation, logits: Sequence[Tensor], *, busy: Busy = "wait"
) -> list[Shift]:
    """The shift of each new token of a text.

    Args:
        model: Reads the text without edits.
        generation: The text.
        logits: ``(vocabulary,)`` of the edited model at each new token, or at the first of them.
        busy: See `workbench.models.Turn.take`.
    """
    if not logits:
        return []
    first, ids = len(generation.prompt) - 1, generation.tokens.ids
    # The last token is predicted by the one before it, so it need not be read.
    whole = tokens_of(model.tokenizer, generation.ids[: first + len(logits)])
    read = trace(model, [whole], busy=busy).logits[0, first:].float().log_softmax(-1)
    found = []
    for after, before, chosen in zip(logits, read, ids, strict=False):
        moved = after.float().log_softmax(-1)
        nats = float((moved.exp() * (moved - before)).nan_to_num(0.0).sum())
        found.append(Shift(nats if nats > ROUNDING else 0.0, float(before[chosen].exp())))
    return found
