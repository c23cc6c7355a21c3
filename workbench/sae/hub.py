"""The hub: published files, fetched whole into Hugging Face's cache or read in parts.

The only module that uses the network, through ``huggingface_hub``: its addresses, tokens, session,
cache, locks and progress bar. Two things are our own, because no version in use does them:

- The transfer. Since 1.18 ``hf_hub_download`` starts an interrupted file again from nothing
  (huggingface_hub issue 4196), and it checks neither hash nor content. Here a partial file is kept
  and continued, and a file enters the cache only after its hash and its content were checked. The
  last step, the link from the snapshot, is ``hf_hub_download``'s.
- `RangeFile`. ``HfFileSystem`` asks the hub again for every range, and takes a server's whole
  answer into memory where that ignores the range: 19 GB for a wide SAE.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from time import sleep
from typing import Any, cast
from urllib.parse import urlsplit

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    get_token,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, tqdm

__all__ = [
    "HubError",
    "RangeFile",
    "cached",
    "check_access",
    "fetch",
    "fetch_folder",
    "listing",
]

# What goes wrong on the way: huggingface_hub stands on requests, httpx or httpx2, whichever its
# version is, and its own error is a subclass of theirs.
FAILURES = (OSError, cast(type[Exception], HfHubHTTPError.__mro__[1]))
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
TRIES = 5
"""Attempts that may fail in a row. Any byte that arrives starts the count again."""
LONGEST_WAIT = 60
"""Seconds. A server that asks for a longer pause is not waited for: the error says how long."""
WINDOW = 4096
"""Least bytes of one range read: a zip's directory, or an array's two headers, in one request."""
WINDOWS = 64
LARGEST_READ = 2**26


class HubError(OSError):
    """A file of the hub cannot be had; the message says why, and what to do next.

    Attributes:
        reason: ``"token"`` (none, or not accepted), ``"access"`` (not granted), ``"missing"``
            (repository, revision or file), ``"busy"``, ``"server"``, ``"connection"``, ``"disk"``,
            ``"offline"``, ``"damaged"`` or ``"range"`` (the server sends whole files only).
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


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
    source = _Source(repo, path, revision)
    name = repo_folder_name(repo_id=repo, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE, name, "blobs", source.etag)
    lock = Path(constants.HF_HUB_CACHE, ".locks", name, f"{source.etag}.lock")
    try:
        for file in (blob, lock):
            file.parent.mkdir(parents=True, exist_ok=True)
        # The lock that hf_hub_download takes for this blob, so that other programs wait as well.
        with WeakFileLock(lock):
            if not blob.exists():
                _download(source, blob, check)
        return _link(source, blob)
    except HubError:
        raise
    except OSError as error:
        raise _disk_error(error, source, blob.parent) from error


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
    place = _Place(repo, folder, revision)
    if constants.HF_HUB_OFFLINE:
        found = next((old for old in _snapshots(repo, folder) if old.is_dir()), None)
        if found is None:
            raise _offline_error(place)
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
    entries = _entries(_Place(repo, folder, revision), recursive=True)
    return sorted(entry.path for entry in entries if isinstance(entry, RepoFile))


def check_access(repo: str, path: str = "config.json") -> None:
    """Ask the hub whether this machine may read a repository; downloads nothing.

    Raises:
        HubError: It may not; `reason` is ``"token"`` or ``"access"`` where a licence is the cause.
    """
    _Source(repo, path, "main")


class RangeFile(io.RawIOBase):
    """A file of the hub that is read in parts, without being downloaded. Seekable, thread-safe.

    Small reads are widened to a few kilobytes and kept, so that the next ones near by cost nothing.

    Args:
        repo: Repository.
        path: Path of the file in it.
        revision: Branch, tag or commit.

    Raises:
        HubError: The file cannot be had; on reading also where the server ignores ranges.
    """

    def __init__(self, repo: str, path: str, *, revision: str = "main") -> None:
        self._source = _Source(repo, path, revision)
        self._position = 0
        self._windows: deque[tuple[int, bytes]] = deque(maxlen=WINDOWS)
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The file's page on the hub."""
        return self._source.address

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._source.size

    @property
    def bytes_read(self) -> int:
        """Bytes of the file that were received."""
        return self._source.received

    @property
    def requests(self) -> int:
        """Requests made, those that failed and those to the hub's own address included."""
        return self._source.requests

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte of the file; costs nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, f"seek to {base + offset}: a file begins at 0")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer from the present position; short only at the end of the file."""
        content = self.at(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def at(self, offset: int, length: int) -> bytes:
        """Bytes of the file, wherever its position is; fewer only at its end.

        Raises:
            ValueError: For more than 64 MB: `fetch` the file.
        """
        stop = min(offset + length, self.size)
        if stop - offset > LARGEST_READ:
            raise ValueError(f"{stop - offset:,} bytes of {self.address} at once: fetch the file")
        if stop <= offset:
            return b""
        with self._lock:
            for begin, content in self._windows:
                if begin <= offset and stop <= begin + len(content):
                    return content[offset - begin : stop - begin]
            begin = max(0, min(offset, self.size - WINDOW))
            end = min(max(stop, offset + WINDOW), self.size)
            content = b"".join(self._source.chunks(begin, end))
            self._windows.append((begin, content))
        return content[offset - begin : stop - begin]


class _Place:
    """A file or folder of a repository, by name."""

    def __init__(self, repo: str, path: str, revision: str) -> None:
        self.repo, self.path, self.revision = repo, path, revision

    @property
    def page(self) -> str:
        return f"{constants.ENDPOINT}/{self.repo}"

    @property
    def address(self) -> str:
        return f"{self.page}/blob/{self.revision}/{self.path}" if self.path else self.page


class _Source(_Place):
    """A file on the hub: its size, its hash, and the address that serves its bytes."""

    def __init__(self, repo: str, path: str, revision: str) -> None:
        super().__init__(repo, path, revision)
        if constants.HF_HUB_OFFLINE:
            raise _offline_error(self)
        self.requests = self.received = 0
        self._locate()

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to `stop`, over as many connections as it takes.

        Raises:
            HubError: They cannot be had.
        """
        failures, renewed = 0, False
        while start < stop:
            self.requests += 1
            try:
                with self._get(start, stop) as response:
                    self._check_answer(response, start, stop)
                    for received in _body(response):
                        chunk = received[: stop - start]
                        start += len(chunk)
                        self.received += len(chunk)
                        failures, renewed = 0, False
                        yield chunk
                if start < stop:
                    raise ConnectionError("the answer ended early")
            except FAILURES as error:
                expired = isinstance(error, _RefusedError) and _status(error) in (401, 403)
                if expired and not renewed:
                    # The storage's address is signed for some minutes only: ask for a new one.
                    self._locate()
                    renewed = True
                else:
                    failures += 1
                    _wait_or_raise(error, failures, self)

    def _locate(self) -> None:
        url = hf_hub_url(self.repo, self.path, revision=self.revision)
        failures, found = 0, None
        while found is None:
            self.requests += 1
            try:
                found = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            except FAILURES as error:
                failures += 1
                _wait_or_raise(error, failures, self)
        if found.size is None or found.etag is None:
            raise HubError(
                f"{constants.ENDPOINT} does not tell size and hash of {self.address}, so it is no "
                "Hugging Face hub: look at HF_ENDPOINT, and at the proxy if there is one",
                reason="server",
            )
        if getattr(self, "etag", found.etag) != found.etag:
            raise HubError(f"{self.address} changed meanwhile: call again", reason="damaged")
        self.size, self.etag, self._location = found.size, found.etag, found.location
        self._headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if urlsplit(url)[:2] != urlsplit(self._location)[:2]:
            # The storage's address is signed, and a token is for the hub alone.
            self._headers.pop("authorization", None)

    def _get(self, start: int, stop: int) -> AbstractContextManager[Any]:
        headers = {**self._headers, "Range": f"bytes={start}-{stop - 1}"}
        timeout, session = constants.HF_HUB_DOWNLOAD_TIMEOUT, get_session()
        if callable(session.stream):  # httpx, since huggingface_hub 1.0; requests before
            return session.stream("GET", self._location, headers=headers, timeout=timeout)
        older: Any = session
        return closing(older.get(self._location, headers=headers, timeout=timeout, stream=True))

    def _check_answer(self, response: Any, start: int, stop: int) -> None:
        """Raise unless the server sends what was asked for, of a file of the announced size."""
        status, headers = response.status_code, response.headers
        if status not in (200, 206, 416):
            raise _RefusedError(response)
        if status == 200 and (start, stop) != (0, self.size):
            raise HubError(
                f"the server of {self.address} ignores ranges and would send all of its "
                f"{self.size:,} bytes: fetch the whole file",
                reason="range",
            )
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
        total = span[2] if span else headers.get("Content-Length", "*")
        if status == 416 or (total != "*" and int(total) != self.size):
            raise HubError(
                f"{self.address} has {self.size:,} bytes by the hub and {total} in its storage: it "
                f"is cut short there. Choose another file, or tell {self.page}/discussions",
                reason="damaged",
            )
        if status == 206 and (span is None or span[1] is None or int(span[1]) != start):
            raise ConnectionError("the answer is another part of the file")


class _RefusedError(OSError):
    """An answer of the storage with an error status; without its address, which is signed."""

    def __init__(self, response: Any) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


def _body(response: Any) -> Iterator[bytes]:
    """The answer's bytes as they arrive: what waits to fill a larger piece is lost by a cut."""
    if hasattr(response, "iter_bytes"):
        return response.iter_bytes()
    return response.iter_content(8192)


def _download(source: _Source, blob: Path, check: Callable[[Path], None] | None) -> None:
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
        raise HubError(
            f"{why} The file arrived as the hub has it ({source.size:,} bytes), so it was deleted "
            "and another download will not help: choose another SAE, or tell "
            f"{source.page}/discussions",
            reason="damaged",
        ) from error
    partial.replace(blob)


def _receive(source: _Source, partial: Path) -> None:
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


def _link(source: _Source, blob: Path) -> Path:
    """The file in the snapshot of its commit; `blob` is there, so nothing is downloaded."""
    try:
        found = hf_hub_download(source.repo, source.path, revision=source.revision)
    except FAILURES as error:
        raise _explained(error, source) from None
    path = Path(found)
    if not path.is_symlink() and blob.exists():
        # Where there are no links (Windows) the file was copied: one copy is enough.
        blob.unlink()
    return path


def _same_hash(path: Path, source: _Source) -> bool:
    """Whether a file has the hash that the hub names it by: SHA-256, or git's for small files."""
    with path.open("rb") as file:
        if len(source.etag) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == source.etag
        if len(source.etag) == 40:
            content = file.read()
            named = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
            return named.hexdigest() == source.etag
    return True


def _check_space(source: _Source, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HubError(
            f"{source.address} needs {needed:,} more bytes and {free:,} are free in {folder}: make "
            "room, or set HF_HOME to a folder on a larger disk before Python starts",
            reason="disk",
        )


def _disk_error(error: OSError, source: _Source, folder: Path) -> HubError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = f"{shutil.disk_usage(folder).free:,}" if folder.exists() else "no"
        why = f"the disk is full: it needs {source.size:,} bytes and {free} are free"
        todo = "make room, or set HF_HOME to a folder on a larger disk before Python starts"
    else:
        why = f"it cannot be written ({error.strerror or error})"
        todo = "set HF_HOME to a folder that you may write to before Python starts"
    return HubError(f"{source.address} to {folder}: {why}. Next: {todo}", reason="disk")


def _snapshots(repo: str, path: str) -> list[Path]:
    """A path of a repository in each cached revision, the newest first."""
    root = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))
    revisions = sorted((root / "snapshots").glob("*"), key=lambda p: p.stat().st_mtime)
    return [revision / path for revision in reversed(revisions)]


def _entries(place: _Place, *, recursive: bool = False) -> list[RepoFile | RepoFolder]:
    if constants.HF_HUB_OFFLINE:
        raise _offline_error(place)
    try:
        return list(
            HfApi(endpoint=constants.ENDPOINT).list_repo_tree(
                place.repo, place.path or None, revision=place.revision, recursive=recursive
            )
        )
    except FAILURES as error:
        raise _explained(error, place) from None


def _wait_or_raise(error: Exception, failures: int, place: _Place) -> None:
    """Sleep before another attempt, or raise what the user should read."""
    permanent = isinstance(error, HubError | OfflineModeIsEnabled | FileMetadataError)
    status, pause = _status(error), _pause(error)
    if (
        permanent
        or failures >= TRIES
        or (status is not None and status not in TEMPORARY)
        or (pause or 0) > LONGEST_WAIT
    ):
        # Without its cause, which may show a signed address: for some minutes that is a token.
        raise _explained(error, place) from None
    sleep(2 ** (failures - 1) if pause is None else pause)


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _pause(error: Exception) -> int | None:
    """Seconds that the server asks to wait, by either of the headers in use."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "")
    if asked.isdigit():
        return int(asked)
    spent = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("RateLimit", ""))
    return int(spent[1]) if spent else None


def _explained(error: Exception, place: _Place) -> HubError:
    """What a failure means, and the next step."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return _offline_error(place)
    status = _status(error)
    if status in (401, 403) and isinstance(error, _RefusedError):
        why = f"the storage does not take the address that the hub gave ({status}): is there a "
        return HubError(f"{place.address}: {why}proxy in between? Call again", reason="server")
    if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
        return _access_error(error, status, place)
    if isinstance(error, RevisionNotFoundError):
        why = f"{place.page} has no revision {place.revision!r}: 'main' is the usual one"
        return HubError(why, reason="missing")
    if isinstance(error, EntryNotFoundError):
        near = _nearest(place)
        hint = f"the nearest there are {near}" if near else f"look at {place.page}/tree/main"
        return HubError(f"{place.page} has no {place.path!r} (404); {hint}", reason="missing")
    if status == 429:
        pause = _pause(error)
        when = "in some minutes" if pause is None else f"in {pause} seconds"
        hint = "" if get_token() else "; a token (`hf auth login`) allows more"
        why = f"the hub has had too many requests from here (429): call again {when}{hint}"
        return HubError(f"{place.address}: {why}", reason="busy")
    if status is not None:
        why = f"the server answered with an error ({status}), {TRIES} times: call again later"
        return HubError(f"{place.address}: {why}", reason="server")
    if isinstance(error, FileMetadataError):
        return HubError(f"{constants.ENDPOINT} is no Hugging Face hub: {error}", reason="server")
    why = f"the connection failed ({type(error).__name__}): look at the network and call again"
    return HubError(f"{place.address}: {why}", reason="connection")


def _access_error(error: Exception, status: int | None, place: _Place) -> HubError:
    login = f"make a read token at {constants.ENDPOINT}/settings/tokens and run `hf auth login`"
    if isinstance(error, GatedRepoError):
        if status == 403:
            why = (
                f"{place.repo} asks for a licence that the account of your token has not accepted "
                f"(403): open {place.page}, accept it, and call again"
            )
            return HubError(why, reason="access")
        had = "the token of this machine is not accepted" if get_token() else "there is no token"
        why = f"{place.repo} asks for a licence, and {had} (401): open {place.page}, accept the "
        return HubError(f"{why}licence there, {login}", reason="token")
    if isinstance(error, RepositoryNotFoundError):
        why = (
            f"there is no repository {place.page}, or it is private ({status}): look at its name; "
            f"if it is private, {login}"
        )
        return HubError(why, reason="missing")
    if status == 401:
        why = f"the hub does not accept the token of this machine (401): {login}"
        return HubError(f"{place.page}: {why}", reason="token")
    why = f"the token of this machine may not read it (403): {login}, with an account that may"
    return HubError(f"{place.page}: {why}", reason="access")


def _offline_error(place: _Place) -> HubError:
    command = " ".join(["hf download", place.repo, place.path]).rstrip()
    return HubError(
        f"HF_HUB_OFFLINE is set and {place.path or place.repo} of {place.repo} is not in the cache "
        f"({constants.HF_HUB_CACHE}). Next: `{command}` where there is a network, or start Python "
        "without HF_HUB_OFFLINE",
        reason="offline",
    )


def _nearest(place: _Place) -> str:
    """Names like the one that is missing, from the deepest folder on its way that there is."""
    parts = place.path.split("/")
    for depth in reversed(range(len(parts))):
        folder = "/".join(parts[:depth])
        try:
            tree = HfApi(endpoint=constants.ENDPOINT).list_repo_tree(
                place.repo, folder or None, revision=place.revision
            )
            names = [entry.path for entry in tree]
        except EntryNotFoundError:
            continue
        except FAILURES:
            return ""
        return ", ".join(get_close_matches("/".join(parts[: depth + 1]), names, 3, 0.0))
    return ""
