"""An SAE on the hub, read by ranges: right values, few bytes, and a download only when needed."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae.hub_server import Hub, close_connections, connect

from workbench.engine.binding import bind
from workbench.engine.edits import Ablate, Steer
from workbench.sae import SAE
from workbench.sae.gemma_scope import KEYS, check_params, load_sae
from workbench.sae.hub import HubError, fetch
from workbench.sae.remote import RemoteSAE
from workbench.sites import Site

REPO = "google/gemma-scope-2b-pt-res"
PATH = "layer_5/width_4k/average_l0_21/params.npz"
WIDE = "layer_12/width_1m/average_l0_107/params.npz"
D_IN, D_SAE = 24, 4096
WIDE_IN, WIDE_SAE = 2304, 2**20


def arrays(d_in: int = D_IN, d_sae: int = D_SAE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "W_enc": rng.normal(size=(d_in, d_sae)).astype("f4"),
        "W_dec": rng.normal(size=(d_sae, d_in)).astype("f4"),
        "b_enc": rng.normal(size=d_sae).astype("f4"),
        "b_dec": rng.normal(size=d_in).astype("f4"),
        "threshold": rng.uniform(0.1, 1, size=d_sae).astype("f4"),
    }


def write_sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """A `params.npz` of zeros as `np.savez` lays it out, without writing its zeros.

    numpy streams each member through `zipfile` with room for 64-bit sizes, so this does the same
    and moves the position where the values would be written.

    Returns:
        Where each array's values begin.
    """
    offsets = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, shape in shapes.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)  # pyright: ignore[reportArgumentType]
                hidden: Any = stream
                offsets[name] = hidden._fileobj.tell()
                length = 4 * int(np.prod(shape))
                hidden._fileobj.seek(length, io.SEEK_CUR)
                hidden._file_size += length
    return offsets


def shapes(d_in: int, d_sae: int) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays(d_in, 1).items()} | {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_in),
        "b_enc": (d_sae,),
        "threshold": (d_sae,),
    }


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        content = io.BytesIO()
        np.savez(content, **arrays())  # pyright: ignore[reportArgumentType]
        server.put(REPO, PATH, content.getvalue())
        yield server
        close_connections()


@pytest.fixture(autouse=True)
def cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return connect(hub, tmp_path / "home", monkeypatch)


class Opened:
    """Downloads and opens, and counts how often."""

    def __init__(self, path: str = PATH) -> None:
        self.path, self.times = path, 0

    def __call__(self) -> SAE:
        self.times += 1
        return load_sae(fetch(REPO, self.path, check=check_params))


def never() -> SAE:
    pytest.fail("the whole file was asked for")


def test_one_feature_needs_only_its_rows(hub: Hub) -> None:
    sae = RemoteSAE.open(REPO, PATH, whole=never, model="gemma-2-2b")
    plain = arrays()
    for index in (0, 1234, D_SAE - 1):
        assert np.array_equal(sae.direction(index).numpy(), plain["W_dec"][index])
        assert sae.bias_of(index) == plain["b_enc"][index]
        assert sae.threshold_of(index) == plain["threshold"][index]
    served = hub.served(PATH)
    assert sae.bytes_read == served < 50_000 < hub.repos[REPO][PATH].size / 10
    for _ in range(3):
        sae.direction(1234)
    assert hub.served(PATH) == served, "kept"
    assert not sae.downloaded


def test_it_knows_where_it_belongs_without_a_download(hub: Hub) -> None:
    sae = RemoteSAE.open(REPO, PATH, whole=never, model="gemma-2-2b")
    local = load_sae(fetch(REPO, PATH), model="gemma-2-2b", kind="res")
    assert sae.name == local.name == "SAE gemma-2-2b layer 5 res width 4096 L0 21"
    for name in ("model", "layer", "kind", "width", "l0", "d_in", "d_out", "d_sae"):
        assert getattr(sae.config, name) == getattr(local.config, name), name
    assert sae.config.source == f"{hub.url}/{REPO}/blob/main/{PATH}"
    assert (sae.k, sae.activation, sae.apply_b_dec_to_input) == (None, "jumprelu", False)
    assert "on the hub (0.00 GB" in repr(sae)
    other = RemoteSAE.open(REPO, PATH, whole=never, layer=9, kind="mlp").config
    assert (other.layer, other.kind) == (9, "mlp")


@pytest.mark.parametrize("index", [-1, D_SAE, 1.5, True, "7"])
def test_a_feature_that_it_has_not_is_refused(hub: Hub, index) -> None:
    sae = RemoteSAE.open(REPO, PATH, whole=never)
    asked = len(hub.asked)
    for call in (sae.direction, sae.bias_of, sae.threshold_of, sae.check_index):
        with pytest.raises(ValueError, match="has features 0 to 4095"):
            call(index)
    assert len(hub.asked) == asked


def test_what_needs_a_matrix_downloads_once_and_is_the_sae(hub: Hub) -> None:
    whole = Opened()
    sae = RemoteSAE.open(REPO, PATH, whole=whole)
    row = sae.direction(7)
    x = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(0)) * 3
    plain = arrays()
    pre = x.numpy() @ plain["W_enc"] + plain["b_enc"]
    wanted = pre * (pre > plain["threshold"])
    assert (wanted != 0).sum() > 50
    np.testing.assert_allclose(sae.encode(x).numpy(), wanted, rtol=1e-4, atol=1e-4)
    assert np.array_equal(sae.encoder_column(3).numpy(), plain["W_enc"][:, 3])
    assert np.array_equal(sae.W_enc.numpy(), plain["W_enc"])
    assert sae.select([4, 2]).W_dec.shape == (2, D_IN)
    assert whole.times == 1
    assert sae.downloaded
    asked = len(hub.asked)
    assert torch.equal(sae.direction(7), row)
    assert sae.bias_of(8) == plain["b_enc"][8]
    assert sae.threshold_of(8) == plain["threshold"][8]
    assert len(hub.asked) == asked


def test_a_notebook_that_looks_at_it_downloads_nothing() -> None:
    sae = RemoteSAE.open(REPO, PATH, whole=never)
    for name in ("_repr_html_", "_ipython_display_", "__len__", "shape", "encoed"):
        assert not hasattr(sae, name)
    with pytest.raises(AttributeError, match="no attribute 'encoed'"):
        sae.encoed  # noqa: B018


def test_many_threads_share_rows_and_one_download(hub: Hub) -> None:
    class Slow(Opened):
        def __call__(self) -> SAE:
            time.sleep(0.2)
            return super().__call__()

    whole = Slow()
    sae = RemoteSAE.open(REPO, PATH, whole=whole)
    plain, wrong = arrays(), []

    def use(number: int) -> None:
        for index in range(number * 97, number * 97 + 400, 37):
            if not np.array_equal(sae.direction(index).numpy(), plain["W_dec"][index]):
                wrong.append(index)
        if not np.array_equal(sae.W_enc.numpy(), plain["W_enc"]):
            wrong.append("W_enc")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert whole.times == 1


class OneSAE:
    """A source of a single SAE, as the engine asks for it."""

    def __init__(self, sae: RemoteSAE) -> None:
        self.sae = sae

    def sae_at(self, site: Site) -> Any:
        return self.sae

    def typical_maximum(self, site: Site, index: int) -> float:
        return 2.0

    def mean_activation(self, site: Site, index: int) -> float:
        return 0.5

    def mean_norm(self, site: Site) -> float:
        return 10.0


@pytest.mark.parametrize("unit", ["raw", "max", "norm"])
def test_steering_needs_no_download(hub: Hub, unit) -> None:
    source = OneSAE(RemoteSAE.open(REPO, PATH, whole=never))
    program = bind([Steer((5, 11), 1.5, unit=unit), Steer((5, 40), -1, unit=unit)], source)
    group = program.groups[Site(5)]
    plain = arrays()["W_dec"][[11, 40]]
    np.testing.assert_array_equal(group.rows.numpy(), plain)
    scale = {"raw": 1, "max": 2, "norm": 10 / np.linalg.norm(plain, axis=1)}[unit]
    x = torch.zeros(1, 3, D_IN)
    wanted = np.broadcast_to(np.array([1.5, -1]) * scale, (1, 3, 2))
    np.testing.assert_allclose(group.coefficients(x).numpy(), wanted, rtol=1e-6)
    assert hub.served(PATH) < 50_000


def test_an_edit_that_reads_the_feature_downloads(hub: Hub) -> None:
    whole = Opened()
    program = bind([Ablate((5, 11))], OneSAE(RemoteSAE.open(REPO, PATH, whole=whole)))
    x = torch.randn(1, 3, D_IN, generator=torch.Generator().manual_seed(1)) * 3
    plain = arrays()
    pre = x[0].numpy() @ plain["W_enc"][:, 11] + plain["b_enc"][11]
    active = np.where(pre > plain["threshold"][11], pre, 0)
    assert (active > 0).any()
    found = program.groups[Site(5)].coefficients(x)[0, :, 0]
    np.testing.assert_allclose(found.numpy(), -active, rtol=1e-4)
    assert whole.times == 1


def put(hub: Hub, **changes: np.ndarray) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays() | changes)  # pyright: ignore[reportArgumentType]
    hub.put(REPO, PATH, content.getvalue())


def test_a_row_that_is_not_finite_is_refused(hub: Hub) -> None:
    bad = arrays()["W_dec"]
    bad[9, 3] = np.nan
    put(hub, W_dec=bad)
    sae = RemoteSAE.open(REPO, PATH, whole=never)
    sae.direction(8)
    with pytest.raises(ValueError, match=r"W_dec\[9\] holds values that are not finite"):
        sae.direction(9)


def test_half_precision_and_foreign_byte_order_are_widened(hub: Hub) -> None:
    plain = arrays()
    put(hub, W_dec=plain["W_dec"].astype("f2"), b_enc=plain["b_enc"].astype(">f4"))
    sae = RemoteSAE.open(REPO, PATH, whole=never)
    assert sae.direction(5).dtype == torch.float32
    assert np.array_equal(sae.direction(5).numpy(), plain["W_dec"][5].astype("f2").astype("f4"))
    assert sae.bias_of(5) == plain["b_enc"][5]


def test_what_cannot_be_read_by_rows_says_so(hub: Hub) -> None:
    put(hub, W_dec=np.asfortranarray(arrays()["W_dec"]))
    with pytest.raises(ValueError, match="stored by columns; fetch the whole file"):
        RemoteSAE.open(REPO, PATH, whole=never)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays())  # pyright: ignore[reportArgumentType]
    hub.put(REPO, PATH, content.getvalue())
    with pytest.raises(ValueError, match="compressed, so single rows cannot be read"):
        RemoteSAE.open(REPO, PATH, whole=never)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip at all" * 99, "not a whole npz file"),
        (b"", "not a whole npz file"),
    ],
)
def test_a_file_that_is_no_sae_is_refused(hub: Hub, content, message) -> None:
    hub.put(REPO, PATH, content)
    with pytest.raises(ValueError, match=message):
        RemoteSAE.open(REPO, PATH, whole=never)


def test_wrong_shapes_and_a_wrong_folder_are_refused(hub: Hub) -> None:
    put(hub, b_enc=np.zeros(5, "f4"))
    with pytest.raises(ValueError, match=r"b_enc has shape \(5,\), expected \(4096,\)"):
        RemoteSAE.open(REPO, PATH, whole=never)
    content = io.BytesIO()
    np.savez(content, **arrays(d_sae=1024))  # pyright: ignore[reportArgumentType]
    hub.put(REPO, PATH, content.getvalue())
    with pytest.raises(ValueError, match="has 1024 features, its folder says 4096"):
        RemoteSAE.open(REPO, PATH, whole=never)


def test_a_server_that_ignores_ranges_is_refused_before_it_sends_much(hub: Hub) -> None:
    hub.fault(PATH, ignores_range=True)
    with pytest.raises(HubError, match="ignores ranges"):
        RemoteSAE.open(REPO, PATH, whole=never)


def test_the_sparse_file_is_laid_out_as_numpy_does_it(tmp_path: Path) -> None:
    """The oracle of the next test: numpy's own file of the same shapes, byte by byte."""
    small = shapes(24, 512)
    write_sparse(tmp_path / "sparse.npz", small)
    np.savez(tmp_path / "numpy.npz", **{n: np.zeros(s, "f4") for n, s in small.items()})  # pyright: ignore[reportArgumentType]
    contents = []
    for name in ("sparse.npz", "numpy.npz"):
        content = bytearray((tmp_path / name).read_bytes())
        with zipfile.ZipFile(tmp_path / name) as archive:
            for info in archive.infolist():
                # Time and checksum, in both headers of a member: 8 bytes in all.
                for at, offset in ((info.header_offset, 10), (_central(content, info), 12)):
                    content[at + offset : at + offset + 8] = bytes(8)
        contents.append(bytes(content))
    assert contents[0] == contents[1]


def _central(content: bytearray, info: zipfile.ZipInfo) -> int:
    """Where a member stands in the zip's directory."""
    return content.rindex(info.filename.encode()) - 46


def test_steering_a_feature_of_a_million_wide_sae_reads_kilobytes(hub: Hub, tmp_path: Path) -> None:
    """The true layout at the true size: 19.3 GB with 64-bit offsets, as one hole on the disk."""
    path = tmp_path / "params.npz"
    offsets = write_sparse(path, shapes(WIDE_IN, WIDE_SAE))
    index = 1_012_082
    row = np.random.default_rng(0).normal(size=WIDE_IN).astype("f4")
    with path.open("r+b") as file:
        for name, value in (("W_dec", row), ("b_enc", row[:1]), ("threshold", row[1:2] ** 2)):
            file.seek(offsets[name] + index * value.nbytes)
            file.write(value.tobytes())
    stat = path.stat()
    assert stat.st_size == pytest.approx(4 * (WIDE_SAE * (2 * WIDE_IN + 2) + WIDE_IN), abs=2000)
    assert stat.st_size > 19.3e9
    assert stat.st_blocks * 512 < 2**20
    assert set(offsets) == set(KEYS)
    assert sum(offset > 2**32 for offset in offsets.values()) >= 3, "beyond 32 bits"
    hub.put(REPO, WIDE, path, etag="d" * 64)

    sae = RemoteSAE.open(REPO, WIDE, whole=never, model="gemma-2-2b")
    assert (sae.config.layer, sae.config.d_in, sae.config.d_sae) == (12, WIDE_IN, WIDE_SAE)
    program = bind([Steer((12, index), 3, unit="raw")], OneSAE(sae))
    assert np.array_equal(program.groups[Site(12)].rows[0].numpy(), row)
    to_steer = hub.served(WIDE)
    assert to_steer < 50_000
    assert len(hub.requests("storage")) <= 8
    assert sae.bias_of(index) == row[0]
    assert sae.threshold_of(index) == row[1] ** 2
    assert sae.bytes_read == hub.served(WIDE) < 100_000
    assert not sae.direction(index - 1).any()
    assert not sae.direction(index + 1).any()
