"""Is a steered text still a text? Its loss under the unsteered model, and how much it repeats.

Two ways to break a text need two measures. Word salad is improbable: the *unsteered* model reads it
at a high loss. A loop is probable (a phrase that came ten times is expected to come again), so its
loss is low and only the repetition shows it.

1. Loss: mean ``-log p`` of the new tokens under the model without edits, in nats a token.
2. Excess: that loss less what is usual. Usual is the loss of the unsteered twin (same prompt, seed
   and sampling) where there is one; else the mean entropy of the unsteered predictions along the
   very text, to which the loss of a text drawn from them at temperature 1 comes on average.
3. Repetition: the share of 4-grams that came before, ``seq-rep-4`` of Welleck et al. 2019 (arXiv
   1908.04319): one less the share of distinct ones, ``distinct-4`` in the manner of Li et al. 2016
   (arXiv 1510.03055).

The limits below were set by reading texts of pocket in the order of their excess, and tried on
others: of 640 verdicts on unsteered texts (temperature 1 and 0.8, with a twin and without) all were
"fluent", and of 160 texts under 20 residual features at +-4 typical maxima all were "broken"
(``python -m tests.benchmarks.fluency``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.engine.tracing import Generation, trace
from workbench.models import Busy, Model
from workbench.tokens import tokens_of

Verdict = Literal["fluent", "strained", "broken"]

FLUENT_EXCESS, BROKEN_EXCESS = 1.0, 2.0
"""Nats a token above the usual loss up to which a text is fluent, and above which it is broken.

1 nat is a perplexity 2.7 times the usual one. On pocket a text below it reads well, between the two
it has scars (a word of another language, half a word), above the second it is word salad.
"""
FLUENT_REPETITION, BROKEN_REPETITION = 0.25, 0.5
"""Shares of repeated 4-grams up to which a text is fluent, and above which it is broken.

Greedy decoding loops without any edit, and its own text fails this test: that is no mistake.
"""
NGRAM = 4
"""Length of the phrases whose repetition counts; with 4 a refrain passes and a loop does not."""
LOGITS = 2**26
"""Most logits that are held at once: 256 MB in float32."""


@dataclass(frozen=True)
class Fluency:
    """How well one text reads."""

    loss: float
    """Mean loss of the new tokens under the unsteered model, in nats; 0 where none was written."""
    excess: float
    """The loss less the usual one, in nats a token."""
    repetition: float
    """Share of the 4-grams that came before, 0 to 1."""

    @property
    def verdict(self) -> Verdict:
        """``"fluent"``, ``"strained"`` or ``"broken"``."""
        return verdict(self.excess, self.repetition)

    def __str__(self) -> str:
        return (
            f"{self.verdict}: loss {self.loss:.2f} nats a token ({self.excess:+.2f} against the "
            f"usual), {self.repetition:.0%} of 4-grams repeated"
        )


def verdict(excess: float, repetition: float) -> Verdict:
    """The worse of what the two measures say.

    Args:
        excess: Nats a token above the usual loss.
        repetition: Share of repeated 4-grams.
    """
    if excess > BROKEN_EXCESS or repetition > BROKEN_REPETITION:
        return "broken"
    if excess > FLUENT_EXCESS or repetition > FLUENT_REPETITION:
        return "strained"
    return "fluent"


def repetition(ids: Sequence[int], n: int = NGRAM) -> float:
    """Share of the `n`-grams of a text that came before in it; 0 for a text shorter than `n`.

    >>> repetition([1, 2, 3, 4, 1, 2, 3, 4])
    0.2
    """
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def fluency(
    model: Model,
    generations: Sequence[Generation],
    *,
    twins: Sequence[Generation] | None = None,
    busy: Busy = "wait",
) -> list[Fluency]:
    """Judge texts by the model without edits, in batched passes.

    Args:
        model: The model that wrote them.
        generations: What to judge: their new tokens, after their prompts.
        twins: The unsteered text to each, which says what loss is usual; the model's own entropy
            along the text if left out.
        busy: See `workbench.models.Turn.take`.

    Raises:
        ValueError: If the twins are not as many as the generations.
    """
    if twins is not None and len(twins) != len(generations):
        raise ValueError(
            f"give a twin to each generation: got {len(generations)} and {len(twins)} twins"
        )
    # Rows of a sweep share their twin: each different text is read once.
    texts = {_key(text): text for text in (*generations, *(twins or ()))}
    read = dict(zip(texts, _read(model, list(texts.values()), busy), strict=True))
    found = []
    for generation, twin in zip(generations, twins or generations, strict=True):
        loss, usual = read[_key(generation)]
        if twins is not None and len(twin.tokens):
            usual = read[_key(twin)][0]
        found.append(Fluency(loss, loss - usual, repetition(generation.tokens.ids)))
    return found


def _key(text: Generation) -> tuple[tuple[int, ...], int]:
    """The text, and where its prompt ends."""
    return text.ids, len(text.prompt)


def blocks(model: Model, texts: Sequence[Generation]) -> Iterator[Sequence[Generation]]:
    """The texts in parts that can be read in one pass, with at most `LOGITS` logits."""
    longest = max((len(text.ids) for text in texts), default=1)
    rows = max(LOGITS // (longest * model.config.vocab_size), 1)
    for start in range(0, len(texts), rows):
        yield texts[start : start + rows]


def _read(model: Model, texts: Sequence[Generation], busy: Busy) -> Iterator[tuple[float, float]]:
    """Mean loss and mean entropy of each text's new tokens, in nats."""
    for block in blocks(model, texts):
        whole = [tokens_of(model.tokenizer, text.ids) for text in block]
        logits = trace(model, whole, busy=busy).logits
        for text, row in zip(block, logits, strict=True):
            yield _losses(row, text.tokens.ids)


def _losses(logits: Tensor, ids: Sequence[int]) -> tuple[float, float]:
    """Mean loss and entropy at `ids`, the last tokens of a row of ``(pos, vocabulary)``."""
    if not ids:
        return 0.0, 0.0
    # The prediction of a token stands one place before it; padding is on the left.
    logprobs = logits[-len(ids) - 1 : -1].float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(ids)[:, None])
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return -float(chosen.mean()), float(entropy.mean())
