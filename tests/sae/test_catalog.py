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
    table = table[~table["repo"].str.contains("scope-2-")]
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


def test_the_counts_of_gemma_scope_2_are_those_of_the_registry() -> None:
    table: Any = catalog()
    table = table[table["repo"].str.contains("scope-2-")]
    own, all_layers = (
        table[~table["path"].str.contains("_all/")],
        table["path"].str.contains("_all/"),
    )
    assert len(table) == 8784
    assert not table.duplicated(["repo", "path"]).any()
    assert not table["canonical"].any()
    # SAELens' releases -att, -mlp, -res and -transcoders; then the same with -all at the end.
    kinds = ["att", "mlp", "res", "transcoder"]
    assert counted(own, kinds) == {
        "270m-pt": [36, 36, 52, 2],
        "270m-it": [36, 36, 52, 72],
        "1b-pt": [36, 48, 52, 72],
        "1b-it": [36, 48, 52, 72],
        "4b-pt": [36, 36, 52, 72],
        "4b-it": [36, 36, 52, 72],
        "12b-pt": [36, 36, 52, 72],
        "12b-it": [36, 36, 52, 72],
        "27b-pt": [0, 0, 52, 0],
        "27b-it": [36, 36, 52, 72],
    }
    assert counted(table[all_layers], kinds) == {
        "270m-pt": [72, 72, 72, 144],
        "270m-it": [72, 72, 72, 144],
        "1b-pt": [104, 104, 104, 208],
        "1b-it": [104, 104, 104, 208],
        "4b-pt": [136, 136, 136, 272],
        "4b-it": [136, 136, 136, 272],
        "12b-pt": [192, 192, 192, 384],
        "12b-it": [192, 192, 192, 384],
        "27b-pt": [0, 0, 248, 491],
        "27b-it": [248, 248, 248, 491],
    }


def counted(table: Any, kinds: list[str]) -> dict[str, list[int]]:
    """Number of SAEs of each kind, by the end of the repository's name."""
    found = {}
    for repo, rows in table.groupby("repo", sort=False):
        counts = rows["kind"].value_counts()
        found[repo.removeprefix("google/gemma-scope-2-")] = [int(counts.get(k, 0)) for k in kinds]
    return found


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
    ("model", "kind", "affine", "d_in", "shapes"),
    [
        ("gemma-3-270m", "res", False, 640, [(640, 16384), (16384, 640), 16384, 640, 16384]),
        ("gemma-3-1b-it", "att", False, 1024, [(1024, 16384), (16384, 1024), 16384, 1024, 16384]),
        (
            "gemma-3-4b-pt",
            "transcoder",
            True,
            2560,
            [(2560, 16384), (16384, 2560), 16384, 2560, 16384, (2560, 2560)],
        ),
        ("gemma-3-12b-it", "mlp", False, 3840, [(3840, 16384), (16384, 3840), 16384, 3840, 16384]),
        ("gemma-3-27b-it", "att", False, 4096, [(4096, 16384), (16384, 4096), 16384, 4096, 16384]),
    ],
)
def test_sizes_of_gemma_scope_2_are_those_of_the_arrays(
    model: str, kind: str, affine: bool, d_in: int, shapes: list[Any]
) -> None:
    found = catalog(model=model, kind=kind, width="16k", affine=affine)
    assert set(found["d_in"]) == {d_in}
    assert set(found["bytes"]) == {sum(4 * int(np.prod(shape)) for shape in shapes)}


def test_l0s_of_gemma_scope_2_rise_over_the_first_third() -> None:
    # As the registry states them, model by model and layer by layer.
    every: Any = catalog(model="gemma-3-1b", kind="att", width="16k")
    every = every[every["path"].str.startswith("attn_out_all")]
    small, big = every["l0"][::2].tolist(), every["l0"][1::2].tolist()
    assert small == [10, 11, 12, 13, 14, 15, 16, 18, 19] + [20] * 17
    assert big == [60, 66, 73, 80, 87, 94, 101, 108, 115] + [120] * 17
    first = {"270m": (5, 18, 55, 135), "4b": (9, 17, 53, 131), "12b": (12, 17, 52, 127)}
    for size, (layer, *l0s) in first.items():
        rows: Any = catalog(model=f"gemma-3-{size}-it", kind="mlp", width="65k")
        assert rows["l0"][rows["layer"] == layer].tolist() == l0s
        assert set(rows["l0"][rows["layer"] > layer]) == {20, 60, 150}


REPO_2 = "google/gemma-scope-2-1b-pt"
SAE_2 = "resid_post/layer_22_width_65k_l0_medium"


@pytest.mark.parametrize(
    "spelling",
    [
        f"{REPO_2}/{SAE_2}",
        f"gemma-scope-2-1b-pt/{SAE_2}",
        f"{REPO_2}/{SAE_2}/params.safetensors",
        f"https://huggingface.co/{REPO_2}/blob/main/{SAE_2}/config.json",
        f"http://127.0.0.1:8080/{REPO_2}/resolve/main/{SAE_2}/params.safetensors?download=true",
        f"huggingface.co/{REPO_2}/tree/main/{SAE_2}/",
        f"hf://{REPO_2}@main/{SAE_2}",
        f"/data/weights/{REPO_2}/{SAE_2}/params.safetensors",
        "gemma-scope-2-1b-pt-res/layer_22_width_65k_l0_medium",
        "gemma-scope-2-1b-pt-res: layer_22_width_65k_l0_medium",
        "gemma-3-1b/22-gemmascope-2-res-65k",
        "gemma-3-1b-pt/22-gemmascope-2-res-65k__l0-medium",
        "https://www.neuronpedia.org/gemma-3-1b/22-gemmascope-2-res-65k/77?embed=true",
        "neuronpedia.org/api/feature/gemma-3-1b/22-gemmascope-2-res-65k/77",
    ],
)
def test_every_spelling_finds_one_of_gemma_scope_2(spelling: str) -> None:
    found = catalog_entry(spelling)
    assert (found["repo"], found["path"]) == (REPO_2, SAE_2)
    assert (found["model"], found["l0"], found["listed"]) == ("gemma-3-1b-pt", 60, True)


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        (
            "gemma-scope-2-4b-it-transcoders/transcoder/layer_9_width_16k_l0_big_affine",
            "transcoder/layer_9_width_16k_l0_big_affine",
        ),
        (
            "gemma-scope-2-4b-it-att-all/layer_0_width_262k_l0_small",
            "attn_out_all/layer_0_width_262k_l0_small",
        ),
        (
            "gemma-3-4b-it/5-gemmascope-2-transcoder-262k",
            "transcoder_all/layer_5_width_262k_l0_small_affine",
        ),
        (
            "gemma-scope-2-4b-it-res layer_9_width_262k_l0_medium_seed_1",
            "resid_post/layer_9_width_262k_l0_medium_seed_1",
        ),
    ],
)
def test_other_folders_of_gemma_scope_2_are_found_too(spelling: str, path: str) -> None:
    found = catalog_entry(spelling)
    assert (found["repo"], found["path"]) == ("google/gemma-scope-2-4b-it", path)
    assert found["affine"] == path.endswith("_affine")


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
        (
            "gemma-scope-2-1b-pt-res/layer_23_width_65k_l0_medium",
            "no such SAE; near are google/gemma-scope-2-1b-pt/resid_post/layer_22_width_65k",
        ),
        (
            f"{REPO_2}/resid_post/layer_22_width_65k_l0_medum",
            f"no such SAE; near are {REPO_2}/{SAE_2}, ",
        ),
        ("gemma-3-1b/8-gemmascope-2-res-16k", f"near are {REPO_2}/resid_post/layer_7_width_16k"),
        (
            "gemma-scope-2-1b-pt-res/attn_out/layer_22_width_65k_l0_medium",
            f"no such SAE; near are {REPO_2}/attn_out/layer_22_width_65k_l0_medium",
        ),
        (f"gogle/gemma-scope-2b-pt-res/{SAE}", f"near are {REPO}/{SAE}"),
        (f"{REPO_2}/crosscoder/layer_7_13_17_22_width_65k_l0_medium", "names a crosscoder, which"),
        (f"{REPO_2}/clt/width_262k_l0_big", "names a cross-layer transcoder, which"),
        ("someone/x/resid_post/layer_3_width_16k_l0_tiny", "no known layout; known are layer_20/"),
    ],
)
def test_a_miss_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalog_entry(name)


def test_an_entry_is_found_by_its_columns() -> None:
    site: dict[str, Any] = {"model": "gemma-2-2b", "layer": 20, "kind": "res"}
    assert catalog_entry(**site, width="16k", l0=71) == catalog_entry(f"{REPO}/{SAE}")
    assert catalog_entry(**site) == catalog_entry(f"{REPO}/{SAE}")
    assert catalog_entry(**site, width=65536)["path"] == "layer_20/width_65k/average_l0_114"
    assert catalog_entry(**site, l0=61)["path"] == "layer_20/width_65k/average_l0_61"
    nine = catalog_entry(model="google/gemma-2-9b", layer=23, kind="att", width="131k")
    assert nine["l0"] == 66
    assert catalog_entry(model="gemma-2-2b", layer=20, kind="transcoder")["l0"] == 88


def test_an_entry_of_gemma_scope_2_is_found_by_its_columns() -> None:
    site: dict[str, Any] = {"model": "gemma-3-1b", "layer": 13}
    paths = {
        "resid_post_all/layer_13_width_16k_l0_big": {"kind": "res"},
        "resid_post/layer_13_width_16k_l0_big": {"kind": "res", "l0": "big"},
        "resid_post/layer_13_width_1m_l0_medium": {"kind": "res", "l0": 60, "width": "1m"},
        "resid_post/layer_13_width_262k_l0_medium": {"kind": "res", "l0": 60, "width": "262k"},
        "transcoder/layer_13_width_16k_l0_small": {"kind": "transcoder", "l0": 20},
        "transcoder/layer_13_width_16k_l0_small_affine": {
            "kind": "transcoder",
            "l0": "small",
            "affine": True,
        },
    }
    for path, columns in paths.items():
        assert catalog_entry(**site, **columns)["path"] == path
    for model in ("gemma-3-270m", "gemma-3-270m-pt", "google/gemma-3-270m"):
        assert catalog_entry(model=model, layer=0, kind="mlp")["model"] == "gemma-3-270m"
    # The registry has only the affine one of this layer and width.
    assert catalog_entry(model="gemma-3-27b-it", layer=4, kind="transcoder", width="16k")["affine"]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"layer": 20}, TypeError, "needs model, kind: give a name, or model, layer and kind"),
        ({"name": f"{REPO}/{SAE}", "l0": 71, "width": "16k"}, TypeError, "a name and width, l0"),
        ({"model": "gemma-2-2b", "layer": 20, "kind": "res", "listed": False}, TypeError, "a name"),
        ({"model": "gemma-4", "layer": 20, "kind": "res"}, ValueError, "there are gemma-2-27b"),
        ({"model": "gemma-2-2b", "layer": 26, "kind": "res"}, ValueError, "layer=26 here; there"),
        ({"model": "gemma-2-2b", "layer": 20, "kind": "attn"}, ValueError, "are att, mlp, res, tr"),
        (
            {"model": "gemma-2-2b", "layer": 20, "kind": "res", "width": "1m"},
            ValueError,
            "width='1m' here; there are 16k, 65k",
        ),
        (
            {"model": "gemma-2-2b", "layer": 20, "kind": "res", "width": "16k", "l0": 70},
            ValueError,
            "l0=70 here; there are 22, 38, 71, 139, 294",
        ),
        (
            {"model": "gemma-3-1b", "layer": 0, "kind": "res", "l0": "medium"},
            ValueError,
            "l0='medium' here; there are 10, 60, big, small",
        ),
        (
            {"model": "gemma-2-2b", "layer": 20, "kind": "res", "affine": True},
            ValueError,
            "affine=True here; there are False",
        ),
    ],
)
def test_columns_that_name_nothing_are_refused(
    columns: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        catalog_entry(**columns)


def test_a_folder_that_is_not_listed_is_described_on_request() -> None:
    name = f"{REPO}/layer_3/width_16k/average_l0_77"
    with pytest.raises(ValueError, match=r"L0s \[14, 28, 59, 142, 315\].*listed=False takes it"):
        catalog_entry(name)
    found = catalog_entry(name, listed=False)
    beside = catalog_entry(f"{REPO}/layer_3/width_16k/average_l0_59")
    differ = {key for key in found if found[key] != beside[key]}
    assert differ == {"path", "l0", "canonical", "listed"}
    assert (found["l0"], found["canonical"], found["listed"]) == (77, False, False)
    att = "google/gemma-scope-2-27b-pt/attn_out/layer_16_width_16k_l0_big"
    found = catalog_entry(att, listed=False)
    assert (found["model"], found["kind"]) == ("gemma-3-27b-pt", "att")
    assert (found["l0"], found["d_in"]) == (129, 4096)
    with pytest.raises(ValueError, match="no such SAE; near are"):
        catalog_entry(att)
    skip = "google/gemma-scope-2-270m-pt/transcoder/layer_5_width_16k_l0_small"
    plain, affine = (catalog_entry(f"{skip}{end}", listed=False) for end in ("", "_affine"))
    assert (plain["affine"], affine["affine"]) == (False, True)
    assert affine["bytes"] - plain["bytes"] == 4 * 640 * 640


@pytest.mark.parametrize(
    ("name", "kind", "layer", "l0"),
    [
        ("someone/my-saes/layer_3/width_16k/average_l0_77", None, 3, 77),
        ("someone/my-saes-mlp/layer_3/width_16k/average_l0_77", "mlp", 3, 77),
        ("https://huggingface.co/someone/x/tree/main/a/layer_3/width_5k/canonical", None, 3, None),
        ("someone/x/attn_out_all/layer_3_width_16k_l0_big", "att", 3, None),
        ("someone/x/embedding/width_4k/average_l0_6", "embed", 0, 6),
    ],
)
def test_a_known_layout_of_another_owner_is_described(
    name: str, kind: str | None, layer: int, l0: int | None
) -> None:
    found = catalog_entry(name)
    assert (found["kind"], found["layer"], found["l0"]) == (kind, layer, l0)
    assert found["repo"] in name
    assert name.endswith(found["path"])
    assert not found["listed"]
    # What the names do not say is not guessed.
    assert [found[key] for key in ("model", "d_in", "bytes", "fits")] == [None] * 4


def test_a_listed_name_does_not_change_by_insisting() -> None:
    assert catalog_entry(f"{REPO}/{SAE}", listed=False) == catalog_entry(f"{REPO}/{SAE}")


def test_filters() -> None:
    found = catalog(model="gemma-2-2b", layer=[3, 5], kind="att", canonical=True)
    assert found["layer"].tolist() == [3, 3, 5, 5]
    with pytest.raises(TypeError, match="no column 'sites'; it has model, repo"):
        catalog(sites="res")
    with pytest.raises(ValueError, match="no SAE has kind='attn' here; there are att, embed"):
        catalog(kind="attn")
    assert catalog(model="gemma-3-1b").equals(catalog(model=["google/gemma-3-1b-pt"]))
    with pytest.raises(ValueError, match="no SAE has width='65k' here; there are 16k, 262k"):
        catalog(repo="google/gemma-scope-2-270m-pt", kind="transcoder", width="65k")


def test_what_fits_follows_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: (0, 10**9))
    found: Any = catalog(fits=True)
    assert set(found["width"][found["model"] == "gemma-2-2b"]) == {"4k", "16k", "32k"}
    assert (found["bytes"] < 10**9).all()
    assert len(found) == (np.asarray(catalog()["bytes"]) < 10**9).sum()
    assert not catalog_entry("gemma-2-2b/20-gemmascope-res-65k")["fits"]


def test_the_reader_of_files_agrees_on_every_folder() -> None:
    table: Any = catalog()
    for row in table[~table["repo"].str.contains("scope-2-")].to_dict("records"):
        entry = entry_of(f"/x/{row['repo']}/{row['path']}/params.npz")
        assert (entry.layer, entry.l0) == (row["layer"], row["l0"])
        assert row["kind"] in (entry.kind, "embed")
        assert f"width_{row['width']}" in row["path"]


def test_changing_a_table_changes_no_other() -> None:
    table = catalog()
    table["l0"] = 0
    untouched: Any = catalog()["l0"]
    assert untouched.min() > 0
