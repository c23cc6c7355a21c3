"""The catalogue against what is published: counts, sizes and every way of naming an SAE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workbench.sae import catalog as module
from workbench.sae.catalog import catalog, catalog_entry, params_bytes
from workbench.sae.gemma_scope import entry_of

REPO = "google/gemma-scope-2b-pt-res"
SAE = "layer_20/width_16k/average_l0_71"


def test_the_counts_are_those_of_the_registry() -> None:
    table: Any = catalog()
    own = table[table["kind"] != "transcoder"]
    assert own.groupby("repo").size().to_dict() == {
        "google/gemma-scope-2b-pt-res": 316,
        "google/gemma-scope-2b-pt-att": 260,
        "google/gemma-scope-2b-pt-mlp": 260,
        "google/gemma-scope-9b-pt-res": 536,
        "google/gemma-scope-9b-pt-att": 492,
        "google/gemma-scope-9b-pt-mlp": 492,
        "google/gemma-scope-9b-it-res": 30,
        "google/gemma-scope-27b-pt-res": 18,
    }
    assert len(own) + 26 == 2430
    assert table["canonical"].sum() == 429
    assert not table.duplicated(["repo", "path"]).any()
    # The sparsest transcoder of each layer is the one that is registered.
    lowest = table[table["kind"] == "transcoder"].groupby("layer")["l0"].min()
    assert lowest.tolist()[:3] == [76, 65, 49]
    assert len(lowest) == 26


@pytest.mark.parametrize(
    ("model", "kind", "width", "size"),
    [
        ("gemma-2-2b", "res", "16k", 302.1e6),
        ("gemma-2-2b", "att", "65k", 1.074e9),
        ("gemma-2-9b", "att", "131k", 4.296e9),
        ("gemma-2-27b", "res", "131k", 4.833e9),
        ("gemma-2-2b", "res", "1m", 19.336e9),
    ],
)
def test_sizes_are_those_that_the_hub_lists(model: str, kind: str, width: str, size: float) -> None:
    found = catalog(model=model, kind=kind, width=width)
    assert found["bytes"].to_numpy() == pytest.approx(size, rel=1e-3)


def test_the_size_is_that_of_the_arrays() -> None:
    shapes = [(24, 64), (64, 24), (64,), (24,), (64,)]
    assert params_bytes(64, 24) == sum(np.zeros(shape, np.float32).nbytes for shape in shapes)


@pytest.mark.parametrize(
    "spelling",
    [
        f"{REPO}/{SAE}",
        f"{REPO}/{SAE}/params.npz",
        f"gemma-scope-2b-pt-res/{SAE}",
        f"https://huggingface.co/{REPO}/tree/main/{SAE}",
        f"https://huggingface.co/{REPO}/resolve/main/{SAE}/params.npz?download=true",
        f"hf://{REPO}/{SAE}",
        f"gemma-scope-2b-pt-res {SAE}",
        "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical",
        "gemma-scope-2b-pt-res-canonical, layer_20/width_16k/canonical",
        "gemma-2-2b/20-gemmascope-res-16k",
        "gemma-2-2b/20-gemmascope-res-16k__l0-71",
        "https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/12082",
        " gemma-2-2b/20-gemmascope-res-16k\n",
    ],
)
def test_every_spelling_finds_it(spelling: str) -> None:
    found = catalog_entry(spelling)
    assert (found["repo"], found["path"]) == (REPO, SAE)
    assert found["canonical"]


def test_other_suites_are_found_too() -> None:
    assert catalog_entry("gemma-2-9b-it/31-gemmascope-res-131k")["l0"] == 109
    assert catalog_entry("gemma-2-2b/5-gemmascope-transcoder-16k")["l0"] == 87
    assert catalog_entry("gemma-2-2b/14-gemmascope-transcoder-16k")["l0"] == 8
    embed = catalog_entry("google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_44")
    assert (embed["kind"], embed["layer"], embed["canonical"]) == ("embed", 0, False)
    # 64 and 136 are equally near to 100; SAELens names the larger.
    assert (
        catalog_entry("gemma-scope-9b-pt-att-canonical/layer_27/width_16k/canonical")["l0"] == 136
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            f"{REPO}/layer_20/width_16k/average_l0_70",
            r"has L0s \[22, 38, 71, 139, 294\].*average_l0",
        ),
        (f"{REPO}/layer_26/width_16k/average_l0_71", "no such SAE; near are google/gemma-scope"),
        ("gemma-2-2b/20-gemmascope-rse-16k", "no such SAE"),
        ("layer twenty", "it is no path, address or id of Gemma Scope"),
        ("", "it is no path"),
    ],
)
def test_a_miss_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalog_entry(name)


def test_filters() -> None:
    found = catalog(model="gemma-2-2b", layer=[3, 5], kind="att", canonical=True)
    assert found["layer"].tolist() == [3, 3, 5, 5]
    with pytest.raises(TypeError, match="no column 'sites'; it has model, repo"):
        catalog(sites="res")
    with pytest.raises(ValueError, match="no SAE has kind='attn' here; there are att, embed"):
        catalog(kind="attn")


def test_what_fits_follows_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: (0, 10**9))
    assert set(catalog(fits=True)["width"]) == {"4k", "16k", "32k"}
    assert not catalog_entry("gemma-2-2b/20-gemmascope-res-65k")["fits"]


def test_the_reader_of_files_agrees_on_every_folder() -> None:
    for row in catalog().to_dict("records"):
        entry = entry_of(f"/x/{row['repo']}/{row['path']}/params.npz")
        assert (entry.layer, entry.l0) == (row["layer"], row["l0"])
        assert row["kind"] in (entry.kind, "embed")
        assert f"width_{row['width']}" in row["path"]


def test_changing_a_table_changes_no_other() -> None:
    table = catalog()
    table["l0"] = 0
    untouched: Any = catalog()["l0"]
    assert untouched.min() > 0
