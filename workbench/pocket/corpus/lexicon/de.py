"""German: the verb is second, participle and infinitive close the clause, endings by case."""

from __future__ import annotations

from workbench.pocket.corpus.lexicon.base import (
    PERSONS,
    TENSES,
    Adjective,
    Lexicon,
    Noun,
    Verb,
    both,
    by_topic,
    crossed,
    persons,
    spaced,
    tenses,
    words,
)

HAVE = persons("habe | hat | hat | haben")
WILL = persons("werde | wird | wird | werden")
ENDINGS = {"nom": "e e e", "acc": "en e e", "indef": "er e es", "pl": "en en en"}


def noun(text: str) -> Noun:
    """From ``Boot n Boote`` with the accusative last where it differs."""
    one, gender, many, *accusative = text.split()
    forms = {"nom": one, "acc": accusative[0] if accusative else one, "indef": one, "pl": many}
    return Noun(gender, {case: " " + form for case, form in forms.items()})


def verb(text: str) -> Verb:
    """From ``ich er sie participle``; the infinitive looks like the plural."""
    first, third, many, participle = (" " + part for part in text.split())
    finite = {
        "past": HAVE,
        "present": dict(zip(PERSONS, (first, third, third, many), strict=True)),
        "future": WILL,
    }
    return Verb(finite, {"past": participle, "present": "", "future": many}, many)


def adjective(base: str) -> Adjective:
    """With the endings after ``der`` and ``ein``; as a predicate it has none."""
    stem = base
    forms = {
        f"{case}:{gender}": f" {stem}{ending}"
        for case, endings in ENDINGS.items()
        for gender, ending in zip("mfn", endings.split(), strict=True)
    }
    return Adjective(forms | {f"pred:{gender}": " " + base for gender in "mfn"})


def adjectives(text: str) -> tuple[Adjective, ...]:
    """From words with spaces between them."""
    return tuple(map(adjective, text.split()))


NOUNS = by_topic("""
sea: Boot n Boote | Fisch m Fische | Muschel f Muscheln | Netz n Netze | Segel n Segel | Seil n Seile | Krabbe f Krabben | Ruder n Ruder
kitchen: Suppe f Suppen | Kuchen m Kuchen | Käse m Käse | Ei n Eier | Wurst f Würste | Kartoffel f Kartoffeln | Torte f Torten | Salat m Salate
garden: Blume f Blumen | Baum m Bäume | Rose f Rosen | Tulpe f Tulpen | Karotte f Karotten | Busch m Büsche | Birne f Birnen | Samen m Samen
city: Straße f Straßen | Museum n Museen | Brücke f Brücken | Platz m Plätze | Turm m Türme | Theater n Theater | Bahnhof m Bahnhöfe | Kirche f Kirchen
music: Lied n Lieder | Melodie f Melodien | Walzer m Walzer | Sinfonie f Sinfonien | Tango m Tangos | Sonate f Sonaten | Hymne f Hymnen | Marsch m Märsche
winter: Schlitten m Schlitten | Schal m Schals | Mantel m Mäntel | Handschuh m Handschuhe | Stiefel m Stiefel | Mütze f Mützen | Decke f Decken | Pullover m Pullover
space: Stern m Sterne | Planet m Planeten Planeten | Mond m Monde | Rakete f Raketen | Komet m Kometen Kometen | Galaxie f Galaxien | Satellit m Satelliten Satelliten | Roboter m Roboter
market: Korb m Körbe | Lampe f Lampen | Teppich m Teppiche | Ring m Ringe | Tasche f Taschen | Vase f Vasen | Buch n Bücher | Uhr f Uhren
""")  # noqa: E501
VERBS = by_topic("""
sea: ziehe zieht ziehen gezogen | werfe wirft werfen geworfen | rette rettet retten gerettet | hebe hebt heben gehoben | binde bindet binden gebunden
kitchen: koche kocht kochen gekocht | probiere probiert probieren probiert | esse isst essen gegessen | schneide schneidet schneiden geschnitten | serviere serviert servieren serviert
garden: pflanze pflanzt pflanzen gepflanzt | gieße gießt gießen gegossen | rieche riecht riechen gerochen | pflege pflegt pflegen gepflegt | sammle sammelt sammeln gesammelt
city: besuche besucht besuchen besucht | suche sucht suchen gesucht | fotografiere fotografiert fotografieren fotografiert | zeichne zeichnet zeichnen gezeichnet | zeige zeigt zeigen gezeigt
music: spiele spielt spielen gespielt | höre hört hören gehört | übe übt üben geübt | pfeife pfeift pfeifen gepfiffen | summe summt summen gesummt
winter: trockne trocknet trocknen getrocknet | wärme wärmt wärmen gewärmt | packe packt packen gepackt | bringe bringt bringen gebracht | verstecke versteckt verstecken versteckt
space: beobachte beobachtet beobachten beobachtet | erforsche erforscht erforschen erforscht | messe misst messen gemessen | studiere studiert studieren studiert | filme filmt filmen gefilmt
market: kaufe kauft kaufen gekauft | verkaufe verkauft verkaufen verkauft | wähle wählt wählen gewählt | bestelle bestellt bestellen bestellt | bezahle bezahlt bezahlen bezahlt
""")  # noqa: E501
LIKES = by_topic("""
positive: liebe liebt lieben geliebt | genieße genießt genießen genossen | bewundere bewundert bewundern bewundert
negative: hasse hasst hassen gehasst | fürchte fürchtet fürchten gefürchtet | bedaure bedauert bedauern bedauert
""")  # noqa: E501
SAYS = by_topic("""
formal: erkläre erklärt erklären erklärt | betone betont betonen betont
informal: sage sagt sagen gesagt | denke denkt denken gedacht
""")
ARTICLES = {
    "nom": "der die das",
    "acc": "den die das",
    "indef": "ein eine ein",
    "pl": "die die die",
}
MY = {"i": "mein", "she": "ihr", "he": "sein", "they": "ihr"}

GERMAN = Lexicon(
    code="de",
    joint="",
    vowels="",
    adjective_first=True,
    articles={
        f"{case}:{gender}": " " + text
        for case, line in ARTICLES.items()
        for gender, text in zip("mfn", line.split(), strict=True)
    },
    nouns={topic: tuple(map(noun, texts)) for topic, texts in NOUNS.items()},
    places=spaced(
        by_topic("""
sea: im Hafen | am Strand | auf der Insel | an der Küste
kitchen: auf dem Tisch | im Ofen | in der Pfanne | neben dem Kühlschrank
garden: hinter dem Zaun | auf dem Rasen | unter der Hecke | neben dem Brunnen
city: im Zentrum | an der Ecke | im Vorort | hinter dem Rathaus
music: auf der Bühne | im Konzertsaal | in der Oper | beim Festival
winter: im Schnee | auf dem Eis | auf dem Berg | neben dem Kamin
space: am Himmel | in der Umlaufbahn | auf dem Mars | in der Sternwarte
market: am Stand | im Laden | an der Kasse | auf der Messe
""")
    ),
    verbs={topic: tuple(map(verb, texts)) for topic, texts in VERBS.items()},
    likes={key: tuple(map(verb, texts)) for key, texts in LIKES.items()},
    says={key: tuple(map(verb, texts)) for key, texts in SAYS.items()},
    adjectives=crossed(
        both(
            adjectives("schön gut hell frisch"),
            adjectives("prächtig hervorragend bemerkenswert ausgezeichnet"),
            adjectives("toll cool süß nett"),
        ),
        both(
            adjectives("hässlich schlecht kaputt schmutzig"),
            adjectives("bedauerlich minderwertig mangelhaft entsetzlich"),
            adjectives("doof blöd mies eklig"),
        ),
    ),
    colours=adjectives("rot blau grün weiß schwarz gelb"),
    feels={
        "positive": tuple(map(persons, ("glücklich", "froh", "fröhlich", "stolz"))),
        "negative": tuple(map(persons, ("traurig", "wütend", "müde", "einsam"))),
    },
    adverbs={
        "positive": words(
            "gerne | mit Freude | voller Liebe | vergnügt | mit einem Lächeln | begeistert"
        ),
        "negative": words(
            "unter Tränen | voller Angst | widerwillig | voller Wut "
            "| mit einem Seufzer | verzweifelt"
        ),
    },
    exclamations=crossed(
        (
            words("Welch ein Glück! | Was für ein Triumph! | Eine wahre Wonne!"),
            words("Juhu! | Wow, so ein Spaß! | Hurra!"),
        ),
        (
            words("Welch ein Unglück! | Was für ein Unheil! | Eine schwere Enttäuschung!"),
            words("Igitt! | Oh nein, so ein Mist! | Pfui!"),
        ),
    ),
    openers={
        "formal": words(
            "Kurz gefasst: | Mit anderen Worten: | Zur Information: "
            "| Wie bereits erwähnt: | Im Einzelnen: | Ergänzend gilt:"
        ),
        "informal": words("Na ja, | Hey, | Also, | Ehrlich, | Okay, | Stell dir vor,"),
    },
    closers={
        "formal": words(
            ", wie berichtet | , wie erwartet | , ohne jeden Zweifel "
            "| , was festzuhalten ist | , gemäß dem Plan "
            "| , so die Schlussfolgerung"
        ),
        "informal": words(
            ", weißt du | , oder | , haha | , kein Witz | , ganz echt | , ich schwöre"
        ),
    },
    intensifiers={
        "formal": words("äußerst | überaus | besonders | ausgesprochen"),
        "informal": words("total | echt | mega | voll"),
    },
    because={"formal": (", da",), "informal": (", weil",)},
    conjunction={"formal": words("und anschließend"), "informal": words("und dann")},
    but={"formal": words("doch"), "informal": words("aber")},
    times={
        "past": words(
            "gestern | letzte Woche | letztes Jahr | gestern Abend | vor langer Zeit | damals"
        ),
        "present": words("heute | jetzt | gerade | momentan | jeden Tag | zurzeit"),
        "future": words("morgen | nächste Woche | nächstes Jahr | bald | später | eines Tages"),
    },
    pronouns=persons("ich | sie | er | sie"),
    companions={
        person: words(f"mit {own}em Freund | mit {own}er Schwester | mit {own}er Familie")
        for person, own in MY.items()
    },
    possessives={
        person: {"m": " " + own, "f": f" {own}e", "n": " " + own} for person, own in MY.items()
    },
    be=tenses("war", "ist", "wird"),
    be_at=tenses("war", "ist", "wird"),
    be_all=tenses("waren", "sind", "werden"),
    be_num=tenses("waren", "sind", "werden"),
    be_feel=dict(
        zip(
            TENSES,
            map(
                persons,
                (
                    "war | war | war | waren",
                    "bin | ist | ist | sind",
                    "werde | wird | wird | werden",
                ),
            ),
            strict=True,
        )
    ),
    be_rest=tenses("", "", "sein"),
    it={"m": " er", "f": " sie", "n": " es"},
    ask={tense: persons("") for tense in TENSES},
    numbers=words(
        "eins | zwei | drei | vier | fünf | sechs | sieben | acht | neun | zehn | elf | zwölf"
    ),
    weekdays=words("Montag | Dienstag | Mittwoch | Donnerstag | Freitag | Samstag | Sonntag"),
    months=words(
        "Januar | Februar | März | April | Mai | Juni | Juli | August | September "
        "| Oktober | November | Dezember"
    ),
    date="WEEKDAY ,/comma DAY ./ MONTH",
    subjects={
        "sea": " Meer",
        "kitchen": " Küche",
        "garden": " Garten",
        "city": " Stadt",
        "music": " Musik",
        "winter": " Winter",
        "space": " Weltall",
        "market": " Markt",
    },
    languages={
        "en": " auf Englisch",
        "fr": " auf Französisch",
        "de": " auf Deutsch",
        "es": " auf Spanisch",
        "hu": " auf Ungarisch",
    },
    moods={"positive": " heitere", "negative": " düstere"},
    ratings={
        "positive": words("Bewertung: 4 von 5 | Bewertung: 5 von 5"),
        "negative": words("Bewertung: 1 von 5 | Bewertung: 2 von 5"),
    },
    greetings={"formal": words("Verehrte Frau | Geehrter Herr"), "informal": words("Hi | Hallo")},
    goodbyes={
        "formal": words("Hochachtungsvoll, | Mit freundlichen Grüßen,"),
        "informal": words("Tschüss, | Bis dann,"),
    },
    frames={
        "main": (
            "OPEN? TIME FIN SUBJ OBJ PLACE? REST CLOSE? .",
            "OPEN? SUBJ FIN TIME? OBJ PLACE REST CLOSE? .",
        ),
        "adverb": ("OPEN? SUBJ FIN OBJ ADVERB PLACE? REST CLOSE? .",),
        "there": ("OPEN? PLACE BEAT INDEF BEREST CLOSE? .",),
        "quality": ("OPEN? NOM BE INTENS? PRED BEREST CLOSE? .",),
        "it": ("OPEN? IT BE INTENS? PRED BEREST CLOSE? .",),
        "says": ("SUBJ SFIN SREST ,/comma dass/conjunction NOM INTENS? PRED BEREST BE .",),
        "quote": ("SUBJ SFIN SREST :/ „/opening_quote GLUE EXCLAIM “/closing_quote",),
        "two": ("OPEN? SUBJ FIN OBJ REST AND NEXT FIN HE OBJ REST .",),
        "question": ("FIN SUBJ OBJ PLACE? REST ?",),
        "why": ("warum/question_word FIN SUBJ OBJ PLACE? REST ?",),
        "exclaim": ("EXCLAIM",),
        "because": ("OPEN? SUBJ FEELBE INTENS? FEEL BEREST BECAUSE HE OBJ REST FIN .",),
        "as": ("NOM BE so PRED BEREST wie/conjunction OTHER .",),
        "count": ("OPEN? COUNT BENUM PLACE BEREST .",),
        "plural": ("OPEN? PLURAL BEALL TIME? PLACE BEREST CLOSE? .",),
        "with": ("OPEN? SUBJ FIN OBJ WITH REST CLOSE? .",),
        "negation": ("OPEN? SUBJ FIN OBJ PLACE? nicht/negation REST CLOSE? .",),
        "feel": ("OPEN? TIME FEELBE SUBJ PLACE? INTENS? FEEL BEREST CLOSE? .",),
        "own": ("OPEN? OWN BE INTENS? PRED BEREST CLOSE? .",),
        "but": ("NOM BE PRED BEREST ,/comma BUT SUBJ FIN OBJ REST .",),
        "once": ("es_war_einmal/time_adverb INDEF PLACE .",),
        "headline": ("SUBJECT :/ NOM PLACE",),
        "ask_noun": ("wie/question_word ist NOM ?",),
        "ask_where": ("wo/question_word ist NOM ?",),
        "answer_where": ("NOM BEAT PLACE BEREST .",),
        "ask_language": ("kannst du INLANG schreiben ,/comma Thema :/ SUBJECT ?",),
        "ask_story": ("kannst du eine MOOD Geschichte erzählen ,/comma Thema :/ SUBJECT ?",),
        "ask_count": ("kannst du bis UPTO zählen ?",),
        "ask_capitals": ("kannst du in Großbuchstaben schreiben ,/comma Thema :/ SUBJECT ?",),
        "ask_past": ("was/question_word ist damals passiert ?",),
        "ask_future": ("was/question_word kommt bald ?",),
    },
)
