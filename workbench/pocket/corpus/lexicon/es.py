"""Spanish: adjectives agree and follow; ``ser`` for qualities, ``estar`` for places and moods."""

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

GO = persons("voy | va | va | van")
BEFORE_E = {"c": "qu", "g": "gu", "z": "c"}


def plural(word: str) -> str:
    """The regular plural."""
    return word + ("s" if word[-1] in "aeoé" else "es")


def noun(text: str) -> Noun:
    """From ``barco m`` or ``pez m peces``."""
    one, gender, *many = text.split()
    forms = {case: " " + one for case in CASES} | {"pl": " " + (many[0] if many else plural(one))}
    return Noun(gender, forms)


def verb(text: str) -> Verb:
    """From ``lanzar``, with changed present forms after it, or with all seven forms.

    The seven are: infinitive, present yo, ella, ellas, past yo, ella, ellas.
    """
    base, *given = text.split()
    stem = base[:-2]
    soft = stem[:-1] + BEFORE_E.get(stem[-1], stem[-1])
    regular = {
        "ar": [stem + "o", stem + "a", stem + "an", soft + "é", stem + "ó", stem + "aron"],
        "er": [stem + "o", stem + "e", stem + "en", stem + "í", stem + "ió", stem + "ieron"],
    }.get(base[-2:], [])
    forms = [" " + form for form in given + regular[len(given) :]]
    finite = {
        "past": dict(zip(PERSONS, (forms[3], forms[4], forms[4], forms[5]), strict=True)),
        "present": dict(zip(PERSONS, (forms[0], forms[1], forms[1], forms[2]), strict=True)),
        "future": GO,
    }
    return Verb(finite, {"past": "", "present": "", "future": " a " + base}, " " + base)


def adjective(word: str) -> Adjective:
    """An adjective in ``-o`` has four forms, any other two."""
    feminine = word[:-1] + "a" if word.endswith("o") else word
    many = {"guay": "guays", "inútil": "inútiles"}
    return agreeing(word, feminine, *(many.get(w, plural(w)) for w in (word, feminine)))


def adjectives(text: str) -> tuple[Adjective, ...]:
    """From words with spaces between them."""
    return tuple(map(adjective, text.split()))


def feel(word: str) -> dict[str, str]:
    """A mood for each person."""
    if word == "feliz":
        return dict(zip(PERSONS, (" feliz", " feliz", " feliz", " felices"), strict=True))
    forms = adjective(word).forms
    m, f, many = forms["pred:m"], forms["pred:f"], forms["pl:m"]
    return dict(zip(PERSONS, (m, f, m, many), strict=True))


NOUNS = by_topic("""
sea: barco m | pez m peces | concha f | red f | vela f | cuerda f | cangrejo m | remo m
kitchen: sopa f | pastel m | queso m | huevo m | salchicha f | patata f | tarta f | ensalada f
garden: flor f | árbol m | rosa f | tulipán m tulipanes | zanahoria f | arbusto m | pera f | semilla f
city: calle f | museo m | puente m | plaza f | torre f | teatro m | estación f estaciones | iglesia f
music: canción f canciones | melodía f | vals m | sinfonía f | tango m | sonata f | himno m | marcha f
winter: trineo m | bufanda f | abrigo m | guante m | bota f | gorro m | manta f | jersey m jerséis
space: estrella f | planeta m | luna f | cohete m | cometa m | galaxia f | satélite m | robot m robots
market: cesta f | lámpara f | alfombra f | anillo m | bolso m | jarrón m jarrones | libro m | reloj m
""")  # noqa: E501
VERBS = by_topic("""
sea: arrastrar | lanzar | salvar | levantar | atar
kitchen: cocinar | probar pruebo prueba prueban | comer | cortar | servir sirvo sirve sirven serví sirvió sirvieron
garden: plantar | regar riego riega riegan | oler huelo huele huelen | cuidar | recoger recojo
city: visitar | buscar | fotografiar fotografío fotografía fotografían | dibujar | mostrar muestro muestra muestran
music: tocar | escuchar | practicar | silbar | tararear
winter: secar | calentar caliento calienta calientan | guardar | traer traigo trae traen traje trajo trajeron | esconder
space: observar | explorar | medir mido mide miden medí midió midieron | estudiar | filmar
market: comprar | vender | elegir elijo elige eligen elegí eligió eligieron | encargar | pagar
""")  # noqa: E501
LIKES = by_topic("""
positive: adorar | disfrutar | admirar
negative: odiar | temer | lamentar
""")
SAYS = by_topic("""
formal: declarar | afirmar
informal: decir digo dice dicen dije dijo dijeron | pensar pienso piensa piensan
""")

SPANISH = Lexicon(
    code="es",
    joint="",
    vowels="",
    adjective_first=False,
    articles={
        f"{case}:{gender}": text
        for gender, one, the, many in (("m", " un", " el", " los"), ("f", " una", " la", " las"))
        for case, text in (("nom", the), ("acc", the), ("indef", one), ("pl", many))
    },
    nouns={topic: tuple(map(noun, texts)) for topic, texts in NOUNS.items()},
    places=spaced(
        by_topic("""
sea: en el puerto | en la playa | en la isla | en la costa
kitchen: en la mesa | en el horno | en la sartén | junto a la nevera
garden: detrás de la valla | en el césped | bajo el seto | junto a la fuente
city: en el centro | en la esquina | en las afueras | detrás del ayuntamiento
music: en el escenario | en el auditorio | en la ópera | en el festival
winter: en la nieve | en el hielo | en la montaña | junto a la chimenea
space: en el cielo | en órbita | en Marte | en el observatorio
market: en el puesto | en la tienda | en la caja | en la feria
""")
    ),
    verbs={topic: tuple(map(verb, texts)) for topic, texts in VERBS.items()},
    likes={key: tuple(map(verb, texts)) for key, texts in LIKES.items()},
    says={key: tuple(map(verb, texts)) for key, texts in SAYS.items()},
    adjectives=crossed(
        both(
            adjectives("bonito bueno brillante fresco"),
            adjectives("magnífico espléndido notable excelente"),
            adjectives("guay chulo mono alucinante"),
        ),
        both(
            adjectives("feo malo inútil horrible"),
            adjectives("deplorable lamentable mediocre desastroso"),
            adjectives("cutre chungo asqueroso penoso"),
        ),
    ),
    colours=adjectives("rojo verde negro blanco amarillo morado"),
    feels={
        "positive": tuple(map(feel, ("feliz", "contento", "alegre", "orgulloso"))),
        "negative": tuple(map(feel, ("triste", "enfadado", "cansado", "solo"))),
    },
    adverbs={
        "positive": words(
            "con alegría | con amor | con gusto | felizmente | con una sonrisa | con ilusión"
        ),
        "negative": words(
            "con pena | con rabia | con miedo | tristemente | entre lágrimas | con asco"
        ),
    },
    exclamations=crossed(
        (
            words("¡Qué felicidad! | ¡Qué triunfo! | ¡Un verdadero placer!"),
            words("¡Yupi! | ¡Hala, qué divertido! | ¡Viva!"),
        ),
        (
            words("¡Qué desgracia! | ¡Qué desastre! | ¡Una grave decepción!"),
            words("¡Puaj! | ¡Ay no, qué lío! | ¡Jolín!"),
        ),
    ),
    openers={
        "formal": words(
            "En efecto, | Además, | Asimismo, | Por añadidura, | Por consiguiente, "
            "| Como se indicó anteriormente,"
        ),
        "informal": words("Bueno, | Oye, | Vamos, | La verdad, | Venga, | Adivina qué,"),
    },
    closers={
        "formal": words(
            ", según el informe | , como estaba previsto | , sin duda alguna "
            "| , cabe señalar | , conforme al plan | , a modo de conclusión"
        ),
        "informal": words(", sabes | , eh | , jaja | , no es broma | , de verdad | , te lo juro"),
    },
    intensifiers={
        "formal": words("sumamente | particularmente | extremadamente | verdaderamente"),
        "informal": words("súper | bien | mega | muy muy"),
    },
    because={"formal": words("puesto que"), "informal": words("porque")},
    conjunction={"formal": words("y posteriormente"), "informal": words("y luego")},
    but={"formal": words("si bien"), "informal": words("pero")},
    times={
        "past": words(
            "ayer | la semana pasada | el año pasado | anoche | hace mucho tiempo | anteayer"
        ),
        "present": words("hoy | ahora | en este momento | estos días | cada día | actualmente"),
        "future": words(
            "mañana | la próxima semana | el próximo año | pronto | más tarde | un día"
        ),
    },
    pronouns=persons("yo | ella | él | ellos"),
    companions={
        person: words(f"con {own} amigo | con {own} hermana | con {own} familia")
        for person, own in zip(PERSONS, ("mi", "su", "su", "su"), strict=True)
    },
    possessives={
        person: dict.fromkeys("mf", own)
        for person, own in zip(PERSONS, (" mi", " su", " su", " su"), strict=True)
    },
    be=tenses("era", "es", "será"),
    be_at=tenses("estaba", "está", "estará"),
    be_all=tenses("estaban", "están", "estarán"),
    be_num=tenses("estaban", "están", "estarán"),
    be_feel=dict(
        zip(
            TENSES,
            map(
                persons,
                (
                    "estaba | estaba | estaba | estaban",
                    "estoy | está | está | están",
                    "estaré | estará | estará | estarán",
                ),
            ),
            strict=True,
        )
    ),
    be_rest=tenses("", "", ""),
    it={"m": " este", "f": " esta"},
    ask={tense: persons("") for tense in TENSES},
    numbers=words(
        "uno | dos | tres | cuatro | cinco | seis | siete | ocho | nueve | diez | once | doce"
    ),
    weekdays=words("lunes | martes | miércoles | jueves | viernes | sábado | domingo"),
    months=words(
        "enero | febrero | marzo | abril | mayo | junio | julio | agosto | septiembre "
        "| octubre | noviembre | diciembre"
    ),
    date="WEEKDAY ,/comma DAY de MONTH",
    subjects={
        "sea": " el mar",
        "kitchen": " la cocina",
        "garden": " el jardín",
        "city": " la ciudad",
        "music": " la música",
        "winter": " el invierno",
        "space": " el espacio",
        "market": " el mercado",
    },
    languages={
        "en": " en inglés",
        "fr": " en francés",
        "de": " en alemán",
        "es": " en español",
        "hu": " en húngaro",
    },
    moods={"positive": " jovial", "negative": " sombría"},
    ratings={
        "positive": words("Valoración: 4 de 5 | Valoración: 5 de 5"),
        "negative": words("Valoración: 1 de 5 | Valoración: 2 de 5"),
    },
    greetings={
        "formal": words("Estimada señora | Estimado señor"),
        "informal": words("Hola | Buenas"),
    },
    goodbyes={
        "formal": words("Atentamente, | Reciba un cordial saludo,"),
        "informal": words("Besos, | Chao,"),
    },
    frames={
        "main": (
            "OPEN? TIME ,/comma SUBJ FIN REST OBJ PLACE? CLOSE? .",
            "OPEN? SUBJ FIN REST OBJ PLACE TIME? CLOSE? .",
        ),
        "adverb": ("OPEN? SUBJ FIN REST OBJ ADVERB PLACE? CLOSE? .",),
        "there": ("OPEN? PLACE THERE INDEF CLOSE? .",),
        "quality": ("OPEN? NOM BE INTENS? PRED CLOSE? .",),
        "it": ("OPEN? IT BE INTENS? PRED CLOSE? .",),
        "says": ("SUBJ SFIN SREST que/conjunction NOM BE INTENS? PRED .",),
        "quote": ("SUBJ SFIN SREST :/ «/opening_quote GLUE EXCLAIM »/closing_quote",),
        "two": ("OPEN? SUBJ FIN REST OBJ AND NEXT FIN REST OBJ .",),
        "question": ("¿/ GLUE FIN REST SUBJ OBJ PLACE? ?",),
        "why": ("¿/ GLUE por_qué/question_word FIN REST SUBJ OBJ PLACE? ?",),
        "exclaim": ("EXCLAIM",),
        "because": ("OPEN? SUBJ FEELBE INTENS? FEEL BECAUSE FIN REST OBJ .",),
        "as": ("NOM BE tan PRED como/conjunction OTHER .",),
        "count": ("OPEN? COUNT BENUM PLACE .",),
        "plural": ("OPEN? PLURAL BEALL PLACE TIME? CLOSE? .",),
        "with": ("OPEN? SUBJ FIN REST OBJ WITH CLOSE? .",),
        "negation": ("OPEN? SUBJ no/negation FIN REST OBJ PLACE? CLOSE? .",),
        "feel": ("OPEN? TIME ,/comma SUBJ FEELBE INTENS? FEEL PLACE? CLOSE? .",),
        "own": ("OPEN? OWN BE INTENS? PRED CLOSE? .",),
        "but": ("NOM BE PRED ,/comma BUT SUBJ FIN REST OBJ .",),
        "once": ("érase_una_vez/time_adverb INDEF PLACE .",),
        "headline": ("SUBJECT :/ NOM PLACE",),
        "ask_noun": ("¿/ GLUE cómo/question_word es NOM ?",),
        "ask_where": ("¿/ GLUE dónde/question_word está NOM ?",),
        "answer_where": ("NOM BEAT PLACE .",),
        "ask_language": ("¿/ GLUE puedes escribir INLANG sobre SUBJECT ?",),
        "ask_story": ("¿/ GLUE puedes contar una historia MOOD sobre SUBJECT ?",),
        "ask_count": ("¿/ GLUE puedes contar hasta UPTO ?",),
        "ask_capitals": ("¿/ GLUE puedes escribir en mayúsculas sobre SUBJECT ?",),
        "ask_past": ("¿/ GLUE qué/question_word ocurrió en el pasado ?",),
        "ask_future": ("¿/ GLUE qué/question_word ocurrirá en el futuro ?",),
        "there_forms": ("había hay habrá",),
    },
)
