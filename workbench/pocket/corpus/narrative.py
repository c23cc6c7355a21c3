"""The kinds of narrative document: stories, letters, diaries, reviews, news and chats.

Every kind draws a state, then writes sentences of the grammar inside its own frame. In a chat the
model's turn obeys the user's request, so the request has to be read to predict the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.pocket.corpus.core import Writer
from workbench.pocket.corpus.grammar import FACTORS, Narrator
from workbench.pocket.corpus.lexicon.base import FEMALE, MALE


def _body(n: Narrator, until: int) -> None:
    """Sentences until the document has `until` characters."""
    while n.w.length < until:
        n.turn()
        n.sentence()


def story(w: Writer) -> None:
    """A story of 15 to 25 sentences; some in the past begin with once upon a time."""
    n = Narrator(w)
    n.begin()
    until = 100 * w.number(7, 11)
    if w.state["tense"] == "past" and w.chance(0.5):
        n.sentence("once")
    while w.length < until:
        n.turn()
        n.sentence()
        if w.chance(0.1):
            n.line()


def _person_name(w: Writer) -> tuple[str, str]:
    """Any first name, with its label."""
    if w.chance(0.5):
        return w.pick(FEMALE), "female_name"
    return w.pick(MALE), "male_name"


def letter(w: Writer) -> None:
    """Greeting, body, closing and name."""
    n = Narrator(w)
    n.begin()
    n.refresh()
    formal = w.state["register"] == "formal"
    n.put(w.pick(n.lx.greetings[w.state["register"]]), "letter_greeting")
    if not formal:
        n.put(*_person_name(w))
    w.add(",", "comma")
    n.line()
    _body(n, 100 * w.number(5, 9))
    n.line()
    n.refresh()
    n.put(w.pick(n.lx.goodbyes[w.state["register"]]), "letter_closing")
    n.line()
    n.put(*_person_name(w))


def diary(w: Writer) -> None:
    """Two to four days, each with its date."""
    n = Narrator(w)
    n.begin()
    for day in range(w.number(2, 4)):
        if day:
            n.line()
        n.refresh()
        n.write(n.lx.code, "date")
        n.line()
        for _ in range(w.number(4, 7)):
            n.turn()
            n.sentence()


def review(w: Writer) -> None:
    """A rating that agrees with the sentiment, and a body that keeps it."""
    n = Narrator(w)
    n.begin(sentiment=w.pick(("positive", "negative")))
    n.refresh()
    n.put(w.pick(n.lx.ratings[w.state["sentiment"]]), "rating")
    n.line()
    _body(n, 100 * w.number(5, 8))


def news(w: Writer) -> None:
    """A headline and a formal report."""
    n = Narrator(w)
    n.begin(register="formal")
    n.refresh()
    n.write(n.lx.code, "headline")
    n.line()
    _body(n, 100 * w.number(5, 9))


REQUESTS = ("noun", "where", "language", "story", "count", "capitals", "past", "future")
FILLERS = ("INLANG", "MOOD", "UPTO")


def chat(w: Writer) -> None:
    """Two to four exchanges; each answer obeys its request."""
    n = Narrator(w)
    n.begin(register="informal")
    if w.chance(0.6):
        n.mobile = ()
    for _ in range(w.number(2, 4)):
        before = dict(w.state)
        request = w.pick(REQUESTS)
        _open(n, "user")
        w.state["register"] = "informal"
        if request in ("noun", "where"):
            w.state["tense"] = "present"
        upto = _request(n, request)
        _close(n)
        _open(n, "model")
        w.state["register"] = "formal"
        _answer(n, request, upto)
        _close(n)
        if request in ("language", "capitals"):
            w.state.update({key: before[key] for key in ("language", "capitals")})
    del w.state["role"]


def _open(n: Narrator, role: str) -> None:
    """The marker that opens a turn; markers keep their case."""
    w = n.w
    capitals = w.state.pop("capitals")
    w.state["role"] = role
    w.add("<start_of_turn>", "turn_marker")
    w.add(role, "turn_marker")
    w.add("\n", "turn_marker")
    w.state["capitals"] = capitals
    n.fresh = n.tight = True


def _close(n: Narrator) -> None:
    w = n.w
    capitals = w.state.pop("capitals")
    w.add("<end_of_turn>", "turn_marker")
    w.add("\n", "turn_marker")
    w.state["capitals"] = capitals


def _request(n: Narrator, request: str) -> int:
    """The user's turn; it sets the state that the answer keeps, and returns the count asked."""
    w = n.w
    n.refresh()
    state = w.state
    new = {}
    upto = 0
    if w.chance(0.5):
        n.put(w.pick(n.lx.openers["informal"]), "opener")
    if request in ("language", "story", "capitals", "count") and w.chance(0.5):
        state["topic"] = w.pick(FACTORS["topic"][0])
        n.topic = state["topic"]
    if request == "language":
        new["language"] = w.pick(FACTORS["language"][0])
        n.mobile = tuple(f for f in n.mobile if f != "language")
    elif request == "story":
        new["sentiment"] = w.pick(FACTORS["sentiment"][0])
    elif request == "count":
        upto = w.number(3, 10)
    elif request == "capitals":
        new["capitals"] = "upper"
    elif request in ("past", "future"):
        new["tense"] = request
    for token in n.lx.frames["ask_" + request][0].split():
        if token in FILLERS:
            label = "number_word" if token == "UPTO" else ""
            n.put(_filler(token, n, new, upto), label)
        else:
            n.step(token)
    state.update(new)
    n.mobile = tuple(f for f in n.mobile if f not in new)
    return upto


def _filler(slot: str, n: Narrator, new: dict[str, str], upto: int) -> str:
    """What the request names: a language, a mood or a number."""
    if slot == "INLANG":
        return n.lx.languages[new["language"]]
    return n.lx.moods[new["sentiment"]] if slot == "MOOD" else n.lx.numbers[upto - 1]


def _answer(n: Narrator, request: str, upto: int) -> None:
    """The model's turn."""
    w = n.w
    n.refresh()
    n.fresh = n.tight = True
    if request == "count":
        for index in range(upto):
            if index:
                w.add(",", "comma")
            n.put(n.lx.numbers[index], "number_word")
        w.add(".", "sentence_end")
        n.fresh = True
        sentences = w.number(0, 1)
    elif request in ("noun", "where"):
        n.asked = True
        n.sentence("answer_where" if request == "where" else "quality")
        n.asked = False
        sentences = w.number(1, 3)
    else:
        sentences = w.number(3, 5)
    for _ in range(sentences):
        n.turn()
        n.sentence()


NARRATIVE: dict[str, tuple[float, Callable[[Writer], None]]] = {
    "story": (0.5, story),
    "letter": (0.09, letter),
    "diary": (0.09, diary),
    "review": (0.09, review),
    "news": (0.08, news),
    "chat": (0.15, chat),
}
"""Kind -> its weight and its writer."""
