"""Code: Python programs, JSON, HTML and bare nested brackets.

Python lines are made from templates and then cut by a small lexer that finds the labels; the other
three are written by recursion, which closes whatever it opened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.pocket.corpus.core import Writer
from workbench.pocket.corpus.local.parts import MARKS, begin, newline

KEYWORDS = frozenset(
    [
        "def",
        "for",
        "in",
        "if",
        "else",
        "elif",
        "while",
        "return",
        "and",
        "or",
        "not",
        "True",
        "False",
        "None",
    ]
)
BUILTINS = frozenset(["print", "len", "range", "sum", "max", "min", "str", "sorted"])
_LEX = re.compile(r' ?#.*| ?"[^"]*"| ?[A-Za-z_]\w*| ?\d+| ?[()\[\]{}]| ?[=<>!+*/%-]+| ?[^\w\s]')
_WORDS = [
    "apple",
    "pear",
    "bread",
    "milk",
    "red",
    "blue",
    "green",
    "dog",
    "cat",
    "bird",
    "sun",
    "moon",
    "tree",
    "book",
]
_PEOPLE = ["Anna", "Tom", "Maria", "Ben", "Lucy", "Max", "Eva", "Paul", "Nina", "Leo"]
_FUNCTIONS = ["add", "count", "find", "total", "show", "check", "double", "area", "best"]
_LISTS = ["items", "values", "words", "names", "data", "numbers"]
_COMMENTS = [
    "add the numbers",
    "print the result",
    "a small list",
    "go over the list",
    "count the words",
    "check the value",
    "the main loop",
    "return the answer",
    "start with zero",
]
_PEOPLE_KEYS = ("name", "age", "city", "active", "tags", "address", "score", "pet")
_CITIES = ["Paris", "Berlin", "Madrid", "London", "Rome", "Budapest", "Vienna", "Oslo"]


def _quoted(w: Writer, lead: str, text: str, label: str) -> None:
    w.add(lead + '"', "opening_quote")
    w.add(text, label)
    w.add('"', "closing_quote")


def _line(w: Writer, text: str) -> None:
    """Write one line of Python with the label of every token, and end it."""
    body = text.lstrip(" ")
    w.add(text[: len(text) - len(body)], "python_indent")
    for token in _LEX.findall(body):
        bare = token.lstrip(" ")
        if bare[0] == "#":
            for word in re.findall(r" ?\S+", token):
                w.add(word, "python_comment")
        elif bare[0] == '"':
            _quoted(w, token[: len(token) - len(bare)], bare[1:-1], "python_string")
        elif bare in KEYWORDS:
            w.add(token, "python_keyword")
        elif bare in BUILTINS:
            w.add(token, "python_name", "python_builtin")
        elif bare[0].isdigit():
            w.add(token, "number")
        elif bare[0].isalpha():
            w.add(token, "python_name")
        else:
            w.add(token, *MARKS.get(bare, ()) if bare not in ".,!?" else ())
    newline(w)


def _lines(w: Writer, *lines: str) -> None:
    for line in lines:
        _line(w, line)


def _comment(w: Writer, indent: str) -> None:
    if w.chance(0.3):
        _line(w, f"{indent}# {w.pick(_COMMENTS)}")


def _function(w: Writer, name: str) -> None:
    """A function of two numbers and a call of it."""
    a, b = w.pick((("a", "b"), ("x", "y"), ("n", "m")))
    _line(w, f"def {name}({a}, {b}):")
    _comment(w, "    ")
    body = w.pick(
        (
            (f"    return {a} {w.pick('+-*')} {b}",),
            (f"    if {a} {w.pick('<>')} {b}:", f"        return {a}", f"    return {b}"),
            (f"    result = {a} {w.pick('+-*')} {b}", "    return result"),
            (f"    if {a} == {b}:", f"        return {w.number(0, 9)}", "    else:",
             f"        return {a} {w.pick('+*')} {b}"),
        )
    )  # fmt: skip
    _lines(w, *body)
    newline(w)
    call = f"{name}({w.number(0, 20)}, {w.number(0, 20)})"
    if w.chance(0.5):
        _line(w, f"print({call})")
    else:
        _lines(w, f"result = {call}", w.pick(("print(result)", 'print("result", result)')))


def _loop(w: Writer, name: str) -> None:
    """A list and a loop over it."""
    item = name[:-1] if name != "data" else "x"
    if w.chance(0.5):
        values = [str(w.number(0, 30)) for _ in range(w.number(2, 5))]
        action = w.pick((f"    total = total + {item}", f"    total += {item}"))
        start = "total = 0"
        if w.chance(0.4):
            limit = w.number(2, 20)
            action = f"    if {item} {w.pick('<>')} {limit}:\n    {action}"
        end = "print(total)"
    else:
        values = [f'"{word}"' for word in w.sample(_WORDS, w.number(2, 4))]
        start, end = f"print(len({name}))", w.pick((f"print({name}[0])", f"print(sorted({name}))"))
        action = w.pick((f"    print({item})", f"    print({item}, len({item}))"))
    _line(w, f"{name} = [{', '.join(values)}]")
    if w.chance(0.8) or "total" in start:
        _line(w, start)
    _comment(w, "")
    _lines(w, f"for {item} in {name}:", *action.split("\n"), end)


def _mapping(w: Writer, name: str) -> None:
    """A dictionary of numbers."""
    table = w.pick(("ages", "scores", "points"))
    people = w.sample(_PEOPLE, w.number(2, 3))
    pairs = ", ".join(f'"{person}": {w.number(1, 60)}' for person in people)
    _line(w, f"{table} = {{{pairs}}}")
    _comment(w, "")
    if w.chance(0.5):
        _lines(w, f"for name in {table}:", f"    print(name, {table}[name])")
    else:
        _line(w, f'print({table}["{w.pick(people)}"])')


def _while(w: Writer, name: str) -> None:
    """A counter that runs up to a limit."""
    counter = w.pick("ikn")
    step = w.number(1, 3)
    _line(w, f"{counter} = {w.number(0, 5)}")
    _comment(w, "")
    _lines(w, f"while {counter} < {w.number(6, 30)}:", f"    print({counter})")
    _line(w, f"    {counter} {w.pick(('+=', f'= {counter} +'))} {step}")


def _branch(w: Writer, name: str) -> None:
    """A value and what to print of it."""
    value = w.pick(("age", "size", "score"))
    low, high = w.sample(_WORDS, 2)
    _line(w, f"{value} = {w.number(0, 50)}")
    _lines(w, f"if {value} {w.pick('<>')} {w.number(5, 40)}:", f'    print("{low}")')
    if w.chance(0.7):
        _lines(w, "else:", f'    print("{high}")')


def _range(w: Writer, name: str) -> None:
    """A loop over a range."""
    factor = w.number(2, 9)
    action = w.pick(("print(i)", f"print(i * {factor})", f"print(i, i + {factor})"))
    _lines(w, f"for i in range({w.number(2, 12)}):", f"    {action}")


def python(w: Writer) -> None:
    """A small program that runs."""
    goal = begin(w, code=True)
    names = {_function: w.sample(_FUNCTIONS, 9), _loop: w.sample(_LISTS, 6)}
    blocks = (_function, _loop, _mapping, _while, _branch, _range)
    while w.length < goal:
        if w.pieces and w.chance(0.7):
            newline(w)
        block = w.pick(blocks, (3, 3, 2, 1, 2, 1))
        pool = names.get(block)
        block(w, pool.pop(0) if pool and len(pool) > 1 else pool[0] if pool else "")


def _bracket(w: Writer, mark: str, lead: str = "") -> None:
    w.add(lead + mark, *MARKS[mark])


def _leaf(w: Writer, key: str) -> None:
    """The plain value that belongs to a key."""
    if key in ("age", "score"):
        w.add(f" {w.number(1, 99)}", "json_value", "number")
    elif key == "active":
        w.add(w.pick((" true", " false")), "json_value")
    else:
        words = {"name": _PEOPLE, "city": _CITIES, "pet": ("dog", "cat", "bird", "fish")}
        _quoted(w, " ", w.pick(words.get(key, _WORDS)), "json_value")


def _gap(w: Writer, depth: int, *, indented: bool, lead: str = "") -> None:
    """The white space between two entries of a JSON container."""
    if indented:
        newline(w)
        w.add("  " * depth, "json_indent")
    else:
        w.add(lead)


def _object(w: Writer, depth: int, keys: Sequence[str], *, indented: bool) -> None:
    """One JSON object; ``address`` and ``tags`` are containers themselves."""
    _bracket(w, "{")
    for index, key in enumerate(keys):
        if index:
            w.add(",", "comma")
        _gap(w, depth + 1, indented=indented, lead=" " if index else "")
        _quoted(w, "", key, "json_key")
        w.add(":")
        if key == "address":
            w.add(" ")
            inner = w.sample(("city", "street", "number"), 2)
            _object(w, depth + 1, inner, indented=indented)
        elif key == "tags":
            _bracket(w, "[", " ")
            for position, word in enumerate(w.sample(_WORDS, w.number(1, 3))):
                w.add("," if position else "", "comma")
                _quoted(w, " " if position else "", word, "json_value")
            _bracket(w, "]")
        else:
            _leaf(w, "age" if key == "number" else key)
    _gap(w, depth, indented=indented)
    _bracket(w, "}")


def json(w: Writer) -> None:
    """A JSON list of records, one on a line or indented, bare or under one key."""
    goal = begin(w, code=True)
    indented = w.chance(0.5)
    wrapped = w.chance(0.4)
    if wrapped:
        _bracket(w, "{")
        _quoted(w, "", w.pick(("people", "users", "players", "data")), "json_key")
        w.add(":")
    _bracket(w, "[", " " if wrapped else "")
    first = True
    while first or w.length < goal:
        if not first:
            w.add(",", "comma")
        newline(w)
        w.add("  ", "json_indent")
        _object(w, 1, w.sample(_PEOPLE_KEYS, w.number(2, 5)), indented=indented)
        first = False
    newline(w)
    _bracket(w, "]")
    if wrapped:
        _bracket(w, "}")


_ATTRIBUTES = {
    "a": ("href", ("/home", "/about", "/news", "/shop", "/contact")),
    "p": ("class", ("text", "note", "big", "small")),
    "div": ("class", ("box", "main", "menu", "note")),
    "h1": ("id", ("top", "title", "start")),
    "ul": ("class", ("menu", "list", "items")),
}
_PHRASES = [
    "Welcome to the shop",
    "Read the news",
    "A small house",
    "Our new book",
    "Call us today",
    "The red car",
    "See all pictures",
    "Good food",
    "More about us",
    "The best bread",
    "Open every day",
    "A good day",
]


def _element(w: Writer, tag: str, depth: int, *, lines: bool) -> None:
    """One element with its content and its closing tag."""
    w.add(f"<{tag}", "html_open_tag")
    if tag in _ATTRIBUTES and (tag == "a" or w.chance(0.4)):
        name, values = _ATTRIBUTES[tag]
        w.add(f' {name}="{w.pick(values)}"', "html_attribute")
    w.add(">", "html_open_tag")
    if tag in ("div", "ul"):
        inner = ("li",) if tag == "ul" else ("p", "p", "h1", "ul", "div") if depth < 1 else ("p",)
        for _ in range(w.number(1, 3)):
            if lines:
                newline(w)
            _element(w, w.pick(inner), depth + 1, lines=lines)
        if lines:
            newline(w)
    elif tag in ("p", "li") and w.chance(0.35):
        _element(w, w.pick(("a", "b", "em")), depth + 1, lines=lines)
    else:
        for word in re.findall(r" ?\w+", w.pick(_PHRASES)):
            w.add(word, "html_text")
    w.add(f"</{tag}>", "html_close_tag")


def html(w: Writer) -> None:
    """Nested HTML, every tag closed."""
    goal = begin(w, code=True)
    lines = w.chance(0.7)
    page = ("html", "body") if w.chance(0.4) else ()
    for tag in page:
        w.add(f"<{tag}>", "html_open_tag")
        newline(w)
    while w.length < goal - 20:
        _element(w, w.pick(("h1", "p", "div", "ul"), (1, 3, 3, 2)), 0, lines=lines)
        newline(w)
    for tag in reversed(page):
        w.add(f"</{tag}>", "html_close_tag")
        newline(w)


def _nest(w: Writer, depth: int, lead: str, atoms: tuple[str, ...], joint: str) -> None:
    """A bracket pair around atoms and further pairs."""
    opening = w.pick("([{")
    level = f"bracket_depth_{depth}"
    w.add(lead + opening, *MARKS[opening], level)
    count = w.number(2, 4)
    for index in range(count):
        space = " " if index else ""
        if index and joint:
            w.add(" " + w.pick(joint), "sum_operator")
        if depth < 3 and w.chance(0.3):
            _nest(w, depth + 1, space, atoms, joint)
        elif joint:
            w.add(f"{space}{w.number(0, 9)}", "number")
        else:
            w.add(space + w.pick(atoms))
    closing = {"(": ")", "[": "]", "{": "}"}[opening]
    w.add(closing, *MARKS[closing], level)


def brackets(w: Writer) -> None:
    """Nested brackets of three types around letters, words or sums."""
    goal = begin(w)
    atoms = w.pick((tuple("abcdefgh"), ("red", "dog", "sun", "cat", "big"), ("x", "y", "z")))
    joint = w.pick(("", "+-"))
    while w.length < goal - 20:
        if w.pieces:
            newline(w)
        _nest(w, 1, "", atoms, joint)
