"""Entries of the label file: their table, and how they become labels and lines of an export."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from workbench.labels.files import Form
from workbench.labels.records import Label, check_method
from workbench.sites import Site, check_kind

EXPORT = "workbench-labels-1"
TABLES = """
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, time INTEGER NOT NULL,
    model TEXT NOT NULL, sae TEXT NOT NULL, kind TEXT NOT NULL, layer INTEGER NOT NULL,
    feature INTEGER NOT NULL, what TEXT NOT NULL, method TEXT NOT NULL, text TEXT NOT NULL,
    score REAL, measure TEXT NOT NULL, author TEXT NOT NULL, source TEXT NOT NULL,
    details TEXT NOT NULL
);
CREATE INDEX by_feature ON entries (model, sae, layer, kind, feature, what, time);
CREATE TRIGGER no_change BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the history of labels is only added to'); END;
CREATE TRIGGER no_deletion BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the history of labels is only added to'); END;
CREATE TABLE answers (
    key TEXT PRIMARY KEY, writer TEXT NOT NULL, text TEXT NOT NULL, read INTEGER NOT NULL,
    written INTEGER NOT NULL, seconds REAL NOT NULL
);
"""
COLUMNS = (
    *("id", "time", "model", "sae", "kind", "layer", "feature", "what", "method"),
    *("text", "score", "measure", "author", "source", "details"),
)
LAST = """
SELECT coalesce(max(time), 0) FROM entries WHERE model = :model AND sae = :sae AND kind = :kind
AND layer = :layer AND feature = :feature AND what = :what AND method = :method
"""
FORM = Form(
    "labels", 0x57424C31, 1, TABLES, f"SELECT {', '.join(COLUMNS)} FROM entries LIMIT 1"
)  # "WBL1"


def check(label: Label) -> None:
    """Refuse what cannot be kept.

    Raises:
        ValueError: For an impossible feature or method, or text that is none.
    """
    if label.what == "label":
        check_method(label.method)
    if not isinstance(label.text, str):
        raise ValueError(f"a label is a text, got {label.text!r}")
    if isinstance(label.index, bool) or int(label.index) != label.index or label.index < 0:
        raise ValueError(f"a feature is a number from 0 on, got {label.index!r}")


def microseconds(date: datetime) -> int:
    """A date as it is kept: since 1970, in UTC."""
    return round(date.timestamp() * 1_000_000)


def label_of_entry(entry: Mapping[str, Any]) -> Label:
    """The label that an entry keeps."""
    return Label(
        Site(entry["layer"], check_kind(entry["kind"])),
        entry["feature"],
        entry["text"],
        entry["method"],
        entry["score"],
        entry["measure"],
        datetime.fromtimestamp(entry["time"] / 1_000_000, UTC),
        entry["author"],
        entry["source"],
        json.loads(entry["details"]),
        entry["what"],
    )


def insert(connection: sqlite3.Connection, entry: Mapping[str, Any]) -> None:
    """Add an entry, unless one with its id is there."""
    places = ", ".join(f":{name}" for name in COLUMNS)
    connection.execute(
        f"INSERT OR IGNORE INTO entries ({', '.join(COLUMNS)}) VALUES ({places})", entry
    )


def imported(line: str, where: str) -> dict[str, Any]:
    """The entry of one line of an export.

    Raises:
        ValueError: If the line is none; says `where` it stands.
    """
    try:
        entry = json.loads(line)
        if entry.pop("format") != EXPORT:
            raise ValueError("another format")
        entry["details"] = json.dumps(entry["details"], ensure_ascii=False)
        if sorted(entry) != sorted(COLUMNS):
            raise ValueError(f"the fields are {sorted(entry)}")
        check(label_of_entry(entry))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where} is no entry of {EXPORT!r} ({type(error).__name__}: {error}); nothing was "
            "taken in"
        ) from error
    return entry
