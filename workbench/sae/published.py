"""The SAEs that are published for a model: opened where they are, fetched when they have to be.

What is in Hugging Face's cache is mapped in place. Of what is not, single features are read by
range (`workbench.sae.remote`), so that steering needs no download; the first encoding fetches the
whole file, checks every value of it once, and maps it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch

from workbench.sae import hub
from workbench.sae.base import SAE
from workbench.sae.catalog import catalog, catalog_entry
from workbench.sae.formats import FILES, read_sae
from workbench.sae.formats.files import check_finite, read_safetensors
from workbench.sae.gemma_scope import FILE_NAME, Entry, check_params, named_width
from workbench.sae.remote import RemoteSAE
from workbench.sae.spellings import read as read_name
from workbench.sae.suite import Suite
from workbench.sites import Site

WHOLE = ("params.safetensors", "config.json")
"""The files of an SAE of Gemma Scope 2."""


def is_published(model: str) -> bool:
    """Whether the catalogue has SAEs of a model."""
    return model in set(catalog()["model"])


class PublishedSuite(Suite):
    """Every SAE of the catalogue for one model."""

    def __init__(
        self,
        model: str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory: int | None = None,
    ) -> None:
        """Take the SAEs from the catalogue; no network is used.

        Args:
            model: Name in the catalogue, such as ``"gemma-2-2b"``.
            device: Where to open them.
            dtype: Dtype to compute in.
            memory: Bytes that open SAEs may take together; None for no limit.
        """
        super().__init__(None, model=model, device=device, dtype=dtype, memory=memory)

    def on_disk(self, site: Site) -> bool:
        """Whether the SAE that the catalogue has for `site` is in the cache."""
        return site in self._published_sites and _is_cached(self._entry(site, None, None).path)

    def _find(self) -> list[Entry]:
        rows = catalog(model=self.model).to_dict("records")
        return [
            Entry(
                Path(row["repo"], row["path"]),
                row["kind"],
                row["layer"],
                cast("int", named_width(row["width"])),
                float(row["l0"]),
            )
            for row in rows
        ]

    def _opened(self, entry: Entry) -> SAE:
        remote, whole = (entry.path, "remote"), partial(self._load, entry)
        if _is_mappable(entry.path):
            self.shelf.forget(remote)  # it may hold the whole SAE, and counts as nothing
            return self.shelf.get(entry.path, whole)
        on_shelf = partial(self.shelf.get, entry.path, whole)
        return self.shelf.get(remote, partial(_by_range, entry.path, on_shelf, model=self.model))

    def _load(self, entry: Entry) -> SAE:
        return _fetched(
            *_split(entry.path),
            model=self.model,
            layer=entry.layer,
            kind=entry.kind,
            dtype=self.dtype,
            device=self.device,
        )


def open_sae(name: str | Path, **options: Any) -> SAE:
    """An SAE by any name: a file or folder, a spelling of the catalogue, a folder on the hub.

    Args:
        name: See `workbench.lab.Lab.sae`.
        options: Of `workbench.sae.formats.read_sae`: ``model, layer, kind, dtype, device``.

    Raises:
        ValueError: If it is none of these.
        HubError: If it cannot be fetched.
    """
    if not str(name):
        raise ValueError("the name of the SAE is empty: lab.saes lists those at hand")
    if Path(name).exists():
        return read_sae(name, **options)
    if _is_path(name):
        raise FileNotFoundError(f"there is no file or folder {name} on this machine")
    if read_name(str(name)) is None and re.fullmatch(r"[\w.-]+(/[\w.-]+)+", str(name)):
        try:
            return _fetched(*_split(Path(name)), **options)
        except hub.HubError as error:
            said = f"{str(name)!r} is no folder here ({Path.cwd()}), nor was it found on the hub"
            raise hub.HubError(f"{said}: {error}", reason=error.reason) from error
    row = catalog_entry(str(name))
    if row["kind"] is None and options.get("kind") is None:
        raise ValueError(f"{name}: the name does not say what the SAE reads; pass kind='res', ...")
    place = Path(row["repo"], row["path"])
    options = {"model": row["model"] or "", **options}  # the folders or the config say the rest
    if _is_mappable(place):
        return _fetched(*_split(place), **options)
    site = {key: options.get(key) for key in ("model", "layer", "kind")}
    return _by_range(place, partial(_fetched, *_split(place), **options), **site)


def _is_path(name: str | Path) -> bool:
    """Whether a name can only mean something on disk."""
    text = str(name)
    return (
        Path(text).is_absolute()
        or text.startswith((".", "~"))
        or ("/" not in text and text.endswith((".npz", ".safetensors", ".pt")))
    )


def _by_range(place: Path, whole: Callable[[], SAE], **site: Any) -> SAE:
    """An SAE that is not on disk, whose single features are read from the hub."""
    repo, folder = _split(place)
    found = RemoteSAE.open(repo, f"{folder}/{FILE_NAME}", whole=whole, **site)
    return cast("SAE", found)


def _fetched(repo: str, folder: str, **options: Any) -> SAE:
    """An SAE on the hub as a mapped file, downloaded if it is not in the cache."""
    if PurePosixPath(folder).name.startswith("average_l0_"):
        path = hub.fetch(repo, f"{folder}/{FILE_NAME}", check=check_params)
    else:
        path = _fetched_folder(repo, folder, options.get("layer"))
    return read_sae(path, **options)


def _fetched_folder(repo: str, folder: str, layer: int | None) -> Path:
    """A folder of the hub with the files that belong to some format, and no others."""
    top = f"{folder}/" if folder else ""
    here = [hub.cached(repo, f"{top}{name}") for name in WHOLE]
    if here[0] is not None and None not in here:
        return here[0].parent  # a whole SAE of Gemma Scope 2: nobody has to be asked
    try:
        listed = hub.listing(repo, folder)
    except hub.HubError as error:
        if error.reason != "offline":
            raise
        return hub.fetch_folder(repo, folder)
    wanted = [path for path in listed if _belongs(path.removeprefix(top), layer)]
    if not wanted:
        held = ", ".join(path.removeprefix(top) for path in listed[:12])
        raise ValueError(f"{repo}/{folder} holds no SAE of a known format; it holds {held}")
    places = [
        hub.fetch(repo, path, check=_check_weights if path.endswith(".safetensors") else None)
        for path in wanted
    ]
    depth = len(PurePosixPath(wanted[-1].removeprefix(top)).parts)
    return places[-1].parents[depth - 1]


def _belongs(name: str, layer: int | None) -> bool:
    """Whether a reader wants a file of an SAE's folder; of many layers, that layer's."""
    known = any(fnmatch(name, pattern) for patterns in FILES.values() for pattern in patterns)
    number = re.fullmatch(r"(?:layer_)?(\d+)\.\w+", name)
    return known and (layer is None or number is None or int(number[1]) == layer)


def _check_weights(path: Path) -> None:
    for name, tensor in read_safetensors(path).items():
        check_finite(path, name, tensor)


def _is_mappable(place: Path) -> bool:
    """Whether an SAE is to be opened as a file: it is in the cache, or cannot be read by ranges."""
    return _file(place.name) != FILE_NAME or _is_cached(place)


def _is_cached(place: Path) -> bool:
    repo, folder = _split(place)
    return hub.cached(repo, f"{folder}/{_file(folder)}") is not None


def _file(folder: str) -> str:
    """The file of an SAE in a folder of Gemma Scope 1 or 2."""
    name = PurePosixPath(folder).name
    return FILE_NAME if name.startswith("average_l0_") else WHOLE[0]


def _split(path: Path) -> tuple[str, str]:
    """``owner/repository`` and the folder in it."""
    owner, *rest = path.parts
    return "/".join([owner, *rest[:1]]), "/".join(rest[1:])
