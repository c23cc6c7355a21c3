"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: str | Path, text: str) -> Path:
    """Write `text` beside `path` and put it in its place when all of it is on disk.

    What was there stays if the disk is full or the kernel dies on the way.

    Returns:
        The path.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
