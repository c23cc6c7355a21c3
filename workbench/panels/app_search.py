"""Searches of the app: those of `Lab.search`, and some that need no index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.index.search import By
from workbench.panels import steering_search as plain
from workbench.sites import Site

if TYPE_CHECKING:
    from workbench.lab import Lab

WAYS: list[dict[str, Any]] = [
    {
        "id": "label",
        "text": "label",
        "hint": "words of a label, such as: capital cities",
        "typed": True,
    },
    {
        "id": "meaning",
        "text": "meaning",
        "hint": "what it is about, in other words than the label's",
        "score": "cosine",
    },
    {
        "id": "text",
        "text": "fires on a text",
        "hint": "a text; the features that fire on it most are listed",
        "score": "× max",
    },
    {
        "id": "example",
        "text": "example",
        "hint": "a word on which it fires, such as: boat",
        "score": "F1",
    },
    {
        "id": "output",
        "text": "writes",
        "hint": "a token that it makes more likely, such as: Paris",
        "score": "logit",
    },
    {
        "id": "decoder",
        "text": "writes like",
        "hint": "a feature that writes the same: layer and index, such as: 5 231",
        "score": "cosine",
    },
    {
        "id": "index",
        "text": "number",
        "hint": "layer and index, such as: 5 231 or 5 att 231",
        "typed": True,
    },
]
MOST = 30
"""Results that are shown."""


def ways(*, encoder: object = None) -> list[dict[str, Any]]:
    """The searches to offer; by meaning only with an encoder of sentences."""
    return [dict(way) for way in WAYS if way["id"] != "meaning" or encoder is not None]


def search(lab: Lab, how: str, query: str, *, encoder: Any = None) -> list[dict[str, Any]]:
    """Features that answer a query, best first.

    Args:
        lab: The lab.
        how: The `id` of one of `WAYS`.
        query: What to look for.
        encoder: For meanings: see `workbench.index.search.Search.find`.

    Returns:
        ``layer``, ``kind``, ``index``, ``label``, ``score`` (a number or None) and ``why`` each.

    Raises:
        ValueError: If the query says nothing, or an index is needed and there is none.
    """
    query = query.strip()
    if not query:
        raise ValueError("type what to look for")
    if how == "index" or (how == "label" and not _indexed(lab)):
        return [_plain(one) for one in plain.search(lab, how, query, "")]
    if how == "text":
        return [_plain(one) for one in plain.by_text(lab, query)[:MOST]]
    by: Any = how
    return [_found(row, by) for row in _records(lab, by, query, encoder)]


def _records(lab: Lab, by: By, query: str, encoder: Any) -> list[dict[str, Any]]:
    if by == "decoder":
        (one, *_) = plain.by_index(lab, query)
        frame = lab.search(by=by, like=(one["layer"], one["index"]), kind=one["kind"], k=MOST)
    elif by == "meaning":
        frame = lab.search(query, by=by, encoder=encoder, k=MOST)
    elif by == "output":
        frame = _outputs(lab, query)
    else:
        frame = lab.search(query, by=by, k=MOST)
    return frame.to_dict("records")


def _outputs(lab: Lab, query: str) -> Any:
    """A word is a token of its own mostly with the space before it, which nobody types."""
    try:
        return lab.search(f" {query}", by="output", k=MOST)
    except ValueError:
        return lab.search(query, by="output", k=MOST)


def _indexed(lab: Lab) -> bool:
    try:
        return lab.feature_index is not None
    except ValueError:
        return False


def _found(row: dict[str, Any], by: By) -> dict[str, Any]:
    often = f"{row['histogram']} fires on {row['density']:.2%} of tokens"
    # That words are in common is seen from the label.
    why = often if by == "label" else f"{often} · {row['why']}"
    return {
        "layer": int(row["layer"]),
        "kind": str(row["kind"]),
        "index": int(row["feature"]),
        "label": row["label"],
        # A score of words in common says nothing to a reader.
        "score": None if by == "label" else float(row["score"]),
        "why": why,
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    site = Site(row["layer"], row["kind"])
    return {
        "layer": site.layer,
        "kind": site.kind,
        "index": row["index"],
        "label": row["label"],
        "score": None,
        "why": row["note"],
    }
