"""The narrative corpus: its books are right, its factors cross, its markers tell them apart."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from functools import cache

import pytest

from workbench.pocket.corpus.core import Document, Writer
from workbench.pocket.corpus.grammar import FACTORS, FRAMES, Narrator
from workbench.pocket.corpus.lexicon import LEXICONS
from workbench.pocket.corpus.lexicon.base import PERSONS, TENSES, TOPICS
from workbench.pocket.corpus.markers import markers, share
from workbench.pocket.corpus.narrative import NARRATIVE

SCORABLE = [factor for factor in FACTORS if factor != "capitals"]


def write(kind: str, seed: int) -> Document:
    """One document of `kind`."""
    writer = Writer(random.Random(seed))
    NARRATIVE[kind][1](writer)
    return writer.document(kind)


@cache
def many() -> tuple[Document, ...]:
    """Five hundred documents of all kinds by their weights."""
    rng = random.Random(1)
    weights = [weight for weight, _ in NARRATIVE.values()]
    kinds = rng.choices(list(NARRATIVE), weights, k=500)
    return tuple(write(kind, seed) for seed, kind in enumerate(kinds))


def fixed(seed: int, count: int = 12, **state: str) -> str:
    """Sentences under one state that never switches."""
    writer = Writer(random.Random(seed))
    narrator = Narrator(writer)
    narrator.begin(**state)
    for _ in range(count):
        narrator.sentence()
    return writer.document("fixed").text


def test_spans_cover_the_text_without_gaps() -> None:
    for document in many():
        end = 0
        for start, stop, concepts in document.spans():
            assert start == end
            assert stop > start
            assert {c.partition(":")[0] for c in concepts} >= set(SCORABLE)
            end = stop
        assert end == len(document.text)


@pytest.mark.parametrize("kind", NARRATIVE)
def test_the_same_seed_gives_the_same_document(kind: str) -> None:
    assert write(kind, 7) == write(kind, 7)
    assert write(kind, 7).text != write(kind, 8).text


def test_every_pair_of_values_occurs() -> None:
    seen = Counter()
    for document in many():
        for piece in document.pieces:
            values = sorted(c for c in piece.concepts if c.partition(":")[0] in FACTORS)
            seen.update(itertools.combinations(values, 2))
    for (one, (left, _)), (two, (right, _)) in itertools.combinations(sorted(FACTORS.items()), 2):
        for a, b in itertools.product(left, right):
            assert seen[f"{one}:{a}", f"{two}:{b}"] > 20, (one, a, two, b)


def test_factors_persist_and_switch_on_their_own() -> None:
    switches, sentences, alone = Counter(), 0, 0
    for seed in range(200):
        pieces = write("story", seed).pieces
        states = [
            frozenset(c for c in p.concepts if c.partition(":")[0] in FACTORS) for p in pieces
        ]
        for before, after in itertools.pairwise(states):
            changed = after - before
            switches.update(c.partition(":")[0] for c in changed)
            alone += len(changed) == 1
            sentences += bool(changed)
    assert set(switches) == set(FACTORS)
    assert alone > 0.6 * sentences
    assert max(switches.values()) < 3 * min(switches.values())


def test_nats_are_finite_and_positive() -> None:
    per_character = [document.nats / len(document.text) for document in many()]
    assert all(math.isfinite(value) and 0.1 < value < 0.6 for value in per_character)


def test_capitals_are_upper_and_normal_text_is_not() -> None:
    markers_of_turns = re.compile(r"turn_marker")
    for document in many():
        for piece in document.pieces:
            if "capitals:upper" in piece.concepts:
                assert piece.text == piece.text.upper()
            if any(markers_of_turns.match(c) for c in piece.concepts):
                assert piece.text == piece.text.lower()
    text = fixed(3, capitals="normal")
    assert not text.isupper()
    assert share(text, "capitals:normal")[0] > 0.9 * share(text, "capitals:normal")[1]


@pytest.mark.parametrize("factor", SCORABLE)
def test_markers_are_disjoint_and_many(factor: str) -> None:
    table = markers(factor)
    assert set(table) == set(FACTORS[factor][0])
    for one, two in itertools.combinations(table.values(), 2):
        assert not one & two
    assert min(map(len, table.values())) >= 15
    assert all(word == word.lower() for found in table.values() for word in found)


@pytest.mark.parametrize("language", LEXICONS)
@pytest.mark.parametrize("factor", SCORABLE)
def test_share_is_one_on_documents_of_one_value(factor: str, language: str) -> None:
    for seed, value in enumerate(FACTORS[factor][0]):
        if factor == "language" and value != language:
            continue
        state = {"language": language, factor: value}
        hits, total = share(fixed(seed, 25, **state), f"{factor}:{value}")
        assert hits == total > 0, (value, hits, total)


def test_share_of_capitals_and_role() -> None:
    assert share("THE boat is A BIG one", "capitals:upper") == (2, 5)
    assert share("the boat", "role:user") == (0, 0)
    assert share("Anna and Peter", "person:they") == (1, 1)
    with pytest.raises(ValueError, match="factor is 'mood'"):
        share("the boat", "mood:good")
    with pytest.raises(ValueError, match="language has the values en"):
        share("the boat", "language:it")


@pytest.mark.parametrize("code", LEXICONS)
def test_lexicons_have_one_shape(code: str) -> None:
    lexicon, english = LEXICONS[code], LEXICONS["en"]
    for topic in TOPICS:
        assert len(lexicon.nouns[topic]) == 8
        assert len(lexicon.verbs[topic]) == len(english.verbs[topic]) == 5
        assert len(lexicon.places[topic]) == 4
        for verb in lexicon.verbs[topic]:
            assert set(verb.finite) == set(TENSES)
            assert all(set(forms) == set(PERSONS) for forms in verb.finite.values())
    assert set(lexicon.frames) >= set(english.frames) >= set(FRAMES)
    nouns = [noun.forms["nom"] for topic in TOPICS for noun in lexicon.nouns[topic]]
    assert len(set(nouns)) == 64


@pytest.mark.parametrize("code", LEXICONS)
@pytest.mark.parametrize("frame", FRAMES)
def test_every_frame_writes_a_clean_sentence(code: str, frame: str) -> None:
    for seed in range(20):
        writer = Writer(random.Random(seed))
        narrator = Narrator(writer)
        narrator.begin(language=code, capitals="normal")
        narrator.sentence("quality")
        start = writer.length
        narrator.sentence(frame)
        text = writer.document("frame").text[start:]
        assert text.startswith(" ")
        assert "  " not in text
        assert "~" not in text
        assert "_" not in text
        assert " ," not in text
        assert text[-1] in ".?!”“»"
        letter = re.search(r"[^\W\d_]", text)
        assert letter is not None
        assert letter.group().isupper(), text
        unjoined = {
            "en": r"\b[Aa] [aeiou]",
            "fr": r"\b(?:[Ll][ea]|[Jj]e|[Nn]e|que) [aeiouéœ]",
            "hu": r"\b[Aa] [aáeéiíoóöőuúüű]",
        }.get(code, r"\d{9}")
        assert not re.search(unjoined, text), text


def test_a_chat_alternates_roles_and_obeys() -> None:
    for seed in range(60):
        document = write("chat", seed)
        roles = re.findall(r"<start_of_turn>(\w+)\n", document.text)
        assert roles == ["user", "model"] * (len(roles) // 2)
        assert 2 <= len(roles) // 2 <= 4
        assert document.text.count("<end_of_turn>\n") == len(roles)
        for piece in document.pieces:
            assert ("role:user" in piece.concepts) != ("role:model" in piece.concepts)
        for ask, answer in re.findall(
            r"count to (\w+)\?<end_of_turn>\n<start_of_turn>model\n([^.]*)\.", document.text
        ):
            assert answer.split(", ")[-1] == ask
    assert not any("role:" in c for p in write("story", 1).pieces for c in p.concepts)


def test_local_labels_are_all_there() -> None:
    labels = {c for d in many() for p in d.pieces for c in p.concepts if ":" not in c}
    assert labels >= {
        "pronoun",
        "verb",
        "adjective",
        "noun",
        "place",
        "time_adverb",
        "conjunction",
        "article",
        "sentence_end",
        "comma",
        "exclamation",
        "question_word",
        "female_name",
        "male_name",
        "colour",
        "number_word",
        "negation",
        "opening_quote",
        "closing_quote",
        "plural_noun",
        "possessive",
        "opener",
        "closer",
        "letter_greeting",
        "letter_closing",
        "weekday",
        "month",
        "number",
        "rating",
        "turn_marker",
    }
