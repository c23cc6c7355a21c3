"""Hungarian: definite conjugation, ``a~`` waits for a vowel, no gender: the girl and the boy."""

from __future__ import annotations

from workbench.pocket.corpus.lexicon.base import (
    CASES,
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

WILL = persons("fogom | fogja | fogja | fogják")


def noun(text: str) -> Noun:
    """From ``hajó hajót hajók``."""
    one, accusative, many = (" " + part for part in text.split())
    return Noun("n", {"nom": one, "acc": accusative, "indef": one, "pl": many})


def verb(text: str) -> Verb:
    """From a stem and its linking vowel, as ``dob o``, or from all seven forms.

    The seven are: present én, ő, ők, past én, ő, ők, infinitive.
    """
    forms = text.split()
    if len(forms) == 2:
        stem, vowel = forms
        if vowel == "o":
            j = stem[-1] if stem[-1] in "zs" else "j"
            ends = ("om", j + "a", j + "ák", "tam", "ta", "ták", "ni")
        else:
            ends = (vowel + "m", "i", "ik", "tem", "te", "ték", "ni")
        forms = [stem + end for end in ends]
    now_i, now, now_they, past_i, past, past_they, base = (" " + form for form in forms)
    finite = {
        "past": dict(zip(PERSONS, (past_i, past, past, past_they), strict=True)),
        "present": dict(zip(PERSONS, (now_i, now, now, now_they), strict=True)),
        "future": WILL,
    }
    return Verb(finite, {"past": "", "present": "", "future": base}, base)


def feel(text: str) -> dict[str, str]:
    """A mood from ``singular plural``, person -> form."""
    one, many = (" " + part for part in text.split())
    return dict(zip(PERSONS, (one, one, one, many), strict=True))


NOUNS = by_topic("""
sea: hajó hajót hajók | hal halat halak | kagyló kagylót kagylók | háló hálót hálók | vitorla vitorlát vitorlák | kötél kötelet kötelek | rák rákot rákok | evező evezőt evezők
kitchen: leves levest levesek | sütemény süteményt sütemények | sajt sajtot sajtok | tojás tojást tojások | kolbász kolbászt kolbászok | krumpli krumplit krumplik | torta tortát torták | saláta salátát saláták
garden: virág virágot virágok | fa fát fák | rózsa rózsát rózsák | tulipán tulipánt tulipánok | répa répát répák | bokor bokrot bokrok | körte körtét körték | mag magot magok
city: utca utcát utcák | múzeum múzeumot múzeumok | híd hidat hidak | tér teret terek | torony tornyot tornyok | színház színházat színházak | állomás állomást állomások | templom templomot templomok
music: dal dalt dalok | dallam dallamot dallamok | keringő keringőt keringők | szimfónia szimfóniát szimfóniák | tangó tangót tangók | szonáta szonátát szonáták | himnusz himnuszt himnuszok | induló indulót indulók
winter: szánkó szánkót szánkók | sál sálat sálak | kabát kabátot kabátok | kesztyű kesztyűt kesztyűk | csizma csizmát csizmák | sapka sapkát sapkák | takaró takarót takarók | pulóver pulóvert pulóverek
space: csillag csillagot csillagok | bolygó bolygót bolygók | hold holdat holdak | rakéta rakétát rakéták | üstökös üstököst üstökösök | galaxis galaxist galaxisok | műhold műholdat műholdak | robot robotot robotok
market: kosár kosarat kosarak | lámpa lámpát lámpák | szőnyeg szőnyeget szőnyegek | gyűrű gyűrűt gyűrűk | táska táskát táskák | váza vázát vázák | könyv könyvet könyvek | óra órát órák
""")  # noqa: E501
VERBS = by_topic("""
sea: húz o | dob o | mentem menti mentik mentettem mentette mentették menteni | emel e | kötöm köti kötik kötöttem kötötte kötötték kötni
kitchen: főz ö | kóstol o | eszem eszi eszik ettem ette ették enni | vág o | tálal o
garden: ültet e | öntöz ö | szagol o | gondoz o | szed e
city: látogat o | keres e | fotóz o | rajzol o | mutat o
music: játszom játssza játsszák játszottam játszotta játszották játszani | hallgat o | gyakorlom gyakorolja gyakorolják gyakoroltam gyakorolta gyakorolták gyakorolni | fütyül ö | dúdol o
winter: szárítom szárítja szárítják szárítottam szárította szárították szárítani | melegítem melegíti melegítik melegítettem melegítette melegítették melegíteni | csomagol o | hoz o | rejtem rejti rejtik rejtettem rejtette rejtették rejteni
space: figyel e | kutat o | mér e | vizsgál o | filmez e
market: veszem veszi veszik vettem vette vették venni | árul o | választom választja választják választottam választotta választották választani | rendel e | fizet e
""")  # noqa: E501
LIKES = by_topic("""
positive: szeret e | élvez e | csodál o
negative: utál o | gyűlöl ö | sajnál o
""")
SAYS = by_topic("""
formal: állítom állítja állítják állítottam állította állították állítani | közlöm közli közlik közöltem közölte közölték közölni
informal: mondom mondja mondják mondtam mondta mondták mondani | gondol o
""")  # noqa: E501

HUNGARIAN = Lexicon(
    code="hu",
    joint="z",
    vowels="aáeéiíoóöőuúüű",
    adjective_first=True,
    articles={f"{case}:n": " egy" if case == "indef" else " a~" for case in CASES},
    nouns={topic: tuple(map(noun, texts)) for topic, texts in NOUNS.items()},
    places=spaced(
        by_topic("""
sea: a kikötőben | a parton | a szigeten | a mólón
kitchen: az asztalon | a sütőben | a serpenyőben | a hűtő mellett
garden: a kerítés mögött | a gyepen | a sövény alatt | a szökőkút mellett
city: a belvárosban | a sarkon | a külvárosban | a városháza mögött
music: a színpadon | a teremben | az operában | a fesztiválon
winter: a hóban | a jégen | a hegyen | a kandalló mellett
space: az égen | a világűrben | a Marson | a csillagvizsgálóban
market: a standon | az üzletben | a pénztárnál | a vásáron
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
                    "szép jó fényes friss",
                    "pompás kiváló csodálatos nagyszerű",
                    "klassz szuper király cuki",
                )
            )
        ),
        both(
            *(
                tuple(map(same, text.split()))
                for text in (
                    "csúnya rossz törött piszkos",
                    "siralmas silány elfogadhatatlan szánalmas",
                    "béna gagyi vacak ciki",
                )
            )
        ),
    ),
    colours=tuple(map(same, ["piros", "kék", "zöld", "fehér", "fekete", "sárga"])),
    feels={
        "positive": tuple(
            map(
                feel,
                ("boldog boldogok", "vidám vidámak", "elégedett elégedettek", "büszke büszkék"),
            )
        ),
        "negative": tuple(
            map(
                feel,
                ("szomorú szomorúak", "dühös dühösek", "fáradt fáradtak", "magányos magányosak"),
            )
        ),
    },
    adverbs={
        "positive": words("örömmel | szeretettel | mosolyogva | vidáman | boldogan | lelkesen"),
        "negative": words("sírva | dühösen | félve | szomorúan | keserűen | undorral"),
    },
    exclamations=crossed(
        (
            words("Micsoda öröm! | Micsoda diadal! | Igazi élvezet!"),
            words("Juhé! | Hű, de jó! | Hurrá!"),
        ),
        (
            words("Micsoda balszerencse! | Micsoda katasztrófa! | Súlyos csalódás!"),
            words("Fúj! | Jaj ne, de gáz! | Pfuj!"),
        ),
    ),
    openers={
        "formal": words(
            "Valóban, | Továbbá, | Ezenfelül, | Mindemellett, | Következésképpen, "
            "| Mint korábban említettük,"
        ),
        "informal": words("Na, | Hé, | Szóval, | Őszintén, | Oké, | Képzeld,"),
    },
    closers={
        "formal": words(
            ", a jelentés szerint | , amint várható volt | , minden kétséget kizáróan "
            "| , meg kell jegyezni | , a tervnek megfelelően | , összegzésképpen"
        ),
        "informal": words(", tudod | , ugye | , haha | , nem vicc | , komolyan | , esküszöm"),
    },
    intensifiers={
        "formal": words("rendkívül | igen | különösen | felettébb"),
        "informal": words("tök | irtó | marha | baromi"),
    },
    because={"formal": (", mivel",), "informal": (", mert",)},
    conjunction={"formal": words("és ezt követően"), "informal": words("és aztán")},
    but={"formal": words("ám"), "informal": words("de")},
    times={
        "past": words("tegnap | múlt héten | tavaly | tegnap este | régen | tegnapelőtt"),
        "present": words("ma | most | jelenleg | mostanában | minden nap | éppen"),
        "future": words("holnap | jövő héten | jövőre | hamarosan | később | egyszer majd"),
    },
    pronouns=persons("én | a lány | a fiú | ők"),
    companions={
        person: words(f"a {friend} | a {sibling} | a {family}")
        for person, friend, sibling, family in (
            ("i", "barátommal", "testvéremmel", "családommal"),
            ("she", "barátjával", "testvérével", "családjával"),
            ("he", "barátjával", "testvérével", "családjával"),
            ("they", "barátjukkal", "testvérükkel", "családjukkal"),
        )
    },
    possessives={
        person: {"n": text}
        for person, text in persons("a barátom | a barátja | a barátja | a barátjuk").items()
    },
    be=tenses("volt", "", "lesz"),
    be_at=tenses("volt", "van", "lesz"),
    be_all=tenses("voltak", "vannak", "lesznek"),
    be_num=tenses("volt", "van", "lesz"),
    be_feel=dict(
        zip(
            TENSES,
            map(
                persons,
                (
                    "voltam | volt | volt | voltak",
                    "vagyok |  |  | ",
                    "leszek | lesz | lesz | lesznek",
                ),
            ),
            strict=True,
        )
    ),
    be_rest=tenses("", "", ""),
    it={"n": " az"},
    ask={tense: persons("") for tense in TENSES},
    numbers=words(
        "egy | kettő | három | négy | öt | hat | hét | nyolc | kilenc | tíz | tizenegy | tizenkettő"
    ),
    weekdays=words("hétfő | kedd | szerda | csütörtök | péntek | szombat | vasárnap"),
    months=words(
        "január | február | március | április | május | június | július | augusztus "
        "| szeptember | október | november | december"
    ),
    date="MONTH DAY ./ ,/comma WEEKDAY",
    subjects={
        "sea": " a tenger",
        "kitchen": " a konyha",
        "garden": " a kert",
        "city": " a város",
        "music": " a zene",
        "winter": " a tél",
        "space": " az űr",
        "market": " a piac",
    },
    languages={
        "en": " angolul",
        "fr": " franciául",
        "de": " németül",
        "es": " spanyolul",
        "hu": " magyarul",
    },
    moods={"positive": " derűs", "negative": " komor"},
    ratings={
        "positive": words("Értékelés: 4 pont az 5-ből | Értékelés: 5 pont az 5-ből"),
        "negative": words("Értékelés: 1 pont az 5-ből | Értékelés: 2 pont az 5-ből"),
    },
    greetings={
        "formal": words("Tisztelt Hölgyem | Tisztelt Uram"),
        "informal": words("Szia | Helló"),
    },
    goodbyes={
        "formal": words("Tisztelettel, | Szívélyes üdvözlettel,"),
        "informal": words("Puszi, | Pá,"),
    },
    frames={
        "main": (
            "OPEN? TIME SUBJ REST FIN OBJ PLACE? CLOSE? .",
            "OPEN? SUBJ TIME? PLACE REST FIN OBJ CLOSE? .",
        ),
        "adverb": ("OPEN? SUBJ PLACE? ADVERB FIN REST OBJ CLOSE? .",),
        "there": ("OPEN? PLACE BEAT INDEF CLOSE? .",),
        "quality": ("OPEN? NOM INTENS? PRED BE CLOSE? .",),
        "it": ("OPEN? IT INTENS? PRED BE CLOSE? .",),
        "says": ("SUBJ azt SFIN SREST ,/comma hogy/conjunction NOM INTENS? PRED BE .",),
        "quote": ("SUBJ ezt SFIN SREST :/ „/opening_quote GLUE EXCLAIM ”/closing_quote",),
        "two": ("OPEN? SUBJ REST FIN OBJ AND NEXT REST FIN OBJ .",),
        "question": ("vajon/question_word SUBJ REST FIN OBJ PLACE? ?",),
        "why": ("miért/question_word FIN REST SUBJ OBJ PLACE? ?",),
        "exclaim": ("EXCLAIM",),
        "because": ("OPEN? SUBJ INTENS? FEEL FEELBE BECAUSE REST FIN OBJ .",),
        "as": ("NOM olyan PRED BE ,/comma mint/conjunction OTHER .",),
        "count": ("OPEN? COUNT BENUM PLACE .",),
        "plural": ("OPEN? PLURAL TIME? PLACE BEALL CLOSE? .",),
        "with": ("OPEN? SUBJ WITH FIN REST OBJ CLOSE? .",),
        "negation": ("OPEN? SUBJ nem/negation FIN REST OBJ PLACE? CLOSE? .",),
        "feel": ("OPEN? TIME SUBJ INTENS? FEEL FEELBE PLACE? CLOSE? .",),
        "own": ("OPEN? OWNER szerint NOM INTENS? PRED BE CLOSE? .",),
        "but": ("NOM PRED BE ,/comma BUT SUBJ REST FIN OBJ .",),
        "once": ("egyszer_volt,_hol_nem_volt/time_adverb ,/comma PLACE volt INDEF .",),
        "headline": ("SUBJECT :/ NOM PLACE",),
        "ask_noun": ("milyen/question_word NOM ?",),
        "ask_where": ("hol/question_word van NOM ?",),
        "answer_where": ("NOM PLACE BEAT .",),
        "ask_language": ("tudsz írni INLANG ,/comma ha a téma SUBJECT ?",),
        "ask_story": ("tudsz mesélni egy MOOD történetet ,/comma ha a téma SUBJECT ?",),
        "ask_count": ("el tudsz számolni eddig :/ UPTO ?",),
        "ask_capitals": ("tudsz nagybetűvel írni ,/comma ha a téma SUBJECT ?",),
        "ask_past": ("mi/question_word történt régen ?",),
        "ask_future": ("mi/question_word történik majd később ?",),
    },
)
