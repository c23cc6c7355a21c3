"""What goes wrong between here and the hub: when to try again, and what to tell the user."""

from __future__ import annotations

import re
from difflib import get_close_matches
from time import sleep
from typing import Any, cast

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from workbench.colab import SECRET, in_colab

# What goes wrong on the way: huggingface_hub stands on requests, httpx or httpx2, whichever its
# version is, and its own error is a subclass of theirs.
FAILURES = (OSError, cast(type[Exception], HfHubHTTPError.__mro__[1]))
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
TRIES = 5
"""Attempts that may fail in a row. Any byte that arrives starts the count again."""
LONGEST_WAIT = 60
"""Seconds. A server that asks for a longer pause is not waited for: the error says how long."""


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


class Place:
    """A file or folder of a repository, by name."""

    def __init__(self, repo: str, path: str, revision: str) -> None:
        self.repo, self.path, self.revision = repo, path, revision

    @property
    def page(self) -> str:
        """The repository's page."""
        return f"{constants.ENDPOINT}/{self.repo}"

    @property
    def address(self) -> str:
        """The page of the file or folder itself."""
        return f"{self.page}/blob/{self.revision}/{self.path}" if self.path else self.page


class RefusedError(OSError):
    """An answer of the storage with an error status; without its address, which is signed."""

    def __init__(self, response: Any) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


def wait_or_raise(error: Exception, failures: int, place: Place) -> None:
    """Sleep before another attempt, or raise what the user should read."""
    permanent = isinstance(error, HubError | OfflineModeIsEnabled | FileMetadataError)
    status, pause = status_of(error), _pause(error)
    if (
        permanent
        or failures >= TRIES
        or (status is not None and status not in TEMPORARY)
        or (pause or 0) > LONGEST_WAIT
    ):
        # Without its cause, which may show a signed address: for some minutes that is a token.
        raise explained(error, place) from None
    sleep(2 ** (failures - 1) if pause is None else pause)


def status_of(error: Exception) -> int | None:
    """The HTTP status behind a failure, if there was an answer at all."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _pause(error: Exception) -> int | None:
    """Seconds that the server asks to wait, by either of the headers in use."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "")
    if asked.isdigit():
        return int(asked)
    spent = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("RateLimit", ""))
    return int(spent[1]) if spent else None


def explained(error: Exception, place: Place) -> HubError:
    """What a failure means, and the next step."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return offline_error(place)
    status = status_of(error)
    if status in (401, 403) and isinstance(error, RefusedError):
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
        hint = "" if get_token() else f"; a token allows more ({_keep_token()})"
        why = f"the hub has had too many requests from here (429): call again {when}{hint}"
        return HubError(f"{place.address}: {why}", reason="busy")
    if status is not None:
        why = f"the server answered with an error ({status}), {TRIES} times: call again later"
        return HubError(f"{place.address}: {why}", reason="server")
    if isinstance(error, FileMetadataError):
        return HubError(f"{constants.ENDPOINT} is no Hugging Face hub: {error}", reason="server")
    why = f"the connection failed ({type(error).__name__}): look at the network and call again"
    return HubError(f"{place.address}: {why}", reason="connection")


def _access_error(error: Exception, status: int | None, place: Place) -> HubError:
    login = f"make a read token at {constants.ENDPOINT}/settings/tokens and {_keep_token()}"
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


def _keep_token() -> str:
    return SECRET if in_colab() else "run `hf auth login`"


def offline_error(place: Place) -> HubError:
    """What to say where the network is switched off and the cache lacks the file."""
    command = " ".join(["hf download", place.repo, place.path]).rstrip()
    missing = f"{place.path} of {place.repo}" if place.path else place.repo
    return HubError(
        f"HF_HUB_OFFLINE is set and {missing} is not in the cache "
        f"({constants.HF_HUB_CACHE}). Next: `{command}` where there is a network, or start Python "
        "without HF_HUB_OFFLINE",
        reason="offline",
    )


def _nearest(place: Place) -> str:
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
