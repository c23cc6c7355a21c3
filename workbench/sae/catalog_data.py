"""What is known of each published SAE, all of it from the names of its repository and folder.

    google/gemma-scope-2b-pt-res      layer_20/width_16k/average_l0_71
    google/gemma-scope-2-1b-pt        resid_post/layer_13_width_16k_l0_medium

``gemma_scope_l0s.json`` holds the mean L0s of each suite, width and layer of Gemma Scope (Lieberum
et al. 2024, arXiv 2408.05147; the lists are those of SAELens 6.54.12, and for transcoders also
circuit-tracer's and the hub's listings). ``gemma_scope_2.json`` holds the rules by which Gemma
Scope 2's folders are made, and which of the folders that follow from them SAELens 6.54.12 lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from workbench.sae.gemma_scope import KINDS, named_width

OWNER = "google"
CHOSEN = {"resid_post": "res", "attn_out": "att", "mlp_out": "mlp", "transcoder": "transcoder"}
FOLDERS = CHOSEN | {f"{folder}_all": kind for folder, kind in CHOSEN.items()}
"""Gemma Scope 2's folder -> kind of site: those of the four chosen layers, those of all layers."""
NONE = ("(?!)",)
"""Patterns that match nothing."""
NOT_CANONICAL = {
    ("gemma-scope-2b-pt-res", "4k"),
    ("gemma-scope-9b-pt-res", "4k"),
    ("gemma-scope-2b-pt-res", "131k"),
    ("gemma-scope-9b-pt-res", "262k"),
    ("gemma-scope-2b-pt-transcoders", "16k"),
}
"""Suite and width without an entry in SAELens' canonical releases."""
TIES = {("gemma-scope-9b-pt-att", "131k", "23"): 66}
"""SAELens' choice between two L0s as near to 100 (66 and 134) where it is not the larger."""
PREFERRED_L0 = 100
"""Without an L0 the SAE nearest to this one is meant."""


class Model(NamedTuple):
    """Name on the hub without the owner, and sizes: heads side by side are ``d_att`` wide."""

    name: str
    layers: int
    d_model: int
    d_att: int


class Row(NamedTuple):
    """The catalogue's columns, but for the one that depends on the machine.

    What the names do not say is None; in a published row nothing is.
    """

    model: str | None
    repo: str
    path: str
    kind: str | None
    layer: int
    width: str
    l0: int | None
    d_in: int | None
    bytes: int | None
    canonical: bool
    affine: bool


# Layers, d_model and heads x head size of the models' published configurations.
_SIZES = {
    "gemma-2-2b": (26, 2304, 8 * 256),
    "gemma-2-9b": (42, 3584, 16 * 256),
    "gemma-2-27b": (46, 4608, 32 * 128),
    "gemma-3-270m": (18, 640, 4 * 256),
    "gemma-3-1b": (26, 1152, 4 * 256),
    "gemma-3-4b": (34, 2560, 8 * 256),
    "gemma-3-12b": (48, 3840, 16 * 256),
    "gemma-3-27b": (62, 5376, 32 * 128),
}
_SUITE = re.compile(r"(?:.*/)?gemma-scope-(2-)?(\d+[bm])-([pi]t)(?:-\w+)?")
_LAYOUT = re.compile(
    r"(?:.*/)?(?:layer_(\d+)|embedding)/width_(\w+)/(?:average_l0_(\d+)|canonical)"
)
_LAYOUT_2 = re.compile(
    r"(?:.*/)?((?:resid_post|attn_out|mlp_out|transcoder)(?:_all)?)/"
    r"layer_(\d+)_width_([0-9a-z]+)_l0_(small|medium|big)(?:_seed_\d+)?(_affine)?"
)


def params_bytes(d_sae: int, d_in: int, *, affine: bool = False) -> int:
    """Bytes of an SAE's arrays, all float32: two matrices, three biases, an affine one's third."""
    return 4 * (d_sae * (2 * d_in + 2) + d_in + affine * d_in * d_in)


def nearest(l0s: list[int]) -> int:
    """The L0 nearest to 100, of two as near the larger: SAELens' rule for ``canonical``."""
    return min(l0s, key=lambda l0: (abs(l0 - PREFERRED_L0), -l0))


def model_name(name: str) -> str:
    """A model's name on the hub without the owner, as the catalogue has it.

    >>> [model_name(name) for name in ("google/gemma-2-9b-it", "gemma-3-1b", "gemma-3-270m-pt")]
    ['gemma-2-9b-it', 'gemma-3-1b-pt', 'gemma-3-270m']
    """
    name = name.removeprefix(f"{OWNER}/")
    if re.fullmatch(r"gemma-3-\d+b", name):  # as Neuronpedia calls the base model
        return f"{name}-pt"
    return "gemma-3-270m" if name == "gemma-3-270m-pt" else name


@cache
def model_of(repo: str) -> Model | None:
    """The model that a repository's SAEs were trained on; None if its name does not say."""
    found = _SUITE.fullmatch(repo)
    size = f"gemma-{3 if found[1] else 2}-{found[2]}" if found else ""
    if found is None or size not in _SIZES:
        return None
    return Model(model_name(size if found[3] == "pt" else f"{size}-it"), *_SIZES[size])


def described(repo: str, path: str) -> Row | None:
    """All that follows from a repository's and a folder's name; None for an unknown layout."""
    if found := _LAYOUT_2.fullmatch(path):
        folder, layer, width, target, affine = found.groups()
        l0 = target_l0(model_of(repo), int(layer), target, folder)
        return _row(repo, path, FOLDERS[folder], int(layer), width, l0, affine=affine is not None)
    if found := _LAYOUT.fullmatch(path):
        layer, width, l0 = found.groups()
        kind = _kind(repo) if layer else "embed"
        return _row(repo, path, kind, int(layer or 0), width, int(l0) if l0 else None)
    return None


def _row(
    repo: str,
    path: str,
    kind: str | None,
    layer: int,
    width: str,
    l0: int | None,
    *,
    canonical: bool = False,
    affine: bool = False,
) -> Row:
    name, d_in, size = _sizes(repo, kind, width, affine)
    return Row(name, repo, path, kind, layer, width, l0, d_in, size, canonical, affine)


@cache
def _sizes(
    repo: str,
    kind: str | None,
    width: str,
    affine: bool,  # noqa: FBT001
) -> tuple[str | None, int | None, int | None]:
    """The model's name, ``d_in`` and bytes."""
    model, d_sae = model_of(repo), named_width(width)
    if model is None or kind is None or d_sae is None:
        return model and model.name, None, None
    d_in = model.d_att if kind == "att" else model.d_model
    return model.name, d_in, params_bytes(d_sae, d_in, affine=affine)


def _kind(repo: str) -> str | None:
    """Kind of site that the end of a suite's name says: gemma-scope-2b-pt-res."""
    return KINDS.get(re.split(r"[-_]", repo)[-1])


@cache
def target_l0(model: Model | None, layer: int, target: str, folder: str) -> int | None:
    """The L0 that a Gemma Scope 2 SAE was trained towards, as its ``config.json`` names it.

    The target rises over the first third of the layers, ``low + (high - low) min(1, 3 layer / n)``
    rounded down: for ``big`` from 60 to 150, or to 120 in the folders that have every layer.

    Args:
        model: The model; without it the L0 is not known.
        layer: Layer.
        target: ``"small"``, ``"medium"`` or ``"big"``.
        folder: Such as ``"resid_post"`` or ``"resid_post_all"``.
    """
    low, high = _targets(folder).get(target, (None, None))
    if model is None or low is None or high is None:
        return None
    return min(high, low + 3 * (high - low) * layer // model.layers)


@cache
def rows() -> tuple[Row, ...]:
    """Every published SAE: by repository, then layer, then folder."""
    return (*_gemma_scope(), *_gemma_scope_2())


@cache
def places() -> dict[tuple[str, str], Row]:
    """Repository and folder -> row."""
    return {(row.repo, row.path): row for row in rows()}


def _gemma_scope() -> Iterator[Row]:
    for suite, widths in _read("gemma_scope_l0s.json").items():
        repo, kind = f"{OWNER}/{suite}", _kind(suite)
        layers = {layer for by_layer in widths.values() for layer in by_layer}
        for layer in sorted(layers, key=lambda layer: -1 if layer == "E" else int(layer)):
            top, place = (f"layer_{layer}", kind) if layer != "E" else ("embedding", "embed")
            for width, by_layer in widths.items():
                l0s = by_layer.get(layer, [])
                chosen = None
                if l0s and (suite, width) not in NOT_CANONICAL:
                    chosen = TIES.get((suite, width, layer), nearest(l0s))
                for l0 in l0s:
                    path = f"{top}/width_{width}/average_l0_{l0}"
                    number = 0 if layer == "E" else int(layer)
                    yield _row(repo, path, place, number, width, l0, canonical=l0 == chosen)


def _gemma_scope_2() -> Iterator[Row]:
    rules = _rules()
    for size, chosen in rules["layers"].items():
        for suite in (f"{size}-pt", f"{size}-it"):
            repo = f"{OWNER}/gemma-scope-2-{suite}"
            model, absent = model_of(repo), re.compile("|".join(rules["absent"].get(suite, NONE)))
            for layer in range(model.layers if model else 0):
                for folder, width, target, end in _names(size, layer in chosen):
                    path = f"{folder}/layer_{layer}_width_{width}_l0_{target}{end}"
                    if not absent.fullmatch(path):
                        l0, kind = target_l0(model, layer, target, folder), FOLDERS[folder]
                        yield _row(repo, path, kind, layer, width, l0, affine=end == "_affine")


@cache
def _names(size: str, chosen: bool) -> list[tuple[str, str, str, str]]:  # noqa: FBT001
    """Folder, width, target and end of the name of each SAE of a layer, a chosen one or not."""
    rules, found = _rules(), []
    for folder, widths in rules["folders"].items():
        if chosen or folder.endswith("_all"):
            widths = widths + rules["more"].get(size, {}).get(folder, [])
            ends = ("", "_affine") if FOLDERS[folder] == "transcoder" else ("",)
            found += [(folder, *name) for name in product(widths, _targets(folder), ends)]
            found += [(folder, *name) for name in rules["seeds"].get(folder, [])]
    return found


def _targets(folder: str) -> dict[str, tuple[int, int]]:
    return _rules()["targets"]["_all" if folder.endswith("_all") else ""]


@cache
def _rules() -> dict[str, Any]:
    return _read("gemma_scope_2.json")


def _read(name: str) -> dict[str, Any]:
    return json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
