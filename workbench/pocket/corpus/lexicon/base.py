"""The shape that all five lexicons share.

A lexicon holds ready-made forms, so the grammar only looks up and never inflects. The same index
means the same thing in every language: ``nouns["sea"][0]`` is the boat everywhere.

Every entry begins with its space. An entry that ends in ``~`` waits for the next word, because its
own form depends on it (``a~``: a boat, an oar; ``la~``: la rose, l'étoile).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

LANGUAGES: tuple[str, ...] = ("en", "fr", "de", "es", "hu")
SENTIMENTS: tuple[str, ...] = ("positive", "negative")
REGISTERS: tuple[str, ...] = ("formal", "informal")
TENSES: tuple[str, ...] = ("past", "present", "future")
TOPICS: tuple[str, ...] = ("sea", "kitchen", "garden", "city", "music", "winter", "space", "market")
PERSONS: tuple[str, ...] = ("i", "she", "he", "they")
CASES: tuple[str, ...] = ("nom", "acc", "indef", "pl", "pred")
GENDERS: tuple[str, ...] = ("m", "f", "n")

FEMALE = (" Anna", " Maria", " Clara", " Julia", " Emma", " Laura", " Eva", " Nina")
MALE = (" Peter", " Daniel", " Martin", " Victor", " Adam", " David", " Oscar", " Simon")

By = Mapping[str, tuple[str, ...]]
"""Entries by the value of one factor."""


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun: its gender and its form in each case of `CASES` that it needs."""

    gender: str
    forms: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verb:
    """A transitive verb: the finite word, and the rest that may stand elsewhere."""

    finite: Mapping[str, Mapping[str, str]]
    """Tense -> person -> word."""
    rest: Mapping[str, str]
    """Tense -> participle or infinitive, or nothing."""
    base: str
    """The infinitive."""


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective: ``case:gender`` -> form."""

    forms: Mapping[str, str]


@dataclass(frozen=True)
class Lexicon:
    """All that one language needs."""

    code: str
    joint: str
    """Before a vowel a waiting entry takes this letter; ``'`` replaces its last letter."""
    vowels: str
    adjective_first: bool
    articles: Mapping[str, str]
    """``case:gender`` -> article."""
    nouns: Mapping[str, tuple[Noun, ...]]
    places: By
    verbs: Mapping[str, tuple[Verb, ...]]
    likes: Mapping[str, tuple[Verb, ...]]
    """Sentiment -> verbs such as love and hate."""
    says: Mapping[str, tuple[Verb, ...]]
    """Register -> verbs such as say and declare."""
    adjectives: Mapping[str, tuple[Adjective, ...]]
    """``sentiment:register`` -> adjectives; the plain ones stand in both registers."""
    colours: tuple[Adjective, ...]
    feels: Mapping[str, tuple[Mapping[str, str], ...]]
    """Sentiment -> moods, each person -> form."""
    adverbs: By
    exclamations: By
    """``sentiment:register`` -> exclamations with their punctuation."""
    openers: By
    closers: By
    intensifiers: By
    because: By
    conjunction: By
    but: By
    times: By
    pronouns: Mapping[str, str]
    companions: By
    """Person -> with my friend."""
    possessives: Mapping[str, Mapping[str, str]]
    """Person -> gender -> my. Empty where possession is a suffix."""
    be: Mapping[str, str]
    """Tense -> is, of a quality."""
    be_at: Mapping[str, str]
    """Tense -> is, of a place."""
    be_all: Mapping[str, str]
    """Tense -> are, of a place."""
    be_num: Mapping[str, str]
    """Tense -> are, after a number word."""
    be_feel: Mapping[str, Mapping[str, str]]
    """Tense -> person -> am, of a mood."""
    be_rest: Mapping[str, str]
    it: Mapping[str, str]
    """Gender -> it."""
    ask: Mapping[str, Mapping[str, str]]
    """Tense -> person -> do, where questions and negations need it."""
    numbers: tuple[str, ...]
    """One to twelve."""
    weekdays: tuple[str, ...]
    months: tuple[str, ...]
    date: str
    """Pattern of a day in the diary."""
    subjects: Mapping[str, str]
    """Topic -> what it is called."""
    languages: Mapping[str, str]
    """Language -> in that language."""
    moods: Mapping[str, str]
    """Sentiment -> the word for such a story."""
    ratings: By
    """Sentiment -> rating lines."""
    greetings: By
    goodbyes: By
    frames: Mapping[str, tuple[str, ...]]
    """Sentence frame -> patterns of slots and words."""

    def entries(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Every entry with the factor values under which the grammar may write it."""
        yield from self._content()
        for factor, tables in {
            "sentiment": (self.adverbs, self.ratings),
            "register": (
                self.openers,
                self.closers,
                self.intensifiers,
                self.because,
                self.conjunction,
                self.but,
                self.greetings,
                self.goodbyes,
            ),
            "tense": (self.times,),
            "topic": (self.places,),
            "person": (self.companions,),
        }.items():
            for table in tables:
                for value, texts in table.items():
                    for text in texts:
                        yield text, {factor: value}
        for key, texts in self.exclamations.items():
            sentiment, register = key.split(":")
            for text in texts:
                yield text, {"sentiment": sentiment, "register": register}
        yield from self._function_words()

    def _content(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        for topic in TOPICS:
            for noun in self.nouns[topic]:
                for form in noun.forms.values():
                    yield form, {"topic": topic}
            yield self.subjects[topic], {"topic": topic}
        for factor, table in (
            ("topic", self.verbs),
            ("sentiment", self.likes),
            ("register", self.says),
        ):
            for value, verbs in table.items():
                for verb in verbs:
                    for text, found in verb_entries(verb):
                        yield text, {factor: value, **found}
        for key, adjectives in self.adjectives.items():
            sentiment, register = key.split(":")
            for adjective in adjectives:
                for form in adjective.forms.values():
                    yield form, {"sentiment": sentiment, "register": register}
        for sentiment, feels in self.feels.items():
            for feel in feels:
                for person, form in feel.items():
                    yield form, {"sentiment": sentiment, "person": person}

    def _function_words(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        for colour in self.colours:
            for form in colour.forms.values():
                yield form, {}
        for person, text in self.pronouns.items():
            yield text, {"person": person}
        for person, forms in self.possessives.items():
            for form in forms.values():
                yield form, {"person": person}
        for table in (self.be_feel, self.ask):
            for tense, forms in table.items():
                for person, form in forms.items():
                    yield form, {"tense": tense, "person": person}
        for table in (self.be, self.be_at, self.be_all, self.be_num, self.be_rest):
            for tense, text in table.items():
                yield text, {"tense": tense}
        texts = (
            self.numbers,
            self.weekdays,
            self.months,
            self.articles.values(),
            self.it.values(),
            self.languages.values(),
        )
        for group in texts:
            for text in group:
                yield text, {}
        for sentiment, text in self.moods.items():
            yield text, {"sentiment": sentiment}
        for name, patterns in self.frames.items():
            found = {"tense": "past"} if name == "once" else {}
            for pattern in patterns:
                for token in pattern.split():
                    yield literal(token), found


def verb_entries(verb: Verb) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The forms of `verb` with the tense and the person that they show."""
    for tense, forms in verb.finite.items():
        for person, form in forms.items():
            yield form, {"tense": tense, "person": person}
    for tense, form in verb.rest.items():
        yield form, {"tense": tense}
    yield verb.base, {}


def literal(token: str) -> str:
    """The words of one token of a pattern; nothing for a slot."""
    if token.rstrip("?").isupper() and token.isascii() and len(token) > 1:
        return ""
    return " " + token.split("/")[0].replace("_", " ")


def words(text: str) -> tuple[str, ...]:
    """The entries in a list with ``|`` between them, each with its space; a comma takes none."""
    parts = (word.strip() for word in text.split("|"))
    return tuple(part if part.startswith(",") else " " + part for part in parts)


def tenses(past: str, present: str, future: str) -> Mapping[str, str]:
    """One entry for each tense; an empty one stays empty."""
    return MappingProxyType(
        {
            tense: " " + text if text else ""
            for tense, text in zip(TENSES, (past, present, future), strict=True)
        }
    )


def persons(text: str) -> Mapping[str, str]:
    """One entry for each of `PERSONS`, from words with ``|`` between them; one word serves all."""
    parts = [part.strip() for part in text.split("|")]
    parts = parts * 4 if len(parts) == 1 else parts
    return MappingProxyType(
        {person: " " + part if part else "" for person, part in zip(PERSONS, parts, strict=True)}
    )


def by_topic(text: str) -> dict[str, tuple[str, ...]]:
    """Lines ``topic: one | two | three`` as a table without leading spaces."""
    table = {}
    for line in text.strip().splitlines():
        topic, rest = line.split(":", 1)
        table[topic.strip()] = tuple(part.strip() for part in rest.split("|"))
    return table


def spaced(table: Mapping[str, Sequence[str]]) -> By:
    """The same table with the space before every entry."""
    return {key: tuple(" " + text for text in texts) for key, texts in table.items()}


def both(
    plain: Sequence[Adjective], formal: Sequence[Adjective], informal: Sequence[Adjective]
) -> tuple[tuple[Adjective, ...], tuple[Adjective, ...]]:
    """The adjectives of the formal and of the informal register, the plain ones in both."""
    return (*plain, *formal), (*plain, *informal)


def crossed(positive: tuple[tuple, tuple], negative: tuple[tuple, tuple]) -> dict[str, tuple]:
    """Pairs (formal, informal) as a table ``sentiment:register``."""
    return {
        f"{sentiment}:{register}": group
        for sentiment, pair in zip(SENTIMENTS, (positive, negative), strict=True)
        for register, group in zip(REGISTERS, pair, strict=True)
    }


def same(form: str) -> Adjective:
    """An adjective that never changes."""
    return Adjective({f"{case}:{g}": " " + form for case in CASES for g in GENDERS})


def agreeing(m: str, f: str, mpl: str, fpl: str) -> Adjective:
    """An adjective that agrees in gender and number, without cases."""
    forms = {f"{case}:m": " " + m for case in CASES} | {f"{case}:f": " " + f for case in CASES}
    return Adjective(forms | {"pl:m": " " + mpl, "pl:f": " " + fpl})
