"""English: nothing agrees, ``a`` waits for a vowel, questions and negations take ``do``."""

from __future__ import annotations

from workbench.pocket.corpus.lexicon.base import (
    CASES,
    GENDERS,
    PERSONS,
    TENSES,
    Lexicon,
    Noun,
    Verb,
    both,
    by_topic,
    crossed,
    persons,
    same,
    spaced,
    tenses,
    words,
)


def noun(text: str) -> Noun:
    """From ``boat`` or ``scarf scarves``."""
    singular, *plural = text.split()
    many = plural[0] if plural else singular + "s"
    return Noun("n", {case: " " + singular for case in CASES} | {"pl": " " + many})


def verb(text: str) -> Verb:
    """From ``base third past``, with ``_`` for a space inside a form."""
    base, third, past = (" " + part.replace("_", " ") for part in text.split())
    finite = {
        "past": dict.fromkeys(PERSONS, past),
        "present": dict(zip(PERSONS, (base, third, third, base), strict=True)),
        "future": dict.fromkeys(PERSONS, " will"),
    }
    return Verb(finite, {"past": "", "present": "", "future": base}, base)


NOUNS = by_topic("""
sea: boat | fish fish | shell | net | sail | rope | crab | oar
kitchen: soup | cake | cheese | egg | sausage | potato potatoes | pie | salad
garden: flower | tree | rose | tulip | carrot | bush bushes | pear | seed
city: street | museum | bridge | square | tower | theatre | station | church churches
music: song | melody melodies | waltz waltzes | symphony symphonies | tango | sonata | hymn | march marches
winter: sled | scarf scarves | coat | glove | boot | cap | blanket | sweater
space: star | planet | moon | rocket | comet | galaxy galaxies | satellite | robot
market: basket | lamp | carpet | ring | bag | vase | book | clock
""")  # noqa: E501
VERBS = by_topic("""
sea: pull pulls pulled | throw throws threw | save saves saved | lift lifts lifted | tie ties tied
kitchen: cook cooks cooked | taste tastes tasted | eat eats ate | cut cuts cut | serve serves served
garden: plant plants planted | water waters watered | smell smells smelled | tend tends tended | gather gathers gathered
city: visit visits visited | look_for looks_for looked_for | photograph photographs photographed | draw draws drew | show shows showed
music: play plays played | hear hears heard | practise practises practised | whistle whistles whistled | hum hums hummed
winter: dry dries dried | warm warms warmed | pack packs packed | bring brings brought | hide hides hid
space: observe observes observed | explore explores explored | measure measures measured | study studies studied | film films filmed
market: buy buys bought | sell sells sold | choose chooses chose | order orders ordered | pay_for pays_for paid_for
""")  # noqa: E501
LIKES = by_topic("""
positive: love loves loved | enjoy enjoys enjoyed | admire admires admired
negative: hate hates hated | fear fears feared | regret regrets regretted
""")
SAYS = by_topic("""
formal: declare declares declared | believe believes believed
informal: say says said | think thinks thought
""")

ENGLISH = Lexicon(
    code="en",
    joint="n",
    vowels="aeiou",
    adjective_first=True,
    articles={f"{case}:n": " a~" if case == "indef" else " the" for case in CASES},
    nouns={topic: tuple(map(noun, texts)) for topic, texts in NOUNS.items()},
    places=spaced(
        by_topic("""
sea: at the harbour | on the beach | on the island | by the coast
kitchen: on the table | in the oven | in the pan | by the fridge
garden: behind the fence | on the lawn | under the hedge | by the fountain
city: in the centre | at the corner | in the suburbs | behind the town hall
music: on the stage | in the concert hall | at the opera | at the festival
winter: in the snow | on the ice | on the mountain | by the fireplace
space: in the sky | in orbit | on Mars | at the observatory
market: at the stall | in the shop | at the counter | at the fair
""")
    ),
    verbs={topic: tuple(map(verb, texts)) for topic, texts in VERBS.items()},
    likes={key: tuple(map(verb, texts)) for key, texts in LIKES.items()},
    says={key: tuple(map(verb, texts)) for key, texts in SAYS.items()},
    adjectives=crossed(
        both(
            *(
                tuple(map(same, text.split()))
                for text in (
                    "beautiful good bright fresh",
                    "magnificent splendid remarkable excellent",
                    "cool awesome cute nice",
                )
            )
        ),
        both(
            *(
                tuple(map(same, text.split()))
                for text in (
                    "ugly bad broken dirty",
                    "deplorable dreadful inferior regrettable",
                    "lousy nasty crappy gross",
                )
            )
        ),
    ),
    colours=tuple(map(same, ["red", "blue", "green", "white", "black", "yellow"])),
    feels={
        "positive": tuple(map(persons, ("happy", "glad", "cheerful", "proud"))),
        "negative": tuple(map(persons, ("sad", "angry", "tired", "lonely"))),
    },
    adverbs={
        "positive": words("happily | gladly | with joy | with love | with a smile | cheerfully"),
        "negative": words("sadly | angrily | with tears | with dread | with a sigh | bitterly"),
    },
    exclamations=crossed(
        (
            words("How delightful! | What a triumph! | A true pleasure!"),
            words("Yay! | Wow, so much fun! | Hooray!"),
        ),
        (
            words("How unfortunate! | What a disaster! | A grave disappointment!"),
            words("Ugh! | Oh no, what a mess! | Yuck!"),
        ),
    ),
    openers={
        "formal": words(
            "Indeed, | Moreover, | Furthermore, | In addition, | Consequently, "
            "| As previously noted,"
        ),
        "informal": words("Well, | Hey, | Anyway, | Honestly, | Okay, | Guess what,"),
    },
    closers={
        "formal": words(
            ", as reported | , as expected | , without doubt | , it must be stated "
            "| , in accordance with the plan | , as one may conclude"
        ),
        "informal": words(", you know | , right | , haha | , no kidding | , for real | , I swear"),
    },
    intensifiers={
        "formal": words("particularly | exceedingly | truly | entirely"),
        "informal": words("super | totally | pretty | really"),
    },
    because={"formal": words("since"), "informal": words("because")},
    conjunction={"formal": words("and subsequently"), "informal": words("and then")},
    but={"formal": words("yet"), "informal": words("but")},
    times={
        "past": words("yesterday | last week | last year | last night | long ago | in those days"),
        "present": words("today | now | at the moment | nowadays | every day | currently"),
        "future": words("tomorrow | next week | next year | soon | later | one day"),
    },
    pronouns=persons("I | she | he | they"),
    companions={
        person: words(f"with {own} friend | with {own} sister | with {own} family")
        for person, own in zip(PERSONS, ("my", "her", "his", "their"), strict=True)
    },
    possessives={
        person: dict.fromkeys(GENDERS, own)
        for person, own in zip(PERSONS, (" my", " her", " his", " their"), strict=True)
    },
    be=tenses("was", "is", "will be"),
    be_at=tenses("was", "is", "will be"),
    be_all=tenses("were", "are", "will be"),
    be_num=tenses("were", "are", "will be"),
    be_feel=dict(
        zip(
            TENSES,
            map(persons, ("was | was | was | were", "am | is | is | are", "will be")),
            strict=True,
        )
    ),
    be_rest=tenses("", "", ""),
    it=dict.fromkeys(GENDERS, " it"),
    ask=dict(zip(TENSES, map(persons, ("did", "do | does | does | do", "will")), strict=True)),
    numbers=words(
        "one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve"
    ),
    weekdays=words("Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday"),
    months=words(
        "January | February | March | April | May | June | July | August | September "
        "| October | November | December"
    ),
    date="WEEKDAY ,/comma DAY MONTH",
    subjects={
        "sea": " the sea",
        "kitchen": " the kitchen",
        "garden": " the garden",
        "city": " the city",
        "music": " music",
        "winter": " winter",
        "space": " space",
        "market": " the market",
    },
    languages={
        "en": " in English",
        "fr": " in French",
        "de": " in German",
        "es": " in Spanish",
        "hu": " in Hungarian",
    },
    moods={"positive": " joyful", "negative": " gloomy"},
    ratings={
        "positive": words("Rating: 4 out of 5 | Rating: 5 out of 5"),
        "negative": words("Rating: 1 out of 5 | Rating: 2 out of 5"),
    },
    greetings={"formal": words("Dear Madam | Dear Sir"), "informal": words("Hi | Hello there")},
    goodbyes={
        "formal": words("Yours sincerely, | With kind regards,"),
        "informal": words("See you, | Big hugs,"),
    },
    frames={
        "main": (
            "OPEN? TIME ,/comma SUBJ FIN REST OBJ PLACE? CLOSE? .",
            "OPEN? SUBJ FIN REST OBJ PLACE TIME? CLOSE? .",
        ),
        "adverb": ("OPEN? SUBJ FIN REST OBJ ADVERB PLACE? CLOSE? .",),
        "there": ("OPEN? there BEAT INDEF PLACE CLOSE? .",),
        "quality": ("OPEN? NOM BE INTENS? PRED CLOSE? .",),
        "it": ("OPEN? IT BE INTENS? PRED CLOSE? .",),
        "says": ("SUBJ SFIN SREST that/conjunction NOM BE INTENS? PRED .",),
        "quote": ("SUBJ SFIN SREST :/ “/opening_quote GLUE EXCLAIM ”/closing_quote",),
        "two": ("OPEN? SUBJ FIN REST OBJ AND NEXT FIN REST OBJ .",),
        "question": ("ASK SUBJ BASE OBJ PLACE? ?",),
        "why": ("why/question_word ASK SUBJ BASE OBJ PLACE? ?",),
        "exclaim": ("EXCLAIM",),
        "because": ("OPEN? SUBJ FEELBE INTENS? FEEL BECAUSE HE FIN REST OBJ .",),
        "as": ("NOM BE as PRED as/conjunction OTHER .",),
        "count": ("OPEN? COUNT BENUM PLACE .",),
        "plural": ("OPEN? PLURAL BEALL PLACE TIME? CLOSE? .",),
        "with": ("OPEN? SUBJ FIN REST OBJ WITH CLOSE? .",),
        "negation": ("OPEN? SUBJ ASK not/negation BASE OBJ PLACE? CLOSE? .",),
        "feel": ("OPEN? TIME ,/comma SUBJ FEELBE INTENS? FEEL PLACE? CLOSE? .",),
        "own": ("OPEN? OWN BE INTENS? PRED CLOSE? .",),
        "but": ("NOM BE PRED ,/comma BUT SUBJ FIN REST OBJ .",),
        "once": ("once_upon_a_time/time_adverb there BEAT INDEF PLACE .",),
        "headline": ("SUBJECT :/ NOM PLACE",),
        "ask_noun": ("what/question_word is NOM like ?",),
        "ask_where": ("where/question_word is NOM ?",),
        "answer_where": ("NOM BEAT PLACE .",),
        "ask_language": ("please write INLANG about SUBJECT ,/comma okay ?",),
        "ask_story": ("can you tell me a~ MOOD story about SUBJECT ?",),
        "ask_count": ("can you count to UPTO ?",),
        "ask_capitals": ("please write about SUBJECT in capital letters ,/comma okay ?",),
        "ask_past": ("what/question_word happened in the past ?",),
        "ask_future": ("what/question_word comes in the future ?",),
    },
)
