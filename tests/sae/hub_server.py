"""A hub on the loopback: two servers that speak as much of the protocol as downloads use.

One stands for the hub (addresses, metadata, API), one on another port for the storage behind it,
because a client must treat the two differently: the storage's addresses are signed, and a token
must not reach it. Large files (LFS) are announced by the hub and redirected to the storage; small
ones the hub serves itself, after a relative redirect. Status codes and headers are those that
huggingface_hub reads (`file_download.get_hf_file_metadata`, `utils._http.hf_raise_for_status`).

    with Hub() as hub:
        hub.put("google/gemma-scope-2b-pt-res", "layer_0/.../params.npz", path_or_bytes)
        hub.fault(path, cut_after=1000, times=1)
        ...
        hub.served(path)        # bytes of it that went out
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

COMMIT = "5" * 40
PIECE = 16384
LIMITED = "Access to this repository is restricted."
INVALID = "Invalid credentials in Authorization header"  # huggingface_hub compares this text


@dataclass(frozen=True)
class Stored:
    """A file of a repository."""

    content: bytes | Path
    size: int
    etag: str
    lfs: bool


@dataclass
class Fault:
    """What goes wrong with a file, on the first `times` requests that it concerns."""

    times: float = float("inf")
    where: str = "storage"
    """Which server: ``"hub"`` or ``"storage"``."""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes after which the connection breaks."""
    keep: int | None = None
    """Bytes that the storage still has of the file."""
    stall: bool = False
    """Whether the server falls silent where it would cut."""
    speed: int | None = None
    """Bytes per second."""
    ignores_range: bool = False


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    where: str
    method: str
    path: str
    range: str
    authorized: bool


class Hub:
    """Repositories served on the loopback."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Stored]] = {}
        self.gated: set[str] = set()
        """Repositories with a licence."""
        self.tokens: dict[str, set[str]] = {}
        """Valid token -> gated repositories whose licence it accepted."""
        self.commit = COMMIT
        self.signature = "signed-1"
        """What the storage takes; older addresses have expired."""
        self.asked: list[Asked] = []
        self.sent: dict[str, int] = {}
        self.released = threading.Event()
        self._faults: dict[str, list[Fault]] = {}
        self._lock = threading.Lock()
        self._servers = {name: _server(self, name) for name in ("hub", "storage")}

    def __enter__(self) -> Hub:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return self.address("hub")

    def address(self, name: str) -> str:
        """Address of the hub or of the storage."""
        return f"http://127.0.0.1:{self._servers[name].server_address[1]}"

    def put(
        self, repo: str, path: str, content: bytes | Path, *, lfs: bool = True, etag: str = ""
    ) -> None:
        """Publish a file. Its hash is computed, unless a huge file brings a made-up one."""
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        if not etag:
            data = content.read_bytes() if isinstance(content, Path) else content
            git = hashlib.sha1(f"blob {size}\0".encode() + data).hexdigest()
            etag = hashlib.sha256(data).hexdigest() if lfs else git
        self.repos.setdefault(repo, {})[path] = Stored(content, size, etag, lfs)

    def fault(self, path: str, **fields: Any) -> None:
        """Let something go wrong with a file."""
        self._faults.setdefault(path, []).append(Fault(**fields))

    def mend(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()

    def served(self, path: str) -> int:
        """Bytes of a file that were sent."""
        return self.sent.get(path, 0)

    def requests(self, where: str, method: str = "GET") -> list[Asked]:
        """What a server was asked."""
        return [one for one in self.asked if (one.where, one.method) == (where, method)]

    def take(self, path: str, where: str) -> Fault:
        """The fault of this request, or one that is none."""
        with self._lock:
            for fault in self._faults.get(path, []):
                if fault.where == where and fault.times > 0:
                    fault.times -= 1
                    return fault
        return Fault()

    def count(self, path: str, sent: int) -> None:
        """Note bytes that were sent."""
        with self._lock:
            self.sent[path] = self.sent.get(path, 0) + sent


def _server(hub: Hub, name: str) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away is none of the server's business."""

    handler = type("Handler", (_Handler,), {"hub": hub, "where": name})
    return Server(("127.0.0.1", 0), handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    where: str

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: `Hub.asked` is the log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        token = self.headers.get("Authorization", "")
        asked = Asked(self.where, self.command, path, self.headers.get("Range", ""), bool(token))
        self.hub.asked.append(asked)
        if self.where == "storage":
            self._storage(path, address.query, token)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
            if self._may_read(found[1], listing=True):
                self._api(found[1], found[2] or "", address.query)
        elif found := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/(\w+)/(.+)", path):
            self._serve(found[3], self.hub.repos[found[1]][found[3]], self._commit_header())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if self._may_read(found[1]):
                self._resolve(found[1], found[2], found[3])
        else:
            self._reply(404)

    def _commit_header(self) -> dict[str, str]:
        return {"X-Repo-Commit": self.hub.commit}

    def _may_read(self, repo: str, *, listing: bool = False) -> bool:
        """Whether the request's token reaches a repository; refuses it as the hub does."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            self._refuse(401, "", INVALID)
        elif repo not in self.hub.repos:
            # Whoever has no token cannot be told whether a private one exists.
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repo in self.hub.gated and not listing and repo not in self.hub.tokens.get(token, ()):
            self._refuse(403 if token else 401, "GatedRepo", LIMITED)
        else:
            return True
        return False

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        fault = self.hub.take(path, "hub")
        if fault.status:
            return self._reply(fault.status, fault.headers)
        if revision not in ("main", self.hub.commit):
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        stored = self.hub.repos[repo].get(path)
        if stored is None:
            return self._refuse(404, "EntryNotFound", "Entry not found", self._commit_header())
        headers = self._commit_header() | {"Accept-Ranges": "bytes"}
        if not stored.lfs:
            to = f"/api/resolve-cache/models/{repo}/{self.hub.commit}/{path}"
            return self._reply(307, headers | {"Location": to})
        to = f"{self.hub.address('storage')}/{repo}/{path}?Signature={self.hub.signature}"
        # A client that left the transfer to hf_xet would ask for this token, and fail.
        refresh = f"{self.hub.url}/api/models/{repo}/xet-read-token/{self.hub.commit}"
        headers |= {
            "Location": to,
            "X-Linked-Size": str(stored.size),
            "X-Linked-Etag": f'"{stored.etag}"',
            "X-Xet-Hash": "a" * 64,
            "Link": f'<{refresh}>; rel="xet-auth"',
        }
        return self._reply(302, headers, f"Found. Redirecting to {to}".encode())

    def _storage(self, path: str, query: str, token: str) -> None:
        repo, name = re.fullmatch(r"/([^/]+/[^/]+)/(.+)", path).groups()  # pyright: ignore[reportOptionalMemberAccess]
        if token:
            return self._reply(400, body=b"two ways to authenticate")
        if parse_qs(query).get("Signature") != [self.hub.signature]:
            return self._reply(403, body=b"expired")
        return self._serve(name, self.hub.repos[repo][name], {})

    def _serve(self, path: str, stored: Stored, headers: dict[str, str]) -> None:
        """The file or the range asked for, with the faults that are switched on."""
        fault = self.hub.take(path, self.where) if self.command == "GET" else Fault()
        if fault.status:
            return self._reply(fault.status, fault.headers)
        size = stored.size if fault.keep is None else fault.keep
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"ETag": f'"{stored.etag}"', "Accept-Ranges": "bytes", **headers}
        start, stop, status = 0, size, 200
        if found and not fault.ignores_range:
            start, stop = int(found[1]), min(int(found[2] or size) + 1, size)
            if start >= size:
                return self._reply(416, {"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            status = 206
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(stop - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self._send(path, stored, start, stop, fault)
        return None

    def _send(self, path: str, stored: Stored, start: int, stop: int, fault: Fault) -> None:
        end = stop if fault.cut_after is None else min(stop, start + fault.cut_after)
        for piece in _pieces(stored.content, start, end):
            # Counted first: the client may be done before this thread goes on.
            self.hub.count(path, len(piece))
            with suppress(OSError):
                self.wfile.write(piece)
            if fault.speed:
                self.hub.released.wait(len(piece) / fault.speed)
        if end < stop:
            if fault.stall:
                self.hub.released.wait()
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _api(self, repo: str, rest: str, query: str) -> None:
        files = self.hub.repos[repo]
        if re.fullmatch(r"(/revision/[^/]+)?", rest):
            siblings = [{"rfilename": path} for path in sorted(files)]
            self._json({"id": repo, "modelId": repo, "sha": self.hub.commit, "siblings": siblings})
        elif found := re.fullmatch(r"/tree/[^/]+(?:/(.*))?", rest):
            recursive = parse_qs(query).get("recursive", [""])[0].lower() in ("true", "1")
            entries = _tree(files, found[1] or "", recursive=recursive)
            if entries or not found[1]:
                self._json(entries)
            else:
                self._refuse(404, "EntryNotFound", "Path not found", self._commit_header())
        elif re.fullmatch(r"/paths-info/[^/]+", rest):
            paths = parse_qs(self._body.decode()).get("paths") or json.loads(self._body)["paths"]
            self._json([_described(path, files[path]) for path in paths if path in files])
        else:
            self._reply(404)

    def _json(self, value: object) -> None:
        self._reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _refuse(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self._reply(status, {"X-Error-Message": message, **named, **(headers or {})})

    def _reply(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _pieces(content: bytes | Path, start: int, end: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for begin in range(start, end, PIECE):
            yield content[begin : min(begin + PIECE, end)]
        return
    with content.open("rb") as file:
        file.seek(start)
        while start < end:
            piece = file.read(min(PIECE, end - start))
            yield piece
            start += len(piece)


def _described(path: str, stored: Stored) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": stored.size}
    if not stored.lfs:
        return entry | {"oid": stored.etag}
    lfs = {"oid": stored.etag, "size": stored.size, "pointerSize": 134}
    return entry | {"oid": "b" * 40, "lfs": lfs}


def _tree(files: dict[str, Stored], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = {path: stored for path, stored in files.items() if path.startswith(prefix)}
    entries = {}
    for path, stored in sorted(inside.items()):
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            above = prefix + "/".join(parts[:depth])
            entries[above] = {"type": "directory", "path": above, "oid": "c" * 40, "size": 0}
        entries[path] = _described(path, stored)
    if recursive:
        return list(entries.values())
    return [entry for path, entry in entries.items() if "/" not in path.removeprefix(prefix)]


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """For a process of its own: everything that huggingface_hub reads when it is imported."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return {
        **plain,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1",
    }


def connect(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point this process's huggingface_hub at `hub`, with a cache below `home`.

    It has read the environment long ago, so its constants are set.

    Returns:
        The folder of the cache.
    """
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    values = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DOWNLOAD_TIMEOUT": 5,
        "HF_HUB_ETAG_TIMEOUT": 5,
    }
    # Versions differ in which of their modules hold copies.
    loaded = [m for name, m in sys.modules.items() if name.startswith("huggingface_hub.")]
    for name, value in values.items():
        assert hasattr(constants, name), name
        for module in loaded:
            if name in vars(module):
                monkeypatch.setattr(module, name, value)
    return home / "hub"


def close_connections() -> None:
    """Close the client that huggingface_hub keeps, so that none outlives its server."""
    import huggingface_hub
    from huggingface_hub import utils

    # Another name before 1.0.
    close = getattr(huggingface_hub, "close_session", None) or utils.reset_sessions  # pyright: ignore[reportAttributeAccessIssue]
    close()
