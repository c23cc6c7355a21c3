"""A label without a language model: the simplest rule that says where a feature fires.

Rules of four kinds are learned from the passages that may be looked at:

    token       it fires on some tokens: "monday", "friday"
    class       it fires on a sort of token, of `CLASSES`: numbers
    after       it fires after some tokens, or after a sort of token: after "$"
    context     it fires all over passages that have some words: text with "und", "der"

Which one is taken is decided within these passages: each is learned on one half of their documents
and tried on the other, and the other way round. What it then scores on the held-out passages is the
label's score: the balanced accuracy (mean of the shares of passages that are judged rightly among
those where the feature fires and those where it is quiet; 0.5 is chance) of the rule in telling
them apart, which is the detection score of Paulo et al. 2024 (arXiv 2410.13928, section 3) with the
rule in the place of a language model that reads the label.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, get_args

from workbench.labels.examples import Material, Passage
from workbench.labels.records import Label

Kind = Literal["token", "class", "after", "after class", "context"]
VERSION = "rules 1"
MEASURE = "balanced accuracy of detection"
CLASSES: dict[str, str] = {
    "line breaks": r"\s*\n\s*",
    "indents": r"[ \t]{2,}",
    "numbers": r"\s*\d+",
    "capitalised words": r"\s*[^\W\d_a-z][^\W\d_A-Z]+",
    "capitals": r"\s*[A-ZÄÖÜÉÁÍÓÚŐŰÑÇ]{2,}",
    "punctuation": r"\s*[^\w\s]+",
    "ends of sentences": r"\s*[.!?]+",
    "opening brackets": r"\s*[(\[{<]+",
    "closing brackets": r"[)\]}>]+",
    "quotation marks": r"\s*[\"'«»„“”‚‘’`]+",
    "signs of arithmetic": r"\s*[-+*/=<>%]+",
    "word endings": r"[^\W\d_A-Z]+",
    "letters with accents": r".*[äöüßéèêáíóúőűñçàâî].*",
}
"""Sorts of token, as patterns that a whole token matches."""
MOST_WORDS, CONTEXT_WORDS, NAMED = 12, 24, 4
"""Words of a rule, of one of context, and how many of them its text names."""
SURE = 0.5
"""Share of a token's occurrences on which a feature fires for the token to be in a rule."""
LEAST = (1, 2, 3)
"""How many different words of a context rule a passage may have to have."""


@dataclass(frozen=True)
class Rule:
    """Where a feature fires, as a rule that can be read and tried."""

    kind: Kind
    words: tuple[str, ...]
    """Tokens in small letters without spaces around, most telling first; or names of classes."""
    least: int = 1
    """Of a context rule, how many different words a passage must have."""

    def marks(self, tokens: Sequence[str]) -> list[bool]:
        """The tokens of a passage on which the feature fires by the rule."""
        words = frozenset(self.words)
        if self.kind == "context":
            found = words.intersection(map(_form, tokens))
            return [len(found) >= self.least] * len(tokens)
        if self.kind in ("class", "after class"):
            here = [not words.isdisjoint(_classes(token)) for token in tokens]
        else:
            here = [_form(token) in words for token in tokens]
        return [False, *here[:-1]] if self.kind.startswith("after") else here

    def fires(self, tokens: Sequence[str]) -> bool:
        """Whether a passage is one where the feature fires by the rule."""
        return any(self.marks(tokens))

    @property
    def text(self) -> str:
        """The rule in words."""
        named = list(self.words[:NAMED])
        if "class" not in self.kind:
            named = [f'"{_shown(word)}"' for word in named]
        said = ", ".join(named) + (", ..." if len(self.words) > NAMED else "")
        head = {"after": "after ", "after class": "after ", "context": "text with "}
        return head.get(self.kind, "") + said

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Rule:
        """The rule that an automatic label keeps in its details.

        Raises:
            ValueError: If there is none.
        """
        found = details.get("rule")
        if not isinstance(found, Mapping) or found.get("kind") not in get_args(Kind):
            raise ValueError(f"the label has no rule; its details are {sorted(details)}")
        return cls(found["kind"], tuple(found["words"]), int(found["least"]))


def detection(rule: Rule, held: Iterable[Passage], quiet: Iterable[Passage]) -> float | None:
    """Balanced accuracy of a rule at telling `held` passages from `quiet` ones.

    None where one of the two is missing.
    """
    hits = [rule.fires(p.tokens) for p in held]
    alarms = [rule.fires(p.tokens) for p in quiet]
    if not hits or not alarms:
        return None
    return (sum(hits) / len(hits) + 1 - sum(alarms) / len(alarms)) / 2


def token_f1(rule: Rule, material: Material, passages: Iterable[Passage]) -> float:
    """F1 of a rule at the tokens on which the feature clearly fires."""
    hits = marked = wanted = 0
    for passage in passages:
        for mark, clear in zip(rule.marks(passage.tokens), material.clear(passage), strict=True):
            hits += mark and clear
            marked += mark
            wanted += clear
    return 2 * hits / (marked + wanted) if marked + wanted else 0.0


def automatic_label(material: Material) -> Label | None:
    """The label of the rule that fits best; None if the feature fires nowhere.

    The score is None where there is nothing held out to score on, as for a feature that fires in
    every passage.
    """
    if not material.shown:
        return None
    rule = best_rule(material)
    text = rule.text
    if material.promoted:
        text += "; writes " + ", ".join(f'"{_shown(t)}"' for t in material.promoted[:NAMED])
    details = {
        "rule": asdict(rule) | {"words": list(rule.words)},
        "token_f1": round(token_f1(rule, material, material.held + material.held_quiet), 4),
        "held_out": [len(material.held), len(material.held_quiet)],
    }
    score = detection(rule, material.held, material.held_quiet)
    return Label(
        material.site, material.index, text, "automatic", score, MEASURE, source=VERSION,
        author="workbench", details=details,
    )  # fmt: skip


def best_rule(material: Material) -> Rule:
    """The rule that does best on documents that it was not learned from, of those shown."""
    order = {d: i for i, d in enumerate(sorted({p.document for p in material.shown}))}
    folds = [
        ([p for p in material.shown if order[p.document] % 2 == half],
         [p for p in material.quiet if p.document % 2 == half])
        for half in (0, 1)
    ]  # fmt: skip
    everything = (list(material.shown), list(material.quiet))
    if not all(fires for fires, _ in folds):
        folds = [everything, everything]

    def quality(learn: Learner) -> float:
        total = 0.0
        for (fires, quiet), (other, others) in (folds, folds[::-1]):
            rule = learn(material, fires, quiet)
            if rule is None:
                return 0.0
            f1 = token_f1(rule, material, [*other, *others])
            total += f1 + (detection(rule, other, others) or 0.5)
        return total

    ranked = sorted(LEARNERS, key=quality, reverse=True)
    rules = (learn(material, *everything) for learn in ranked)
    return next(rule for rule in rules if rule is not None)


Learner = Callable[[Material, Sequence[Passage], Sequence[Passage]], Rule | None]


def _token_learner(*, after: bool) -> Learner:
    def learn(
        material: Material, fires: Sequence[Passage], quiet: Sequence[Passage]
    ) -> Rule | None:
        inside: Counter[str] = Counter()
        seen: Counter[str] = Counter()
        for passage in [*fires, *quiet]:
            clear = material.clear(passage)
            forms = [_form(token) for token in passage.tokens]
            # Where it should fire, shifted so that it stands at the token that says so.
            pairs = zip(forms, clear[1:], strict=False) if after else zip(forms, clear, strict=True)
            for form, fired in pairs:
                seen[form] += 1
                inside[form] += fired
        sure = [form for form, count in inside.most_common() if count >= SURE * seen[form] > 0]
        kind: Kind = "after" if after else "token"
        words = tuple(sure[:MOST_WORDS]) or tuple(form for form, _ in inside.most_common(1))
        return Rule(kind, words) if words else None

    return learn


def _class_learner(name: str, *, after: bool) -> Learner:
    rule = Rule("after class" if after else "class", (name,))
    return lambda material, fires, quiet: rule


def _context_learner(least: int) -> Learner:
    def learn(
        material: Material, fires: Sequence[Passage], quiet: Sequence[Passage]
    ) -> Rule | None:
        here, there = _passage_counts(fires), _passage_counts(quiet)
        told = {
            # Smoothed log odds, weighted by how many passages the word can tell.
            word: count * math.log(
                (count + 0.5) / (len(fires) + 1) * (len(quiet) + 1) / (there[word] + 0.5)
            )
            for word, count in here.items()
        }  # fmt: skip
        words = sorted((w for w in told if told[w] > 0), key=lambda w: (-told[w], w))[
            :CONTEXT_WORDS
        ]
        return Rule("context", tuple(words), least) if len(words) >= least else None

    return learn


def _passage_counts(passages: Iterable[Passage]) -> Counter[str]:
    """In how many passages each word stands."""
    return Counter(
        word
        for p in passages
        for word in {_form(t) for t in p.tokens}
        if word.isalpha() and len(word) > 1
    )


LEARNERS: tuple[Learner, ...] = (
    _token_learner(after=False),
    *(_class_learner(name, after=False) for name in CLASSES),
    _token_learner(after=True),
    *(_class_learner(name, after=True) for name in CLASSES),
    *(_context_learner(least) for least in LEAST),
)
"""What is tried; of two that do as well the first is taken."""


@cache
def _form(token: str) -> str:
    """A token in the form that rules compare."""
    return token.strip().lower() or token


@cache
def _classes(token: str) -> frozenset[str]:
    return frozenset(name for name, pattern in CLASSES.items() if re.fullmatch(pattern, token))


def _shown(word: str) -> str:
    """A token as a label names it."""
    if not word.strip():
        return word.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣") or "nothing"
    return word.strip()
