"""The concepts that the corpus labels: the truth that every tool can be scored against."""

from __future__ import annotations

from workbench.pocket.corpus.grammar import FACTORS
from workbench.pocket.corpus.local import LOCAL_LABELS

FACTOR_VALUES: dict[str, tuple[str, ...]] = {
    **{factor: values for factor, (values, _) in FACTORS.items()},
    "role": ("user", "model"),
}
"""Factor -> its values."""

PERSISTENT = tuple(
    f"{factor}:{value}" for factor, values in FACTOR_VALUES.items() for value in values
)
"""Concepts that hold for stretches of text, such as ``language:de``."""

LOCAL = tuple(
    sorted(
        LOCAL_LABELS
        | {
            "adjective", "adverb", "article", "closer", "conjunction", "exclamation", "intensifier",
            "letter_closing", "letter_greeting", "negation", "noun", "opener", "place",
            "possessive", "pronoun", "question_word", "rating", "time_adverb", "turn_marker",
            "verb",
        }
    )
)  # fmt: skip
"""Concepts that belong to a token, such as ``weekday``."""

CONCEPTS = (*PERSISTENT, *LOCAL)
"""All of them."""
