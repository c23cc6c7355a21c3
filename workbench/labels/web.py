"""Requests to servers that are no Hugging Face hub: language models and Neuronpedia.

The only module of this package that uses the network. A key is read from the environment for each
request and kept nowhere; it goes to the address that was asked for and, as redirects are not
followed, to no other; what a server answers is searched for it before any of it is shown.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import sleep, time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    # At run time by the first request: it takes as long to load as a heatmap to draw.
    import httpx

TEMPORARY = (408, 409, 425, 429, 500, 502, 503, 504, 529)
TRIES = 5
"""Attempts at one request."""
LONGEST_WAIT = 60.0
"""Seconds. A server that asks for a longer pause is not waited for: the error says how long."""
TIMEOUT, CONNECT = 120.0, 10.0
"""Seconds for an answer, and for a connection."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class WebError(OSError):
    """A server did not give what it was asked for; the message says why, and what to do next.

    Attributes:
        reason: ``"key"`` (none, or not accepted), ``"refused"``, ``"missing"``, ``"busy"``,
            ``"server"``, ``"connection"`` or ``"answer"`` (what came makes no sense).
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Web:
    """Requests to one server."""

    def __init__(self, base: str, *, key: str | None, header: str, scheme: str = "") -> None:
        """Nothing is sent yet.

        Args:
            base: Address that all requests begin with.
            key: Name of the environment variable that holds the key; None to send none.
            header: The header that takes it.
            scheme: What stands before it there, such as ``"Bearer "``.

        Raises:
            ValueError: If `base` is no address or holds a secret, or `key` is no name.
        """
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"give an address such as 'https://host/v1', got {_no_secret(base)!r}")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                f"the address of {parts.hostname} holds a name, a password or a query: give it "
                "without, and the key in an environment variable"
            )
        if key is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            # It may be the key itself, so it is not repeated.
            raise ValueError(
                "key= takes the name of an environment variable in capitals, such as "
                "'OPENAI_API_KEY', and never the key itself"
            )
        if key and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError(
                f"a key is not sent to http://{parts.hostname} unencrypted: use https, or key=None"
            )
        self.base, self.key = base.rstrip("/"), key
        self.host = parts.hostname + (f":{parts.port}" if parts.port else "")
        self._header, self._scheme = header, scheme
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:  # jobs ask from several threads
            if self._client is None:
                timeout = httpx.Timeout(TIMEOUT, connect=CONNECT)
                self._client = httpx.Client(timeout=timeout, follow_redirects=False)
            return self._client

    def get(self, path: str) -> bytes:
        """The content at a path below the address."""
        return self._ask("GET", path, None).content

    def get_json(self, path: str) -> Any:
        """As `get`, parsed."""
        return self._json("GET", path, None)

    def post_json(self, path: str, body: Mapping[str, Any]) -> Any:
        """The parsed answer to a JSON body."""
        return self._json("POST", path, body)

    def has_key(self) -> bool:
        """Whether the environment holds the key."""
        return bool(self._secret())

    def _secret(self) -> str:
        return os.environ.get(self.key, "").strip() if self.key else ""

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        for attempt in (1, 2):
            response = self._ask(method, path, body)
            try:
                return response.json()
            except ValueError:
                if attempt == 2:
                    kind = response.headers.get("Content-Type", "unknown content")
                    raise WebError(
                        f"{self.base}{path} answered with {kind} instead of JSON: is that the "
                        "address of the API, and is there a proxy in between?",
                        reason="answer",
                    ) from None
        raise AssertionError

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        import httpx

        client = self._opened()
        for attempt in range(1, TRIES + 1):
            secret = self._secret()
            headers = {self._header: f"{self._scheme}{secret}"} if secret else {}
            pause, response = float(2 ** (attempt - 1)), None
            try:
                response = client.request(method, self.base + path, json=body, headers=headers)
                if response.is_success:
                    return response
                pause = _asked_pause(response, pause)
                problem = self._explained(response, path)
            except (httpx.TransportError, OSError) as error:
                problem = WebError(
                    f"the connection to {self.host} failed ({type(error).__name__}), {attempt} "
                    "times: look at the network and run again",
                    reason="connection",
                )
            if (
                attempt == TRIES
                or (response is not None and response.status_code not in TEMPORARY)
                or pause > LONGEST_WAIT
            ):
                # Without its cause: that holds the request and so the key.
                raise problem from None
            sleep(pause)
        raise AssertionError

    def _explained(self, response: httpx.Response, path: str) -> WebError:
        status = response.status_code
        where = f"{self.base}{path}"
        if status in (401, 403):
            if self.key is None:
                return WebError(
                    f"{self.host} refuses {path} ({status}): it asks for a key, or has nothing "
                    "there",
                    reason="key",
                )
            had = f"does not accept the key in {self.key}" if self._secret() else "asks for a key"
            name = self.key
            return WebError(
                f"{self.host} {had} ({status}): put a valid one into {name} before Python starts",
                reason="key",
            )
        if status == 429:
            pause = _asked_pause(response, 0.0)
            when = f"in {pause:.0f} seconds" if pause else "later"
            return WebError(
                f"{self.host} has had too many requests, or the account is spent (429): run again "
                f"{when}{self._said(response)}",
                reason="busy",
            )
        if status == 404:
            return WebError(
                f"{where} does not exist (404): look at the address and at the name of the model"
                f"{self._said(response)}",
                reason="missing",
            )
        if status < 400:
            return WebError(f"{where} has moved ({status}): give the new address", reason="refused")
        reason = "server" if status in TEMPORARY else "refused"
        return WebError(
            f"{where} answered with an error ({status}){self._said(response)}", reason=reason
        )

    def _said(self, response: httpx.Response) -> str:
        """What the server says of it, without the key, which some repeat."""
        text = " ".join(response.text.split())[:300]
        secret = self._secret()
        if secret:
            text = text.replace(secret, "***")
        text = _no_secret(text)
        return f"; it says: {text}" if text else ""


def _no_secret(text: str) -> str:
    """Without what looks like a key, whole or shortened, or a password in an address."""
    text = re.sub(r"//[^/@\s]*@", "//***@", text)
    return re.sub(r"\b(sk|gsk|hf|key|xai|AIza|Bearer)[-_ ]?[\w*.-]{8,}", "***", text)


def _asked_pause(response: httpx.Response, otherwise: float) -> float:
    """Seconds that the server asks to wait, as a number or as a date."""
    asked = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", asked):
        return float(asked)
    try:
        return max(parsedate_to_datetime(asked).timestamp() - time(), 0.0)
    except ValueError:
        return otherwise
