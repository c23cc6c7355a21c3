"""What people call an SAE, read into a repository and a folder, or into columns of the catalogue.

Three families of names are read: the hub's (a path or an address), SAELens' (release and id) and
Neuronpedia's (model and source, with or without a feature, or an address). Nothing but
`resembling` asks which SAEs there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from heapq import nlargest

from workbench.sae.catalog_data import CHOSEN, OWNER, model_name, places


@dataclass(frozen=True)
class Place:
    """A folder on the hub."""

    repo: str
    path: str

    @property
    def claimed(self) -> bool:
        """Whether the name is one of Gemma Scope's, so that it must be in the catalogue."""
        return self.repo.startswith(f"{OWNER}/") or "gemma-scope" in str(self)

    def __str__(self) -> str:
        return f"{self.repo}/{self.path}"


@dataclass(frozen=True)
class Source:
    """What Neuronpedia's id says; without an L0 the SAE that it shows there is meant."""

    model: str
    layer: int
    kind: str
    width: str
    l0: int | str | None

    def __str__(self) -> str:
        """The hub's path, as far as it follows."""
        size, _, tuned = self.model.removeprefix("gemma-2-").partition("-")
        suite = f"{OWNER}/gemma-scope-{size}-{tuned or 'pt'}-{self.kind}"
        return f"{suite}/layer_{self.layer}/width_{self.width}/average_l0_{self.l0 or 100}"


CANDIDATES = 100
"""Names that are compared letter by letter with one that was not found."""
_HUB = re.compile(
    r"(?:(?P<owner>[\w-]+)/)?(?P<suite>[\w.-]+?)/"
    r"(?P<path>(?:[\w.-]+/)*?(?:"
    r"(?:layer_\d+|embedding)/width_\w+/(?:average_l0_\d+|canonical)"
    r"|(?:resid_post|attn_out|mlp_out|transcoder)(?:_all)?/layer_\d+_width_\w+_l0_\w+))"
)
_RELEASE_2 = re.compile(
    r"(?P<suite>gemma-scope-2-\w+-[pi]t)-(?P<kind>res|att|mlp|transcoders)(?P<every>-all)?/"
    r"(?:(?P<folder>\w+)/)?(?P<id>layer_\d+_width_\w+)"
)
_NEURONPEDIA = re.compile(
    r"(?:.*/)?(?P<model>gemma-[23]-[\w-]+?)/(?P<layer>\d+)-gemmascope-(?P<second>2-)?"
    r"(?P<kind>[a-z]+)-(?P<width>[0-9a-z]+)(?:__l0-(?P<l0>\w+))?(?:/\d*)?"
)
_SEVERAL_LAYERS = re.compile(r"gemma-?scope-2.*[-/](crosscoder|clt)")


def read(name: str) -> Place | Source | None:
    """The place or the source that a name stands for; None if it is no such name.

    Raises:
        ValueError: For a crosscoder or cross-layer transcoder.
    """
    text = _plain(name)
    if found := _SEVERAL_LAYERS.search(text):
        what = "crosscoder" if found[1] == "crosscoder" else "cross-layer transcoder"
        raise ValueError(
            f"{name!r} names a {what}, which reads or writes several layers at once; the "
            "catalogue has SAEs and transcoders of a single layer. Those of the same models: "
            "wb.catalog(model='gemma-3-1b-pt') and so on."
        )
    return _release(text) or _hub(text) or _neuronpedia(text)


def _plain(name: str) -> str:
    """`name` as parts joined by slashes, without scheme, host, revision, file and query."""
    text = re.sub(r"^(?:hf://|\w+://[^/]+/)|[?#].*$", "", name.strip())
    text = re.sub(r"^(?:[\w-]+\.)+[a-z]+/", "", text)
    text = re.sub(r"@[^/]+|/(?:tree|blob|resolve)/[^/]+", "", text)
    text = re.sub(r"[:\s,]+", "/", text)
    text = re.sub(r"/(?:\w+\.(?:npz|safetensors|json))?$", "", text)
    return re.sub(rf"^.*/(?={OWNER}/gemma-scope)", "", text)


def _release(text: str) -> Place | None:
    """SAELens' release and id of Gemma Scope 2; the first Gemma Scope's are the hub's names."""
    found = _RELEASE_2.fullmatch(text)
    if found is None:
        return None
    kinds = {f"{kind}s" if kind == "transcoder" else kind: f for f, kind in CHOSEN.items()}
    folder = kinds[found["kind"]] + ("_all" if found["every"] else "")
    if found["folder"] not in (None, folder):  # SAELens' ids of transcoders repeat the folder
        return None
    return Place(f"{OWNER}/{found['suite']}", f"{folder}/{found['id']}")


def _hub(text: str) -> Place | None:
    """A path on the hub, and SAELens' release and id of Gemma Scope."""
    found = _HUB.fullmatch(text)
    if found is None or not (found["owner"] or found["suite"].startswith("gemma-scope")):
        return None
    suite = found["suite"].removesuffix("-canonical")
    return Place(f"{found['owner'] or OWNER}/{suite}", found["path"])


def _neuronpedia(text: str) -> Place | Source | None:
    """Neuronpedia's model and source.

    Of Gemma Scope 2 it shows the SAEs of the chosen layers with ``medium`` L0, and the affine
    transcoders of every layer with ``small`` L0.
    """
    found = _NEURONPEDIA.fullmatch(text)
    if found is None:
        return None
    model, layer, width, l0 = (
        model_name(found["model"]),
        found["layer"],
        found["width"],
        found["l0"],
    )
    if not found["second"]:
        return Source(model, int(layer), found["kind"], width, int(l0) if l0 else None)
    folder = {kind: folder for folder, kind in CHOSEN.items()}.get(found["kind"])
    if folder is None:
        return Source(model, int(layer), found["kind"], width, l0)
    shown = ("_all", "small", "_affine") if folder == "transcoder" else ("", "medium", "")
    size = model.removeprefix("gemma-3-")
    suite = f"gemma-scope-2-{size if '-' in size else f'{size}-pt'}"
    path = f"{folder}{shown[0]}/layer_{layer}_width_{width}_l0_{l0 or shown[1]}{shown[2]}"
    return Place(f"{OWNER}/{suite}", path)


def resembling(name: str, *, count: int = 3) -> list[str]:
    """Hub paths in the catalogue that look like `name`, the likest first.

    Comparing letters with eleven thousand names would take seconds, so only those that contain the
    most words of it, such as ``layer_20`` or ``16k``, are compared.
    """
    words = set(re.findall(r"[a-z]+\d*_[0-9a-z]+|[0-9a-z]+", name.lower()))
    names = map("/".join, places())
    likest = nlargest(CANDIDATES, names, key=lambda place: sum(word in place for word in words))
    return get_close_matches(name, likest, n=count, cutoff=0.3)
