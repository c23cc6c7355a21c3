"""Lists: shopping and to-do lists, recipes, contact cards, tables.

The layout (marker, separator, order of the fields) is drawn once a document, the rest line by line.
"""

from __future__ import annotations

from workbench.pocket.corpus.core import Writer
from workbench.pocket.corpus.local.parts import begin, newline, say
from workbench.pocket.corpus.local.words import NAMES

_SHOPPING = [
    "milk",
    "bread",
    "eggs",
    "butter",
    "cheese",
    "apples",
    "rice",
    "tea",
    "coffee",
    "sugar",
    "fish",
    "tomatoes",
    "soap",
]
_TODO = [
    "call mother",
    "clean the room",
    "buy bread",
    "write a letter",
    "feed the cat",
    "read the book",
    "pay the bill",
    "wash the car",
    "water the flowers",
    "book the train",
    "cook dinner",
    "visit Anna",
]
_POSITIONS = ("list_first", "list_second", "list_third")
INGREDIENTS = (
    ("flour", "g"), ("sugar", "g"), ("butter", "g"), ("rice", "g"), ("cheese", "g"),
    ("milk", "ml"), ("water", "ml"), ("oil", "ml"), ("cream", "ml"),
    ("salt", "spoons"), ("honey", "spoons"), ("pepper", "spoons"),
    ("eggs", ""), ("onions", ""), ("tomatoes", ""), ("apples", ""), ("carrots", ""),
)  # fmt: skip
_AMOUNTS = {
    "g": (50, 100, 150, 200, 250, 500),
    "ml": (50, 100, 200, 300, 500),
    "spoons": (2, 3, 4),
    "": (2, 3, 4, 5, 6),
}
_STEPS = (
    "{cooking_verb} the {x:ingredient} and the {y:ingredient}.|Mix Stir Heat Cook Fry",
    "{cooking_verb} the {x:ingredient} to the {y:ingredient}.|Add",
    "{cooking_verb} the {x:ingredient}.|Add Wash Weigh",
    "{cooking_verb} it for {number} minutes.|Bake Cook Boil Heat Stir Fry",
    "{cooking_verb} the {x:ingredient} with the {y:ingredient} for {number} minutes.|Cook Boil Fry",
)
_SURNAMES = [
    "Smith",
    "Brown",
    "Novak",
    "Weber",
    "Kovacs",
    "Garcia",
    "Martin",
    "Lopez",
    "Nagy",
    "Rossi",
]
_CITIES = [
    "Paris",
    "Berlin",
    "Madrid",
    "London",
    "Rome",
    "Budapest",
    "Vienna",
    "Oslo",
    "Lisbon",
    "Athens",
]
_COLUMNS = ("name", "age", "city", "score", "year", "points", "country", "colour")
_CELLS = {
    "name": NAMES["female"] + NAMES["male"],
    "city": _CITIES,
    "country": ["France", "Germany", "Spain", "Italy", "Hungary", "Poland", "Greece", "Norway"],
    "colour": ["red", "blue", "green", "white", "black", "yellow"],
}
_RANGES = {"age": (5, 90), "score": (0, 10), "year": (1990, 2025), "points": (0, 99)}


def _items(w: Writer, words: list[str], style: str) -> None:
    for index, item in enumerate(w.sample(words, w.number(3, 6))):
        marker = f"{index + 1}{style}" if style in ".)" else style
        w.add(marker, "list_marker")
        label = _POSITIONS[index] if index < 3 else "list_later"
        for word in item.split():
            w.add(" " + word, label)
        newline(w)


def list_(w: Writer) -> None:
    """Shopping and to-do lists, numbered or dashed."""
    goal = begin(w)
    while w.length < goal:
        if w.pieces:
            newline(w)
        shopping = w.chance(0.5)
        heads = (
            ("Shopping list:", "Please buy:", "We need:")
            if shopping
            else ("To do:", "Today:", "Tasks:")
        )
        for word in w.pick(heads).split():
            w.add(word if not w.pieces or w.pieces[-1].text == "\n" else " " + word, "list_title")
        newline(w)
        _items(w, _SHOPPING if shopping else _TODO, w.pick((".", ")", "-", "*"), (3, 1, 3, 1)))


def _step(w: Writer, names: list[str]) -> None:
    line, verbs = w.pick(_STEPS).split("|")
    x, y = w.sample(names, 2)
    minutes = str(w.pick((5, 10, 15, 20, 30)))
    say(w, line, cooking_verb=w.pick(verbs.split()), x=x, y=y, number=minutes)


def recipe(w: Writer) -> None:
    """Ingredients with amounts, then steps that use them."""
    goal = begin(w)
    dish = w.pick(("Soup", "Cake", "Bread", "Salad", "Pancakes", "Sauce", "Pie"))
    say(w, w.pick(("{dish:_}", "How to make {dish:_}", "Recipe: {dish:_}")), dish=dish)
    newline(w)
    if w.chance(0.7):
        say(w, w.pick(("Ingredients:", "You need:")))
        newline(w)
    chosen = w.sample(INGREDIENTS, w.number(4, 8))
    dashes = w.chance(0.7)
    for name, unit in chosen:
        amount = str(w.pick(_AMOUNTS[unit]))
        w.add("-" if dashes else "", "list_marker")
        line = (
            "{number} {unit} {of:_} {ingredient}"
            if unit == "spoons"
            else "{number} {unit} {ingredient}"
        )
        line = line if unit else "{number} {ingredient}"
        say(w, line, number=amount, unit=unit, ingredient=name, of="of")
        newline(w)
    say(w, w.pick(("Steps:", "What to do:", "Method:")))
    newline(w)
    numbered = w.chance(0.6)
    step = 0
    while step < 2 or w.length < goal:
        step += 1
        w.add(f"{step}." if numbered else "", "list_marker")
        _step(w, [name for name, _ in chosen])
        newline(w)


def _card(w: Writer, fields: list[str], mark: str) -> None:
    first, last = w.pick(NAMES["female"] + NAMES["male"]), w.pick(_SURNAMES)
    user = w.pick((f"{first}.{last}", first, f"{first}{w.number(1, 9)}")).lower()
    domain = w.pick(("example.com", "example.org", "example.net"))
    for name in fields:
        label = "Telephone" if name == "Phone" and mark == " -" else name
        w.add(label, "label_field")
        w.add(mark)
        if name == "Email":
            w.add(f" {user}@{domain}", "email")
        elif name == "Phone":
            w.add(f" 555-{w.number(100, 199):04d}", "phone_number")
        elif name == "City":
            w.add(" " + w.pick(_CITIES), "capital_city")
        else:
            female = first in NAMES["female"]
            w.add(" " + first, "female_name" if female else "male_name")
            w.add(" " + last, "surname")
        newline(w)


def _contact_line(w: Writer) -> None:
    first = w.pick(NAMES["female"])
    mail = f"{first.lower()}@{w.pick(('example.com', 'example.org'))}"
    phone = f"555-{w.number(100, 199):04d}"
    lines = (
        "Write to {female_name} at {email} today.",
        "Please call {female_name}, the number is {phone_number}.",
        "The email of {female_name} is {email} and the phone is {phone_number}.",
    )
    say(w, w.pick(lines), female_name=first, email=mail, phone_number=phone)
    newline(w)


def contact(w: Writer) -> None:
    """Contact cards with email addresses and telephone numbers."""
    goal = begin(w)
    fields = w.sample(("Email", "Phone", "City"), w.number(2, 3))
    mark = w.pick((":", " -", " ="), (4, 1, 1))
    while w.length < goal:
        if w.chance(0.3):
            _contact_line(w)
        else:
            _card(w, ["Name", *fields], mark)
        newline(w)


def _cell(w: Writer, column: str, lead: str) -> None:
    if column in _RANGES:
        w.add(f"{lead}{w.number(*_RANGES[column])}", "table_cell", "number")
    else:
        w.add(lead + w.pick(_CELLS[column]), "table_cell")


def _rows(w: Writer, columns: list[str], rows: int, style: str) -> None:
    """A header and `rows` rows with the separator `style`."""
    lead = " " if style == "|" else ""
    for row in range(rows + 1):
        for index, column in enumerate(columns):
            mark = "|" if style == "|" and not index else " |" if style == "|" else style
            w.add(mark if index or style == "|" else "", "table_separator")
            if row:
                _cell(w, column, lead)
            else:
                w.add(lead + column, "table_header")
        w.add(" |" if style == "|" else "", "table_separator")
        newline(w)
        if not row and style == "|":
            w.add("|" + " --- |" * len(columns), "table_separator")
            newline(w)


def table(w: Writer) -> None:
    """Tables in CSV, with semicolons or in Markdown."""
    goal = begin(w)
    style = w.pick((",", ";", "|"), (2, 1, 2))
    while w.length < goal:
        if w.pieces:
            newline(w)
        _rows(w, w.sample(_COLUMNS, w.number(2, 4)), w.number(3, 5), style)
