"""Feature dashboard: all that is known of one feature, and a text of one's own to try it on.

The widget shows and asks; it computes nothing. The page asks by messages; `widget.on(name,
handler)` names who answers. Handlers may be called in any thread and must only enqueue; an
exception in one is shown in the widget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import traitlets

from workbench.widgets.asking import AskingWidget
from workbench.widgets.base import checked_records, refuse_unknown, source, style
from workbench.widgets.dashboard_twin import twin

FIELDS: dict[str, tuple[str, ...]] = {
    "label": ("text",),
    "note": ("text",),
    "steer": (),
    "follow": (),
    "try": ("text",),
    "open": ("layer", "kind", "index"),
    "back": (),
}
"""Messages of the page, and the fields that a handler gets as keywords."""

LABEL = {"text": "", "about": ""}
TRIED = {"text": "", "tokens": [], "values": [], "masked": [], "state": "idle"}
HISTOGRAM = {"edges": [], "counts": [], "note": ""}
STATES = ("idle", "running", "done")

_FEATURE = ("layer", "kind", "index")
_NAMED = (*_FEATURE, "label")
_RECORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "facts": (("name", "value"), ("hint",)),
    "promoted": (("token", "effect"), ()),
    "suppressed": (("token", "effect"), ()),
    "top": (("tokens", "values", "at", "below"), ("place",)),
    "spread": (("tokens", "values", "at", "below"), ("place",)),
    "cofiring": ((*_NAMED, "together", "of", "lift"), ("about", "hint")),
}
"""Trait -> the keys that its records need, and those that they may have."""
_DICTS = {"label": LABEL, "tried": TRIED, "histogram": HISTOGRAM}


class FeatureDashboard(AskingWidget):
    """Creates the dashboard of a feature.

    The page asks for label(text), note(text), steer(), follow(), try(text), open(layer, kind,
    index) and back().

    Example:
        >>> FeatureDashboard(title="Feature 231 · layer 5 res", label={"text": "capital cities"})
        FeatureDashboard('Feature 231 · layer 5 res', 0 passages)
    """

    _esm = source(
        "shared.js",
        "steering_controls.js",
        "dashboard_head.js",
        "dashboard_histogram.js",
        "dashboard_tokens.js",
        "dashboard_passages.js",
        "dashboard_try.js",
        "dashboard_lists.js",
        "feature_dashboard.js",
    )
    _css = style("shared.css", "feature_dashboard.css")
    _messages = FIELDS

    label = traitlets.Dict(default_value=LABEL).tag(sync=True)
    """What the feature stands for: ``text``, and where that is from: ``method``, ``score``,
    ``date``, ``author``, all as text."""

    note = traitlets.Unicode("").tag(sync=True)
    """A remark of the user's."""

    facts = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Figures as text: `name`, ``value``, ``hint`` (a line below)."""

    missing = traitlets.Unicode("").tag(sync=True)
    """What is not known and why; empty: nothing is missing."""

    remedy = traitlets.Unicode("").tag(sync=True)
    """Python that would fill in what is missing."""

    histogram = traitlets.Dict(default_value=HISTOGRAM).tag(sync=True)
    """``edges`` (bin + 1) of feature activation, ``counts`` (bin) of tokens, and a `note`."""

    promoted = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Output tokens that it makes more likely: `token`, ``effect``; the largest first."""

    suppressed = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Output tokens that it makes less likely; the largest effect first."""

    output_note = traitlets.Unicode("").tag(sync=True)
    """What the effects are, in a line."""

    maximum = traitlets.Float(0.0).tag(sync=True)
    """Activation of the darkest colour; 0: the largest that is shown."""

    top = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Passages, the strongest first: `tokens`, ``values`` (an activation for each), ``at`` (which
    token it is about), ``below`` (share of the firings that are weaker), ``place`` (text, where it
    is)."""

    spread = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Passages from the whole range of activation, the strongest first."""

    neighbours = traitlets.List(traitlets.Dict()).tag(sync=True)
    """One group a site, in order: ``title``, ``own`` (whether it is the feature's site), and
    ``rows``: ``layer``, ``kind``, ``index``, ``label``, ``about`` (of the label), ``cosine``, and
    where there is no label a ``hint``."""

    cofiring = traitlets.List(traitlets.Dict()).tag(sync=True)
    """Features that fire on the same tokens: ``layer``, ``kind``, ``index``,
    ``label``, ``about``, ``hint``; on ``together`` ``of`` its tokens, ``lift`` times as often as by
    chance."""

    tried = traitlets.Dict(default_value=TRIED).tag(sync=True)
    """The user's own text: ``text``, `tokens`, ``values``, ``masked`` (positions), and
    ``state``."""

    history = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Names of the features that were shown before; Back leads to the last."""

    busy = traitlets.Unicode("").tag(sync=True)
    """What is being computed, for the reader; empty: nothing."""

    @traitlets.validate("facts", "promoted", "suppressed", "cofiring")
    def _check_records(self, proposal: Any) -> list[dict[str, Any]]:
        name = proposal["trait"].name
        return checked_records(f"{name}, record", proposal["value"], *_RECORDS[name])

    @traitlets.validate("top", "spread")
    def _check_passages(self, proposal: Any) -> list[dict[str, Any]]:
        name = proposal["trait"].name
        passages = checked_records(f"{name}, passage", proposal["value"], *_RECORDS[name])
        for number, passage in enumerate(passages):
            count = len(passage["tokens"])
            if len(passage["values"]) != count or not 0 <= passage["at"] < count:
                raise ValueError(
                    f"{name}, passage {number}: {count} tokens, {len(passage['values'])} values, "
                    f"at {passage['at']}; there must be one value a token"
                )
        return passages

    @traitlets.validate("neighbours")
    def _check_neighbours(self, proposal: Any) -> list[dict[str, Any]]:
        groups = checked_records("group", proposal["value"], ("title", "rows"), ("own",))
        needed = (*_NAMED, "cosine")
        return [
            {
                **group,
                "rows": checked_records("neighbour", group["rows"], needed, ("about", "hint")),
            }
            for group in groups
        ]

    @traitlets.validate(*_DICTS)
    def _check_dicts(self, proposal: Any) -> dict[str, Any]:
        name, value = proposal["trait"].name, proposal["value"]
        refuse_unknown(name, value, _DICTS[name])
        filled = {**_DICTS[name], **value}
        _CHECKS.get(name, lambda _: None)(filled)
        return filled

    def summary(self) -> str:
        """Title and number of passages."""
        return f"{self.title!r}, {len(self.top) + len(self.spread)} passages"

    def static_html(self) -> str:
        """Label with its source, figures, output tokens, passages, neighbours and company."""
        return twin(self)


def _check_histogram(value: Mapping[str, Any]) -> None:
    edges: Sequence[float] = value["edges"]
    if value["counts"] and len(edges) != len(value["counts"]) + 1:
        raise ValueError(
            f"histogram: {len(value['counts'])} counts need one edge more, got {len(edges)}"
        )


def _check_tried(value: Mapping[str, Any]) -> None:
    if value["state"] not in STATES:
        raise ValueError(f"tried: state {value['state']!r}; it is one of {', '.join(STATES)}")
    if len(value["tokens"]) != len(value["values"]):
        raise ValueError(
            f"tried: {len(value['tokens'])} tokens and {len(value['values'])} values; there must "
            "be one value a token"
        )


_CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "histogram": _check_histogram,
    "tried": _check_tried,
}
