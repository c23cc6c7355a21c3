"""On Colab, by a stand-in for its package: widgets, threads, the token, and the GPU it lends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from colab.fake import (
    MANAGER,
    Colab,
    NotebookAccessError,
    SecretNotFoundError,
    TimeoutException,
    install,
)
from sae.hub_server import Hub, close_connections, connect
from transformers import Gemma2Config

from workbench import doctor, loading
from workbench.colab import in_colab
from workbench.panels.base import VIEW, Panel, Stack
from workbench.panels.jobs import Errands, LatestJob
from workbench.sae.hub import HubError, check_access
from workbench.widgets import Widget

GATED = "google/gemma-2-2b"
TOKEN = "hf_ofNobodyAtAll"
T4 = SimpleNamespace(name="Tesla T4", total_memory=15_637_086_208, major=7)
"""As Colab lends it: 14.56 GiB, compute capability 7.5."""


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> Colab:
    return install(monkeypatch)


# Widgets


def test_the_first_widget_switches_the_manager_on(colab: Colab) -> None:
    assert in_colab()
    assert colab.managers == 0
    Widget()
    assert colab.managers >= 1


def test_elsewhere_nothing_is_switched_on() -> None:
    assert not in_colab()
    Widget()


def test_a_panel_and_its_box_name_the_manager(colab: Colab) -> None:
    class Simple(Panel[Widget]):
        def __init__(self) -> None:
            self.widget = Widget()

    stack = Stack(Widget())
    for panel, model in ((simple := Simple(), simple.widget), (stack, stack.box)):
        data, metadata = panel._repr_mimebundle_()
        assert data[VIEW]["model_id"] == model.model_id
        assert metadata[VIEW]["colab"]["custom_widget_manager"]["url"] == MANAGER


# Threads


def threads_of_jobs(**options: Any) -> set[threading.Thread]:
    """The threads in which the two kinds of runner work."""
    seen: list[threading.Thread] = []
    latest = LatestJob(lambda error: None, **options)
    errands = Errands(lambda error: None, **options)
    latest.submit(lambda stop: seen.append(threading.current_thread()))
    errands.submit(lambda: seen.append(threading.current_thread()))
    assert latest.join(5)
    assert errands.join(5)
    assert len(seen) == 2
    return set(seen)


def test_on_colab_work_is_done_in_the_kernels_own_thread(colab: Colab) -> None:
    assert threads_of_jobs() == {threading.current_thread()}
    assert threading.current_thread() not in threads_of_jobs(synchronous=False)


def test_elsewhere_work_is_done_in_another_thread() -> None:
    assert threading.current_thread() not in threads_of_jobs()
    assert threads_of_jobs(synchronous=True) == {threading.current_thread()}


# The token


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a gated repository, and no token on this machine."""
    with Hub() as server:
        server.put(GATED, "config.json", b"{}", lfs=False)
        server.gated.add(GATED)
        connect(server, tmp_path / "home", monkeypatch)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server
        close_connections()


def test_the_hub_is_asked_with_colabs_secret(
    colab: Colab, hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    colab.secrets["HF_TOKEN"] = TOKEN
    hub.tokens[TOKEN] = {GATED}
    check_access(GATED)
    assert colab.asked == ["HF_TOKEN"]
    assert TOKEN not in "".join(capfd.readouterr())


def test_a_token_in_the_environment_comes_first(
    colab: Colab, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.tokens[TOKEN] = {GATED}
    check_access(GATED)
    assert colab.asked == []


@pytest.mark.filterwarnings(r"ignore:\sAccess to the secret", r"ignore:\sError while fetching")
@pytest.mark.parametrize("error", [SecretNotFoundError, NotebookAccessError, TimeoutException])
def test_without_a_secret_the_error_says_where_colab_keeps_one(
    colab: Colab, hub: Hub, error: type[Exception]
) -> None:
    colab.secrets["HF_TOKEN"] = error("HF_TOKEN")
    with pytest.raises(HubError, match="there is no token") as caught:
        check_access(GATED)
    assert "Colab's secrets" in str(caught.value)
    assert "hf auth login" not in str(caught.value)
    assert caught.value.reason == "token"


def test_a_secret_that_is_refused_is_not_shown(colab: Colab, hub: Hub) -> None:
    colab.secrets["HF_TOKEN"] = TOKEN
    with pytest.raises(HubError, match="does not accept the token") as caught:
        check_access(GATED)
    assert TOKEN not in str(caught.value)


def test_elsewhere_the_error_names_the_command(hub: Hub) -> None:
    with pytest.raises(HubError, match="hf auth login") as caught:
        check_access(GATED)
    assert "Colab" not in str(caught.value)


def test_doctor_does_not_ask_for_the_secret(
    colab: Colab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert "secret HF_TOKEN" in doctor()["hugging face token"].value
    assert colab.asked == []


# The GPU


@pytest.fixture
def t4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch say that there is a T4, of which all but half a gigabyte is free."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: T4.name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: T4)
    monkeypatch.setattr(loading, "free_bytes", lambda _: T4.total_memory - 500_000_000)


def config(**sizes: int) -> Gemma2Config:
    """The 2B model's config, or that of another size."""
    two = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    options: dict[str, Any] = two | heads | sizes
    return Gemma2Config(vocab_size=256_000, **options)


NINE = {"hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42}
NINE |= {"num_attention_heads": 16, "num_key_value_heads": 8}


@pytest.mark.usefixtures("t4")
def test_a_gpu_that_emulates_bfloat16_gets_float32_where_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = loading.plan(config(), "gemma-2-2b")
    assert made.options["dtype"] == torch.float32
    assert "float32, 11.5 GB: this GPU has no bfloat16 arithmetic" in made.notes[1]
    assert loading.plan(config(), "m", dtype=torch.bfloat16).options["dtype"] == torch.bfloat16
    monkeypatch.setattr(loading, "free_bytes", lambda _: 8_000_000_000)
    made = loading.plan(config(), "gemma-2-2b")
    assert made.options["dtype"] == torch.bfloat16
    assert "float32 would need 11.5 GB and 8.0 GB are free; slow" in made.notes[1]


@pytest.mark.usefixtures("t4")
def test_what_does_not_fit_a_t4_is_refused_with_what_does() -> None:
    with pytest.raises(loading.CannotLoadError, match=r"needs 20\.3 GB .*quantization='8bit' \(1"):
        loading.plan(config(**NINE), "gemma-2-9b")


@pytest.mark.usefixtures("t4")
def test_doctor_says_what_fits_a_t4() -> None:
    value = doctor(gpu=True)["gpu"].value
    assert value.startswith("Tesla T4, 15 GB")
    assert "no bfloat16 arithmetic" in value
    assert "fits gemma-2-2b; with quantization='8bit' also gemma-2-9b" in value
    assert "27b" not in value
