"""Where a model comes from: what a name means, and how its files get here.

Files of the hub come through `workbench.sae.hub`, into Hugging Face's cache: continued if they were
cut, checked by their hash, and from then on used without asking the hub.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from workbench.sae import hub

OWNER = "google"
SHORT_NAMES = (
    *(f"gemma-2-{size}{tuned}" for size in ("2b", "9b", "27b") for tuned in ("", "-it")),
    *("gemma-3-270m", "gemma-3-270m-it"),
    *(f"gemma-3-{size}-{kind}" for size in ("1b", "4b", "12b", "27b") for kind in ("pt", "it")),
)
"""Models that are opened by their name on the hub without its owner."""
CONFIG, SAFE = "config.json", (".safetensors", ".safetensors.index.json")
BESIDE = (".json", ".model", ".jinja", ".txt")
"""Endings of the small files beside the weights: settings, tokenizer, chat template."""
MEANWHILE = "meanwhile wb.open('pocket') needs nothing"


class CannotLoadError(ValueError):
    """A model cannot be opened here; the message says why, and the ways out.

    Attributes:
        reason: ``"memory"``, or that of `workbench.sae.hub.HubError`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(f"{message}; {MEANWHILE}")
        self.reason = reason


@dataclass(frozen=True)
class Source:
    """What a name stands for."""

    name: str
    """What to call the model; for Google's as the catalogue of SAEs does."""
    folder: Path | None = None
    """Where it is on disk."""
    repo: str | None = None
    """Where it is on the hub."""
    adapter: Path | None = None
    """A PEFT adapter to merge into it."""


def find_source(path: str | Path) -> Source:
    """A folder, an adapter's folder with the model below it, a hub id, or a short name.

    Raises:
        ValueError: For a name that is none of these; names what is near.
    """
    if not str(path):
        raise ValueError("the name of the model is empty: 'pocket' comes with the package")
    folder = Path(path).expanduser()
    if (folder / "adapter_config.json").is_file():
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = settings.get("base_model_name_or_path")
        if not base:
            raise ValueError(f"{folder}/adapter_config.json does not name its base model")
        below = find_source(base)
        if below.adapter:
            raise ValueError(f"{folder} is an adapter of an adapter ({base}): merge that one first")
        return Source(str(path), below.folder, below.repo, folder)
    if (folder / "config.json").is_file():
        return Source(str(path), folder)
    if folder.is_dir():
        raise ValueError(f"{folder} holds neither config.json nor adapter_config.json: no model")
    name = str(path).removeprefix(f"{OWNER}/")
    if name in SHORT_NAMES:
        return Source(name, repo=f"{OWNER}/{name}")
    if isinstance(path, str) and len(parts := path.split("/")) == 2 and all(parts):
        return Source(path, repo=path)
    names = ("pocket", "pocket-it", *SHORT_NAMES)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"near: {', '.join(near)}" if near else f"short names: {', '.join(names)}"
    raise ValueError(
        f"{str(path)!r} is no folder, no id on the hub such as 'owner/name', and no short name; "
        f"{hint}"
    )


def fetch_config(source: Source) -> Path:
    """The folder with the model's config, fetched if need be.

    Raises:
        CannotLoadError: The hub does not give it.
    """
    if source.folder is not None:
        return source.folder
    assert source.repo is not None
    with _explained(source.repo):
        return hub.fetch(source.repo, CONFIG).parent


def fetch_model(source: Source) -> Path:
    """The folder with everything, fetched if need be.

    Raises:
        CannotLoadError: The hub does not give it.
    """
    if source.folder is not None:
        return source.folder
    assert source.repo is not None
    here = hub.cached(source.repo, CONFIG)
    if here is not None and _is_complete(here.parent):
        return here.parent
    with _explained(source.repo):
        files = [path for path in hub.listing(source.repo) if "/" not in path]
        wanted = {path for path in files if path.endswith(BESIDE)}
        safe = {path for path in files if path.startswith("model") and path.endswith(SAFE)}
        wanted |= safe or {path for path in files if path.startswith("pytorch_model")}
        return hub.fetch_folder(source.repo, "", names=wanted.__contains__)


def _is_complete(folder: Path) -> bool:
    """Whether a folder of the cache holds all weights and a tokenizer."""
    if not (folder / "tokenizer_config.json").is_file():
        return False
    if (folder / "model.safetensors").is_file():
        return True
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return False
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return all((folder / shard).is_file() for shard in shards)


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what the hub says into the one error of a model that cannot be opened."""
    try:
        yield
    except hub.HubError as error:
        raise CannotLoadError(f"{repo}: {error}", reason=error.reason) from None


@contextmanager
def token_for_now(token: str | None) -> Iterator[None]:
    """Let everything that asks the hub meanwhile use `token`; None changes nothing.

    By the environment, where `huggingface_hub` looks first: the token then reaches every request
    and only those to the hub itself.
    """
    before = os.environ.get("HF_TOKEN")
    try:
        if token is not None:
            os.environ["HF_TOKEN"] = token
        yield
    finally:
        if token is not None:
            del os.environ["HF_TOKEN"]
            if before is not None:
                os.environ["HF_TOKEN"] = before


def require(module: str, wanted_by: str) -> None:
    """Refuse to go on without an optional package.

    Raises:
        ImportError: It is not installed; says how to install it.
    """
    top, _, rest = module.partition(".")
    if find_spec(top) is None or (rest and find_spec(module) is None):
        package = module.replace(".", "-")
        raise ImportError(
            f"{wanted_by} needs the package {package}, which is not installed: "
            f"python -m pip install {package}",
            name=module,
        )
