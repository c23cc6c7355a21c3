"""Kinds that count: calendar, numbers, sums, prices and clock times.

What is written is calculated from what was drawn, so every order and every result is right.
"""

from __future__ import annotations

from workbench.pocket.corpus.core import Writer
from workbench.pocket.corpus.local.parts import article, begin, newline, repeat, say, say_small

WEEKDAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "fr": ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
    "de": ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"],
    "es": ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"],
    "hu": ["hétfő", "kedd", "szerda", "csütörtök", "péntek", "szombat", "vasárnap"],
}
MONTHS = {
    "en": "January February March April May June July August September October November December",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre "
    "diciembre",
    "hu": "január február március április május június július augusztus szeptember október "
    "november december",
}
_DAY_LINES = {
    "en": (
        "After {weekday} comes {weekday2}.",
        "{weekday2} comes after {weekday}.",
        "The day before {weekday2} is {weekday}.",
        "Today is {weekday}, tomorrow is {weekday2}.",
        "If yesterday was {weekday}, today is {weekday2}.",
    ),
    "fr": (
        "Après {weekday} vient {weekday2}.",
        "{weekday2} vient après {weekday}.",
        "Aujourd'hui c'est {weekday}, demain c'est {weekday2}.",
        "Hier c'était {weekday}, aujourd'hui c'est {weekday2}.",
    ),
    "de": (
        "Nach {weekday} kommt {weekday2}.",
        "{weekday2} kommt nach {weekday}.",
        "Heute ist {weekday}, morgen ist {weekday2}.",
        "Gestern war {weekday}, heute ist {weekday2}.",
    ),
    "es": (
        "Después del {weekday} viene el {weekday2}.",
        "El {weekday2} viene después del {weekday}.",
        "Hoy es {weekday}, mañana es {weekday2}.",
        "Ayer fue {weekday}, hoy es {weekday2}.",
    ),
    "hu": (
        "{weekday} után {weekday2} következik.",
        "{weekday2} előtt {weekday} van.",
        "Ma {weekday} van, holnap {weekday2} lesz.",
        "Tegnap {weekday} volt, ma {weekday2} van.",
    ),
}
_MONTH_LINES = {
    "en": ("After {month} comes {month2}.", "The month before {month2} is {month}."),
    "fr": ("Après {month} vient {month2}.", "Le mois après {month} est {month2}."),
    "de": ("Auf {month} folgt {month2}.", "Der Monat nach {month} heißt {month2}."),
    "es": ("Después de {month} viene {month2}.", "Antes de {month2} viene {month}."),
    "hu": ("{month} után {month2} következik.", "{month2} előtt {month} van."),
}
_HEADS = {
    "en": ("Days:", "Months:"),
    "fr": ("Jours :", "Mois :"),
    "de": ("Tage:", "Monate:"),
    "es": ("Días:", "Meses:"),
    "hu": ("Napok:", "Hónapok:"),
}
_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = tuple(
    _ONES[n] if n < 20 else _TENS[n // 10 - 2] + (f"-{_ONES[n % 10]}" if n % 10 else "")
    for n in range(100)
)
_OPERATORS = {"+": "plus", "-": "minus", "x": "times"}
_WORD_SUM = (
    "{x:number_word} {op:sum_operator} {y:number_word} {is:sum_equals} {z:number_word+sum_result}."
)
_DIGIT_SUM = "{x:number} {op:sum_operator} {y:number} {is:sum_equals} {z:number+sum_result}"
PRODUCTS = [
    "apple",
    "pear",
    "book",
    "pen",
    "cup",
    "hat",
    "lamp",
    "chair",
    "ball",
    "cake",
    "ticket",
    "map",
    "bag",
    "egg",
]
_ACTS = [
    "train leaves",
    "bus leaves",
    "school starts",
    "shop opens",
    "shop closes",
    "film starts",
    "lesson ends",
    "game begins",
    "meeting starts",
    "plane lands",
]


def _row(w: Writer, words: list[str], label: str) -> None:
    """A run of neighbouring `words` with commas, the last before a full stop."""
    start = w.number(0, len(words) - 3)
    stop = w.number(start + 3, len(words))
    for index, word in enumerate(words[start:stop]):
        if index:
            w.add(",", "comma")
        w.add(" " + word, label)
    w.add(".", "sentence_end")


def _date(w: Writer) -> None:
    language = w.state["language"]
    days = w.chance(0.6)
    words = WEEKDAYS[language] if days else MONTHS[language].split()
    if w.chance(0.3):
        say(w, _HEADS[language][0 if days else 1])
        _row(w, words, "weekday" if days else "month")
        return
    index = w.number(0, len(words) - 1)
    one, two = words[index], words[(index + 1) % len(words)]
    if days:
        say(w, w.pick(_DAY_LINES[language]), weekday=one, weekday2=two)
    else:
        say(w, w.pick(_MONTH_LINES[language]), month=one, month2=two)


def calendar(w: Writer) -> None:
    """The order of days and months in one of five languages."""
    repeat(w, begin(w, w.pick(tuple(WEEKDAYS), (3, 1, 1, 1, 1))), (_date,), prose=0.6)


def _count(w: Writer) -> None:
    """A row of numbers with a constant step."""
    words = w.chance(0.5)
    step = w.pick((1, 2, 5, 10), (5, 2, 1, 2))
    down = w.chance(0.3)
    length = w.number(5, 9)
    start = w.number(0, (99 - step * (length - 1)) // step if step > 1 else 20) * step
    values = [start + step * index for index in range(length)]
    values = values[::-1] if down else values
    if w.chance(0.5):
        by = {1: "", 2: " by twos", 5: " by fives", 10: " by tens"}[step]
        say(w, f"Count {'down' if down else 'up'}{by}:")
    for index, value in enumerate(values):
        if index:
            w.add(",", "comma")
        slot = "{v:number_word}" if words else "{v:number}"
        say_small(w, slot, v=NUMBER_WORDS[value] if words else str(value))
    w.add(".", "sentence_end")


def _neighbour(w: Writer) -> None:
    value = w.number(0, 98)
    lines = ("After {a} comes {b}.", "{b} is one more than {a}.", "Before {b} comes {a}.")
    line = w.pick((*lines, "{a} is less than {b}.", "The number after {a} is {b}."))
    if w.chance(0.5):
        line = line.replace("{a}", "{a:number_word}").replace("{b}", "{b:number_word}")
        say(w, line, a=NUMBER_WORDS[value], b=NUMBER_WORDS[value + 1])
    else:
        line = line.replace("{a}", "{a:number}").replace("{b}", "{b:number}")
        say(w, line, a=str(value), b=str(value + 1))


def _digit_word(w: Writer) -> None:
    value = w.number(0, 99)
    line = w.pick(
        ("{number} is {number_word}.", "{number_word} = {number}", "{number_word}: {number}")
    )
    say(w, line, number=str(value), number_word=NUMBER_WORDS[value])


def numbers(w: Writer) -> None:
    """Counting up and down, in digits and in words."""
    repeat(w, begin(w), (_count, _count, _neighbour, _digit_word), prose=0.3)


def _terms(w: Writer) -> tuple[int, str, int, int]:
    """Two terms, their operator and the result, between 0 and 99."""
    operator = w.pick("+-x", (3, 2, 1))
    limit = w.pick((9, 20, 49))
    if operator == "x":
        x, y = w.number(0, 9), w.number(1, 10)
        return x, operator, y, x * y
    x, y = w.number(0, limit), w.number(0, limit)
    if operator == "+":
        return x, operator, y, x + y
    return x + y, operator, y, x


def _sum(w: Writer) -> None:
    x, operator, y, z = _terms(w)
    if w.chance(0.3):
        values = {"op": _OPERATORS[operator], "is": w.pick(("is", "equals"))}
        a, b, c = (NUMBER_WORDS[n] for n in (x, y, z))
        say(w, _WORD_SUM, x=a, y=b, z=c, **values)
        return
    line = w.pick(
        (
            _DIGIT_SUM,
            _DIGIT_SUM + ".",
            "What is {x:number} {op:sum_operator} {y:number}? {z:number+sum_result}.",
            "Task: " + _DIGIT_SUM + ".",
        ),
        (4, 2, 1, 1),
    )
    say(w, line, x=str(x), y=str(y), z=str(z), op=operator, **{"is": "="})


def sums(w: Writer) -> None:
    """Sums, differences and products with their results."""
    repeat(w, begin(w), (_sum,), prose=0.05)


def _price(w: Writer) -> None:
    product = w.pick(PRODUCTS)
    currency = w.pick("$€£")
    each = w.number(1, 20)
    values = {"product": product, "a": article(product), "currency": currency}
    if w.chance(0.3):
        count = w.number(2, 5)
        lines = (
            "{n:number} {product}s cost {currency}{p:price+number}.",
            "One {product} costs {currency}{q:price+number}, so {n:number} cost "
            "{currency}{p:price+number}.",
        )
        line = w.pick(lines).replace("{product}s", "{products:product}")
        values |= {"products": product + "s", "n": str(count), "q": str(each)}
        say(w, line, p=str(each * count), **values)
        return
    lines = (
        "{a:_} {product} costs {currency}{p:price+number}.",
        "The {product} is {currency}{p:price+number}.",
        "{product}: {currency}{p:price+number}",
        "I paid {currency}{p:price+number} for the {product}.",
        "How much is the {product}? It is {p:price+number} {word:currency}.",
        "The {product} costs only {p:price+number} {word:currency}.",
    )
    cents = w.pick(("", ".50", ".99", ".25"), (3, 1, 1, 1))
    word = {"$": "dollars", "€": "euros", "£": "pounds"}[currency]
    say(w, w.pick(lines), p=f"{each}{cents or ('.00' if each == 1 else '')}", word=word, **values)


def prices(w: Writer) -> None:
    """What things cost in dollars, euros and pounds."""
    goal = begin(w)
    if w.chance(0.3):
        say(w, w.pick(("Price list", "At the shop", "Prices", "For sale")))
        newline(w)
    repeat(w, goal, (_price,))


def _clock(w: Writer) -> None:
    hour, minute = w.number(1, 12), w.pick((0, 15, 30, 45))
    values = {"t": f"{hour}:{minute:02d}", "act": w.pick(_ACTS)}
    phrase = {0: "{h} o'clock", 15: "{ph} past {h}", 30: "{ph} past {h}", 45: "{ph} to {h}"}[minute]
    phrase = phrase.replace("{h}", "{h:number_word}").replace("{ph}", "{ph:clock_phrase}")
    phrase = phrase.replace("o'clock", "{oc:clock_phrase}")
    lines = (
        "The {act:_} at {t:clock_time}.",
        "It is {t:clock_time}.",
        f"{{t:clock_time}} is {phrase}.",
        f"It is {phrase}, so the clock says {{t:clock_time}}.",
        f"The {{act:_}} at {phrase}.",
        "At {t:clock_time} the {act:_}.",
        f"What time is it? It is {phrase}.",
        "When is it? At {t:clock_time}.",
    )
    word = NUMBER_WORDS[hour % 12 + 1 if minute == 45 else hour]
    half = "half" if minute == 30 else "quarter"
    say(w, w.pick(lines), h=word, ph=half, oc="o'clock", **values)


def times(w: Writer) -> None:
    """Clock times in digits and in words."""
    repeat(w, begin(w), (_clock,))
