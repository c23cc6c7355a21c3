"""What Neuronpedia knows of features: its bulk exports and its feature API, kept on disk.

    pages = Neuronpedia("neuronpedia.sqlite")
    pages.feature("gemma-2-2b", "20-gemmascope-res-16k", 12082)    # asks once, then never again
    pages.fetch("gemma-2-2b", "20-gemmascope-res-16k")             # a whole source's explanations
    pages.labels("gemma-2-2b", "20-gemmascope-res-16k", site)      # for Labels.add_all

The exports are JSON lines, gzipped, in batches: ``v1/model/source/features/batch-0.jsonl.gz`` and
so on for ``activations`` and ``explanations``. They come one file at a time, each in one step, so a
fetch that was killed goes on where it was. The API gives everything of one feature at once (about
1 MB); it allows 25,000 requests an hour and asks not to be used for what the exports have, so
requests here keep a distance. What is kept is never asked for again: offline it works as before.

All 26 transcoder sources of Gemma 2 2B are marked: their dashboards were made from activations
that the transcoders were not trained on (the residual stream before the norm).
"""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal, get_args
from urllib.parse import quote
from xml.etree import ElementTree

from tqdm.auto import tqdm

from workbench.labels.files import Form
from workbench.labels.neuronpedia_pages import (
    ADDRESS,
    Page,
    as_label,
    checked,
    joined,
    packed,
    page_of,
    unpacked,
)
from workbench.labels.records import Label
from workbench.labels.web import Web, WebError
from workbench.sites import Site

Part = Literal["features", "activations", "explanations"]
EXPORTS = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
KEY = "NEURONPEDIA_API_KEY"
"""Environment variable; public features need none."""
DISTANCE = 3600 / 20_000
"""Seconds between requests: its limit is 25,000 an hour for everything from one address."""
TABLES = """
CREATE TABLE pieces (
    model TEXT, source TEXT, feature INTEGER, part TEXT, id TEXT, data BLOB,
    PRIMARY KEY (model, source, feature, part, id)
) WITHOUT ROWID;
CREATE TABLE files (model TEXT, source TEXT, part TEXT, name TEXT, lines INTEGER,
    PRIMARY KEY (model, source, part, name));
"""
FORM = Form(
    "data of Neuronpedia", 0x57424E31, 1, TABLES, "SELECT model FROM pieces LIMIT 1"
)  # "WBN1"
PAGE = "page"
"""The part that the API gives: everything of a feature."""
LINES = 512


class Neuronpedia:
    """Neuronpedia's data on this machine, and the way to more of it."""

    def __init__(
        self,
        path: str | Path,
        *,
        address: str = ADDRESS,
        exports: str = EXPORTS,
        key: str | None = KEY,
        offline: bool = False,
    ) -> None:
        """Open what is kept, or begin.

        Args:
            path: The file; several notebooks at once may use it.
            address: Of Neuronpedia, or of a copy of one's own.
            exports: Where the bulk exports are.
            key: Name of the environment variable with the key, which is only sent to `address`.
            offline: Ask nobody.

        Raises:
            ValueError: If there is another kind of file; it is left as it is.
        """
        self.path, self.offline = Path(path), offline
        self._api = Web(address, key=key, header="x-api-key")
        self._exports = Web(exports, key=None, header="x-api-key")
        self._lock = threading.RLock()
        self._next = 0.0
        self._connection = FORM.connect(self.path)

    def close(self) -> None:
        """Let go of the file and the connections."""
        self._connection.close()
        self._api.close()
        self._exports.close()

    def __enter__(self) -> Neuronpedia:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = self._rows("SELECT model, source, count(DISTINCT feature) FROM pieces GROUP BY 1, 2")
        held = ", ".join(f"{count:,} of {model}/{source}" for model, source, count in rows)
        return f"<Neuronpedia at {self.path}: {held or 'nothing yet'}>"

    def feature(self, model: str, source: str, index: int) -> Page:
        """Everything that Neuronpedia has of a feature, from disk if it is there.

        Args:
            model: As Neuronpedia calls it, such as ``"gemma-2-2b"``.
            source: Such as ``"20-gemmascope-res-16k"``.
            index: The feature.

        Raises:
            WebError: If it is not here and cannot be had.
        """
        kept = self._kept(model, source, index)
        whole = kept.get(PAGE) or ([joined(kept)] if kept.get("features") else [])
        if not whole:
            whole = [self._ask(model, source, index)]
            self._keep(model, source, PAGE, whole)
        return page_of(model, source, index, whole[0])

    def _ask(self, model: str, source: str, index: int) -> dict[str, Any]:
        path = f"/api/feature/{quote(model, safe='')}/{quote(source, safe='')}/{int(index)}"
        self._check_online(f"{model}/{source}/{index}")
        with self._lock:
            sleep(max(0.0, self._next - monotonic()))
            self._next = monotonic() + DISTANCE
        found = self._api.get_json(path)
        if not isinstance(found, dict) or str(found.get("index")) != str(index):
            raise WebError(
                f"{self._api.base}{path} answered with something else than that feature",
                reason="answer",
            )
        return found

    def fetch(
        self,
        model: str,
        source: str,
        parts: Sequence[Part] = ("explanations",),
        *,
        progress: bool = True,
    ) -> int:
        """Take in a source's bulk export from the network; what is here already is passed over.

        Args:
            model: As Neuronpedia calls it.
            source: The source.
            parts: ``"explanations"`` (20 MB for 16k features), ``"features"`` (17 MB) and
                ``"activations"`` (340 MB).
            progress: Show a bar.

        Returns:
            Lines that were new.

        Raises:
            WebError: If it cannot be had; whole files that came are kept.
        """
        new = 0
        for part in parts:
            if part not in get_args(Part):
                raise ValueError(f"parts are {', '.join(get_args(Part))}, got {part!r}")
            self._check_online(f"{part} of {model}/{source}")
            names = self._listed(f"v1/{model}/{source}/{part}/")
            if not names:
                raise WebError(
                    f"{self._exports.host} has no {part} of {model}/{source}: look at the names at "
                    f"{EXPORTS}/index.html?prefix=v1/",
                    reason="missing",
                )
            for name in tqdm(names, desc=part, unit="file", disable=not progress):
                if not self._has_file(model, source, part, name.rpartition("/")[2]):
                    content = self._exports.get(f"/{quote(name)}")
                    new += self._take(model, source, part, name.rpartition("/")[2], content)
        return new

    def load(self, folder: str | Path, *, progress: bool = True) -> int:
        """Take in an export that was downloaded: a folder ``model/source`` as it is published.

        Args:
            folder: With subfolders ``features``, ``activations``, ``explanations``, or some of
                them. Its last two names are taken for model and source.
            progress: Show a bar.

        Returns:
            Lines that were new.

        Raises:
            ValueError: If there is nothing of the kind, or a file is damaged; says which.
        """
        folder = Path(folder).resolve()
        model, source = folder.parent.name, folder.name
        files = [(part, p) for part in get_args(Part) for p in sorted(folder.glob(f"{part}/*.gz"))]
        if not files:
            raise ValueError(
                f"{folder} has no features/, activations/ or explanations/ with *.jsonl.gz: give "
                "the folder model/source of an export"
            )
        new = 0
        for part, path in tqdm(files, desc=source, unit="file", disable=not progress):
            if not self._has_file(model, source, part, path.name):
                new += self._take(model, source, part, path.name, path.read_bytes())
        return new

    def labels(self, model: str, source: str, site: Site) -> tuple[list[Label], list[str]]:
        """The explanations of a source that are here, as labels, and the id of each.

        For ``labels.add_all(found, ids=ids)``: added again, they are there once.
        """
        rows = self._rows(
            "SELECT feature, part, data FROM pieces WHERE model = ? AND source = ? "
            "AND part IN (?, ?) ORDER BY feature",
            (model, source, "explanations", PAGE),
        )
        found: dict[str, Label] = {}
        for feature, part, data in rows:
            content = unpacked(data)
            said = content.get("explanations") or [] if part == PAGE else [content]
            for one in said:
                name = f"neuronpedia-{one.get('id') or f'{source}-{feature}'}"
                label = as_label(model, source, site, feature, one)
                if label is not None and name not in found:
                    found[name] = label
        return list(found.values()), list(found)

    def _listed(self, prefix: str) -> list[str]:
        """The gzipped files below a prefix, by the storage's listing (S3, version 2)."""
        names, token = [], ""
        while True:
            more = f"&continuation-token={quote(token, safe='')}" if token else ""
            address = f"/?list-type=2&prefix={quote(prefix, safe='')}{more}"
            content = self._exports.get(address)
            try:
                tree = ElementTree.fromstring(content)
            except ElementTree.ParseError:
                raise WebError(
                    f"{self._exports.host} gave no listing: is there a proxy in between?",
                    reason="answer",
                ) from None
            found = {e.tag.rpartition("}")[2]: e.text or "" for e in tree}
            keys = [e.text or "" for e in tree.iter() if e.tag.rpartition("}")[2] == "Key"]
            # Nothing deeper: folders below hold drafts.
            names += [k for k in keys if k.endswith(".gz") and "/" not in k.removeprefix(prefix)]
            token = found.get("NextContinuationToken", "")
            if not token:
                return names

    def _take(self, model: str, source: str, part: str, name: str, content: bytes) -> int:
        """Take in one file, all of it or nothing."""
        try:
            lines = gzip.decompress(content).decode("utf-8").splitlines()
            found = [checked(line, model, source) for line in lines if line.strip()]
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{part}/{name} of {model}/{source} is damaged or of another source "
                f"({type(error).__name__}: {error}); nothing of it was taken in"
            ) from error
        return self._keep(model, source, part, found, name)

    def _keep(
        self, model: str, source: str, part: str, found: Iterable[dict[str, Any]], name: str = ""
    ) -> int:
        rows = (
            (model, source, int(one["index"]), part, str(one.get("id", "")), packed(one))
            for one in found
        )
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                before, lines = self._connection.total_changes, 0
                while chunk := list(islice(rows, LINES)):
                    self._connection.executemany(
                        "INSERT OR IGNORE INTO pieces VALUES (?, ?, ?, ?, ?, ?)", chunk
                    )
                    lines += len(chunk)
                new = self._connection.total_changes - before
                if name:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?)",
                        (model, source, part, name, lines),
                    )
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        return new

    def _kept(self, model: str, source: str, index: int) -> dict[str, list[dict[str, Any]]]:
        rows = self._rows(
            "SELECT part, data FROM pieces WHERE model = ? AND source = ? AND feature = ?",
            (model, source, int(index)),
        )
        found: dict[str, list[dict[str, Any]]] = {}
        for part, data in rows:
            found.setdefault(part, []).append(unpacked(data))
        return found

    def _has_file(self, model: str, source: str, part: str, name: str) -> bool:
        where = "SELECT 1 FROM files WHERE model = ? AND source = ? AND part = ? AND name = ?"
        return bool(self._rows(where, (model, source, part, name)))

    def _rows(self, query: str, values: tuple = ()) -> list[tuple]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def _check_online(self, what: str) -> None:
        if self.offline:
            raise WebError(
                f"{what} is not in {self.path}, and offline=True: open it without",
                reason="connection",
            )
