"""Words that betray a factor, so that generated text can be scored without a classifier.

A word betrays value v of a factor if every entry of every lexicon that contains it can only be
written under v. A word that may stand under two values, or in an entry that does not depend on the
factor, betrays nothing. So the sets of one factor are disjoint by construction.

First names betray the person. Two names joined by *and* are they, so such a pair counts once for
they.
"""

from __future__ import annotations

import re
from functools import cache

from workbench.pocket.corpus.grammar import FACTORS, JOIN
from workbench.pocket.corpus.lexicon import LEXICONS
from workbench.pocket.corpus.lexicon.base import FEMALE, MALE

WORD = re.compile(r"[^\W\d_]+")
_NAMES = "|".join(name.strip() for name in (*FEMALE, *MALE))
PAIR = re.compile(rf"\b(?:{_NAMES})(?:{'|'.join(JOIN.values())}) (?:{_NAMES})\b", re.IGNORECASE)
"""Two people, such as *Anna and Peter*."""


@cache
def markers(factor: str) -> dict[str, frozenset[str]]:
    """Value -> the lower-case words that betray it; empty for capitals, a matter of form.

    Raises:
        ValueError: if there is no such factor.
    """
    if factor not in FACTORS:
        raise ValueError(f"factor is {factor!r}; choose one of {', '.join(FACTORS)}")
    values = FACTORS[factor][0]
    if factor == "capitals":
        return {value: frozenset() for value in values}
    seen: dict[str, set[str | None]] = {}
    for code, lexicon in LEXICONS.items():
        for text, found in lexicon.entries():
            value = code if factor == "language" else found.get(factor)
            for word in WORD.findall(text.lower()):
                seen.setdefault(word, set()).add(value)
    for names, person in ((FEMALE, "she"), (MALE, "he")):
        for name in names:
            value = person if factor == "person" else None
            seen.setdefault(name.strip().lower(), set()).add(value)
    return {
        value: frozenset(word for word, found in seen.items() if found == {value})
        for value in values
    }


def share(text: str, concept: str) -> tuple[int, int]:
    """How far `text` shows `concept`, such as ``sentiment:positive``.

    Returns:
        Words that betray this value, and words that betray any value of the factor. For capitals:
        words of two letters or more in this form, and all such words. Nothing betrays a role:
        ``(0, 0)``.

    Raises:
        ValueError: if there is no such factor or value.
    """
    factor, _, value = concept.partition(":")
    if factor == "role":
        return 0, 0
    table = markers(factor)
    if value not in table:
        raise ValueError(f"concept is {concept!r}; {factor} has the values {', '.join(table)}")
    words = WORD.findall(text)
    if factor == "capitals":
        long = [word for word in words if len(word) > 1]
        upper = sum(word.isupper() for word in long)
        return (upper if value == "upper" else len(long) - upper), len(long)
    pairs = 0
    if factor == "person":
        text, pairs = PAIR.subn(" ", text)
        words = WORD.findall(text)
    lower = [word.lower() for word in words]
    hits = {name: sum(word in found for word in lower) for name, found in table.items()}
    if factor == "person":
        hits["they"] += pairs
    return hits[value], sum(hits.values())
