"""Kinds about words: agreement, families, rhymes and spelling.

Number and gender are drawn first and decide every form that depends on them.
"""

from __future__ import annotations

from workbench.pocket.corpus.core import Writer
from workbench.pocket.corpus.local.parts import begin, newline, repeat, say, say_small

NOUNS = tuple(
    tuple(row.split())
    for row in """dog dogs
cat cats
boy boys
girl girls
house houses
tree trees
car cars
book books
friend friends
teacher teachers
flower flowers
child children
man men
woman women
bird birds
chair chairs
city cities
box boxes""".splitlines()
)
"""Singular and plural."""

_VERBS = (("is", "are"), ("was", "were"), ("looks", "look"), ("seems", "seem"))
_ACTS = (("sleeps", "sleep"), ("waits", "wait"), ("stays", "stay"), ("belongs", "belong"))
_PLACES = ("near", "behind", "with", "next to", "in front of", "close to")
_ADJECTIVES = ["old", "new", "small", "big", "nice", "clean", "strong", "quiet", "beautiful"]
_AGREEMENT = (
    "The {n:G_noun} {near:_} the {m:H_noun} {v:G_verb} {adj:_}.",
    "The {n:G_noun} that I saw {near:_} the {m:H_noun} {v:G_verb} {adj:_}.",
    "The {adj2:_} {n:G_noun} {v:G_verb} {adj:_}.",
    "{this:_} {n:G_noun} {near:_} the {m:H_noun} {act:G_verb} here.",
    "I know that the {n:G_noun} {near:_} the {m:H_noun} {v:G_verb} {adj:_}.",
    "The {n:G_noun} of the {m:H_noun} {v:G_verb} very {adj:_}.",
)
NAMES = {
    "female": ["Anna", "Maria", "Lucy", "Eva", "Nina", "Sara", "Emma", "Julia", "Clara", "Helen"],
    "male": ["Tom", "Ben", "Max", "Paul", "Leo", "Peter", "David", "Adam", "Mark", "Jack"],
}
_FORMS = {
    "female": {"girl": "girl", "she": "she", "her": "her", "them": "her"},
    "male": {"girl": "boy", "she": "he", "her": "his", "them": "him"},
}
_KIN = {
    "female": ["mother", "sister", "aunt", "grandmother", "daughter", "cousin"],
    "male": ["father", "brother", "uncle", "grandfather", "son", "cousin"],
}
_THINGS = ["ball", "book", "bike", "hat", "bag", "dog", "cat", "room", "bed", "cake"]
_COLOURS = ["red", "blue", "green", "white", "black", "yellow"]
_PERSON = (
    "{she:G_pronoun} likes {her:G_pronoun} {colour} {thing:_}.",
    "{she:G_pronoun} has a {colour} {thing:_}.",
    "{she:G_pronoun} is very happy with {her:G_pronoun} {thing:_}.",
    "{name:G_name} plays with {her:G_pronoun} {thing:_}.",
    "We gave {them:G_pronoun} a {thing:_}.",
    "Every day {she:G_pronoun} looks for {her:G_pronoun} {thing:_}.",
    "{name:G_name} says that {she:G_pronoun} wants a {colour} {thing:_}.",
    "We all like {them:G_pronoun}.",
)
_RELATION = (
    "{her:G_pronoun} {kinship} is called {other:H_name}.",
    "{other:H_name} is {her:G_pronoun} {kinship}.",
    "{she:G_pronoun} lives with {her:G_pronoun} {kinship} {other:H_name}.",
    "{name:G_name} has a {kinship}, {other:H_name}.",
)
RHYMES = tuple(
    tuple(row.split())
    for row in """cat hat mat bat rat
dog frog log
house mouse
cake lake snake rake
tree bee key knee
king ring swing wing
boat goat coat
ball wall hall
light knight kite night
moon spoon
bed sled shed
fox box
chair bear pear
dish fish
crown town clown
man fan pan van
bell shell well
rose nose hose""".splitlines()
)
_FIRST = (
    "I saw a {adj:_} {rhyme_word},",
    "There was a {adj:_} {rhyme_word},",
    "Come and see my {adj:_} {rhyme_word},",
    "Once I had a {rhyme_word},",
    "Here we found a {adj:_} {rhyme_word},",
)
_SECOND = (
    "It was near a {adj:_} {rhyme_word}.",
    "And you have a {adj:_} {rhyme_word}.",
    "Right behind a {rhyme_word}.",
    "And I dream about a {rhyme_word}.",
    "Just beside the {adj:_} {rhyme_word}.",
)
_SHORT = ["big", "small", "red", "little", "golden", "green", "funny", "lovely"]
SPELLED = [
    "cat",
    "dog",
    "sun",
    "tree",
    "house",
    "book",
    "milk",
    "bread",
    "water",
    "red",
    "blue",
    "green",
    "one",
    "two",
    "three",
    "fish",
    "bird",
    "moon",
    "star",
    "hand",
    "door",
    "king",
    "ring",
    "apple",
    "night",
    "friend",
    "school",
    "happy",
    "small",
]


def _agree(w: Writer) -> None:
    head, other = w.number(0, 1), w.number(0, 1)
    numbers = ("singular_", "plural_")
    line = w.pick(_AGREEMENT).replace("G_", numbers[head]).replace("H_", numbers[other])
    noun, attractor = w.sample(NOUNS, 2)
    adjective, second = w.sample(_ADJECTIVES, 2)
    values = {"near": w.pick(_PLACES), "v": w.pick(_VERBS)[head], "act": w.pick(_ACTS)[head]}
    values |= {"adj": adjective, "adj2": second, "this": ("This", "These")[head]}
    say(w, line, n=noun[head], m=attractor[other], **values)


def agreement(w: Writer) -> None:
    """Subjects and verbs that agree over other nouns."""
    repeat(w, begin(w), (_agree,))


def _fact(w: Writer, line: str, gender: str, name: str, **more: str) -> None:
    values = {"name": name, "thing": w.pick(_THINGS), "colour": w.pick(_COLOURS)}
    say(w, line.replace("G_", f"{gender}_"), **values, **_FORMS[gender], **more)


def _person(w: Writer) -> None:
    """A person, facts, and perhaps a relative."""
    gender = w.pick(("female", "male"))
    name = w.pick(NAMES[gender])
    intro = ("{name:G_name} is a {girl:_}.", "This is {name:G_name}.", "I know {name:G_name}.")
    _fact(w, w.pick(intro), gender, name)
    for _ in range(w.number(1, 3)):
        _fact(w, w.pick(_PERSON), gender, name)
    if w.chance(0.7):
        other = w.pick(("female", "male"))
        relative = w.pick([n for n in NAMES[other] if n != name])
        line = w.pick(_RELATION).replace("H_", f"{other}_")
        _fact(w, line, gender, name, kinship=w.pick(_KIN[other]), other=relative)
        if w.chance(0.4):
            _fact(w, w.pick(_PERSON[3:4] + _PERSON[6:7]), other, relative)


def family(w: Writer) -> None:
    """People with names, pronouns and relatives."""
    repeat(w, begin(w), (_person,), prose=0.4)


def poem(w: Writer) -> None:
    """Couplets whose lines end in rhyming words."""
    goal = begin(w)
    while w.length < goal:
        first, second = w.sample(w.pick(RHYMES), 2)
        say(w, w.pick(_FIRST), rhyme_word=first, adj=w.pick(_SHORT))
        newline(w)
        say(w, w.pick(_SECOND), rhyme_word=second, adj=w.pick(_SHORT))
        newline(w)
        if w.chance(0.3):
            newline(w)


def _letters(w: Writer, word: str, joint: str, labels: tuple[str, ...]) -> None:
    for index, letter in enumerate(word):
        if index:
            w.add(joint.rstrip(" "), *labels)
        w.add((" " if not index or " " in joint else "") + letter, "letter")


def _spell(w: Writer) -> None:
    word = w.pick(SPELLED)
    joint, labels = w.pick((("-", ()), (", ", ("comma",)), (" ", ())), (3, 1, 1))
    line = w.pick(
        ("{word:_} is spelled", "How do you spell {word:_}?", "{word:_}:", "Spell {word:_}:")
    )
    say_small(w, line, word=word)
    _letters(w, word, joint, labels)
    w.add(".", "sentence_end")


def _order(w: Writer) -> None:
    index = w.number(0, 23)
    one, two, three = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index : index + 3]
    word = w.pick(SPELLED)
    lines = (
        "After {letter} comes {letter2}.",
        "{letter}, {letter2}, {letter3}.",
        "{letter2} comes before {letter3}.",
        "{word:_} starts with {first:letter}.",
        "The last letter of {word:_} is {last:letter}.",
    )
    values = {"letter": one, "letter2": two, "letter3": three}
    say_small(w, w.pick(lines), word=word, first=word[0], last=word[-1], **values)


def spelling(w: Writer) -> None:
    """Words letter by letter, and the order of the alphabet."""
    repeat(w, begin(w), (_spell, _spell, _order), prose=0.3)
