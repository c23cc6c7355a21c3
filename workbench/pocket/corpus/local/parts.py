"""What every local kind shares: opening a document, its length, and labelled sentences.

A sentence is a template such as ``"The capital of {country} is {capital_city}."``. It is cut once
into pieces, each a word with the space before it, a slot or a mark. A slot takes its text from the
arguments and its labels from what follows its colon, ``{a:price+number}``, else from its own name
without final digits, so ``{weekday2}`` is labelled ``weekday``. The label ``_`` stands for none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from workbench.pocket.corpus.core import Writer

MARKS = {
    ".": ("sentence_end",),
    "?": ("sentence_end",),
    "!": ("sentence_end",),
    ",": ("comma",),
    "\n": ("newline",),
    "(": ("opening_bracket", "round_bracket"),
    ")": ("closing_bracket", "round_bracket"),
    "[": ("opening_bracket", "square_bracket"),
    "]": ("closing_bracket", "square_bracket"),
    "{": ("opening_bracket", "curly_bracket"),
    "}": ("closing_bracket", "curly_bracket"),
}
"""Labels of the marks."""

_TOKEN = re.compile(r"( ?)\{(\w+)(?::([\w+]+))?\}| ?[^\W_][\w'-]*| ?[^\w\s]|\n")
_UPPER_SHARE = 0.08


@cache
def _cut(template: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Pieces ``(text or space, slot or nothing, labels)`` of a template."""
    pieces = []
    for match in _TOKEN.finditer(template):
        space, slot, labels = match.groups()
        if not slot:
            pieces.append((match[0], "", MARKS.get(match[0].strip(" "), ())))
            continue
        names = (labels or slot.rstrip("0123456789")).split("+")
        pieces.append((space, slot, tuple(name for name in names if name != "_")))
    return tuple(pieces)


def _write(w: Writer, template: str, values: Mapping[str, str], *, capital: bool) -> None:
    """Write `template`; with `capital` its first letter is large."""
    lead = "" if not w.pieces or w.pieces[-1].text[-1] == "\n" else " "
    for index, (text, slot, labels) in enumerate(_cut(template)):
        filled = text + values[slot] if slot else text
        if not index:
            filled = lead + (filled[:1].upper() + filled[1:] if capital else filled)
        w.add(filled, *labels)


def say(w: Writer, template: str, /, **values: str) -> None:
    """Write one sentence, with a space before it unless it starts a line.

    Args:
        w: The writer.
        template: See the module. Its first letter is written large, also when it comes from a slot.
        values: The text of every slot.
    """
    _write(w, template, values, capital=True)


def say_small(w: Writer, template: str, /, **values: str) -> None:
    """Write like `say`, but leave the first letter as it is."""
    _write(w, template, values, capital=False)


def newline(w: Writer) -> None:
    """End the line."""
    w.add("\n", "newline")


def begin(w: Writer, language: str = "en", *, code: bool = False) -> int:
    """Set the persistent factors and return how many characters to write.

    Args:
        w: The writer.
        language: The document's language.
        code: Code is never written in capitals.
    """
    w.state["language"] = language
    upper = not code and w.chance(_UPPER_SHARE)
    w.state["capitals"] = "upper" if upper else "normal"
    return w.pick((320, 420, 520, 620, 720))


def repeat(
    w: Writer, goal: int, items: Sequence[Callable[[Writer], None]], *, prose: float = 0.5
) -> None:
    """Write random `items` until `goal` characters stand, all in one paragraph or each on a line.

    Args:
        w: The writer.
        goal: Characters at which to stop.
        items: Writers of one item each, drawn evenly.
        prose: Probability of the paragraph, between 0 and 1 exclusive.
    """
    lines = not w.chance(prose)
    while w.length < goal:
        if lines and w.pieces and w.pieces[-1].text != "\n":
            newline(w)
        w.pick(items)(w)


def article(word: str) -> str:
    """``a`` or ``an``."""
    return "an" if word[0] in "aeiou" else "a"
