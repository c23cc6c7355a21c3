"""Five lexicons of one shape, by language code."""

from __future__ import annotations

from workbench.pocket.corpus.lexicon.base import Lexicon
from workbench.pocket.corpus.lexicon.de import GERMAN
from workbench.pocket.corpus.lexicon.en import ENGLISH
from workbench.pocket.corpus.lexicon.es import SPANISH
from workbench.pocket.corpus.lexicon.fr import FRENCH
from workbench.pocket.corpus.lexicon.hu import HUNGARIAN

LEXICONS: dict[str, Lexicon] = {
    lexicon.code: lexicon for lexicon in (ENGLISH, FRENCH, GERMAN, SPANISH, HUNGARIAN)
}
"""Language code -> lexicon."""

__all__ = ["LEXICONS", "Lexicon"]
