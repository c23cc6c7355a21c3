"""Facts: countries and capitals, animals, word pairs in five languages, opposites.

Every kind draws a row of a table and one of several phrasings of it.
"""

from __future__ import annotations

from workbench.pocket.corpus.core import Writer
from workbench.pocket.corpus.local.parts import article, begin, newline, repeat, say, say_small

COUNTRIES = tuple(
    tuple(row.split())
    for row in """France Paris French French Europe
Germany Berlin German German Europe
Spain Madrid Spanish Spanish Europe
Hungary Budapest Hungarian Hungarian Europe
England London English English Europe
Ireland Dublin Irish English Europe
Italy Rome Italian Italian Europe
Portugal Lisbon Portuguese Portuguese Europe
Greece Athens Greek Greek Europe
Poland Warsaw Polish Polish Europe
Austria Vienna Austrian German Europe
Sweden Stockholm Swedish Swedish Europe
Norway Oslo Norwegian Norwegian Europe
Denmark Copenhagen Danish Danish Europe
Finland Helsinki Finnish Finnish Europe
Romania Bucharest Romanian Romanian Europe
Bulgaria Sofia Bulgarian Bulgarian Europe
Croatia Zagreb Croatian Croatian Europe
Serbia Belgrade Serbian Serbian Europe
Ukraine Kyiv Ukrainian Ukrainian Europe
Russia Moscow Russian Russian Europe
Turkey Ankara Turkish Turkish Asia
Iran Tehran Iranian Persian Asia
Japan Tokyo Japanese Japanese Asia
China Beijing Chinese Chinese Asia
Thailand Bangkok Thai Thai Asia
Vietnam Hanoi Vietnamese Vietnamese Asia
Egypt Cairo Egyptian Arabic Africa
Kenya Nairobi Kenyan Swahili Africa
Cuba Havana Cuban Spanish America
Peru Lima Peruvian Spanish America
Chile Santiago Chilean Spanish America
Brazil Brasilia Brazilian Portuguese America""".splitlines()
)
"""Country, capital, demonym, language, continent."""

_CAPITAL_LINES = (
    "The capital of {country} is {capital_city}.",
    "The capital of {country} is {capital_city}.",
    "{capital_city} is the capital of {country}.",
    "{capital_city} lies in {country}.",
    "Q: What is the capital of {country}? A: {capital_city}.",
    "Q: In which country is {capital_city}? A: {country}.",
    "{country} has its capital in {capital_city}.",
    "{country}: {capital_city}.",
    "If you go to {country}, visit {capital_city}.",
    "{capital_city} is the {demonym} capital.",
    "In {country} people speak {language_name}.",
    "People in {capital_city} speak {language_name}.",
    "{country} is in {continent}.",
    "{capital_city} is a city in {continent}.",
)
ANIMALS = tuple(
    tuple(row.split())
    for row in """dog dogs woof brown meat house
cat cats meow black fish house
cow cows moo brown grass farm
sheep sheep baa white grass farm
horse horses neigh brown hay farm
pig pigs oink pink corn farm
hen hens cluck white seeds farm
duck ducks quack white seeds pond
frog frogs croak green flies pond
bee bees buzz yellow honey garden
owl owls hoot brown mice forest
mouse mice squeak grey cheese house
wolf wolves howl grey meat forest
crow crows caw black corn forest
bear bears growl brown honey forest
lion lions roar yellow meat zoo
snake snakes hiss green mice zoo""".splitlines()
)
"""Animal, plural, sound, colour, food, home."""

_ANIMAL_LINES = (
    "The {animal} says {animal_sound}.",
    '"{animal_sound}", says the {animal}.',
    "{a} {animal} eats {food}.",
    "{animals:animal} like {food}.",
    "Many {animals:animal} are {colour}.",
    "The {colour} {animal} says {animal_sound}.",
    "The {animal} wants {food}.",
    "What do {animals:animal} eat? They eat {food}.",
    "What does the {animal} say? {animal_sound}!",
    "Which animal says {animal_sound}? The {animal}.",
    "Near the {home:_} lives {a:_} {colour} {animal}.",
    "{animals:animal} live near the {home:_}.",
)
LANGUAGES = ("German", "French", "Spanish", "Hungarian")
DICTIONARY = tuple(
    tuple(row.split())
    for row in """dog Hund chien perro kutya
cat Katze chat gato macska
house Haus maison casa ház
water Wasser eau agua víz
bread Brot pain pan kenyér
milk Milch lait leche tej
tree Baum arbre árbol fa
book Buch livre libro könyv
sun Sonne soleil sol nap
moon Mond lune luna hold
star Stern étoile estrella csillag
night Nacht nuit noche éjszaka
friend Freund ami amigo barát
mother Mutter mère madre anya
father Vater père padre apa
red rot rouge rojo piros
white weiß blanc blanco fehér
black schwarz noir negro fekete
green grün vert verde zöld
one eins un uno egy
two zwei deux dos kettő
three drei trois tres három
four vier quatre cuatro négy
ten zehn dix diez tíz
good gut bon bueno jó
yes ja oui sí igen
no nein non no nem
fish Fisch poisson pez hal
apple Apfel pomme manzana alma
school Schule école escuela iskola
city Stadt ville ciudad város
door Tür porte puerta ajtó
hand Hand main mano kéz
winter Winter hiver invierno tél
summer Sommer été verano nyár""".splitlines()
)
"""English, German, French, Spanish, Hungarian."""

_TRANSLATION_LINES = (
    "{word:source_word} = {translation} ({language_name})",
    "The {language_name} word for {word:source_word} is {translation}.",
    "In {language_name}, {word:source_word} is {translation}.",
    "{translation} means {word:source_word} in {language_name}.",
    "{translation} is {language_name} for {word:source_word}.",
    "How do you say {word:source_word} in {language_name}? {translation}.",
    "{language_name}: {word:source_word} - {translation}.",
)
OPPOSITES = tuple(
    tuple(row.split())
    for row in """big small
hot cold
old young
long short
fast slow
good bad
happy sad
light dark
full empty
hard soft
wet dry
high low
rich poor
clean dirty
early late
strong weak
new old
open closed
loud quiet
thick thin
right wrong
cheap expensive""".splitlines()
)
_OPPOSITE_LINES = (
    "The opposite of {adjective} is {opposite}.",
    "Q: What is the opposite of {adjective}? A: {opposite}.",
    "It is not {adjective}, it is {opposite}.",
    "{adjective} and {opposite} are opposites.",
    "{adjective} - {opposite}",
    "If it is not {adjective}, it may be {opposite}.",
    "One is {adjective}, the other is {opposite}.",
    "What is not {adjective}? Something {opposite}.",
)


def _capital(w: Writer) -> None:
    country, city, demonym, language, continent = w.pick(COUNTRIES)
    say(
        w,
        w.pick(_CAPITAL_LINES),
        country=country,
        capital_city=city,
        demonym=demonym,
        language_name=language,
        continent=continent,
    )


def capitals(w: Writer) -> None:
    """Countries with their capitals, languages and continents."""
    goal = begin(w)
    if w.chance(0.4):
        say(w, w.pick(("Countries and capitals", "Geography quiz", "Geography", "Cities")))
        newline(w)
    repeat(w, goal, (_capital,))


def _animal(w: Writer) -> None:
    animal, plural, sound, colour, food, home = w.pick(ANIMALS)
    line = w.pick(_ANIMAL_LINES).replace("{a}", "{a:_}")
    a = article(colour if "{colour}" in line else animal)
    values = {"animal": animal, "animals": plural, "animal_sound": sound, "colour": colour}
    say(w, line, a=a, food=food, home=home, **values)


def animals(w: Writer) -> None:
    """Sounds, food, colours and homes of animals."""
    repeat(w, begin(w), (_animal,), prose=0.7)


def _translation(w: Writer) -> None:
    row = w.pick(DICTIONARY)
    index = w.number(1, 4)
    language = LANGUAGES[index - 1]
    line = w.pick(_TRANSLATION_LINES)
    values = {"language_name": language, "translation": row[index]}
    say_small(w, line, word=row[0], **values)


def translate(w: Writer) -> None:
    """English words and what they are in four other languages."""
    repeat(w, begin(w), (_translation,), prose=0.05)


def _opposite(w: Writer) -> None:
    pair = w.pick(OPPOSITES)
    first = w.number(0, 1)
    adjective, opposite = pair[first], pair[1 - first]
    say(w, w.pick(_OPPOSITE_LINES), adjective=adjective, opposite=opposite)


def opposites(w: Writer) -> None:
    """Adjectives and their opposites."""
    repeat(w, begin(w), (_opposite,), prose=0.3)
