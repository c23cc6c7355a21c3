"""Files of the hub as files of this machine: what is in the cache, and what has to come."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import WeakFileLock

from workbench.sae.hub.download import disk_error, download, link
from workbench.sae.hub.failures import FAILURES, HubError, Place, explained, offline_error
from workbench.sae.hub.source import Source


def fetch(
    repo: str,
    path: str,
    *,
    check: Callable[[Path], None] | None = None,
    revision: str = "main",
) -> Path:
    """A file of the hub, downloaded if it is not in Hugging Face's cache.

    A file in the cache is used as it is, without asking the hub. A download that was interrupted
    is continued by the next call, two processes wait for each other, and what does not pass the
    checks never enters the cache.

    Args:
        repo: Repository, such as ``"google/gemma-scope-2b-pt-res"``.
        path: Path of the file in it.
        check: Called with the downloaded file, before it enters the cache; raises `ValueError` for
            one that cannot be used, which is then deleted.
        revision: Branch, tag or commit.

    Raises:
        HubError: It could not be had, or the check refused it.
    """
    found = cached(repo, path, revision=revision)
    if found is not None:
        return found
    source = Source(repo, path, revision)
    name = repo_folder_name(repo_id=repo, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE, name, "blobs", source.etag)
    lock = Path(constants.HF_HUB_CACHE, ".locks", name, f"{source.etag}.lock")
    try:
        for file in (blob, lock):
            file.parent.mkdir(parents=True, exist_ok=True)
        # The lock that hf_hub_download takes for this blob, so that other programs wait as well.
        with WeakFileLock(lock):
            if not blob.exists():
                download(source, blob, check)
        return link(source, blob)
    except HubError:
        raise
    except OSError as error:
        raise disk_error(error, source, blob.parent) from error


def cached(repo: str, path: str, *, revision: str = "main") -> Path | None:
    """The file in Hugging Face's cache, or None. Never uses the network.

    With ``HF_HUB_OFFLINE=1`` an older revision than the last one seen counts as well.
    """
    found = try_to_load_from_cache(repo, path, revision=revision)
    if isinstance(found, str):
        return Path(found)
    if constants.HF_HUB_OFFLINE and not re.fullmatch("[0-9a-f]{40}", revision):
        return next((old for old in _snapshots(repo, path) if old.is_file()), None)
    return None


def fetch_folder(
    repo: str,
    folder: str,
    *,
    names: Callable[[str], bool] | None = None,
    revision: str = "main",
) -> Path:
    """The files directly in a folder of a repository, as one folder of the cache.

    Args:
        repo: Repository.
        folder: Folder in it; empty for the top one.
        names: Whether a file of this name is wanted; all are if left out.
        revision: Branch, tag or commit.

    Raises:
        HubError: There is no such file, or one could not be had.
    """
    place = Place(repo, folder, revision)
    if constants.HF_HUB_OFFLINE:
        found = next((old for old in _snapshots(repo, folder) if old.is_dir()), None)
        if found is None:
            raise offline_error(place)
        return found
    entries = _entries(place)
    inside = [entry.path for entry in entries if isinstance(entry, RepoFile)]
    wanted = [p for p in inside if names is None or names(PurePosixPath(p).name)]
    if not wanted:
        held = ", ".join(PurePosixPath(entry.path).name for entry in entries[:20]) or "nothing"
        raise HubError(f"{place.address}: no such file here; it holds {held}", reason="missing")
    # A commit in between puts the files into two snapshots; the second round links them into one.
    for _ in range(2):
        folders = {fetch(repo, file, revision=revision).parent for file in wanted}
        if len(folders) == 1:
            return folders.pop()
    raise HubError(f"{place.address} changed while it was fetched: call again", reason="damaged")


def listing(repo: str, folder: str = "", *, revision: str = "main") -> list[str]:
    """Paths of all files below a folder of a repository, sorted.

    Raises:
        HubError: There is no such folder, or the hub cannot be asked.
    """
    entries = _entries(Place(repo, folder, revision), recursive=True)
    return sorted(entry.path for entry in entries if isinstance(entry, RepoFile))


def check_access(repo: str, path: str = "config.json") -> None:
    """Ask the hub whether this machine may read a repository; downloads nothing.

    Raises:
        HubError: It may not; ``reason`` is ``"token"`` or ``"access"`` where a licence is the
            cause.
    """
    Source(repo, path, "main")


def _snapshots(repo: str, path: str) -> list[Path]:
    """A path of a repository in each cached revision, the newest first."""
    root = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))
    revisions = sorted((root / "snapshots").glob("*"), key=lambda p: p.stat().st_mtime)
    return [revision / path for revision in reversed(revisions)]


def _entries(place: Place, *, recursive: bool = False) -> list[RepoFile | RepoFolder]:
    if constants.HF_HUB_OFFLINE:
        raise offline_error(place)
    try:
        return list(
            HfApi(endpoint=constants.ENDPOINT).list_repo_tree(
                place.repo, place.path or None, revision=place.revision, recursive=recursive
            )
        )
    except FAILURES as error:
        raise explained(error, place) from None
