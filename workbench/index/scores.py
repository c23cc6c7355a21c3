"""What each search thinks of every feature; `workbench.index.search.Search.find` says how.

A search that reads whole decoders or runs the model looks only at the sites with an admitted
feature.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.index.by_model import fires
from workbench.index.meaning import encoder_at
from workbench.index.searchable import Searchable
from workbench.models import Model
from workbench.sites import Kind, Site
from workbench.tokens import Prompt, Tokens, tokenize

LEAST_SPREAD = 0.02
"""Added to the spread of a feature's peaks, so that a faint but constant difference is no find."""


@dataclass(frozen=True)
class Scores:
    """What a search thinks of every feature."""

    values: np.ndarray
    """``(feature,)`` larger is better; NaN for those that it did not find."""
    why: Callable[[int], str]
    """In words, from a feature's number."""


def by_label(over: Searchable, query: str) -> Scores:
    """Words of labels, by BM25."""
    refs, values = over.words.find(query)
    found = np.full(over.count, np.nan)
    found[refs] = values
    return Scores(found, lambda ref: f"label: {over.label(ref)}")


def by_meaning(over: Searchable, query: str, encoder: str | Path | None) -> Scores:
    """Cosine of what label and query mean to a sentence encoder."""
    if encoder is None:
        raise ValueError(
            "by='meaning' needs encoder=, the folder of a sentence encoder on this machine; "
            "by='label' finds words without one"
        )
    reader = encoder_at(str(encoder))
    refs, texts = over.labelled
    found = np.full(over.count, np.nan)
    if texts:
        found[refs] = reader.vectors(texts) @ reader.vectors([query], progress=False)[0]
    return Scores(found, lambda ref: f"cosine {found[ref]:.2f} with label: {over.label(ref)}")


def by_example(over: Searchable, query: str, *, regex: bool, near: int) -> Scores:
    """F1 of firing as a guess of where the query stands."""
    if near < 0:
        raise ValueError(f"near must be 0 or more tokens, got {near}")
    try:
        pattern = re.compile(query if regex else re.escape(query))
    except re.error as error:
        raise ValueError(
            f"{query!r} is no regular expression ({error}); without regex=True it is taken "
            "as it is written"
        ) from error
    mask = over.corpus.nearby(over.corpus.matched(pattern), near)
    peaks = over.peaks
    tokens, refs = peaks.at(mask)
    hits = np.bincount(refs, minlength=over.count)
    # Of the tokens on which it fires, so many are matches, if its passages are like the rest.
    matched, fires = int(mask.sum()), over.table["fires"]
    right = np.minimum(hits / (peaks.counts + 1) * fires, matched)
    score = 2 * right / np.maximum(fires + matched, 1)

    def why(ref: int) -> str:
        first = over.corpus.shown(int(tokens[refs == ref][0]))
        return f"{hits[ref]} of {peaks.counts[ref]} passages peak there: {first}"

    return Scores(np.where(hits > 0, score, np.nan), why)


def by_output(over: Searchable, query: str, admitted: np.ndarray) -> Scores:
    """What a step along what the feature writes adds to the logit of the query."""
    model, _ = over.with_model()
    spellings = _token_ids(model.tokenizer, query)
    directions = over.decoders.token_directions(list(spellings.values()))
    found = np.full((len(spellings), over.count), np.nan)
    for site in _among(over, admitted):
        part = over.part(site)
        for row, direction in zip(found, directions, strict=True):
            row[part] = over.decoders.products(site, direction).numpy()
    best, names = found.max(0), list(spellings)

    def why(ref: int) -> str:
        name = names[int(found[:, ref].argmax())]
        return f"a step of length 1 adds {best[ref]:+.2f} to the logit of {name!r}"

    return Scores(best, why)


def _token_ids(tokenizer: Any, query: str) -> dict[str, int]:
    """The tokens that say `query`, with a space before it and without."""
    found = {}
    for text in dict.fromkeys([query, f" {query}"]):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            found[text] = ids[0]
    if not found:
        parts = tokenizer.tokenize(query)
        raise ValueError(f"{query!r} is not one token but {parts}: give one of them")
    return found


def by_decoder(
    over: Searchable, like: tuple[int, int] | None, kind: Kind, admitted: np.ndarray
) -> Scores:
    """Cosine of what it writes with what another feature writes."""
    if like is None:
        raise ValueError("by='decoder' needs like=(layer, index)")
    _, suite = over.with_model()
    site, index = Site(like[0], kind), like[1]
    direction = over.decoders.direction(site, suite.sae_at(site).check_index(index))
    found = np.full(over.count, np.nan)
    for other in _among(over, admitted):
        found[over.part(other)] = over.decoders.products(other, direction).numpy()
    if site in over.index.widths:
        found[over.base(site) + index] = np.nan  # itself
    return Scores(found, lambda ref: f"cosine {found[ref]:.2f} with {index} at {site}")


def by_fires(
    over: Searchable,
    positive: Sequence[Prompt | Tokens],
    negative: Sequence[Prompt | Tokens],
    admitted: np.ndarray,
) -> Scores:
    """How much more strongly it fires on some texts than on others, in standard deviations."""
    if not len(positive):
        raise ValueError("by='fires' needs positive=[text, ...], and better negative= too")
    model, suite = over.with_model()
    sides = [_texts(model, *side) for side in (("positive", positive), ("negative", negative))]
    maxima = {site: over.table["maximum"][over.part(site)] for site in _among(over, admitted)}
    both = np.zeros((3, over.count))
    for site, found in fires(model, suite, sides[0], sides[1], maxima).items():
        both[:, over.part(site)] = found
    score = (both[0] - both[1]) / (both[2] + LEAST_SPREAD)
    return Scores(
        np.where(score > 0, score, np.nan),
        lambda ref: f"{both[0, ref]:.0%} of its maximum on these, {both[1, ref]:.0%} on those",
    )


def _texts(model: Model, name: str, texts: Sequence[Prompt | Tokens]) -> list[Tokens]:
    if isinstance(texts, str | Tokens):
        raise TypeError(f"{name} is a list of texts: write [text]; got {texts!r}")
    found = [tokenize(model.tokenizer, text, context=model.context) for text in texts]
    short = next((one for one in found if len(one) < 2), None)
    if short is not None:
        raise ValueError(f"{name} has a text without a token after <bos>: {short.text!r}")
    return found


def by_density(over: Searchable) -> Scores:
    """Share of tokens on which it fires."""

    def why(ref: int) -> str:
        return f"fires on {over.table['fires'][ref]:,.0f} of {over.index.tokens:,} tokens"

    return Scores(over.densities, why)


def _among(over: Searchable, admitted: np.ndarray) -> list[Site]:
    """The sites that have an admitted feature."""
    some = np.logical_or.reduceat(admitted, over.bases[:-1])
    return [site for site, there in zip(over.sites, some, strict=True) if there]
