"""Files that are whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_whole(path: str | Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, and put that in its place when all is on disk.

    What was there stays if the disk is full or the kernel dies on the way.
    """
    path = Path(path)
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
