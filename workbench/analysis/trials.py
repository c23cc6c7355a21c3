"""How much likelier do edits make some texts, where steering would have to bring them in?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workbench.analysis.text_features import batches
from workbench.engine.binding import FeatureSource
from workbench.engine.edits import Steer
from workbench.engine.tracing import trace
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.tokens import Tokens, tokens_of

OPENING, EXAMPLE = 16, 24
"""Tokens of the unrelated opening, and of the example after it."""


@dataclass(frozen=True)
class Passages:
    """Texts of which the tokens from a place on are scored."""

    texts: tuple[Tokens, ...]
    starts: tuple[int, ...]
    """The first scored token of each."""
    base: float
    """Their log-probability without edits, in nats a token."""

    @classmethod
    def of(cls, model: Model, texts: Sequence[Tokens], starts: Sequence[int]) -> Passages:
        """Read them without edits."""
        return cls(tuple(texts), tuple(starts), logprob(model, texts, starts))

    @classmethod
    def after(cls, model: Model, openings: Sequence[Tokens], texts: Sequence[Tokens]) -> Passages:
        """Each of `texts` after the opening of another text; the openings are taken in turn."""
        joined, starts = [], []
        for number, text in enumerate(texts, 1):  # so that no text follows its own opening
            opening = openings[number % len(openings)].ids[:OPENING]
            joined.append(
                tokens_of(model.tokenizer, [*opening, *text.ids[_bos(model) :][:EXAMPLE]])
            )
            starts.append(len(opening))
        return cls.of(model, joined, starts)


@dataclass(frozen=True)
class Trial:
    """Texts on which edits are tried."""

    model: Model
    suite: Suite
    examples: Passages
    """The examples after openings of other texts."""
    switched: Passages
    """The other texts after such openings."""
    others: Passages
    """The other texts as they are."""

    @classmethod
    def of(
        cls, model: Model, suite: Suite, examples: Sequence[Tokens], others: Sequence[Tokens]
    ) -> Trial:
        """Read all without edits."""
        cut = [tokens_of(model.tokenizer, other.ids[: OPENING + EXAMPLE]) for other in others]
        return cls(
            model,
            suite,
            Passages.after(model, others, examples),
            Passages.after(model, others, others),
            Passages.of(model, cut, [1] * len(cut)),
        )

    def gain(self, edits: Sequence[Steer], source: FeatureSource | None = None) -> float:
        """Nats a token by which the examples become likelier."""
        return self._rise(self.examples, edits, source)

    def price(self, edits: Sequence[Steer], source: FeatureSource | None = None) -> float:
        """Nats a token by which the other texts become less likely."""
        return -self._rise(self.others, edits, source)

    def own_gain(self, edits: Sequence[Steer], least: float) -> float:
        """The gain less what any text gains there; the gain alone where that is below `least`."""
        gain = self.gain(edits)
        if gain < least:
            return gain
        return gain - max(0.0, self._rise(self.switched, edits, None))

    def _rise(
        self, passages: Passages, edits: Sequence[Steer], source: FeatureSource | None
    ) -> float:
        found = logprob(self.model, passages.texts, passages.starts, edits, source or self.suite)
        return found - passages.base


def logprob(
    model: Model,
    texts: Sequence[Tokens],
    starts: Sequence[int],
    edits: Sequence[Steer] = (),
    source: FeatureSource | None = None,
) -> float:
    """Mean log-probability of the tokens of each text from its start on, in nats a token.

    Each text counts alike, however long it is.
    """
    found = []
    for batch in batches(model, texts):
        logits = trace(model, [texts[i] for i in batch], edits=edits, source=source).logits
        for i, row in zip(batch, logits, strict=True):
            ids = torch.tensor(texts[i].ids[starts[i] :])
            scores = row[-len(ids) - 1 : -1].float().log_softmax(-1)
            found.append(float(scores.gather(1, ids[:, None]).mean()))
    return float(np.mean(found))


def _bos(model: Model) -> int:
    """How many tokens stand before every text."""
    return int(model.tokenizer.bos_token_id is not None)
