"""Score a label by asking a language model to use it on passages that it was not made from.

Two of the scores of Paulo et al. 2024 (arXiv 2410.13928, section 3), which cost far less than the
simulation of every activation in Bills et al. 2023:

- detection: given the label, in which passages does the feature fire?
- fuzzing: given the label and passages with marked tokens, in which are the right tokens marked?
  In half of them the tokens are those on which the feature fires; the others are passages where it
  is quiet, with as many tokens marked at random.

Both are given as balanced accuracy: the mean of the shares that were judged rightly among the
passages that are so and among those that are not. 0.5 is chance, whatever the model tends to say.
Passages go out a few at a time, as in the authors' code (5 by default). A prompt whose answer makes
no sense is left out, and where more than half are, there is no score. The prompts are our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.labels.endpoint import Messages
from workbench.labels.examples import Material, Passage
from workbench.labels.explain import marked

Measure = Literal["detection", "fuzzing"]
TOGETHER = 5
"""Passages in a prompt."""
LONGEST_ANSWER = 120
RULES = """\
Answer with a JSON list of {count} numbers and nothing else, one for each passage in their order: \
1 for yes, 0 for no. About half of all passages that you will see are a yes."""
DETECTION = """\
A feature inside a language model fires on texts as described here:

{label}

Below are {count} passages. In which of them does the feature fire at least once?
"""
FUZZING = """\
A feature inside a language model fires on tokens as described here:

{label}

Below are {count} passages in which some tokens are marked <<like this>>. In which of them are the \
marked tokens those on which the feature fires?
"""


@dataclass(frozen=True)
class Trial:
    """One passage and the right answer."""

    text: str
    truth: bool


@dataclass(frozen=True)
class Judged:
    """What a language model made of some trials."""

    score: float | None
    """Balanced accuracy; None if too little was answered, or one of the two sides is missing."""
    answered: int
    asked: int


def trials(material: Material, measure: Measure, *, count: int, seed: int = 0) -> list[Trial]:
    """Passages to be judged, mixed: as many where the feature fires as where it is quiet.

    Args:
        material: The feature; only what is held out is used.
        measure: ``"detection"`` or ``"fuzzing"``.
        count: How many, at most.
        seed: Chooses and mixes.
    """
    random = np.random.default_rng([seed, material.site.layer, material.index])
    half = min(count // 2, len(material.held), len(material.held_quiet))
    fires = [material.held[i] for i in _chosen(random, len(material.held), half)]
    quiet = [material.held_quiet[i] for i in _chosen(random, len(material.held_quiet), half)]
    if measure == "detection":
        found = [Trial(p.text, p in fires) for p in [*fires, *quiet]]
    else:
        marks = [material.clear(p) for p in fires]
        often = max(1, round(np.mean([sum(m) for m in marks]))) if marks else 1
        found = [Trial(marked(p.tokens, m), truth=True) for p, m in zip(fires, marks, strict=True)]
        found += [Trial(_at_random(p, often, random), truth=False) for p in quiet]
    return [found[i] for i in random.permutation(len(found))]


def _chosen(random: np.random.Generator, size: int, count: int) -> list[int]:
    return sorted(random.choice(size, count, replace=False).tolist()) if count else []


def _at_random(passage: Passage, count: int, random: np.random.Generator) -> str:
    """A passage with tokens marked that mean nothing; none that is only space."""
    places = [i for i, token in enumerate(passage.tokens) if token.strip()] or [0]
    chosen = {places[i] for i in _chosen(random, len(places), min(count, len(places)))}
    return marked(passage.tokens, [i in chosen for i in range(len(passage.tokens))])


def scoring_messages(label: str, part: Sequence[Trial], measure: Measure) -> Messages:
    """The turns that ask for the judgement of some trials."""
    task = (DETECTION if measure == "detection" else FUZZING).format(label=label, count=len(part))
    passages = "\n\n".join(f"Passage {i}: {trial.text}" for i, trial in enumerate(part, 1))
    rules = RULES.format(count=len(part))
    return [{"role": "user", "content": f"{task}\n{passages}\n\n{rules}"}]


def parts(found: Sequence[Trial], together: int = TOGETHER) -> list[Sequence[Trial]]:
    """Trials as they go out, some in a prompt."""
    return [found[i : i + together] for i in range(0, len(found), together)]


def read_judgement(answer: str, count: int) -> list[bool] | None:
    """The last list of `count` zeros and ones in an answer; None if there is none."""
    for text in reversed(re.findall(r"\[[^\[\]]*\]", answer)):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if len(found) == count and all(value in (0, 1) for value in found):
            return [bool(value) for value in found]
    return None


def judge(found: Sequence[Trial], judgements: Sequence[list[bool] | None]) -> Judged:
    """The score of trials from the judgement of each of their `parts`."""
    asked = parts(found)
    pairs = [
        (trial.truth, said)
        for part, judgement in zip(asked, judgements, strict=True)
        if judgement is not None
        for trial, said in zip(part, judgement, strict=True)
    ]
    yes = [said for truth, said in pairs if truth]
    no = [not said for truth, said in pairs if not truth]
    if not yes or not no or 2 * len(pairs) < len(found):
        return Judged(None, len(pairs), len(found))
    score = (sum(yes) / len(yes) + sum(no) / len(no)) / 2
    return Judged(score, len(pairs), len(found))
