"""A whole file of the hub: continued, checked, and only then given to the cache."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from huggingface_hub import hf_hub_download
from huggingface_hub.utils import tqdm

from workbench.sae.hub.failures import FAILURES, HubError, explained
from workbench.sae.hub.source import Source


def download(source: Source, blob: Path, check: Callable[[Path], None] | None) -> None:
    """Make `blob`, whole and checked, or leave nothing but a partial file to continue."""
    # Not huggingface_hub's own `.incomplete`: its transfers may leave holes in that.
    partial = blob.with_name(f"{blob.name}.workbench.incomplete")
    try:
        _receive(source, partial)
    except HubError as error:
        if error.reason != "range":
            raise
        partial.unlink()  # It cannot be continued where ranges are ignored.
        _receive(source, partial)
    if not _same_hash(partial, source):
        partial.unlink()
        raise HubError(
            f"{source.address} arrived damaged (its hash is not {source.etag}) and was deleted: "
            "call again",
            reason="damaged",
        )
    try:
        if check is not None:
            check(partial)
    except ValueError as error:
        partial.unlink()
        why = str(error).replace(str(partial), source.address)
        # What a file on disk may need, this one does not.
        why = re.sub(r"\s*Delete (it|the file) and fetch it again\.", "", why)
        raise HubError(
            f"{why} The file arrived as the hub has it ({source.size:,} bytes), so it was deleted "
            "and another download will not help: choose another SAE, or tell "
            f"{source.page}/discussions",
            reason="damaged",
        ) from error
    partial.replace(blob)


def _receive(source: Source, partial: Path) -> None:
    """Download what `partial` lacks. It is kept if the connection fails for good."""
    done = partial.stat().st_size if partial.exists() else 0
    if done > source.size:
        partial.unlink()
        done = 0
    _check_space(source, partial.parent, source.size - done)
    try:
        with (
            partial.open("ab") as file,
            tqdm(
                total=source.size,
                initial=done,
                unit="B",
                unit_scale=True,
                desc=PurePosixPath(source.path).name,
            ) as bar,
        ):
            for chunk in source.chunks(done, source.size):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except HubError as error:
        kept = partial.stat().st_size
        if not kept or error.reason == "damaged":
            partial.unlink()
        if not kept or error.reason not in ("busy", "server", "connection"):
            raise
        raise HubError(
            f"{error}. {kept:,} of {source.size:,} bytes are here: the next call continues there",
            reason=error.reason,
        ) from None
    except OSError:
        # A full disk would stop everything else on this machine as well.
        partial.unlink()
        raise


def link(source: Source, blob: Path) -> Path:
    """The file in the snapshot of its commit; `blob` is there, so nothing is downloaded."""
    try:
        found = hf_hub_download(source.repo, source.path, revision=source.revision)
    except FAILURES as error:
        raise explained(error, source) from None
    path = Path(found)
    if not path.is_symlink() and blob.exists():
        # Where there are no links (Windows) the file was copied: one copy is enough.
        blob.unlink()
    return path


def _same_hash(path: Path, source: Source) -> bool:
    """Whether a file has the hash that the hub names it by: SHA-256, or git's for small files."""
    with path.open("rb") as file:
        if len(source.etag) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == source.etag
        if len(source.etag) == 40:
            content = file.read()
            named = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
            return named.hexdigest() == source.etag
    return True


def _check_space(source: Source, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HubError(
            f"{source.address} needs {needed:,} more bytes and {free:,} are free in {folder}: make "
            "room, or set HF_HOME to a folder on a larger disk before Python starts",
            reason="disk",
        )


def disk_error(error: OSError, source: Source, folder: Path) -> HubError:
    """What a failure to write means, and the next step."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = f"{shutil.disk_usage(folder).free:,}" if folder.exists() else "no"
        why = f"the disk is full: it needs {source.size:,} bytes and {free} are free"
        todo = "make room, or set HF_HOME to a folder on a larger disk before Python starts"
    else:
        why = f"it cannot be written ({error.strerror or error})"
        todo = "set HF_HOME to a folder that you may write to before Python starts"
    return HubError(f"{source.address} to {folder}: {why}. Next: {todo}", reason="disk")
