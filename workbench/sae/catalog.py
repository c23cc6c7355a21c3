"""The catalogue of Gemma Scope and Gemma Scope 2: every published SAE by every name people use.

Nothing here needs a network or the weights: all follows from names (`catalog_data`), and names
are read from what people write (`spellings`).

The first Gemma Scope's transcoders are known at every L0 for layers 3, 14, 20 and 21; of the other
layers these are the three sparsest, and others with more active features are on the hub. Of Gemma
Scope 2 it has what SAELens 6.54.12 registers, so for gemma-3-27b-pt no attention or MLP SAEs, and
for it and gemma-3-270m few transcoders or none in the folders of the four chosen layers. What the
hub has beyond that opens by its path with ``catalog_entry(path, listed=False)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import pandas as pd

from workbench.doctor import memory_bytes
from workbench.sae.catalog_data import (
    PREFERRED_L0,
    Row,
    described,
    model_name,
    nearest,
    params_bytes,
    places,
    rows,
)
from workbench.sae.gemma_scope import named_width, width_name
from workbench.sae.spellings import Place, Source, read, resembling

__all__ = ["COLUMNS", "PREFERRED_L0", "catalog", "catalog_entry", "nearest", "params_bytes"]

COLUMNS = (*Row._fields, "fits")
TARGETS = ("small", "medium", "big")
"""What Gemma Scope 2's folders say in place of an L0."""
SHOWN = 40
"""Values that a message lists."""


def catalog(**filters: object) -> pd.DataFrame:
    """Every SAE of Gemma Scope and Gemma Scope 2, or those that match.

    >>> catalog(model="gemma-2-2b", kind="mlp", layer=12, width="16k")["l0"].tolist()
    [44, 108, 262, 548, 879]
    >>> catalog(model="gemma-3-1b-pt", kind="res", layer=13, width="65k")["l0"].tolist()
    [20, 60, 150]

    Args:
        filters: A column and the value, or the list of values, that it must have.

    Returns:
        One row for each SAE, with columns ``model`` (its name on the hub without the owner, so
        ``"gemma-2-2b"``, ``"gemma-3-1b-pt"``, ``"gemma-3-270m"``), ``repo``, ``path`` (the folder
        in the repository that holds ``params.npz``, of Gemma Scope 2 ``params.safetensors``),
        ``kind``, ``layer``, ``width`` (such as ``"16k"``), ``l0`` (of Gemma Scope as measured, of
        Gemma Scope 2 the target of its training: ``small`` 10 to 20, ``medium`` 30 to 60, ``big``
        60 to 150, lower in early layers), ``d_in``, ``bytes`` of the file, ``canonical`` (whether
        SAELens' canonical releases name it), ``affine`` (whether a transcoder has a linear
        connection beside its features) and ``fits`` (whether this machine's free memory holds it
        now).

    Raises:
        TypeError: For a filter that is no column.
        ValueError: If nothing has that value; names the values there are.
    """
    table = _table().copy()
    table["fits"] = table["bytes"] < memory_bytes()[1]
    for column, value in filters.items():
        if column not in COLUMNS:
            raise TypeError(f"the catalogue has no column {column!r}; it has {', '.join(COLUMNS)}")
        values = list(value) if isinstance(value, list | tuple | set | range) else [value]
        if column == "model":
            values = [model_name(str(name)) for name in values]
        left: Any = table[table[column].isin(values)]
        if left.empty and not table.empty:
            raise ValueError(_none_has(column, value, table[column]))
        table = left
    return table.reset_index(drop=True)


def catalog_entry(
    name: str | None = None,
    *,
    model: str | None = None,
    layer: int | None = None,
    kind: str | None = None,
    width: str | int | None = None,
    l0: float | str | None = None,
    affine: bool | None = None,
    listed: bool = True,
) -> dict[str, Any]:
    """One row of the catalogue as column -> value, by any spelling or by its columns.

    Every line finds the same SAE, without an L0 the one that is nearest to 100 (of transcoders by
    name the sparsest, as Neuronpedia means it):

    >>> spellings = [
    ...     "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
    ...     "https://huggingface.co/google/gemma-scope-2b-pt-res/tree/main/layer_20/width_16k/average_l0_71",
    ...     "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical",
    ...     "gemma-2-2b/20-gemmascope-res-16k",
    ...     "https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/12082",
    ... ]
    >>> {catalog_entry(spelling)["path"] for spelling in spellings}
    {'layer_20/width_16k/average_l0_71'}
    >>> catalog_entry(model="gemma-2-2b", layer=20, kind="res", l0=71)["path"]
    'layer_20/width_16k/average_l0_71'
    >>> catalog_entry("gemma-3-1b/13-gemmascope-2-res-65k")["path"]
    'resid_post/layer_13_width_65k_l0_medium'

    Args:
        name: A path or address on the hub, SAELens' release and id joined by a slash, a colon or
            a space, or Neuronpedia's model and source, with or without a feature.
        model: Without a name: the model, also as Neuronpedia or the hub writes it.
        layer: Without a name: the layer.
        kind: Without a name: kind of site.
        width: Name of a width or number of features; the smallest there is if left out.
        l0: The L0, or for Gemma Scope 2 one of ``"small"``, ``"medium"`` (which Neuronpedia
            shows) and ``"big"``; the nearest to 100 if left out. Of several SAEs that these leave,
            the first in the catalogue is meant: plain before affine, the folders of the chosen
            layers before those of all.
        affine: Of Gemma Scope 2's transcoders those with or without a linear connection.
        listed: Whether a name of Gemma Scope's must be in the catalogue. False accepts any folder
            of a known layout there. In other people's repositories such folders are always
            accepted, with None for what their names do not say.

    Returns:
        The columns, and ``listed``: whether it is in the catalogue.

    Raises:
        TypeError: For a name together with columns, or too few columns.
        ValueError: If there is no such SAE; names the nearest, or the values there are.
    """
    columns: dict[str, Any] = {"model": model, "layer": layer, "kind": kind}
    choice: dict[str, Any] = {"width": width, "l0": l0, "affine": affine}
    given = [key for key, value in (columns | choice).items() if value is not None]
    if name is not None:
        if given:
            raise TypeError(f"catalog_entry() got a name and {', '.join(given)}: give one of both")
        return _entry(_named(name, listed=listed))
    if not listed:
        raise TypeError("listed=False needs a name: only a name can say which folder is meant")
    missing = [key for key, value in columns.items() if value is None]
    if missing:
        raise TypeError(
            f"catalog_entry() needs {', '.join(missing)}: give a name, or model, layer and kind"
        )
    found = list(rows())
    for column, value in columns.items():
        found = _having(found, column, model_name(str(value)) if column == "model" else value)
    return _entry(_chosen(found, width=width, l0=l0, affine=affine))


def _entry(row: Row) -> dict[str, Any]:
    fits = None if row.bytes is None else row.bytes < memory_bytes()[1]
    return {**row._asdict(), "fits": fits, "listed": (row.repo, row.path) in places()}


def _named(name: str, *, listed: bool) -> Row:
    """The row of a name."""
    wanted = read(name)
    if wanted is None:
        raise ValueError(_miss(name, "it is no path, address or id of Gemma Scope", name))
    if isinstance(wanted, Source):
        return _shown(name, wanted)
    row = places().get((wanted.repo, wanted.path)) or _canonical(wanted)
    if row is not None:
        return row
    row = described(wanted.repo, wanted.path)
    if row is None and not wanted.claimed:
        raise ValueError(
            f"{name!r}: the folder {wanted.path} has no known layout; known are "
            "layer_20/width_16k/average_l0_71 and resid_post/layer_13_width_16k_l0_medium"
        )
    if row is None or (listed and wanted.claimed):
        top = wanted.path.rpartition("average_l0_")[0]
        beside = [r.l0 for r in rows() if top and r.repo == wanted.repo and r.path.startswith(top)]
        insist = "; listed=False takes it all the same" if row else ""
        raise ValueError(_miss(str(wanted), _no_such(beside), name) + insist)
    return row


def _canonical(place: Place) -> Row | None:
    """What ``canonical`` instead of an L0 stands for."""
    top, _, end = place.path.rpartition("/")
    beside = [r for r in rows() if r.repo == place.repo and r.path.startswith(f"{top}/")]
    return _preferred(beside) if end == "canonical" and beside else None


def _shown(name: str, source: Source) -> Row:
    """The row of Neuronpedia's source."""
    key = source.model, source.layer, source.kind, source.width
    found = [row for row in rows() if (row.model, row.layer, row.kind, row.width) == key]
    if found and source.l0 is None:
        # Of the transcoders only the sparsest are registered, at SAELens and at Neuronpedia.
        sparsest = min(found, key=lambda row: row.l0 or 0)
        return sparsest if source.kind == "transcoder" else _preferred(found)
    exact = [row for row in found if row.l0 == source.l0]
    if not exact:
        raise ValueError(_miss(str(source), _no_such([row.l0 for row in found]), name))
    return exact[0]


def _chosen(
    found: list[Row], *, width: str | int | None, l0: float | str | None, affine: bool | None
) -> Row:
    """The one of a site's SAEs that is meant."""
    if affine is not None:
        found = _having(found, "affine", affine)
    if width is not None:
        name = width_name(width) if isinstance(width, int) else width.lower()
        found = _having(found, "width", name)
    if isinstance(l0, str):
        words = {word for word in TARGETS if any(f"_l0_{word}" in row.path for row in found)}
        if l0 not in words:
            raise ValueError(_none_has("l0", l0, words | {row.l0 for row in found}))
        found = [row for row in found if f"_l0_{l0}" in row.path]
    elif l0 is not None:
        found = _having(found, "l0", l0)
    smallest = min(found, key=lambda row: named_width(row.width) or 0).width
    found = [row for row in found if row.width == smallest]
    return found[0] if isinstance(l0, str) else _preferred(found)


def _preferred(found: list[Row]) -> Row:
    """The canonical SAE of a site and width, otherwise the one with L0 nearest to 100."""
    canonical = [row for row in found if row.canonical]
    l0 = nearest([row.l0 for row in canonical or found if row.l0 is not None])
    return next(row for row in found if row.l0 == l0)


def _having(found: list[Row], column: str, value: object) -> list[Row]:
    left = [row for row in found if getattr(row, column) == value]
    if not left:
        raise ValueError(_none_has(column, value, (getattr(row, column) for row in found)))
    return left


def _none_has(column: str, value: object, there: Iterable[Any]) -> str:
    different = sorted(set(there), key=lambda one: (isinstance(one, str), one))
    shown = ", ".join(map(str, different[:SHOWN]))
    more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    return f"no SAE has {column}={value!r} here; there are {shown}{more}"


def _no_such(l0s: list[int | None]) -> str:
    there = f"; this site and width has L0s {l0s}" if l0s else ""
    return f"Gemma Scope has no such SAE{there}"


def _miss(meant: str, why: str, name: str) -> str:
    near = resembling(meant)
    hint = f"; near are {', '.join(near)}" if near else "; wb.catalog() lists all"
    return f"{name!r}: {why}{hint}"


@cache
def _table() -> pd.DataFrame:
    """The catalogue without the column that depends on the machine."""
    return pd.DataFrame(rows(), columns=list(Row._fields))
