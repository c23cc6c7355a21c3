"""Gemma Scope's files: read, written, mapped, and refused when they are wrong."""

from __future__ import annotations

import io
import stat
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.sae import SAE, SAEConfig
from workbench.sae.gemma_scope import (
    check_params,
    entry_of,
    list_saes,
    load_sae,
    open_params,
    params_folder,
    write_params,
)

D_IN, D_SAE = 6, 1024
FOLDER = Path("gemma-scope-2b-pt-att", "layer_3", "width_1k", "average_l0_18")


def arrays(dtype: type = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        "W_enc": rng.normal(size=(D_IN, D_SAE)).astype(dtype),
        "W_dec": rng.normal(size=(D_SAE, D_IN)).astype(dtype),
        "b_enc": rng.normal(size=D_SAE).astype(dtype),
        "b_dec": rng.normal(size=D_IN).astype(dtype),
        "threshold": rng.uniform(0.1, 1, size=D_SAE).astype(dtype),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as numpy itself writes it, whose arrays are not aligned."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **arrays())  # pyright: ignore[reportArgumentType]
    return folder / "params.npz"


def toy(activation: str = "jumprelu", **fields: Any) -> SAE:
    tensors = {name: torch.from_numpy(array) for name, array in arrays().items()}
    if activation != "jumprelu":
        tensors["threshold"] = None  # pyright: ignore[reportArgumentType]
    config = SAEConfig("m", 3, "att", D_SAE, 18.0, "", D_IN, D_IN, D_SAE)
    return SAE(**tensors, activation=activation, config=config, **fields)  # pyright: ignore[reportArgumentType]


def test_a_file_of_numpy_opens_with_its_values_and_its_site(path) -> None:
    sae = load_sae(path, model="gemma-2-2b")
    for name, array in arrays().items():
        assert np.array_equal(getattr(sae, name).numpy(), array), name
    config = sae.config
    assert (config.model, config.layer, config.kind) == ("gemma-2-2b", 3, "att")
    assert (config.d_in, config.d_sae, config.width, config.l0) == (D_IN, D_SAE, D_SAE, 18.0)
    assert config.source == str(path)
    x = torch.randn(4, D_IN, generator=torch.Generator().manual_seed(0))
    plain = arrays()
    pre = x.numpy() @ plain["W_enc"] + plain["b_enc"]
    np.testing.assert_allclose(
        sae.encode(x).numpy(), pre * (pre > plain["threshold"]), rtol=1e-5, atol=1e-6
    )


def test_arrays_are_mapped_not_copied(path) -> None:
    members = open_params(path)
    content = np.memmap(path, mode="r")
    for name, member in members.items():
        assert isinstance(member.array, np.memmap), name
        assert member.copied == ""
        assert member.array.offset + member.array.nbytes <= len(content)
    whole = members["W_enc"].array
    sae_view = torch.from_numpy(whole)
    assert np.shares_memory(sae_view.numpy(), whole)
    before = path.read_bytes()
    sae_view[0, 0] = 1e9
    assert path.read_bytes() == before


def test_opening_reads_no_matrix(tmp_path) -> None:
    """A file of 1 GB that is one hole opens at once and without its memory."""
    d_in, d_sae = 2048, 65536
    path = tmp_path / "params.npz"
    small = {"b_enc": np.zeros(d_sae, "f4"), "b_dec": np.zeros(d_in, "f4")}
    small["threshold"] = np.ones(d_sae, "f4")
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array)
    sizes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in)}
    _append_holes(path, sizes)
    assert path.stat().st_blocks * 512 < 2**24 < path.stat().st_size
    before = _resident()
    sae = load_sae(path)
    assert sae.W_enc.shape == (d_in, d_sae)
    assert _resident() - before < 2**25
    assert sae.direction(60_000).abs().sum() == 0


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def _append_holes(path: Path, sizes: dict[str, tuple[int, int]]) -> None:
    """Add members of zeros without writing them: their data is a hole in a sparse file."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, shape in sizes.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            info = zipfile.ZipInfo(f"{name}.npy")
            info.header_offset = archive.start_dir
            info.CRC = 0
            info.file_size = info.compress_size = len(header.getvalue()) + 4 * shape[0] * shape[1]
            file = archive.fp
            assert file is not None
            file.seek(archive.start_dir)
            file.write(info.FileHeader(zip64=True) + header.getvalue())
            file.seek(4 * shape[0] * shape[1], io.SEEK_CUR)
            archive.start_dir = file.tell()
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
            archive._didModify = True  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_written_is_read_back(tmp_path, dtype) -> None:
    sae = toy()
    path = write_params(sae, tmp_path / "suite-res" / params_folder(sae.config), dtype=dtype)
    assert path.relative_to(tmp_path).as_posix() == (
        "suite-res/layer_3/width_1k/average_l0_18/params.npz"
    )
    back = load_sae(path)
    for name, array in arrays().items():
        wanted = array.astype(dtype).astype(np.float32)
        assert np.array_equal(getattr(back, name).numpy(), wanted), name
    with np.load(path, allow_pickle=False) as plain:
        assert sorted(plain.files) == sorted(arrays())
        assert plain["W_enc"].dtype == dtype
    assert back.config.kind == "res"
    check_params(path)


def test_written_arrays_are_aligned_and_the_bytes_repeat(tmp_path) -> None:
    first, second = (write_params(toy(), tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    for name, member in open_params(first).items():
        assert isinstance(member.array, np.memmap)
        assert member.array.offset % 64 == 0, name
        assert member.array.flags.aligned
    assert stat.S_IMODE(first.stat().st_mode) == 0o644


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch) -> None:
    path = write_params(toy(), tmp_path)
    before = path.read_bytes()

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("workbench.sae.gemma_scope.npy.write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        write_params(toy(), tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["params.npz"]


def test_values_that_float16_cannot_hold_are_refused(tmp_path) -> None:
    sae = toy()
    sae.W_dec[3, 1] = 1e6
    with pytest.raises(ValueError, match=r"W_dec \(float16\) holds 1 value"):
        write_params(sae, tmp_path, dtype=np.float16)
    assert not (tmp_path / "params.npz").exists()


def test_a_relu_and_a_pre_encoder_bias_are_written_as_the_same_function(tmp_path) -> None:
    sae = toy("relu", apply_b_dec_to_input=True)
    back = load_sae(write_params(sae, tmp_path))
    x = torch.randn(9, D_IN, generator=torch.Generator().manual_seed(0))
    assert back.activation == "jumprelu"
    torch.testing.assert_close(back.encode(x), sae.encode(x), atol=1e-5, rtol=1e-5)
    assert not torch.equal(sae.encode(x), toy("relu").encode(x))


def test_a_topk_cannot_be_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="no place for its k"):
        write_params(toy("topk", k=3), tmp_path)


def test_bfloat16_on_request_and_nothing_narrower(path) -> None:
    assert load_sae(path, dtype=torch.bfloat16).W_enc.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="float16 overflows"):
        load_sae(path, dtype=torch.float16)


@pytest.mark.parametrize("name", list(arrays()))
def test_a_missing_array_is_named(path, name) -> None:
    rest = {key: array for key, array in arrays().items() if key != name}
    np.savez(path, **rest)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=rf"params.npz lacks {name}: .* this file holds"):
        open_params(path)


def test_lower_case_matrices_are_the_same(path) -> None:
    renamed = {key.replace("W_", "w_"): array for key, array in arrays().items()}
    np.savez(path, **renamed)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(load_sae(path).W_enc.numpy(), arrays()["W_enc"])


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("W_enc", arrays()["W_enc"].T, r"W_dec has shape \(1024, 6\), expected \(6, 6\)"),
        ("b_enc", np.zeros(3, "f4"), r"b_enc has shape \(3,\), expected \(1024,\)"),
        ("W_dec", np.zeros(4, "f4"), r"W_dec \(4,\), expected matrices"),
        ("b_dec", np.zeros(6, "f8"), "b_dec.npy is float64, expected float16 or float32"),
        ("b_dec", np.zeros(6, "i4"), "b_dec.npy is int32"),
        ("b_dec", np.full(6, np.nan, "f4"), r"b_dec \(float32\) holds 6 values .* not finite"),
        ("threshold", np.full(D_SAE, -1, "f4"), "threshold reaches -1"),
    ],
)
def test_a_wrong_array_is_refused(path, name, array, message) -> None:
    np.savez(path, **{**arrays(), name: array})
    with pytest.raises(ValueError, match=message):
        open_params(path)


def test_a_matrix_that_is_not_finite_is_found_by_the_full_check(path) -> None:
    bad = arrays()
    bad["W_dec"][1000, 2] = np.inf
    np.savez(path, **bad)  # pyright: ignore[reportArgumentType]
    open_params(path)
    with pytest.raises(ValueError, match=r"W_dec .* 1 values"):
        check_params(path)


def test_a_pickle_is_never_read(path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (pytest.fail, ("unpickled",))

    np.savez(path, **{**arrays(), "b_dec": np.array([Bomb()], dtype=object)})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"b_dec.npy is pickled"):
        open_params(path)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_a_truncated_file_is_refused(path, keep) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(ValueError, match="cut short"):
        open_params(path)


def test_an_array_shorter_than_its_header_is_refused(path) -> None:
    full = arrays()
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in full.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, array)
            content = stream.getvalue()
            archive.writestr(f"{name}.npy", content[:-8] if name == "W_dec" else content)
    with pytest.raises(ValueError, match=r"W_dec.npy says float32"):
        open_params(path)


def test_what_cannot_be_mapped_is_copied_and_says_why(path) -> None:
    np.savez_compressed(path, **arrays())  # pyright: ignore[reportArgumentType]
    members = open_params(path)
    assert {member.copied for member in members.values()} == {"the archive is compressed"}
    assert np.array_equal(members["W_dec"].array, arrays()["W_dec"])
    odd = {**arrays(), "W_dec": np.asfortranarray(arrays()["W_dec"])}
    odd["b_enc"] = arrays()["b_enc"].astype(">f4")
    np.savez(path, **odd)  # pyright: ignore[reportArgumentType]
    members = open_params(path)
    assert [name for name, member in members.items() if member.copied] == ["W_dec", "b_enc"]
    sae = load_sae(path)
    assert np.array_equal(sae.W_dec.numpy(), arrays()["W_dec"])
    assert np.array_equal(sae.b_enc.numpy(), arrays()["b_enc"])


def test_a_file_is_missing(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        open_params(tmp_path / "params.npz")


@pytest.mark.parametrize(
    ("folders", "kind", "layer", "width", "l0"),
    [
        ("gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71", "res", 20, 16384, 71),
        ("gemma-scope-2b-pt-transcoders/layer_0/width_16k/average_l0_5", "transcoder", 0, 16384, 5),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "embed", 0, 4096, 6),
        ("mlp/layer_5/width_1m/average_l0_9", "mlp", 5, 1048576, 9),
        ("att/layer_5/width_131k/canonical", "att", 5, 131072, None),
        ("anything/layer_1/width_65k/average_l0_9", "", 1, 65536, 9),
    ],
)
def test_folders_say_which_sae_it_is(folders, kind, layer, width, l0) -> None:
    entry = entry_of(Path("/data", folders, "params.npz"))
    assert (entry.kind, entry.layer, entry.width, entry.l0) == (kind, layer, width, l0)


def test_every_sae_below_a_folder_is_listed(tmp_path) -> None:
    sae = toy()
    for kind, layer, l0 in (("res", 10, 9), ("res", 2, 18), ("res", 2, 9), ("att", 0, 9)):
        config = replace(sae.config, layer=layer, l0=float(l0))
        write_params(sae, tmp_path / f"pocket-{kind}" / params_folder(config))
    stray = tmp_path / "elsewhere"
    write_params(sae, stray)
    found = [(entry.kind, entry.layer, entry.l0) for entry in list_saes(tmp_path)]
    assert found == [("att", 0, 9), ("res", 2, 9), ("res", 2, 18), ("res", 10, 9)]
    with pytest.raises(ValueError, match="no such folder"):
        list_saes(tmp_path / "nowhere")


def test_a_folder_that_promises_another_width_is_refused(tmp_path) -> None:
    path = write_params(toy(), tmp_path / "res" / "layer_1" / "width_16k" / "average_l0_9")
    with pytest.raises(ValueError, match="has 1024 features, its folder says 16384"):
        load_sae(path)


def test_a_folder_needs_an_l0() -> None:
    with pytest.raises(ValueError, match="measure it"):
        params_folder(replace(toy().config, l0=None))
    assert params_folder(toy().config, l0=21.6).name == "average_l0_22"
