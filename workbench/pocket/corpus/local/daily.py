"""Daily news in one line each: the weather forecast and the results of matches.

The weather word decides the range of the temperature, the score decides the verb.
"""

from __future__ import annotations

from workbench.pocket.corpus.core import Writer
from workbench.pocket.corpus.local.counting import WEEKDAYS
from workbench.pocket.corpus.local.facts import COUNTRIES
from workbench.pocket.corpus.local.parts import begin, newline, repeat, say

WEATHER = (
    ("sunny", "sun", 18, 32),
    ("cloudy", "clouds", 8, 18),
    ("rainy", "rain", 6, 16),
    ("windy", "wind", 5, 15),
    ("foggy", "fog", 3, 12),
    ("stormy", "storms", 8, 18),
    ("snowy", "snow", -8, 0),
)
"""Adjective, noun, lowest and highest temperature."""

_CITIES = tuple(row[1] for row in COUNTRIES[:20])
_FORECAST = (
    "{capital_city}: {weather_word}, {t:temperature+number} degrees.",
    "On {weekday} it will be {weather_word} in {capital_city}: {t:temperature+number} degrees.",
    "{weekday} in {capital_city}: {noun:weather_word}, {t:temperature+number} degrees.",
    "{capital_city} will be {weather_word} on {weekday}.",
    "It is {t:temperature+number} degrees and {weather_word} in {capital_city}.",
    "Expect {noun:weather_word} in {capital_city} on {weekday}: {t:temperature+number} degrees.",
    "{weekday}: {noun:weather_word}.",
)
TEAMS = [
    "Lions",
    "Tigers",
    "Bears",
    "Eagles",
    "Wolves",
    "Hawks",
    "Sharks",
    "Rovers",
    "Rangers",
    "Stars",
    "Kings",
    "Giants",
]
_VERBS = {verb: verb for verb in ("won", "beat", "lost", "drew")}
_WIN = (
    "The {team} {won:result_verb} {x} against the {team2}.",
    "The {team} {beat:result_verb} the {team2} {x}.",
    "On {weekday} the {team} {beat:result_verb} the {team2} {x}.",
    "{team} {a:score+number}, {team2} {b:score+number}. The {team} {won:result_verb}.",
)
_LOSS = (
    "The {team} {lost:result_verb} {x} to the {team2}.",
    "On {weekday} the {team} {lost:result_verb} {x} against the {team2}.",
    "{team} {a:score+number}, {team2} {b:score+number}. The {team} {lost:result_verb}.",
)
_DRAW = (
    "The {team} {drew:result_verb} {x} with the {team2}.",
    "On {weekday} the {team} and the {team2} {drew:result_verb} {x}.",
    "{team} {a:score+number}, {team2} {b:score+number}. The {team} {drew:result_verb}.",
)


def _forecast(w: Writer) -> None:
    adjective, noun, low, high = w.pick(WEATHER)
    say(
        w,
        w.pick(_FORECAST),
        capital_city=w.pick(_CITIES),
        weekday=w.pick(WEEKDAYS["en"]),
        weather_word=adjective,
        noun=noun,
        t=str(w.number(low, high)),
    )


def weather(w: Writer) -> None:
    """Forecasts for cities and days."""
    goal = begin(w)
    if w.chance(0.4):
        say(w, w.pick(("Weather report", "The weather this week", "Forecast")))
        newline(w)
    repeat(w, goal, (_forecast,))


def _match(w: Writer) -> None:
    team, other = w.sample(TEAMS, 2)
    a, b = w.number(0, 5), w.number(0, 5)
    line = w.pick(_WIN if a > b else _LOSS if a < b else _DRAW)
    line = line.replace("{x}", "{a:score+number}{dash:score}{b:score+number}")
    values = {"team": team, "team2": other, "weekday": w.pick(WEEKDAYS["en"])}
    say(w, line, a=str(a), b=str(b), dash="-", **values, **_VERBS)


def sports(w: Writer) -> None:
    """Results of matches."""
    goal = begin(w)
    if w.chance(0.4):
        say(w, w.pick(("Results", "Sports news", "The matches of the week")))
        newline(w)
    repeat(w, goal, (_match,))
