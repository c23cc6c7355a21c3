"""A table with remarks below it, as a notebook shows it."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd


def noted_html(frame: pd.DataFrame, notes: Sequence[str]) -> str:
    """A frame as HTML with `notes` below; what both quote of texts and labels stays text."""
    below = "".join(f"<p>note: {html.escape(note)}</p>" for note in notes)
    return f"{frame._repr_html_()}{below}"  # pyright: ignore[reportCallIssue]
