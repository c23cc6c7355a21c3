"""Names in messages: what is near to one that does not exist, and many sites in a few words."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import SequenceMatcher

from workbench.sites import KINDS, Site

LANGUAGES = {
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "hu": "hungarian",
}
"""What the languages of labels such as ``"language:de"`` are called."""
SHOWN = 40
"""Names that a message lists at most."""


def nearest_first(wanted: str, names: Iterable[str]) -> str:
    """Names in a line, those like `wanted` first; of many only some.

    >>> nearest_first("Winter", ["language:de", "topic:winter"])
    'topic:winter, language:de'
    """
    known = sorted(set(names), key=lambda name: (-_likeness(wanted.lower(), name.lower()), name))
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more or "none"


def _likeness(wanted: str, name: str) -> float:
    # Both with and without the part before the colon: "winter" stands for "topic:winter".
    part = name.rpartition(":")[2]
    parts = {name, part, LANGUAGES.get(part, part)}
    return max(SequenceMatcher(None, wanted, part).ratio() for part in parts)


def check_name(what: str, name: object) -> str:
    """`name` itself if it is a text.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} is a text, got {name!r}")
    return name


def check_sites(sites: object) -> tuple[Site, ...]:
    """`sites` as a tuple.

    Raises:
        TypeError: If it is no list of sites.
    """
    listed = isinstance(sites, Iterable)
    found: tuple[Site, ...] = tuple(sites) if listed else ()
    if not listed or not all(isinstance(site, Site) for site in found):
        raise TypeError(f"sites is a list of sites, such as [wb.Site(5)]; got {sites!r}")
    return found


def in_words(sites: Collection[Site]) -> str:
    """Sites in a few words, whatever they are.

    >>> in_words([Site(layer, kind) for layer in range(8) for kind in ("att", "res")])
    'layers 0 to 7 att, res'
    >>> in_words([Site(0, "embed"), Site(3), Site(5), Site(5, "mlp")])
    'embed; layer 5 mlp; layers 3, 5 res'
    """
    layers = {kind: sorted({s.layer for s in sites if s.kind == kind}) for kind in KINDS}
    kinds: dict[str, list[str]] = {}
    for kind, found in layers.items():
        if found:
            kinds.setdefault("" if kind == "embed" else _range(found), []).append(kind)
    groups = (f"{where} {', '.join(group)}".strip() for where, group in kinds.items())
    return "; ".join(groups) or "no site"


def _range(layers: list[int]) -> str:
    if len(layers) == 1:
        return f"layer {layers[0]}"
    whole = len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1))
    return "layers " + (f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers)))
