"""One file on the hub: where its bytes are, and how they arrive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session

from workbench.sae.hub.failures import (
    FAILURES,
    HubError,
    Place,
    RefusedError,
    offline_error,
    status_of,
    wait_or_raise,
)


class Source(Place):
    """A file on the hub: its size, its hash, and the address that serves its bytes."""

    def __init__(self, repo: str, path: str, revision: str) -> None:
        super().__init__(repo, path, revision)
        if constants.HF_HUB_OFFLINE:
            raise offline_error(self)
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
                expired = isinstance(error, RefusedError) and status_of(error) in (401, 403)
                if expired and not renewed:
                    # The storage's address is signed for some minutes only: ask for a new one.
                    self._locate()
                    renewed = True
                else:
                    failures += 1
                    wait_or_raise(error, failures, self)

    def _locate(self) -> None:
        url = hf_hub_url(self.repo, self.path, revision=self.revision)
        failures, found = 0, None
        while found is None:
            self.requests += 1
            try:
                found = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            except FAILURES as error:
                failures += 1
                wait_or_raise(error, failures, self)
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
            raise RefusedError(response)
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


def _body(response: Any) -> Iterator[bytes]:
    """The answer's bytes as they arrive: what waits to fill a larger piece is lost by a cut."""
    if hasattr(response, "iter_bytes"):
        return response.iter_bytes()
    return response.iter_content(8192)
