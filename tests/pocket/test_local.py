"""Local kinds: what they write is true, well formed and labelled."""

from __future__ import annotations

import ast
import json
import random
import re
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from workbench.pocket.corpus.core import Document, Writer
from workbench.pocket.corpus.local import LOCAL, LOCAL_LABELS

SEEDS = 60
CODE = ("python", "json", "html")
CAPITALS = {
    "france": "paris", "germany": "berlin", "spain": "madrid", "hungary": "budapest",
    "italy": "rome", "poland": "warsaw", "norway": "oslo", "egypt": "cairo", "japan": "tokyo",
    "peru": "lima", "turkey": "ankara", "austria": "vienna",
}  # fmt: skip
WORDS = dict(
    zip(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
         "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
         "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
        [*range(20), *range(20, 100, 10)], strict=True,
    )
)  # fmt: skip


@cache
def documents(kind: str) -> tuple[Document, ...]:
    made = []
    for seed in range(SEEDS):
        writer = Writer(random.Random(seed))
        LOCAL[kind][1](writer)
        made.append(writer.document(kind))
    return tuple(made)


def labelled(document: Document, label: str) -> list[str]:
    return [p.text.strip().lower() for p in document.pieces if label in p.concepts]


def value(word: str) -> int:
    return int(word) if word.isdigit() else sum(WORDS[part] for part in word.split("-"))


@pytest.mark.parametrize("kind", LOCAL)
def test_spans_cover_the_text_and_the_factors_are_set(kind: str) -> None:
    for document in documents(kind):
        end = 0
        for start, stop, concepts in document.spans():
            assert start == end
            assert stop > start
            factors = dict(c.split(":") for c in concepts if ":" in c)
            assert set(factors) == {"language", "capitals"}
            end = stop
        assert end == len(document.text)
        assert 300 <= end <= 950
        assert document.nats > 0


@pytest.mark.parametrize("kind", LOCAL)
def test_a_seed_gives_one_document_and_seeds_differ(kind: str) -> None:
    writer = Writer(random.Random(5))
    LOCAL[kind][1](writer)
    assert writer.document(kind) == documents(kind)[5]
    assert len({d.text for d in documents(kind)}) == SEEDS


@pytest.mark.parametrize("kind", LOCAL)
def test_capitals_are_sometimes_and_never_in_code(kind: str) -> None:
    upper = [d.text.isupper() for d in documents(kind) if "capitals:upper" in d.pieces[0].concepts]
    assert all(upper) or kind == "brackets"
    assert bool(upper) == (kind not in CODE)


def test_labels_are_exactly_the_declared_ones() -> None:
    seen = {c for k in LOCAL for d in documents(k) for p in d.pieces for c in p.concepts}
    assert {c for c in seen if ":" not in c} == LOCAL_LABELS


def test_sums_are_right() -> None:
    found = 0
    for document in documents("sums"):
        text = document.text.lower().replace("plus", "+").replace("minus", "-")
        text = re.sub(r"\btimes\b", "x", text)
        text = re.sub(r"\b(is|equals)\b(?= \w)(?! \w+ [-+x])", "=", text).replace("?", " =")
        for x, sign, y, z in re.findall(r"([\w-]+) ([-+x]) ([\w-]+) = ([\w-]+)", text):
            a, b = value(x), value(y)
            assert {"+": a + b, "-": a - b, "x": a * b}[sign] == value(z)
            found += 1
        assert len(labelled(document, "sum_result")) == len(labelled(document, "sum_operator"))
    assert found > 10 * SEEDS


def test_counting_keeps_its_step() -> None:
    for document in documents("numbers"):
        for row in re.findall(r"[\w-]+(?:, [\w-]+){3,}", document.text.lower()):
            values = [value(word) for word in row.split(", ")]
            assert len({b - a for a, b in pairwise(values)}) == 1


def test_days_follow_each_other() -> None:
    days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    found = 0
    for document in documents("calendar"):
        for a, b in re.findall(r"after (\w+day) comes (\w+day)", document.text.lower()):
            assert days[(days.index(a) + 1) % 7] == b
            found += 1
    assert found > 10


@pytest.mark.parametrize("kind", ["brackets", "python", "json"])
def test_brackets_are_balanced(kind: str) -> None:
    for document in documents(kind):
        stack = []
        for piece in document.pieces:
            if "opening_bracket" in piece.concepts:
                stack.append(piece.text.strip())
            elif "closing_bracket" in piece.concepts:
                assert stack.pop() + piece.text in ("()", "[]", "{}")
        assert not stack
        for mark in "([{":
            marks = labelled(document, "opening_bracket")
            assert document.text.count(mark) == marks.count(mark)


def test_json_parses_and_keys_are_labelled() -> None:
    for document in documents("json"):
        keys = []
        json.loads(document.text, object_pairs_hook=lambda pairs, k=keys: k.extend(dict(pairs)))
        assert sorted(keys) == sorted(labelled(document, "json_key"))


def test_html_is_balanced() -> None:
    class Stack(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.closed = 0

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag
            self.closed += 1

    for document in documents("html"):
        parser = Stack()
        parser.feed(document.text)
        parser.close()
        assert not parser.open
        assert parser.closed == len(labelled(document, "html_close_tag"))


def test_python_runs() -> None:
    for document in documents("python"):
        ast.parse(document.text)
        exec(compile(document.text, "program", "exec"), {"print": lambda *_: None})


def test_scores_agree_with_the_verb() -> None:
    found = 0
    for document in documents("sports"):
        scores = [int(s) for s in labelled(document, "score") if s.isdigit()]
        verbs = labelled(document, "result_verb")
        assert len(scores) == 2 * len(verbs)
        for verb, a, b in zip(verbs, scores[::2], scores[1::2], strict=True):
            assert {"won": a > b, "beat": a > b, "lost": a < b, "drew": a == b}[verb]
            found += 1
    assert found > SEEDS


def test_verbs_agree_with_their_subject() -> None:
    plural_nouns = {"children", "men", "women"}
    for document in documents("agreement"):
        for sentence in re.split(r"\.\s*", document.text.lower().strip(". \n")):
            words = sentence.split()
            subject = next(w for w in words if w in labelled(document, "plural_noun")
                           or w in labelled(document, "singular_noun"))  # fmt: skip
            plural = subject in plural_nouns or subject.endswith("s")
            verb = next(w for w in words if w in labelled(document, "plural_verb")
                        or w in labelled(document, "singular_verb"))  # fmt: skip
            assert plural == (verb in ("are", "were") or not verb.endswith("s"))


def test_pronouns_agree_with_the_gender() -> None:
    for document in documents("family"):
        assert set(labelled(document, "female_pronoun")) <= {"she", "her"}
        assert set(labelled(document, "male_pronoun")) <= {"he", "his", "him"}
        for name, noun in re.findall(r"(\w+) is a (girl|boy)", document.text.lower()):
            gender = "female_name" if noun == "girl" else "male_name"
            assert name in labelled(document, gender)


def test_capitals_are_true() -> None:
    found = 0
    for document in documents("capitals"):
        text = document.text.lower()
        pairs = re.findall(r"capital of (\w+) is (\w+)", text)
        pairs += [(a, b) for b, a in re.findall(r"(\w+) lies in (\w+)", text)]
        pairs += [(a, b) for b, a in re.findall(r"(\w+) is the capital of (\w+)\.", text)]
        for country, city in pairs:
            if country in CAPITALS:
                assert city == CAPITALS[country]
                found += 1
    assert found > SEEDS
