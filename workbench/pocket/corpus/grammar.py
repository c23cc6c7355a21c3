"""Sentences from a lexicon and a state: one set of frames, five languages.

1. `Narrator.begin` draws the state and which factors, up to three, are mobile. `Narrator.turn`
   lets every mobile factor switch before a sentence. All other factors keep their value.
2. `Narrator.sentence` draws a frame, then a pattern of that frame in the current language.
3. A pattern is a row of slots and words. Each slot looks up the form that the state demands, so
   nearly every word depends on several factors at once. A slot with ``?`` may be left out.
4. The noun of the last sentence returns often, and a named person stays for the whole document.

Patterns are compiled once into functions, because tens of millions of characters are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from workbench.pocket.corpus.core import Writer
from workbench.pocket.corpus.lexicon import LEXICONS, Lexicon
from workbench.pocket.corpus.lexicon.base import (
    FEMALE,
    MALE,
    PERSONS,
    REGISTERS,
    SENTIMENTS,
    TENSES,
    TOPICS,
    Adjective,
    Noun,
    Verb,
)

FACTORS: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "language": (("en", "fr", "de", "es", "hu"), (0.4, 0.15, 0.15, 0.15, 0.15)),
    "sentiment": (SENTIMENTS, (1, 1)),
    "register": (REGISTERS, (1, 1)),
    "tense": (TENSES, (1, 1, 1)),
    "topic": (TOPICS, (1,) * len(TOPICS)),
    "person": (PERSONS, (1,) * len(PERSONS)),
    "capitals": (("normal", "upper"), (0.88, 0.12)),
}
"""Factor -> its values and their weights."""

FRAMES = {
    "main": 5,
    "adverb": 3,
    "there": 1,
    "quality": 2,
    "it": 1,
    "says": 1.5,
    "quote": 0.7,
    "two": 1.5,
    "question": 0.7,
    "why": 0.5,
    "exclaim": 1,
    "because": 2,
    "as": 0.7,
    "count": 0.8,
    "plural": 1,
    "with": 1.5,
    "negation": 1,
    "feel": 1.5,
    "own": 1,
    "but": 1,
}
"""Frame -> how often it is used."""
FRAME_NAMES = tuple(FRAMES)
FRAME_WEIGHTS = tuple(FRAMES.values())

SWITCH = 0.12
"""Chance that a mobile factor switches before a sentence."""
SHOUT = {"normal": 0.05, "upper": 0.3}
"""The same for capitals, which stay rare."""
OPTIONAL = {"OPEN": 0.35, "CLOSE": 0.3, "TIME": 0.4, "PLACE": 0.5, "INTENS": 0.5}

Step = tuple[Callable[..., None], tuple[str, ...] | None, float]
"""What writes, the entry and label that it writes (nothing for a slot), and how likely."""


@dataclass
class Narrator:
    """Writes sentences that follow the writer's state."""

    w: Writer
    lx: Lexicon = field(default=LEXICONS["en"])
    topic: str = "sea"
    person: str = "i"
    tense: str = "present"
    mobile: tuple[str, ...] = ()
    names: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Person -> who it is in this document, with the label of each name."""
    current: str = ""
    """The person who has been named last; the pronoun serves while it stays."""
    last: tuple[str, int] = ("", 0)
    noun: Noun | None = None
    asked: bool = False
    """The next sentence is about the last noun."""
    verb: Verb | None = None
    say: Verb | None = None
    fresh: bool = True
    """The next word begins a sentence."""
    tight: bool = True
    """The next word takes no space."""
    waiting: tuple[str, str] | None = None
    """An entry that needs the next word, with its label."""

    def begin(self, **fixed: str) -> None:
        """Draw the state of a new document; factors in `fixed` keep that value and never switch."""
        w = self.w
        for factor, (values, weights) in FACTORS.items():
            value = fixed.get(factor)
            w.state[factor] = w.pick(values, weights) if value is None else value
        count = w.pick((0, 1, 2, 3), (0.15, 0.35, 0.3, 0.2))
        self.mobile = tuple(w.sample([f for f in FACTORS if f not in fixed], count))

    def turn(self) -> None:
        """Let the mobile factors switch."""
        w = self.w
        for factor in self.mobile:
            rate = SHOUT[w.state[factor]] if factor == "capitals" else SWITCH
            if w.chance(rate):
                values, weights = others(factor, w.state[factor])
                w.state[factor] = w.pick(values, weights)

    def refresh(self) -> None:
        """Look the state up once for a sentence."""
        state = self.w.state
        self.lx = LEXICONS[state["language"]]
        self.topic, self.person, self.tense = state["topic"], state["person"], state["tense"]
        self.verb = self.say = None
        topic, index = self.last
        self.noun = self.lx.nouns[topic][index] if topic == self.topic else None

    def sentence(self, frame: str | None = None) -> None:
        """Write one sentence, from `frame` or from a frame drawn."""
        self.refresh()
        w = self.w
        if frame is None:
            frame = w.pick(FRAME_NAMES, FRAME_WEIGHTS)
            if frame == "it" and self.noun is None:
                frame = "quality"
        self.write(self.lx.code, frame)
        self.fresh = True

    def write(self, code: str, frame: str) -> None:
        """Write the pattern of `frame`, without ending a sentence."""
        patterns = compiled(code, frame)
        w = self.w
        for step, words, probability in patterns[0] if len(patterns) == 1 else w.pick(patterns):
            if probability == 1 or w.chance(probability):
                if words is None:
                    step(self)
                else:
                    step(self, words)

    def step(self, token: str) -> None:
        """Write one token of a pattern."""
        write, words, _ = compile_token(token)
        if words is None:
            write(self)
        else:
            write(self, words)

    def put(self, text: str, label: str = "") -> None:
        """Write one entry that begins with its space."""
        if not text:
            return
        if self.waiting is not None:
            before, its_label = self.waiting
            self.waiting = None
            if text[1].lower() in self.lx.vowels:
                if self.lx.joint == "'":
                    self._raw(before[:-1] + "'", its_label)
                    text = text[1:]
                else:
                    self._raw(before + self.lx.joint, its_label)
            else:
                self._raw(before, its_label)
        if text[-1] == "~":
            self.waiting = text[:-1], label
        else:
            self._raw(text, label)

    def _raw(self, text: str, label: str) -> None:
        if self.fresh or self.tight:
            if self.tight:
                text = text.lstrip()
                self.tight = False
            if self.fresh:
                lead = len(text) - len(text.lstrip(" "))
                text = text[:lead] + text[lead].upper() + text[lead + 1 :]
                self.fresh = text.strip() in OPENING
        if label:
            self.w.add(text, label)
        else:
            self.w.add(text)

    def line(self) -> None:
        """End the line; the next word begins a sentence."""
        self.w.add("\n")
        self.fresh = self.tight = True

    def choose(self) -> Noun:
        """A noun of the topic; often the last one again."""
        topic, index = self.last
        nouns = self.lx.nouns[self.topic]
        if topic == self.topic and (self.asked or self.w.chance(0.35)):
            self.noun = nouns[index]
            return nouns[index]
        return self.other()

    def other(self) -> Noun:
        """A noun of the topic that was not the last one."""
        topic, index = self.last
        left = OTHER_INDICES[index if topic == self.topic else len(OTHER_INDICES) - 1]
        index = self.w.pick(left)
        self.last = self.topic, index
        self.noun = noun = self.lx.nouns[self.topic][index]
        return noun

    def phrase(self, case: str, noun: Noun, label: str = "noun") -> None:
        """Article, perhaps an adjective or a colour, and the noun."""
        key = f"{case}:{noun.gender}"
        w, lx = self.w, self.lx
        self.put(lx.articles[key], "article")
        kind = w.pick(("adjective", "colour", "none"), (0.55, 0.1, 0.35))
        if kind == "none":
            self.put(noun.forms[case], label)
            return
        words = w.pick(self.adjectives() if kind == "adjective" else lx.colours).forms[key]
        if lx.adjective_first:
            self.put(words, kind)
        self.put(noun.forms[case], label)
        if not lx.adjective_first:
            self.put(words, kind)

    def adjectives(self) -> tuple[Adjective, ...]:
        """The adjectives of the sentiment and the register."""
        state = self.w.state
        return self.lx.adjectives[f"{state['sentiment']}:{state['register']}"]

    def name(self) -> None:
        """Write the protagonist's name, which is drawn once a document."""
        person, w = self.person, self.w
        if person not in self.names:
            female = (w.pick(FEMALE), "female_name") if person != "he" else None
            male = (w.pick(MALE), "male_name") if person != "she" else None
            self.names[person] = tuple(entry for entry in (female, male) if entry)
        first, *more = self.names[person]
        self.put(*first)
        for entry in more:
            self.put(JOIN[self.lx.code], "conjunction")
            self.put(*entry)
        self.current = person

    def subject(self) -> None:
        """A name or a pronoun; a person who was not named yet is named."""
        if self.person != "i" and (self.current != self.person or self.w.chance(0.25)):
            self.name()
        else:
            self.put(self.lx.pronouns[self.person], "pronoun")

    def action(self) -> Verb:
        """The verb of the clause: of the topic, or a liking of the sentiment."""
        if self.verb is None:
            w = self.w
            likes = w.chance(0.25)
            self.verb = w.pick(
                self.lx.likes[w.state["sentiment"]] if likes else self.lx.verbs[self.topic]
            )
        return self.verb

    def saying(self) -> Verb:
        """The verb that reports, by register."""
        if self.say is None:
            self.say = self.w.pick(self.lx.says[self.w.state["register"]])
        return self.say


OPENING = frozenset("“„«¿¡")
JOIN = {"en": " and", "fr": " et", "de": " und", "es": " y", "hu": " és"}
OTHER_INDICES = (*(tuple(i for i in range(8) if i != j) for j in range(8)), tuple(range(8)))


@cache
def others(factor: str, value: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The values of `factor` without `value`, and their weights."""
    left = [pair for pair in zip(*FACTORS[factor], strict=True) if pair[0] != value]
    return tuple(v for v, _ in left), tuple(p for _, p in left)


def _table(attribute: str, factor: str, label: str) -> Callable[[Narrator], None]:
    """A slot that draws from the table `attribute` by the value of `factor`."""

    def slot(n: Narrator) -> None:
        n.put(n.w.pick(getattr(n.lx, attribute)[n.w.state[factor]]), label)

    return slot


def _opener(n: Narrator) -> None:
    n.put(n.w.pick(n.lx.openers[n.w.state["register"]]), "opener")


def _exclaim(n: Narrator) -> None:
    state = n.w.state
    n.put(n.w.pick(n.lx.exclamations[f"{state['sentiment']}:{state['register']}"]), "exclamation")


def _count(n: Narrator) -> None:
    n.put(n.w.pick(n.lx.numbers[2:]), "number_word")
    noun = n.choose()
    if n.lx.code == "hu":
        n.put(noun.forms["nom"], "noun")
    else:
        n.put(noun.forms["pl"], "plural_noun")


def _own(n: Narrator) -> None:
    noun = n.choose()
    vowel = n.lx.code == "fr" and noun.forms["nom"][1] in n.lx.vowels
    n.put(n.lx.possessives[n.person]["vowel" if vowel else noun.gender], "possessive")
    n.put(noun.forms["nom"], "noun")


def _with(n: Narrator) -> None:
    n.put(n.w.pick(n.lx.companions[n.person]), "possessive")


def _predicate(n: Narrator) -> None:
    gender = n.noun.gender if n.noun else "n"
    n.put(n.w.pick(n.adjectives()).forms[f"pred:{gender}"], "adjective")


def _next(n: Narrator) -> None:
    n.verb = None


def _glue(n: Narrator) -> None:
    n.tight = True


def _there(n: Narrator) -> None:
    n.put(THERE[n.lx.code][n.tense], "verb")


def _draw(attribute: str, label: str) -> Callable[[Narrator], None]:
    def slot(n: Narrator) -> None:
        n.put(n.w.pick(getattr(n.lx, attribute)), label)

    return slot


THERE = {
    code: dict(
        zip(TENSES, (" " + form for form in lexicon.frames["there_forms"][0].split()), strict=True)
    )
    for code, lexicon in LEXICONS.items()
    if "there_forms" in lexicon.frames
}

SLOTS: dict[str, Callable[[Narrator], None]] = {
    "OPEN": _opener,
    "CLOSE": _table("closers", "register", "closer"),
    "TIME": _table("times", "tense", "time_adverb"),
    "PLACE": _table("places", "topic", "place"),
    "ADVERB": _table("adverbs", "sentiment", "adverb"),
    "INTENS": _table("intensifiers", "register", "intensifier"),
    "AND": _table("conjunction", "register", "conjunction"),
    "BUT": _table("but", "register", "conjunction"),
    "BECAUSE": _table("because", "register", "conjunction"),
    "WITH": _with,
    "SUBJ": Narrator.subject,
    "HE": lambda n: n.put(n.lx.pronouns[n.person], "pronoun"),
    "FIN": lambda n: n.put(n.action().finite[n.tense][n.person], "verb"),
    "REST": lambda n: n.put(n.action().rest[n.tense], "verb"),
    "BASE": lambda n: n.put(n.action().base, "verb"),
    "SFIN": lambda n: n.put(n.saying().finite[n.tense][n.person], "verb"),
    "SREST": lambda n: n.put(n.saying().rest[n.tense], "verb"),
    "NEXT": _next,
    "GLUE": _glue,
    "OBJ": lambda n: n.phrase("acc", n.choose()),
    "NOM": lambda n: n.phrase("nom", n.choose()),
    "OTHER": lambda n: n.phrase("nom", n.other()),
    "INDEF": lambda n: n.phrase("indef", n.choose()),
    "PLURAL": lambda n: n.phrase("pl", n.choose(), "plural_noun"),
    "COUNT": _count,
    "OWN": _own,
    "OWNER": lambda n: n.put(n.lx.possessives[n.person]["n"], "possessive"),
    "IT": lambda n: n.put(n.lx.it[n.noun.gender if n.noun else "n"], "pronoun"),
    "PRED": _predicate,
    "THERE": _there,
    "BE": lambda n: n.put(n.lx.be[n.tense], "verb"),
    "BEAT": lambda n: n.put(n.lx.be_at[n.tense], "verb"),
    "BEALL": lambda n: n.put(n.lx.be_all[n.tense], "verb"),
    "BENUM": lambda n: n.put(n.lx.be_num[n.tense], "verb"),
    "BEREST": lambda n: n.put(n.lx.be_rest[n.tense], "verb"),
    "FEELBE": lambda n: n.put(n.lx.be_feel[n.tense][n.person], "verb"),
    "FEEL": lambda n: n.put(n.w.pick(n.lx.feels[n.w.state["sentiment"]])[n.person], "adjective"),
    "ASK": lambda n: n.put(n.lx.ask[n.tense][n.person], "verb"),
    "EXCLAIM": _exclaim,
    "WEEKDAY": _draw("weekdays", "weekday"),
    "MONTH": _draw("months", "month"),
    "DAY": lambda n: n.put(f" {n.w.number(1, 28)}", "number"),
    "SUBJECT": lambda n: n.put(n.lx.subjects[n.topic], "noun"),
}
"""Slot -> what writes it."""

MARKS = {".": "sentence_end", "?": "sentence_end", "_?": "sentence_end", ",": "comma"}


@cache
def compiled(code: str, frame: str) -> tuple[tuple[Step, ...], ...]:
    """The patterns of a frame as steps ``(function, words, probability)``."""
    lexicon = LEXICONS[code]
    patterns = (lexicon.date,) if frame == "date" else lexicon.frames[frame]
    return tuple(tuple(map(compile_token, pattern.split())) for pattern in patterns)


@cache
def compile_token(token: str) -> Step:
    """One token of a pattern as a step."""
    name = token.rstrip("?") if len(token) > 2 else token
    slot = SLOTS.get(name)
    if slot is not None:
        probability = OPTIONAL[name] if token.endswith("?") else 1
        return slot, None, probability
    text, slash, label = token.partition("/")
    if text.strip("_") in set(".,:?”»") or (text == "“" and label == "closing_quote"):
        label = label if slash else MARKS[text]
        return _mark, (text.replace("_", " "), label), 1
    return _literal, (" " + text.replace("_", " "), label), 1


def _literal(n: Narrator, words: tuple[str, ...]) -> None:
    n.put(*words)


def _mark(n: Narrator, words: tuple[str, ...]) -> None:
    """Punctuation; it never begins a sentence."""
    if words[1]:
        n.w.add(*words)
    else:
        n.w.add(words[0])
