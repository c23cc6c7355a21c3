"""The manifest of the shipped files: what they are, and that they are whole.

``manifest.json`` lists every file with its SHA-256, next to the seeds, the hyper-parameters and the
evaluation. Loading checks the hashes once a process, because a model that was cut short or
exchanged gives wrong numbers without a word.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

NAME = "manifest.json"


def weights() -> Path:
    """The folder of shipped models and SAEs."""
    return Path(__file__).parent / "weights"


def read(root: Path | None = None) -> dict[str, Any]:
    """The manifest.

    Raises:
        ValueError: If there is none: the package was installed without its data.
    """
    path = (root or weights()) / NAME
    if not path.exists():
        raise ValueError(
            f"pocket's files are missing ({path.name} not found): reinstall sae-workbench, "
            "or rebuild them with `python -m workbench.pocket build`"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file below `root` but the manifest, by path."""
    paths = sorted(p for p in root.rglob("*") if p.is_file() and p.name != NAME)
    return {p.relative_to(root).as_posix(): _sha256(p) for p in paths}


def record(path: Path, root: Path) -> None:
    """Take one file below `root`, new or made anew, into the manifest."""
    manifest = read(root)
    files = {**manifest["files"], path.relative_to(root).as_posix(): _sha256(path)}
    manifest["files"] = dict(sorted(files.items()))
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (root / NAME).write_text(text + "\n", encoding="utf-8")


def verify(root: Path | None = None) -> None:
    """Check every shipped file against the manifest, once a process.

    Raises:
        ValueError: If a file is missing or differs; names it.
    """
    _verify(root or weights())


@cache
def _verify(root: Path) -> None:
    for name, wanted in read(root)["files"].items():
        path = root / name
        if not path.exists():
            raise ValueError(f"pocket's file {name} is missing: reinstall sae-workbench")
        if _sha256(path) != wanted:
            raise ValueError(
                f"pocket's file {name} is not the one that was shipped (its hash differs): "
                "reinstall sae-workbench, or rebuild with `python -m workbench.pocket build`"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
