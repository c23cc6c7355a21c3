"""The two files of an index: the one that is read, and the one that a pass writes meanwhile.

Why DuckDB and not SQLite: an index is read by column, over all features of a model at once (every
density, every maximum, those between two bounds), and written in bulk from arrays. DuckDB stores
columns compressed (the same tables take a fraction of SQLite's rows), scans millions of features in
milliseconds, hands columns to numpy and pandas without a loop, has regular expressions and lists,
checks a sum over every block that it reads, and needs no server either. What SQLite has and DuckDB
lacks, readers in other processes while one writes, is given by never writing a file that is read:

    name.duckdb             complete, replaced in one step, opened read-only by any number
    name.duckdb.building    the pass at work: its progress, state and documents; locked by DuckDB,
                            so that a second writer is refused; gone when the index is finished

A killed pass leaves the second file as of its last commit, from which it goes on. A stopped one
also writes what it has found to the first.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from workbench.index.corpus import Document, Position

FORMAT = "workbench-index-1"
BUILDING = "workbench-index-building-1"
STORAGE = "v1.2.0"
"""DuckDB's storage version: files that every DuckDB since 1.2 reads."""
BLOCK = 32768
"""Bytes of a block: in smaller ones integers are not packed, in larger ones more lies empty."""
MAGIC = b"DUCK"  # at byte 8 of every DuckDB file


class NotAnIndexError(ValueError):
    """A file is no index, is damaged, or belongs to something else. It was not touched."""


def attach(path: Path, *, write: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection to the file at `path`, by the name ``db``.

    Attached and not opened: DuckDB shares opened databases within a process by their path, and a
    reader would be given the old file when a new one has taken its place.

    Raises:
        NotAnIndexError: If it is no DuckDB file, or a damaged one.
        BlockingIOError: If another process has it open for writing.
    """
    # DuckDB must not go and fetch extensions because of what a file or a query looks like.
    config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    connection = duckdb.connect(":memory:", config={**config, "threads": "2"})
    new = write and not path.exists()
    if not new:
        with path.open("rb") as file:
            head = file.read(12)
        if head[8:] != MAGIC:
            raise NotAnIndexError(f"{path} is not an index (no DuckDB file); it was left as it was")
    mode = f"READ_WRITE, BLOCK_SIZE {BLOCK}, STORAGE_VERSION '{STORAGE}'" if new else "READ_WRITE"
    quoted = str(path.resolve()).replace("'", "''")
    try:
        connection.execute(f"ATTACH '{quoted}' AS db ({mode if write else 'READ_ONLY'})")
        connection.execute("USE db")
    except duckdb.Error as error:
        connection.close()
        said = str(error)
        if "Could not set lock" in said or "handle conflict" in said:
            raise BlockingIOError(
                f"{path} is in use by another pass: wait for its end, or give another path"
            ) from error
        raise NotAnIndexError(
            f"{path} is not an index, or it is damaged; it was left as it was ({said[:200]})"
        ) from error
    return connection


def read_meta(connection: duckdb.DuckDBPyConnection, path: Path, form: str) -> dict[str, Any]:
    """The table ``meta`` as a dictionary.

    Raises:
        NotAnIndexError: If it is missing, or names another format than `form`.
    """
    try:
        rows = connection.execute("SELECT name, value FROM db.meta").fetchall()
    except duckdb.Error as error:
        raise NotAnIndexError(
            f"{path} is a DuckDB file and not an index, or it is damaged; it was left as it was "
            f"({str(error)[:200]})"
        ) from error
    meta = {name: json.loads(value) for name, value in rows}
    if meta.get("format") != form:
        raise NotAnIndexError(
            f"{path} has the format {meta.get('format')!r}, and this workbench reads {form!r}; "
            "it was left as it was"
        )
    return meta


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def write_meta(connection: duckdb.DuckDBPyConnection, meta: Mapping[str, Any]) -> None:
    """Replace the table ``meta``."""
    connection.execute("CREATE OR REPLACE TABLE db.meta (name VARCHAR, value VARCHAR)")
    rows = [[name, json.dumps(value)] for name, value in meta.items()]
    connection.executemany("INSERT INTO db.meta VALUES (?, ?)", rows)


class Journal:
    """The file of a pass at work."""

    def __init__(self, path: Path, identity: Mapping[str, Any] | None) -> None:
        """Open or make it.

        Args:
            path: The file.
            identity: Model, SAEs and settings of the pass; None for whatever is there.

        Raises:
            NotAnIndexError: If there is another kind of file.
            BlockingIOError: If another pass is at work on it.
            ValueError: If it was begun with something else; says with what.
        """
        self.path = path
        begun = path.exists()
        self.connection = attach(path, write=True)
        try:
            if begun:
                self.meta = read_meta(self.connection, path, BUILDING)
                check_identity(path, self.meta["identity"], identity or {})
            else:
                self._make(identity)
        except BaseException:
            self.connection.close()
            raise

    def _make(self, identity: Mapping[str, Any] | None) -> None:
        self.meta: dict[str, Any] = {"format": BUILDING, "identity": dict(identity or {})}
        with transaction(self.connection):
            self.connection.execute("CREATE TABLE db.state (name VARCHAR, data BLOB)")
            self.connection.execute(
                "CREATE TABLE db.documents (document BIGINT, start BIGINT, ids INTEGER[])"
            )
            write_meta(self.connection, self.meta)

    @property
    def position(self) -> Position | None:
        """Where the last commit stands; None before the first."""
        found = self.meta.get("position")
        return None if found is None else Position(**found)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays of the last commit."""
        rows = self.connection.execute("SELECT name, data FROM db.state").fetchall()
        return {name: np.load(io.BytesIO(data), allow_pickle=False) for name, data in rows}

    def commit(
        self,
        position: Position,
        progress: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        documents: Sequence[Document],
    ) -> None:
        """Store state and progress together: after a kill both are there or neither is."""
        self.meta |= {"position": asdict(position), **progress}
        with transaction(self.connection):
            self.connection.execute("DELETE FROM db.state")
            for name, array in arrays.items():
                self.connection.execute(
                    "INSERT INTO db.state VALUES (?, ?)", [name, _as_bytes(array)]
                )
            self._store(documents)
            write_meta(self.connection, self.meta)

    def _store(self, documents: Sequence[Document]) -> None:
        if not documents:
            return
        lengths = [len(one.ids) for one in documents]
        numbers = np.array([one.number for one in documents])
        tokens = {
            "document": np.repeat(numbers, lengths),
            "place": np.concatenate([np.arange(n) for n in lengths]),
            "id": np.concatenate([one.ids for one in documents]),
        }
        starts = {"document": numbers, "start": np.array([one.start for one in documents])}
        self.connection.register("new_tokens", tokens)
        self.connection.register("new_documents", starts)
        self.connection.execute("""
            INSERT INTO db.documents
            SELECT d.document, d.start, coalesce(t.ids, []) FROM new_documents d
            LEFT JOIN (SELECT document, list(id ORDER BY place) AS ids
                       FROM new_tokens GROUP BY document) t USING (document)
            ORDER BY d.document
        """)
        self.connection.unregister("new_tokens")
        self.connection.unregister("new_documents")

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_identity(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with something else.

    Raises:
        ValueError: Names what differs.
    """
    for name, value in json.loads(json.dumps(wanted)).items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} was made with {name} = {_short(found.get(name))}, and now it is "
                f"{_short(value)}: give the same, or another path"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 120 else f"{text[:120]} ..."


def _as_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
