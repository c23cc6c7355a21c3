"""Files that are whole or not there, and the checks of a path that all who save and open share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def writable(path: str | Path) -> Path:
    """`path` as a file to write: its folder is made where it is missing.

    Raises:
        TypeError: If it is no path.
        ValueError: If it is empty.
        IsADirectoryError: If it is a folder.
        OSError: If its folder cannot be made or written to.
    """
    path = _file(path, "one file is written here")
    writable_folder(path.parent)
    return path


def writable_folder(path: str | Path) -> Path:
    """`path` as a folder to write to, made where it is missing.

    Raises:
        TypeError: If it is no path.
        ValueError: If it is empty.
        OSError: If it cannot be made or written to.
    """
    path = _named(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(
            f"{path} is a file, and a folder is needed: give another path"
        ) from None
    except OSError as error:
        raise OSError(f"the folder {path} cannot be made ({error}): give another path") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"the folder {path} cannot be written to: give another path")
    return path


def readable(path: str | Path, what: str) -> Path:
    """`path` as a file that is there.

    Args:
        path: The file.
        what: What it should be, such as "a saved run".

    Raises:
        TypeError: If it is no path.
        ValueError: If it is empty.
        IsADirectoryError: If it is a folder.
        FileNotFoundError: If there is none.
    """
    path = _file(path, f"{what} is one file")
    if not path.exists():
        inside = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise FileNotFoundError(f"there is no file {path}{inside}: give the path of {what}")
    return path


def _file(path: str | Path, why: str) -> Path:
    path = _named(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, and {why}: give the name of a file in it")
    return path


def _named(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a path is a text or a Path, got {path!r}")
    if not os.fspath(path):
        raise ValueError("the path is empty: give the name of a file or folder")
    return Path(os.fsdecode(path))


@contextmanager
def replaced_whole(path: str | Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, and put that in its place when all is on disk.

    What was there stays if the disk is full or the kernel dies on the way.

    Raises:
        OSError: As `writable`.
    """
    path = writable(path)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> Path:
    """Write `text` to `path` by way of `replaced_whole`.

    Returns:
        The path.
    """
    with replaced_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)
