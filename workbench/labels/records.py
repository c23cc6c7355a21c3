"""What is said of one feature, and how it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from workbench.sites import Site

Method = Literal["manual", "automatic", "explain", "neuronpedia", "suite"]
"""By hand; by rule from examples; by a language model; from Neuronpedia; with the SAEs."""
What = Literal["label", "note"]


@dataclass(frozen=True)
class Label:
    """One thing that was said of a feature."""

    site: Site
    index: int
    text: str
    """Empty if an earlier one was taken back."""
    method: str
    """One of `Method`."""
    score: float | None = None
    """How well it tells passages where the feature fires from others, as `measure` says."""
    measure: str = ""
    """What the score is, such as ``"balanced accuracy of detection"``."""
    date: datetime | None = None
    """When it was said, UTC; None if nobody knows."""
    author: str = ""
    source: str = ""
    """Where it is from: the language model, the rule's version, Neuronpedia's source."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is known, such as the rule or further scores."""
    what: What = "label"

    @property
    def warning(self) -> str:
        """Why it should not be believed; empty if nothing speaks against it."""
        return str(self.details.get("warning", ""))

    @property
    def provenance(self) -> str:
        """Method, score, date, author and source in one line, to be shown beside the text."""
        score = "not scored" if self.score is None else f"score {self.score:.2f}"
        if self.score is not None and self.measure:
            score += f" ({self.measure})"
        date = f"{self.date:%Y-%m-%d}" if self.date else "no date"
        parts = [self.method, score, date, self.author, self.source]
        if self.warning:
            parts.append(f"WARNING: {self.warning}")
        return ", ".join(part for part in parts if part)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<{self.what.capitalize()} {self.text!r} of {self.index} at {self.site}: " + (
            f"{self.provenance}>"
        )


def check_method(method: str) -> Method:
    """`method`, if it is one.

    Raises:
        ValueError: If not.
    """
    for known in get_args(Method):
        if method == known:
            return known
    raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
