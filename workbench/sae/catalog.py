"""The catalogue of Gemma Scope: every published SAE by every name that people use.

`gemma_scope_l0s.json` holds the mean L0s of each suite, width and layer, from which everything else
follows: Gemma Scope's folders are named by them (Lieberum et al. 2024, arXiv 2408.05147; the lists
are those of SAELens 6.54.12, and for transcoders also circuit-tracer's and the hub's listings).
Nothing here needs a network or the weights.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.doctor import memory_bytes
from workbench.sae.gemma_scope import KINDS, named_width

COLUMNS = (
    "model", "repo", "path", "kind", "layer", "width", "l0", "d_in", "bytes", "canonical", "fits",
)  # fmt: skip
D_MODEL = {"2b": 2304, "9b": 3584, "27b": 4608}
D_ATT = {"2b": 2048, "9b": 4096, "27b": 4096}
"""Width of a model's activations: of the residual stream, and of the heads side by side."""
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
OWNER = "google"


def catalog(**filters: object) -> pd.DataFrame:
    """Every SAE of Gemma Scope, or those that match.

    >>> catalog(model="gemma-2-2b", kind="mlp", layer=12, width="16k")["l0"].tolist()
    [44, 108, 262, 548, 879]

    Args:
        filters: A column and the value, or the list of values, that it must have.

    Returns:
        One row for each SAE, with columns ``model``, ``repo``, ``path`` (the folder in the
        repository that holds ``params.npz``), ``kind``, ``layer``, ``width`` (such as ``"16k"``),
        ``l0``, ``d_in``, ``bytes`` of the file, ``canonical`` (whether SAELens' canonical releases
        name it) and ``fits`` (whether this machine's free memory holds it now).

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
        left: Any = table[table[column].isin(values)]
        if left.empty and not table.empty:
            there = ", ".join(map(str, sorted(table[column].unique())[:40]))
            raise ValueError(f"no SAE has {column}={value!r} here; there are {there}")
        table = left
    return table.reset_index(drop=True)


def catalog_entry(name: str) -> dict[str, Any]:
    """One row of the catalogue as column -> value, by any spelling.

    Every line finds the same SAE, without an L0 the one that is nearest to 100 (of transcoders the
    sparsest, as Neuronpedia means it):

    >>> spellings = [
    ...     "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
    ...     "https://huggingface.co/google/gemma-scope-2b-pt-res/tree/main/layer_20/width_16k/average_l0_71",
    ...     "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical",
    ...     "gemma-2-2b/20-gemmascope-res-16k",
    ...     "https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/12082",
    ... ]
    >>> {catalog_entry(spelling)["path"] for spelling in spellings}
    {'layer_20/width_16k/average_l0_71'}

    Args:
        name: A path or address on the hub, SAELens' release and id joined by a slash, a colon or
            a space, or Neuronpedia's model and source, with or without a feature.

    Raises:
        ValueError: If it is none of these or there is no such SAE; names the nearest.
    """
    wanted = _hub_or_saelens(name) or _neuronpedia(name)
    if wanted is None:
        raise ValueError(_miss(name, "it is no path, address or id of Gemma Scope"))
    l0 = wanted.pop("l0")
    table: Any = _table()
    for column, value in wanted.items():
        table = table[table[column] == value]
    if table.empty or (l0 is not None and l0 not in set(table["l0"])):
        there = f"; this site and width has L0s {sorted(table['l0'])}" if len(table) else ""
        raise ValueError(_miss(name, f"Gemma Scope has no such SAE{there}"))
    if l0 is None:
        # Of the transcoders only the sparsest are registered, at SAELens and at Neuronpedia.
        sparsest = "transcoder" in set(table["kind"])
        chosen = table["l0"][table["canonical"]] if table["canonical"].any() else table["l0"]
        l0 = min(table["l0"]) if sparsest else nearest(chosen.tolist())
    row = table[table["l0"] == l0].iloc[0]
    return {**row.to_dict(), "fits": bool(row["bytes"] < memory_bytes()[1])}


@cache
def _table() -> pd.DataFrame:
    """The catalogue without the column that depends on the machine."""
    text = Path(__file__).with_name("gemma_scope_l0s.json").read_text(encoding="utf-8")
    rows = [
        row
        for suite, widths in json.loads(text).items()
        for width, layers in widths.items()
        for layer, l0s in layers.items()
        for row in _rows(suite, width, layer, l0s)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    # Suites as they stand in the file, each from the first layer to the last.
    suites = {repo: i for i, repo in enumerate(table["repo"].unique())}
    return (
        table.sort_values("layer", kind="stable")
        .sort_values("repo", key=lambda repo: repo.map(suites), kind="stable")
        .reset_index(drop=True)
    )


def _rows(suite: str, width: str, layer: str, l0s: list[int]) -> list[tuple]:
    size, tuned, folder = suite.removeprefix("gemma-scope-").split("-")
    kind, d_sae = KINDS[folder], named_width(width)
    assert d_sae is not None
    d_in = (D_ATT if kind == "att" else D_MODEL)[size]
    model = f"gemma-2-{size}" + ("-it" if tuned == "it" else "")
    top = "embedding" if layer == "E" else f"layer_{layer}"
    canonical = TIES.get((suite, width, layer), nearest(l0s))
    if (suite, width) in NOT_CANONICAL:
        canonical = None
    return [
        (
            model,
            f"{OWNER}/{suite}",
            f"{top}/width_{width}/average_l0_{l0}",
            "embed" if layer == "E" else kind,
            0 if layer == "E" else int(layer),
            width,
            l0,
            d_in,
            params_bytes(d_sae, d_in),
            l0 == canonical,
        )
        for l0 in l0s
    ]


def params_bytes(d_sae: int, d_in: int) -> int:
    """Bytes of the arrays of a ``params.npz``: two matrices, three biases, all float32."""
    return 4 * (d_sae * (2 * d_in + 2) + d_in)


def nearest(l0s: list[int]) -> int:
    """The L0 nearest to 100, of two as near the larger: SAELens' rule for ``canonical``."""
    return min(l0s, key=lambda l0: (abs(l0 - PREFERRED_L0), -l0))


def _hub_or_saelens(name: str) -> dict[str, Any] | None:
    """What a path or address on the hub, or SAELens' release and id, asks for."""
    found = re.search(
        r"(?P<suite>gemma-scope-\w+-[pi]t-[a-z]+?)(?:-canonical)?[/:\s,]+"
        r"(?:(?:tree|blob|resolve)/[^/]+/)?"
        r"(?:layer_(?P<layer>\d+)|embedding)/width_(?P<width>\w+)/"
        r"(?:average_l0_(?P<l0>\d+)|canonical)(?:/params\.npz)?/?(?:\?.*)?$",
        name.strip(),
    )
    if found is None:
        return None
    wanted: dict[str, Any] = {
        "repo": f"{OWNER}/{found['suite']}",
        "width": found["width"],
        "l0": _number(found["l0"]),
    }
    return wanted | (
        {"kind": "embed"} if found["layer"] is None else {"layer": int(found["layer"])}
    )


def _neuronpedia(name: str) -> dict[str, Any] | None:
    """What Neuronpedia's model and source, or its address, asks for."""
    found = re.search(
        r"(?:^|/)(?P<model>gemma-2-\w+(?:-it)?)/(?P<layer>\d+)-gemmascope-(?P<kind>[a-z]+)"
        r"-(?P<width>\w+?)(?:__l0-(?P<l0>\d+))?(?:/\d*)?$",
        name.strip(),
    )
    if found is None:
        return None
    return {
        "model": found["model"],
        "layer": int(found["layer"]),
        "kind": found["kind"],
        "width": found["width"],
        "l0": _number(found["l0"]),
    }


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _miss(name: str, why: str) -> str:
    names = (_table()["repo"] + "/" + _table()["path"]).tolist()
    near: list[str] = get_close_matches(name, names, n=3, cutoff=0.3)
    hint = f"; near are {', '.join(near)}" if near else "; wb.catalog() lists all"
    return f"{name!r}: {why}{hint}"
