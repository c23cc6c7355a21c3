"""Published suites: what is read of an SAE that is not on disk, and what opens by which name."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_sae
from huggingface_hub import constants
from sae.hub_server import Hub, close_connections, connect
from safetensors.numpy import save

from workbench.engine.binding import bind
from workbench.engine.edits import Ablate, Steer
from workbench.sae import SAE
from workbench.sae.catalog import catalog_entry
from workbench.sae.formats import save_sae_lens
from workbench.sae.hub import HubError, cached, failures
from workbench.sae.published import PublishedSuite, is_published, open_sae
from workbench.sites import Site

REPO, FOLDER = "google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"
PATH, OTHER = f"{FOLDER}/params.npz", "layer_19/width_16k/average_l0_73/params.npz"
D_IN, D_SAE = 8, 16384


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "W_enc": rng.normal(size=(D_IN, D_SAE)).astype("f4"),
        "W_dec": rng.normal(size=(D_SAE, D_IN)).astype("f4"),
        "b_enc": rng.normal(size=D_SAE).astype("f4"),
        "b_dec": rng.normal(size=D_IN).astype("f4"),
        "threshold": rng.uniform(1, 9, size=D_SAE).astype("f4"),
    }


def npz(seed: int) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays(seed))  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as served:
        served.put(REPO, PATH, npz(0))
        served.put(REPO, OTHER, npz(1))
        connect(served, tmp_path / "home", monkeypatch)
        monkeypatch.setattr(failures, "sleep", lambda _: None)
        yield served
        close_connections()


def by_hand(x: torch.Tensor, seed: int = 0) -> np.ndarray:
    plain = arrays(seed)
    pre = x.numpy() @ plain["W_enc"] + plain["b_enc"]
    return pre * (pre > plain["threshold"])


def test_making_a_suite_asks_nobody(server: Hub) -> None:
    suite = PublishedSuite("gemma-2-2b")
    assert Site(25, "att") in suite.sites
    assert len(suite.sites) == 26 * 4 + 1
    assert not suite.at_hand(Site(20))
    assert server.asked == []
    assert is_published("gemma-2-9b-it")
    assert not is_published("pocket")


def test_steering_reads_a_row_and_ablating_the_file(server: Hub) -> None:
    suite = PublishedSuite("gemma-2-2b")
    program = bind([Steer((20, 12082), 2.0, unit="raw")], suite)
    row = program.groups[Site(20)].rows[0].numpy()
    np.testing.assert_array_equal(row, arrays(0)["W_dec"][12082])
    assert server.served(PATH) < 50_000 < len(npz(0))
    assert not suite.at_hand(Site(20))

    x = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(0))
    group = bind([Ablate((20, 12082))], suite).groups[Site(20)]
    found = group.coefficients(x[None])[0, :, 0]
    np.testing.assert_allclose(found, -by_hand(x)[:, 12082], rtol=1e-5)
    assert suite.at_hand(Site(20))


def test_using_an_sae_downloads_nothing(server: Hub) -> None:
    suite, site = PublishedSuite("gemma-2-2b"), Site(20)
    remote = suite.sae(layer=20)
    read = server.served(PATH)
    for _ in range(2):  # the second time, one is in use there already
        remote.check_values()
        suite.use(remote, site)
    suite.use(random_sae(site, D_IN, 1), site)
    assert suite.at_hand(site)
    assert not suite.on_disk(site)
    suite.use(remote, site)
    assert server.served(PATH) == read < 50_000


def test_the_shipped_one_is_known_again_once_it_is_on_disk(server: Hub) -> None:
    suite, site = PublishedSuite("gemma-2-2b"), Site(20)
    sae = suite.sae(layer=20).whole()  # pyright: ignore[reportAttributeAccessIssue]
    suite.use(sae, site)
    assert suite.named_in_use(site) == suite.published_name(site) != ""
    suite.use(random_sae(site, D_IN, 1), site)
    assert suite.named_in_use(site) == ""


def test_encoding_fetches_the_file_once_and_maps_it(server: Hub) -> None:
    suite = PublishedSuite("gemma-2-2b")
    remote = suite.sae(layer=20)
    x = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        np.testing.assert_allclose(remote.encode(x), by_hand(x), rtol=1e-4, atol=1e-5)
    sae = suite.sae(layer=20)
    assert isinstance(sae, SAE)
    assert server.served(PATH) < 1.05 * len(npz(0))
    again = PublishedSuite("gemma-2-2b").sae(layer=20)
    assert server.served(PATH) < 1.05 * len(npz(0))
    assert np.shares_memory(sae.W_enc.numpy(), sae.W_enc.numpy()[:1])
    assert (again.config.model, again.config.l0) == ("gemma-2-2b", 71.0)


@pytest.mark.parametrize(
    "name",
    [
        f"{REPO}/{FOLDER}",
        f"https://huggingface.co/{REPO}/tree/main/{FOLDER}",
        "gemma-2-2b/20-gemmascope-res-16k",
        "gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical",
    ],
)
def test_every_spelling_opens(server: Hub, name: str) -> None:
    sae = open_sae(name)
    assert (sae.config.model, sae.config.layer, sae.config.kind) == ("gemma-2-2b", 20, "res")
    np.testing.assert_array_equal(sae.direction(3), arrays(0)["W_dec"][3])


def test_a_folder_of_another_repository_is_fetched_without_what_does_not_belong(
    server: Hub, tmp_path: Path
) -> None:
    sae = random_sae(Site(2), 12, 0)
    save_sae_lens(sae, tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        server.put("someone/my-saes", f"layer_2/{file.name}", file.read_bytes())
    server.put("someone/my-saes", "layer_2/optimizer.pt", b"x" * 5000)
    opened = open_sae("someone/my-saes/layer_2")
    assert torch.equal(opened.W_dec, sae.W_dec)
    assert (opened.config.layer, opened.config.kind) == (2, "res")
    assert server.served("layer_2/optimizer.pt") == 0


@pytest.mark.parametrize("name", ["/no/such/folder", "./mine/topk", "~/mine", "a.npz"])
def test_what_can_only_be_on_disk_is_not_looked_for_elsewhere(server: Hub, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no file or folder {name} on this"):
        open_sae(name)
    assert server.asked == []


def test_a_folder_that_is_nowhere_was_looked_for_twice(server: Hub) -> None:
    with pytest.raises(HubError, match=r"'mine/topk' is no folder here .*, nor .* on the hub: "):
        open_sae("mine/topk")


def test_a_file_of_no_known_format_is_not_told_of_its_neighbours(tmp_path: Path) -> None:
    for name in ("a.npz", "diary.txt"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(
        ValueError, match=r"a\.npz is no SAE of a known format\. Known are"
    ) as caught:
        open_sae(tmp_path / "a.npz")
    assert "diary" not in str(caught.value)


def test_an_sae_has_a_name() -> None:
    with pytest.raises(ValueError, match=r"the name of the SAE is empty: lab\.saes lists"):
        open_sae("")


def test_a_folder_without_an_sae_says_what_is_there(server: Hub) -> None:
    server.put("someone/my-saes", "notes/todo.txt", b"train it")
    with pytest.raises(ValueError, match=r"no SAE of a known format; it holds todo\.txt"):
        open_sae("someone/my-saes/notes")
    with pytest.raises(HubError, match="no repository"):
        open_sae("someone/else/notes")


def test_weights_with_nan_never_reach_the_cache(server: Hub, tmp_path: Path) -> None:
    save_sae_lens(random_sae(Site(2), 12, 0), tmp_path / "saved")
    weights = (tmp_path / "saved" / "sae_weights.safetensors").read_bytes()
    broken = weights[:-4] + np.float32("nan").tobytes()
    server.put("someone/my-saes", "sae_weights.safetensors", broken)
    server.put("someone/my-saes", "cfg.json", (tmp_path / "saved" / "cfg.json").read_bytes())
    with pytest.raises(HubError, match="not finite"):
        open_sae("someone/my-saes")
    assert cached("someone/my-saes", "sae_weights.safetensors") is None


def test_offline_uses_what_is_there_and_says_what_is_missing(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    PublishedSuite("gemma-2-2b").sae(layer=20).encode(torch.zeros(1, D_IN))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    suite = PublishedSuite("gemma-2-2b")
    assert isinstance(suite.sae(layer=20), SAE)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set and layer_19.*hf download"):
        suite.sae(layer=19)


def test_the_budget_counts_what_is_open(server: Hub) -> None:
    suite = PublishedSuite("gemma-2-2b", memory=len(npz(0)))
    for layer in (20, 19, 20):
        suite.sae(layer=layer).encode(torch.zeros(1, D_IN))
    assert suite.shelf.bytes <= len(npz(0))
    assert server.served(PATH) < 1.05 * len(npz(0))


def test_gemma_3_has_suites_of_its_own() -> None:
    suite: Any = PublishedSuite("gemma-3-1b-pt")
    entry = suite._entry(Site(13), "16k", None)
    assert entry.path.name == "layer_13_width_16k_l0_big"  # 120 is the nearest to 100
    assert {site.kind for site in suite.sites} == {"res", "att", "mlp", "transcoder"}


def test_an_sae_of_gemma_scope_2_opens_and_is_not_asked_for_again(server: Hub) -> None:
    repo, folder = "google/gemma-scope-2-1b-pt", "transcoder_all/layer_3_width_16k_l0_big"
    found = catalog_entry(f"{repo}/{folder}")
    plain = {f"{k[0].lower()}{k[1:]}": v for k, v in arrays(4).items()}
    server.put(repo, f"{folder}/params.safetensors", save(plain))
    config = {
        "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
        "width": D_SAE,
        "model_name": "gemma-v3-1b-pt",
        "architecture": "jump_relu",
        "l0": 150,
        "affine_connection": False,
        "type": "transcoder",
    }
    server.put(repo, f"{folder}/config.json", json.dumps(config).encode(), lfs=False)
    server.put(repo, f"{folder}/examples.safetensors", b"x" * 5000)
    suite = PublishedSuite("gemma-3-1b-pt")
    sae = suite.sae(layer=3, kind="transcoder", width="16k", l0=found["l0"])
    assert (sae.config.kind, sae.config.layer) == ("transcoder", 3)
    x = torch.randn(5, D_IN, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(sae.encode(x), by_hand(x, 4), rtol=1e-4, atol=1e-5)
    assert server.served(f"{folder}/examples.safetensors") == 0
    asked = len(server.asked)
    PublishedSuite("gemma-3-1b-pt").sae(layer=3, kind="transcoder", width="16k", l0=found["l0"])
    assert len(server.asked) == asked


def test_a_folder_of_which_nobody_knows_the_site_is_not_guessed(server: Hub) -> None:
    server.put("someone/my-saes", OTHER, npz(2))
    name = "someone/my-saes/" + OTHER.removesuffix("/params.npz")
    with pytest.raises(ValueError, match="pass kind="):
        open_sae(name)
    sae = open_sae(name, kind="mlp")
    assert (sae.config.kind, sae.config.layer) == ("mlp", 19)
    np.testing.assert_array_equal(sae.direction(3), arrays(2)["W_dec"][3])
