"""SQLite files of ours: made in one step, and told from others before SQLite opens them."""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

DATA = "WORKBENCH_DATA"
"""Environment variable: folder of what users make that belongs to no notebook."""
LABELS_FILE = "labels.sqlite"
MAGIC = b"SQLite format 3\0"
APPLICATION_AT, VERSION_AT = slice(68, 72), slice(60, 64)
"""Where SQLite's file format keeps the application id and the user version, big-endian."""
PATIENCE = 30.0
"""Seconds to wait for another process that writes."""


def data_folder() -> Path:
    """Where labels and the like are kept: the folder in `DATA`, or the system's for user data."""
    return Path(os.environ.get(DATA) or user_data_path("sae-workbench", appauthor=False))


class NotLabelsError(ValueError):
    """A file holds no labels, is damaged, or belongs to something else. It was not touched."""


@dataclass(frozen=True)
class Form:
    """What a file of ours holds."""

    what: str
    """In a word, for messages."""
    application: int
    """Its id in the header, by which it is known."""
    version: int
    tables: str
    """The statements that make it."""
    probe: str
    """A query that every such file answers."""

    def connect(self, path: Path) -> sqlite3.Connection:
        """A connection to the file at `path`, which is made if it is missing.

        Statements outside a transaction stand for themselves; threads may share it under a lock.

        Raises:
            NotLabelsError: If it is another kind of file, or damaged; it is left as it is.
            OSError: If it cannot be made.
        """
        if path.is_dir():
            raise IsADirectoryError(
                f"{path} is a folder, and {self.what} are kept in one file: give a name in it, "
                f"such as {path / LABELS_FILE}"
            )
        if not path.exists():
            self._make(path)
        self._check_header(path)
        try:
            self._check_whole(path)
            connection = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
        except sqlite3.DatabaseError as error:
            raise damaged(path, error) from error
        with suppress(sqlite3.OperationalError):  # in use, by somebody who has set the same
            connection.execute("PRAGMA journal_mode = WAL")
        return connection

    def _make(self, path: Path) -> None:
        """A new file, in one step: of two notebooks that make it at once one wins."""
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(partial, isolation_level=None)
            try:
                connection.executescript(self.tables)
                connection.execute(f"PRAGMA application_id = {self.application}")
                connection.execute(f"PRAGMA user_version = {self.version}")
            finally:
                connection.close()
        except (OSError, sqlite3.OperationalError) as error:
            raise OSError(
                f"{self.what} cannot be kept at {path} ({error}): set {DATA} to a folder "
                "that can be written, or give another path"
            ) from error
        try:
            path.hardlink_to(partial)
        except FileExistsError:
            pass  # another notebook was first
        except OSError:  # no hard links here
            if not path.exists():
                partial.rename(path)
                return
        partial.unlink()

    def _check_header(self, path: Path) -> None:
        # Opening with SQLite may write to a file, so a foreign one is never opened.
        with path.open("rb") as file:
            head = file.read(100)
        application = int.from_bytes(head[APPLICATION_AT], "big")
        if head[: len(MAGIC)] != MAGIC or application != self.application:
            raise NotLabelsError(
                f"{path} holds no {self.what}; it was left as it was: give another path"
            )
        version = int.from_bytes(head[VERSION_AT], "big")
        if version != self.version:
            raise NotLabelsError(
                f"{path} holds {self.what} in version {version}, and this workbench reads "
                f"{self.version}; it was left as it was"
            )

    def _check_whole(self, path: Path) -> None:
        """Read all of it once, and leave no trace where nobody else has it open."""
        log = path.with_name(f"{path.name}-wal")
        mode = "mode=ro" if log.exists() else "immutable=1"
        try:
            self._read_all(f"{path.resolve().as_uri()}?{mode}")
        except sqlite3.DatabaseError:
            if mode == "mode=ro" or not log.exists():
                raise
            self._read_all(f"{path.resolve().as_uri()}?mode=ro")  # somebody wrote meanwhile

    def _read_all(self, uri: str) -> None:
        connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
        try:
            found = connection.execute("PRAGMA quick_check").fetchall()
            connection.execute(self.probe).fetchall()
        finally:
            connection.close()
        if found != [("ok",)]:
            raise sqlite3.DatabaseError(str(found[0][0]))


def damaged(path: Path, error: Exception) -> NotLabelsError:
    """What to raise for a file of ours that cannot be read."""
    return NotLabelsError(f"{path} is damaged; it was left as it was ({str(error)[:200]})")
