"""French: adjectives agree and follow; the past is the passé composé, the future ``aller``."""

from __future__ import annotations

from workbench.pocket.corpus.lexicon.base import (
    CASES,
    PERSONS,
    TENSES,
    Adjective,
    Lexicon,
    Noun,
    Verb,
    agreeing,
    both,
    by_topic,
    crossed,
    persons,
    spaced,
    tenses,
    words,
)

HAVE = persons("ai | a | a | ont")
GO = persons("vais | va | va | vont")


def noun(text: str) -> Noun:
    """From ``bateau m bateaux``; the plural adds an s where it is not given."""
    singular, gender, *plural = text.split()
    many = plural[0] if plural else singular + "s"
    return Noun(gender, {case: " " + singular for case in CASES} | {"pl": " " + many})


def verb(text: str) -> Verb:
    """From ``tirer`` or ``je il ils infinitive participle``."""
    parts = text.split()
    if len(parts) == 1:
        stem = text[:-2]
        parts = [stem + ending for ending in ("e", "e", "ent", "er", "é")]
    first, third, many, base, participle = (" " + part for part in parts)
    finite = {
        "past": HAVE,
        "present": dict(zip(PERSONS, (first, third, third, many), strict=True)),
        "future": GO,
    }
    return Verb(finite, {"past": participle, "present": "", "future": base}, base)


def adjective(text: str) -> Adjective:
    """From ``parfait parfaite``, or all four forms; plurals add an s."""
    m, *more = text.split()
    f = more[0] if more else m if m.endswith("e") else m + "e"
    mpl, fpl = more[1:] if len(more) == 3 else (m if m.endswith("x") else m + "s", f + "s")
    return agreeing(m, f, mpl, fpl)


def adjectives(text: str) -> tuple[Adjective, ...]:
    """From words with ``|`` between them."""
    return tuple(adjective(part) for part in text.split("|"))


def feel(text: str) -> dict[str, str]:
    """A mood from ``masculine feminine plural``, person -> form."""
    m, f, many = (" " + part for part in text.split())
    return dict(zip(PERSONS, (m, f, m, many), strict=True))


NOUNS = by_topic("""
sea: bateau m bateaux | poisson m | coquillage m | filet m | voile f | corde f | crabe m | rame f
kitchen: soupe f | gâteau m gâteaux | fromage m | œuf m | saucisse f | patate f | tarte f | salade f
garden: fleur f | arbre m | rose f | tulipe f | carotte f | buisson m | poire f | graine f
city: rue f | musée m | pont m | place f | tour f | théâtre m | gare f | église f
music: chanson f | mélodie f | valse f | symphonie f | tango m | sonate f | hymne m | marche f
winter: luge f | écharpe f | manteau m manteaux | gant m | botte f | bonnet m | couverture f | pull m
space: étoile f | planète f | lune f | fusée f | comète f | galaxie f | satellite m | robot m
market: panier m | lampe f | tapis m tapis | bague f | sac m | vase m | livre m | montre f
""")  # noqa: E501
VERBS = by_topic("""
sea: tirer | lancer | sauver | lever | attacher
kitchen: cuisiner | goûter | manger | couper | sers sert servent servir servi
garden: planter | arroser | sens sent sentent sentir senti | soigner | ramasser
city: visiter | chercher | photographier | dessiner | montrer
music: jouer | écouter | répète répète répètent répéter répété | siffler | fredonner
winter: sèche sèche sèchent sécher séché | chauffer | emballer | apporter | cacher
space: observer | explorer | mesurer | étudier | filmer
market: achète achète achètent acheter acheté | vends vend vendent vendre vendu | choisis choisit choisissent choisir choisi | commander | payer
""")  # noqa: E501
VERBS["sea"] = ("tirer", "lancer", "sauver", "lève lève lèvent lever levé", "attacher")
VERBS["market"] = (*VERBS["market"][:4], "paie paie paient payer payé")
LIKES = by_topic("""
positive: adorer | aimer | admirer
negative: détester | redouter | regretter
""")
SAYS = by_topic("""
formal: déclarer | estimer
informal: dis dit disent dire dit | penser
""")

FRENCH = Lexicon(
    code="fr",
    joint="'",
    vowels="aeiouhéèêâîôœ",
    adjective_first=False,
    articles={
        f"{case}:{gender}": text
        for gender, one, the in (("m", " un", " le~"), ("f", " une", " la~"))
        for case, text in (("nom", the), ("acc", the), ("indef", one), ("pl", " les"))
    },
    nouns={topic: tuple(map(noun, texts)) for topic, texts in NOUNS.items()},
    places=spaced(
        by_topic("""
sea: dans le port | sur la plage | sur l'île | près de la côte
kitchen: sur la table | dans le four | dans la poêle | près du frigo
garden: derrière la clôture | sur la pelouse | sous la haie | près de la fontaine
city: dans le centre | au coin | en banlieue | derrière la mairie
music: sur la scène | dans la salle de concert | à l'opéra | au festival
winter: dans la neige | sur la glace | sur la montagne | près de la cheminée
space: dans le ciel | en orbite | sur Mars | à l'observatoire
market: au stand | dans la boutique | à la caisse | à la foire
""")
    ),
    verbs={topic: tuple(map(verb, texts)) for topic, texts in VERBS.items()},
    likes={key: tuple(map(verb, texts)) for key, texts in LIKES.items()},
    says={key: tuple(map(verb, texts)) for key, texts in SAYS.items()},
    adjectives=crossed(
        both(
            adjectives("agréable | parfait | charmant | brillant"),
            adjectives("magnifique | splendide | remarquable | excellent"),
            adjectives(
                "génial géniale géniaux géniales | chouette | rigolo rigolote | mignon mignonne"
            ),
        ),
        both(
            adjectives("laid | cassé | sale | mauvais mauvaise mauvais mauvaises"),
            adjectives("déplorable | médiocre | regrettable | désastreux désastreuse"),
            adjectives("moche | nul nulle | pourri | minable"),
        ),
    ),
    colours=adjectives("rouge | bleu | vert | blanc blanche | noir | jaune"),
    feels={
        "positive": tuple(
            map(
                feel,
                (
                    "heureux heureuse heureux",
                    "content contente contents",
                    "joyeux joyeuse joyeux",
                    "fier fière fiers",
                ),
            )
        ),
        "negative": tuple(
            map(
                feel,
                (
                    "triste triste tristes",
                    "fâché fâchée fâchés",
                    "fatigué fatiguée fatigués",
                    "seul seule seuls",
                ),
            )
        ),
    },
    adverbs={
        "positive": words(
            "avec joie | avec amour | avec plaisir | joyeusement | en souriant | gaiement"
        ),
        "negative": words(
            "avec peine | avec colère | en pleurant | tristement | avec dégoût | avec peur"
        ),
    },
    exclamations=crossed(
        (
            words("Quel bonheur ! | Quel triomphe ! | Un réel délice !"),
            words("Youpi ! | Ouah, trop bien ! | Hourra !"),
        ),
        (
            words("Quel malheur ! | Quel désastre ! | Une grave déception !"),
            words("Beurk ! | Oh non, quelle galère ! | Zut !"),
        ),
    ),
    openers={
        "formal": words(
            "En effet, | Par ailleurs, | En outre, | De plus, | Par conséquent, "
            "| Comme indiqué précédemment,"
        ),
        "informal": words("Bon, | Hé, | Bref, | Franchement, | Allez, | Tu sais quoi,"),
    },
    closers={
        "formal": words(
            ", selon le rapport | , comme prévu | , sans aucun doute "
            "| , il convient de le noter | , conformément au plan "
            "| , pour conclure"
        ),
        "informal": words(
            ", tu vois | , quoi | , mdr | , sans blague | , pour de vrai | , je te jure"
        ),
    },
    intensifiers={
        "formal": words("particulièrement | extrêmement | véritablement | tout à fait"),
        "informal": words("super | vachement | trop | hyper"),
    },
    because={"formal": words("car"), "informal": words("parce que~")},
    conjunction={"formal": words("et ensuite"), "informal": words("et puis")},
    but={"formal": words("toutefois"), "informal": words("mais")},
    times={
        "past": words(
            "hier | la semaine dernière | l'année dernière | hier soir "
            "| il y a longtemps | autrefois"
        ),
        "present": words(
            "aujourd'hui | maintenant | en ce moment | ces jours-ci | chaque jour | actuellement"
        ),
        "future": words(
            "demain | la semaine prochaine | l'année prochaine | bientôt | plus tard | un jour"
        ),
    },
    pronouns=persons("je~ | elle | il | ils"),
    companions={
        person: words(f"avec {friend} | avec {sister} | avec {family}")
        for person, friend, sister, family in (
            ("i", "mon ami", "ma sœur", "ma famille"),
            ("she", "son ami", "sa sœur", "sa famille"),
            ("he", "son ami", "sa sœur", "sa famille"),
            ("they", "leur ami", "leur sœur", "leur famille"),
        )
    },
    possessives={
        "i": {"m": " mon", "f": " ma", "vowel": " mon"},
        "she": {"m": " son", "f": " sa", "vowel": " son"},
        "he": {"m": " son", "f": " sa", "vowel": " son"},
        "they": {"m": " leur", "f": " leur", "vowel": " leur"},
    },
    be=tenses("était", "est", "sera"),
    be_at=tenses("était", "est", "sera"),
    be_all=tenses("étaient", "sont", "seront"),
    be_num=tenses("étaient", "sont", "seront"),
    be_feel=dict(
        zip(
            TENSES,
            map(
                persons,
                (
                    "étais | était | était | étaient",
                    "suis | est | est | sont",
                    "serai | sera | sera | seront",
                ),
            ),
            strict=True,
        )
    ),
    be_rest=tenses("", "", ""),
    it={"m": " il", "f": " elle"},
    ask={tense: persons("") for tense in TENSES},
    numbers=words(
        "un | deux | trois | quatre | cinq | six | sept | huit | neuf | dix | onze | douze"
    ),
    weekdays=words("lundi | mardi | mercredi | jeudi | vendredi | samedi | dimanche"),
    months=words(
        "janvier | février | mars | avril | mai | juin | juillet | août | septembre "
        "| octobre | novembre | décembre"
    ),
    date="WEEKDAY DAY MONTH",
    subjects={
        "sea": " la mer",
        "kitchen": " la cuisine",
        "garden": " le jardin",
        "city": " la ville",
        "music": " la musique",
        "winter": " l'hiver",
        "space": " l'espace",
        "market": " le marché",
    },
    languages={
        "en": " en anglais",
        "fr": " en français",
        "de": " en allemand",
        "es": " en espagnol",
        "hu": " en hongrois",
    },
    moods={"positive": " gaie", "negative": " sombre"},
    ratings={
        "positive": words("Note : 4 sur 5 | Note : 5 sur 5"),
        "negative": words("Note : 1 sur 5 | Note : 2 sur 5"),
    },
    greetings={
        "formal": words("Chère Madame | Cher Monsieur"),
        "informal": words("Salut | Coucou"),
    },
    goodbyes={
        "formal": words("Cordialement, | Avec mes salutations distinguées,"),
        "informal": words("Bisous, | À plus,"),
    },
    frames={
        "main": (
            "OPEN? TIME ,/comma SUBJ FIN REST OBJ PLACE? CLOSE? .",
            "OPEN? SUBJ FIN REST OBJ PLACE TIME? CLOSE? .",
        ),
        "adverb": ("OPEN? SUBJ FIN REST OBJ ADVERB PLACE? CLOSE? .",),
        "there": ("OPEN? PLACE ,/comma il y THERE INDEF CLOSE? .",),
        "quality": ("OPEN? NOM BE INTENS? PRED CLOSE? .",),
        "it": ("OPEN? IT BE INTENS? PRED CLOSE? .",),
        "says": ("SUBJ SFIN SREST que/conjunction NOM BE INTENS? PRED .",),
        "quote": ("SUBJ SFIN SREST _:/ «/opening_quote EXCLAIM _»/closing_quote",),
        "two": ("OPEN? SUBJ FIN REST OBJ AND NEXT FIN REST OBJ .",),
        "question": ("est-ce/question_word que~/question_word HE FIN REST OBJ PLACE? _?",),
        "why": (
            "pourquoi/question_word est-ce/question_word que~/question_word "
            "HE FIN REST OBJ PLACE? _?",
        ),
        "exclaim": ("EXCLAIM",),
        "because": ("OPEN? SUBJ FEELBE INTENS? FEEL BECAUSE HE FIN REST OBJ .",),
        "as": ("NOM BE aussi PRED que/conjunction OTHER .",),
        "count": ("OPEN? COUNT BENUM PLACE .",),
        "plural": ("OPEN? PLURAL BEALL PLACE TIME? CLOSE? .",),
        "with": ("OPEN? SUBJ FIN REST OBJ WITH CLOSE? .",),
        "negation": ("OPEN? SUBJ ne~/negation FIN pas/negation REST OBJ PLACE? CLOSE? .",),
        "feel": ("OPEN? TIME ,/comma SUBJ FEELBE INTENS? FEEL PLACE? CLOSE? .",),
        "own": ("OPEN? OWN BE INTENS? PRED CLOSE? .",),
        "but": ("NOM BE PRED ,/comma BUT SUBJ FIN REST OBJ .",),
        "once": ("il_était_une_fois/time_adverb INDEF PLACE .",),
        "headline": ("SUBJECT _:/ NOM PLACE",),
        "ask_noun": ("comment/question_word est NOM _?",),
        "ask_where": ("où/question_word est NOM _?",),
        "answer_where": ("NOM BEAT PLACE .",),
        "ask_language": ("tu peux écrire INLANG sur SUBJECT _?",),
        "ask_story": ("tu peux raconter une histoire MOOD sur SUBJECT _?",),
        "ask_count": ("tu peux compter jusqu'à UPTO _?",),
        "ask_capitals": ("tu peux écrire en majuscules sur SUBJECT _?",),
        "ask_past": ("que/question_word s'est-il passé autrefois _?",),
        "ask_future": ("que/question_word va-t-il se passer bientôt _?",),
        "there_forms": ("avait a aura",),
    },
)
