"""One feature as Neuronpedia shows it, read from its API's answer or from lines of its exports."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from workbench.index.records import Example
from workbench.labels.records import Label
from workbench.sae.gemma_scope import WIDTH_NAMES
from workbench.sites import Site

ADDRESS = "https://www.neuronpedia.org"
BAD = {
    ("gemma-2-2b", "-gemmascope-transcoder-"): (
        "Neuronpedia made this dashboard from the residual stream before the norm, which is not "
        "what the transcoder reads: values, examples and explanation do not belong to the feature"
    )
}
"""Model and part of the source's name -> what is wrong with it."""


@dataclass(frozen=True)
class Page:
    """What Neuronpedia shows of one feature."""

    model: str
    source: str
    index: int
    density: float
    """Share of tokens on which it fires, in Neuronpedia's texts."""
    maximum: float
    edges: np.ndarray
    """``(bin,)`` activation of each bar of the histogram."""
    heights: np.ndarray
    """``(bin,)`` tokens in each."""
    promoted: tuple[tuple[str, float], ...]
    """Output tokens that it makes more likely, and by how much its decoder row does."""
    suppressed: tuple[tuple[str, float], ...]
    """The same of those that it makes less likely."""
    examples: tuple[Example, ...]
    """Strongest first. Neuronpedia does not say how many tokens fire less: ``below`` is NaN."""
    explanations: tuple[tuple[str, str, str], ...]
    """Text, language model and method of each."""
    warning: str
    """Why it should not be believed; empty if nothing speaks against it."""

    @property
    def address(self) -> str:
        """Where it is shown."""
        return f"{ADDRESS}/{self.model}/{self.source}/{self.index}"

    def __repr__(self) -> str:
        said = self.explanations[0][0] if self.explanations else "no explanation"
        marked = f"; WARNING: {self.warning}" if self.warning else ""
        name = f"{self.model}/{self.source}/{self.index}"
        return f"<Neuronpedia {name}: {said!r}, {self.address}{marked}>"


def page_of(model: str, source: str, index: int, found: Mapping[str, Any]) -> Page:
    """The answer of the API, or what `joined` makes of the exports."""
    examples = [_example(one) for one in found.get("activations") or []]
    return Page(
        model,
        source,
        int(index),
        float(found.get("frac_nonzero") or 0.0),
        float(found.get("maxActApprox") or 0.0),
        np.array(found.get("freq_hist_data_bar_values") or [], float),
        np.array(found.get("freq_hist_data_bar_heights") or [], float),
        _tokens(found.get("pos_str"), found.get("pos_values")),
        _tokens(found.get("neg_str"), found.get("neg_values")),
        tuple(sorted(examples, key=lambda one: -one.value)),
        tuple(
            (one["description"], one.get("explanationModelName") or "", one.get("typeName") or "")
            for one in found.get("explanations") or []
        ),
        flaw(model, source),
    )


def joined(kept: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Lines of the exports in the form of the API's answer."""
    return {
        **kept["features"][0],
        "activations": list(kept.get("activations", [])),
        "explanations": list(kept.get("explanations", [])),
    }


def _tokens(strings: Any, values: Any) -> tuple[tuple[str, float], ...]:
    return tuple((str(s), float(v)) for s, v in zip(strings or [], values or [], strict=False))


def _example(one: Mapping[str, Any]) -> Example:
    values = tuple(float(v) for v in one["values"])
    at = int(one.get("maxValueTokenIndex") or 0)
    return Example(
        document=int(one["dataIndex"]) if str(one.get("dataIndex") or "").isdigit() else -1,
        position=at,
        value=float(one["maxValue"]),
        at=at,
        tokens=tuple(one["tokens"]),
        activations=values,
        # Of an interval of activation it says which share of all lies in it, not below it.
        below=float("nan"),
    )


def as_label(
    model: str, source: str, site: Site, feature: int, one: Mapping[str, Any]
) -> Label | None:
    """An explanation as a label; None if it says nothing."""
    text = str(one.get("description") or "").strip()
    if not text:
        return None
    scores = one.get("scores") or []
    best = scores[0] if scores else {}
    measure = " by ".join(
        str(best[name])
        for name in ("explanationScoreTypeName", "explanationScoreModelName")
        if best.get(name)
    )
    details = {"address": f"{ADDRESS}/{model}/{source}/{feature}"}
    if warning := flaw(model, source):
        details["warning"] = warning
    return Label(
        site,
        feature,
        text,
        "neuronpedia",
        float(best["value"]) if best.get("value") is not None else None,
        measure,
        _date(one.get("createdAt")),
        one.get("explanationModelName") or "unknown",
        f"Neuronpedia {model}/{source}, {one.get('typeName') or 'unknown method'}",
        details,
    )


def _date(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def checked(line: str, model: str, source: str) -> dict[str, Any]:
    """A line of an export.

    Raises:
        ValueError: If it is none, or belongs to another source.
    """
    found = json.loads(line)
    if (found["modelId"], found["layer"]) != (model, source) or not str(found["index"]).isdigit():
        raise ValueError(f"a line of {found['modelId']}/{found['layer']}/{found['index']}")
    return found


def packed(found: Mapping[str, Any]) -> bytes:
    """What is kept of a line; without the embedding, which is larger than all the rest."""
    slim = {
        k: v for k, v in found.items() if k not in ("embedding", "vector") and v not in ([], None)
    }
    return zlib.compress(json.dumps(slim, ensure_ascii=False).encode())


def unpacked(data: bytes) -> dict[str, Any]:
    """What `packed` kept."""
    return json.loads(zlib.decompress(data))


def flaw(model: str, source: str) -> str:
    """Why what Neuronpedia shows of a source should not be believed; empty if it can be.

    >>> flaw("gemma-2-2b", "19-gemmascope-transcoder-16k")[:35]
    'Neuronpedia made this dashboard fro'
    >>> flaw("gemma-2-2b", "19-gemmascope-res-16k")
    ''
    """
    found = [why for (whose, part), why in BAD.items() if model == whose and part in source]
    return found[0] if found else ""


def source_of(site: Site, width: int, l0: float | None = None) -> str:
    """Neuronpedia's name for one of Gemma Scope's SAEs.

    Without an `l0` the one that it shows for the site.

    >>> source_of(Site(20), 16384)
    '20-gemmascope-res-16k'
    >>> source_of(Site(12), 16384, 41)
    '12-gemmascope-res-16k__l0-41'

    Raises:
        ValueError: For a width that Gemma Scope has not.
    """
    if width not in WIDTH_NAMES:
        raise ValueError(f"width {width} is none of Gemma Scope's: {sorted(WIDTH_NAMES)}")
    named = f"{site.layer}-gemmascope-{site.kind}-{WIDTH_NAMES[width]}"
    return named + (f"__l0-{l0:g}" if l0 else "")
