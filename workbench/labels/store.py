"""Labels and notes on disk: what was ever said, by whom, when and how; nothing is overwritten.

Why SQLite and not DuckDB, which keeps the index: a label is one small row, written now and then by
whichever notebook is open, and read one by one. A DuckDB file has one process that may write and
then no other that may even read; SQLite takes turns between processes by itself, waits where it
must, survives a kill in the middle of a write, and comes with Python. Its write-ahead log lets
readers go on while one writes; where a file system has no shared memory for it (network drives)
SQLite keeps its older journal, which takes turns too.

Every entry has an id of its own, so that files of two people merge by importing one into the
other, in any order and as often as one likes. Two triggers refuse every change and deletion.
"""

from __future__ import annotations

import getpass
import json
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.files import readable, write_whole
from workbench.labels.entries import (
    COLUMNS,
    EXPORT,
    FORM,
    LAST,
    check,
    imported,
    insert,
    label_of_entry,
    microseconds,
)
from workbench.labels.files import damaged
from workbench.labels.records import Label, What, check_method
from workbench.sites import Kind, Site, feature_at

PREFERRED = ("manual", "explain", "neuronpedia", "automatic", "suite")
"""Methods, the one to be shown first: what a person said is never hidden by a job."""
HISTORY = ["date", "what", "text", "method", "score", "measure", "author", "source", "details"]


class Labels:
    """The labels and notes on the features of one model, in one file."""

    def __init__(
        self,
        path: str | Path,
        *,
        model: str,
        sae_name: Callable[[Site], str] | None = None,
        author: str | None = None,
    ) -> None:
        """Open the file, or make it when something is first said.

        Args:
            path: The file; several models, and several notebooks at once, may use it.
            model: Whose features these are.
            sae_name: Gives the name of the SAE of a site: labels belong to its features. Where left
                out, that of the lab that the labels are assigned to; alone, one for all SAEs.
            author: Who writes here; the name of the user's account if left out.

        Raises:
            NotLabelsError: If there is another kind of file, or a damaged one; it is left as it is.
        """
        self.path, self.model = Path(path), model
        self.author = _account() if author is None else author
        self.sae_name = sae_name
        self.check_feature: Callable[[Site, int], None] | None = None
        """Refuses a feature that does not exist; that of the lab which the labels belong to."""
        self._lock = threading.RLock()
        self._open: sqlite3.Connection | None = None
        if self.path.exists():
            self._open = FORM.connect(self.path)

    def close(self) -> None:
        """Let go of the file; it is opened again when needed."""
        with self._lock:
            if self._open is not None:
                self._open.close()
            self._open = None

    def __enter__(self) -> Labels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", None) is not None:
            self.close()

    def __repr__(self) -> str:
        rows = self._rows(
            "SELECT method, count(DISTINCT layer || kind || feature) FROM entries "
            "WHERE model = ? AND what = 'label' GROUP BY method ORDER BY method",
            (self.model,),
        )
        said = ", ".join(f"{count:,} {method}" for method, count in rows) or "none yet"
        return f"<Labels of {self.model} at {self.path}: {said}>"

    def set(
        self,
        feature: tuple[int, int],
        text: str,
        *,
        kind: Kind = "res",
        author: str | None = None,
    ) -> Label:
        """Label a feature by hand.

        Args:
            feature: ``(layer, index)``.
            text: The label; an empty one takes the last back.
            kind: Kind of site.
            author: Who says so; the author of this object if left out.

        Raises:
            ValueError: If there is no such feature.
        """
        site, index = feature_at(feature, kind)
        return self._said(Label(site, index, text, "manual"), author)

    def note(
        self,
        feature: tuple[int, int],
        text: str,
        *,
        kind: Kind = "res",
        author: str | None = None,
    ) -> Label:
        """Write a note on a feature; the arguments are those of `set`."""
        site, index = feature_at(feature, kind)
        return self._said(Label(site, index, text, "manual", what="note"), author)

    def _said(self, label: Label, author: str | None) -> Label:
        if self.check_feature is not None:
            self.check_feature(label.site, label.index)
        return self.add(label, author=author)

    def add(self, label: Label, *, author: str | None = None) -> Label:
        """Add an entry of any method; returns it with author and date."""
        return self.add_all([label], author=author)[0]

    def add_all(
        self, labels: Sequence[Label], *, author: str | None = None, ids: Sequence[str] = ()
    ) -> list[Label]:
        """Add entries in one step: all are kept or none.

        Args:
            labels: The entries; those without a date are of now.
            author: Who says so, for those that do not tell.
            ids: An id for each, where the same may come again: it is kept once, with its date.

        Raises:
            ValueError: For an impossible feature or method, or text that is none.
        """
        for label in labels:
            check(label)
        entries = [self._entry(label, author) for label in labels]
        with self._writing() as connection:
            if ids:
                for entry, name in zip(entries, ids, strict=True):
                    insert(connection, entry | {"id": name})
                return [label_of_entry(entry) for entry in entries]
            for entry in entries:
                # An entry is never older than what it replaces, whatever the clock does.
                (last,) = connection.execute(LAST, entry).fetchone()
                entry["time"] = max(entry["time"], last + 1)
                insert(connection, entry)
        return [label_of_entry(entry) for entry in entries]

    def _sae(self, site: Site) -> str:
        return "" if self.sae_name is None else self.sae_name(site)

    def _entry(self, label: Label, author: str | None) -> dict[str, Any]:
        return {
            "id": uuid.uuid4().hex,
            "time": microseconds(label.date or datetime.now(UTC)),
            "model": self.model,
            "sae": self._sae(label.site),
            "kind": label.site.kind,
            "layer": label.site.layer,
            "feature": label.index,
            "what": label.what,
            "method": label.method,
            "text": label.text.strip(),
            "score": None if label.score is None else float(label.score),
            "measure": label.measure,
            "author": label.author or (self.author if author is None else author),
            "source": label.source,
            "details": json.dumps(dict(label.details), ensure_ascii=False),
        }

    def label(
        self, site: Site | tuple[int, Kind], index: int, *, method: str | None = None
    ) -> Label | None:
        """The label of a feature: the last of the method that `PREFERRED` names first.

        What is known to be bad comes after everything else.

        Args:
            site: Its site.
            index: Its number.
            method: Only those of this method.
        """
        latest = self._latest(site, index, "label")
        if method is not None:
            return latest.get(check_method(method))
        return _best(latest)

    def notes(self, site: Site | tuple[int, Kind], index: int) -> str:
        """The note on a feature as it stands; empty if there is none."""
        latest = self._latest(site, index, "note")
        return latest["manual"].text if "manual" in latest else ""

    def _latest(self, site: Site | tuple[int, Kind], index: int, what: What) -> dict[str, Label]:
        """The last entry of each method, but those that were taken back."""
        entries = self._of(site, index)
        last = {one.method: one for one in entries if one.what == what}
        return {method: one for method, one in last.items() if one.text}

    def history(self, site: Site | tuple[int, Kind], index: int) -> pd.DataFrame:
        """All that was ever said of a feature, oldest first.

        Returns:
            Columns ``date, what, text, method, score, measure, author, source, details``.
        """
        rows = [[getattr(one, name) for name in HISTORY] for one in self._of(site, index)]
        return pd.DataFrame(rows, columns=HISTORY)

    @property
    def last(self) -> int:
        """Number of the entry that was added last: another one when something was said since."""
        rows = self._rows("SELECT coalesce(max(number), 0) FROM entries")
        return rows[0][0] if rows else 0

    def text(self, site: Site, index: int) -> str | None:
        """The text of a feature's label; None if it has none."""
        found = self.label(site, index)
        return found.text if found else None

    def labelled(self) -> dict[tuple[Site, int], tuple[str, float | None]]:
        """Text and score of the label of every feature that has one."""
        return {(one.site, one.index): (one.text, one.score) for one in self._all()}

    def frame(self) -> pd.DataFrame:
        """The label of every feature that has one, by the rule of `label`.

        Returns:
            Columns ``layer, kind, feature, label, method, score, date, author, source, warning``.
        """
        table = [
            (b.site.layer, b.site.kind, b.index, b.text, b.method, b.score, b.date, b.author,
             b.source, b.warning)
            for b in sorted(self._all(), key=lambda b: (b.site, b.index))
        ]  # fmt: skip
        columns = "layer kind feature label method score date author source warning"
        return pd.DataFrame(table, columns=columns.split())

    def _all(self) -> list[Label]:
        """The label of every feature that has one."""
        rows = self._rows(
            f"SELECT {', '.join(COLUMNS)} FROM entries WHERE model = ? AND what = 'label' "
            "ORDER BY time, number",
            (self.model,),
        )
        found: dict[tuple[Site, int], dict[str, Label]] = {}
        for row in rows:
            entry = dict(zip(COLUMNS, row, strict=True))
            one = label_of_entry(entry)
            if entry["sae"] == self._sae(one.site):
                found.setdefault((one.site, one.index), {})[one.method] = one
        return [ranked for labels in found.values() if (ranked := _best(labels))]

    def _of(self, site: Site | tuple[int, Kind], index: int) -> list[Label]:
        """Every entry of a feature, oldest first."""
        site = site if isinstance(site, Site) else Site(*site)
        rows = self._rows(
            f"SELECT {', '.join(COLUMNS)} FROM entries WHERE model = ? AND sae = ? AND layer = ? "
            "AND kind = ? AND feature = ? ORDER BY time, number",
            (self.model, self._sae(site), site.layer, site.kind, int(index)),
        )
        return [label_of_entry(dict(zip(COLUMNS, row, strict=True))) for row in rows]

    def export(self, path: str | Path) -> int:
        """Write every entry of this model, history included, as JSON lines.

        Returns:
            How many.

        Raises:
            FileExistsError: If the file is there already.
        """
        rows = self._rows(
            f"SELECT {', '.join(COLUMNS)} FROM entries WHERE model = ? ORDER BY number",
            (self.model,),
        )
        if Path(path).exists():
            raise FileExistsError(f"{path} is there already: give another path")
        lines = []
        for row in rows:
            entry = dict(zip(COLUMNS, row, strict=True))
            entry |= {"format": EXPORT, "details": json.loads(entry["details"])}
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
        write_whole(path, "".join(lines))
        return len(rows)

    def load(self, path: str | Path) -> int:
        """Take in what `export` wrote, here or elsewhere; entries that are here already stay once.

        Returns:
            How many were new.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: For a line that is no entry; says which. Nothing is taken in then.
        """
        path = readable(path, "exported labels")
        try:
            lines = path.read_text("utf-8").split("\n")  # a label may hold other ends of lines
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} holds no exported labels: it is not text") from error
        entries = [
            imported(line, f"{path}, line {number}")
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
        with self._writing() as connection:
            before = connection.total_changes
            for entry in entries:
                insert(connection, entry)
            return connection.total_changes - before

    def answer(self, key: str) -> tuple[str, int, int, float] | None:
        """What a language model once answered: text, tokens read and written, seconds."""
        rows = self._rows("SELECT text, read, written, seconds FROM answers WHERE key = ?", (key,))
        return rows[0] if rows else None

    def keep_answer(
        self, key: str, writer: str, text: str, read: int, written: int, seconds: float
    ) -> None:
        """Keep an answer, so that a job that was killed need not ask again."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                (key, writer, text, read, written, seconds),
            )

    def seconds_an_answer(self, writer: str) -> float | None:
        """Mean time that a language model took for an answer; None if it never gave one."""
        rows = self._rows("SELECT avg(seconds) FROM answers WHERE writer = ?", (writer,))
        return rows[0][0] if rows else None

    def _rows(self, query: str, values: tuple = ()) -> list[tuple]:
        with self._lock:
            if self._open is None and not self.path.exists():
                return []
            try:
                return self._connection().execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise damaged(self.path, error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that has the file to itself from its beginning."""
        with self._lock:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = FORM.connect(self.path)
        return self._open


def _best(latest: Mapping[str, Label]) -> Label | None:
    """Of the last label of each method the one to show."""
    there = [one for one in latest.values() if one.text]
    rank = {method: place for place, method in enumerate(PREFERRED)}
    return min(there, key=lambda one: (bool(one.warning), rank[one.method]), default=None)


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"
