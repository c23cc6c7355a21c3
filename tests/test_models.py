"""Opening a model: what a name means, what is chosen and why, what is refused before it is loaded.

The hub is a server on the loopback; the models are tiny and real.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import byte_tokenizer, loud_module
from sae.hub_server import Hub, close_connections, connect
from transformers import AutoConfig, Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from workbench import loading, sources
from workbench.engine.tracing import trace
from workbench.loading import Size, plan
from workbench.models import load
from workbench.sites import Site
from workbench.sources import SHORT_NAMES, CannotLoadError, find_source
from workbench.tokens import tokenize

TOKEN, OTHER_TOKEN = "hf_" + "r" * 34, "hf_" + "s" * 34
GEMMA = "google/gemma-2-2b"
IDS = torch.tensor([[2, 40, 41, 90, 17, 33, 8, 60]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loud Gemma 2 in Hugging Face's layout."""
    path = tmp_path_factory.mktemp("models") / "loud"
    loud_module().save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def big() -> Gemma2Config:
    """The config of Gemma 2 2B (gemma-scope.md, 7.1): 2,614,341,888 parameters."""
    return Gemma2Config(
        hidden_size=2304,
        intermediate_size=9216,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
    )


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How many GB each kind of device has free; to be set."""
    free = {"cpu": 64.0, "cuda": 80.0}
    monkeypatch.setattr(
        loading, "free_bytes", lambda device: int(free[torch.device(device).type] * 1e9)
    )
    return free


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch say that there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


def logits(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        return module(IDS).logits.float()


# Names


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_a_short_name_is_googles_repository_and_the_catalogues_name(name: str) -> None:
    for spelling in (name, f"google/{name}"):
        source = find_source(spelling)
        assert (source.name, source.repo, source.folder) == (name, f"google/{name}", None)


def test_another_owners_model_keeps_its_whole_id() -> None:
    source = find_source("somebody/gemma-2-2b")
    assert (source.name, source.repo) == ("somebody/gemma-2-2b", "somebody/gemma-2-2b")


def test_a_folder_wins_over_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder.parent / "elsewhere"
    shutil.copytree(folder, home / "google" / "gemma-2-2b", dirs_exist_ok=True)
    monkeypatch.chdir(home)
    source = find_source(GEMMA)
    assert source.folder == Path(GEMMA)
    assert source.repo is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gemma-2-2", "'gemma-2-2' is no folder, .*near: gemma-2-2b"),
        ("pokcet", "near: pocket"),
        ("xyzzy", "short names: pocket, pocket-it, gemma-2-2b, gemma-2-2b-it"),
        ("a/b/c", "no id on the hub such as 'owner/name'"),
        ("/nowhere/at/all", "is no folder"),
        ("", "the name of the model is empty: 'pocket' comes"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither config\.json nor adapter_config\.json"):
        load(tmp_path)


# What is chosen


def test_a_folder_opens_with_the_same_logits(folder: Path) -> None:
    model = load(folder, device="cpu")
    assert torch.equal(logits(model.module), logits(loud_module()))
    assert model.name == str(folder)
    assert load(folder, device="cpu", name="mine").name == "mine"
    assert model.notes[0] == "on cpu, as asked"
    assert [note.split()[0] for note in model.notes[1:]] == ["float32,", "eager"]


@pytest.mark.parametrize("device", ["foo", 10**6, "cuda:x"])
def test_a_device_that_torch_does_not_know_is_named(folder: Path, device: Any) -> None:
    with pytest.raises(ValueError, match=f"device={device!r} is none that torch knows here: give"):
        load(folder, device=device)


def test_what_is_asked_for_is_what_is_loaded(folder: Path) -> None:
    for asked, made in ((None, torch.float32), (torch.bfloat16, torch.bfloat16)):
        model = load(folder, device="cpu", dtype=asked)
        assert {p.dtype for p in model.module.parameters()} == {made}
        assert str(made).removeprefix("torch.") in model.notes[1]


def test_parameters_are_counted_without_loading(big: Gemma2Config, folder: Path) -> None:
    size = Size.of(big)
    assert size.parameters == 2_614_341_888
    # Of each layer q and o, k and v, and the three of the MLP; not the tied head.
    assert size.linear == 26 * (2 * 2304 * 2048 + 2 * 2304 * 1024 + 3 * 2304 * 9216)
    small = Size.of(AutoConfig.from_pretrained(folder))
    module = loud_module()
    assert small.parameters == sum(p.numel() for p in module.parameters())
    assert small.linear == small.parameters - sum(
        p.numel() for n, p in module.named_parameters() if "proj" not in n
    )


def test_on_a_cpu_float32_if_it_fits_and_bfloat16_if_not(
    big: Gemma2Config, memory: dict[str, float]
) -> None:
    made = plan(big, "m")
    assert (made.device, made.options["dtype"]) == ("cpu", torch.float32)
    assert "device_map" not in made.options
    memory["cpu"] = 2.6143 * 4 * 1.1 - 0.01
    made = plan(big, "m")
    assert made.options["dtype"] == torch.bfloat16
    assert "float32 would need 11.5 GB and 11.5 GB are free" in made.notes[1]
    memory["cpu"] = 2.6143 * 4 * 1.1 + 0.01
    assert plan(big, "m").options["dtype"] == torch.float32


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_bfloat16_and_straight_there(big: Gemma2Config, memory: dict[str, float]) -> None:
    made = plan(big, "m")
    assert made.options["dtype"] == torch.bfloat16
    assert made.options["device_map"] == {"": "cuda"}
    assert made.notes[0] == "on the GPU: H200"
    assert plan(big, "m", dtype=torch.float32).options["dtype"] == torch.float32
    assert plan(big, "m", device="cuda:1").options["device_map"] == {"": "cuda:1"}
    memory["cpu"] = 1  # the machine's own memory does not count
    assert plan(big, "m", device="cuda").device == "cuda"


def test_float16_is_refused(big: Gemma2Config) -> None:
    with pytest.raises(ValueError, match=r"got torch\.float16: Gemma overflows in float16"):
        plan(big, "m", dtype=torch.float16)


@pytest.mark.parametrize(
    ("device", "options", "free", "needed", "ways", "not_ways"),
    [
        ("cpu", {"dtype": torch.float32}, 7, "11.5", ["bfloat16 (5.8", "'8bit' (3.6"], ["device_"]),
        ("cpu", {}, 4, "5.8", ["quantization='8bit' (3.6 GB)"], ["bfloat16 (", "4bit"]),
        ("cpu", {}, 1, "5.8", ["a smaller model"], ["quantization=", "dtype="]),
        ("cuda", {}, 3, "5.8", ["'4bit' (2.6 GB)", "device_map='auto'"], ["8bit"]),
        ("cuda", {"quantization": "8bit"}, 3, "3.6", ["'4bit' (2.6 GB)"], ["quantization='8bit'"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_ways_out(
    big: Gemma2Config,
    memory: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    options: dict[str, Any],
    free: float,
    needed: str,
    ways: list[str],
    not_ways: list[str],
) -> None:
    monkeypatch.setattr(loading, "require", lambda *_: None)
    memory[device] = free
    with pytest.raises(CannotLoadError) as caught:
        plan(big, "gemma-2-2b", device=device, **options)
    message = str(caught.value)
    assert caught.value.reason == "memory"
    assert message.startswith(f"gemma-2-2b needs {needed} GB in ")
    assert f"and {free:.1f} GB are free on {device}" in message
    assert message.endswith("meanwhile wb.open('pocket') needs nothing")
    assert all(way in message for way in ways), message
    offered = message.split("Ways out: ")[1]
    assert not any(way in offered for way in not_ways), message


def test_too_little_memory_is_noticed_before_any_weight_is_read(
    folder: Path, tmp_path: Path, memory: dict[str, float]
) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    memory["cpu"] = 0.00001
    with pytest.raises(CannotLoadError, match="Ways out"):
        load(tmp_path, device="cpu")


def test_attention_is_what_keeps_the_soft_cap(big: Gemma2Config) -> None:
    made = plan(big, "m", device_map="cpu")
    assert made.options["attn_implementation"] == "eager"
    assert "scores are capped at 50" in made.notes[-1]
    with pytest.raises(ValueError, match=r"caps its attention scores at 50, which SDPA cannot"):
        plan(big, "m", attention="sdpa")
    with pytest.raises(ValueError, match=r"must be one of eager, sdpa, .* got 'fast'"):
        plan(big, "m", attention="fast")  # pyright: ignore[reportArgumentType]


def test_a_model_without_a_soft_cap_gets_sdpa(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=1.0,
    )
    module = LlamaForCausalLM(config).eval()
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load(tmp_path, device="cpu")
    assert model.config._attn_implementation == "sdpa"
    assert "no soft cap" in model.notes[-1]
    eager = load(tmp_path, device="cpu", attention="eager")
    assert eager.config._attn_implementation == "eager"
    torch.testing.assert_close(logits(model.module), logits(eager.module), atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("attention", ["flex_attention", "flash_attention_2"])
def test_attention_that_is_made_for_gpus_is_only_picked_there(
    big: Gemma2Config, attention: Any
) -> None:
    with pytest.raises(ValueError, match=f"'{attention}' is made for CUDA GPUs, and this is cpu"):
        plan(big, "m", device="cpu", attention=attention)
    made = plan(big, "m", device="cuda", attention=attention)
    assert made.options["attn_implementation"] == attention
    assert made.notes[-1] == f"{attention} attention, as asked"


# device_map and quantisation


def test_device_map_is_handed_on(folder: Path) -> None:
    model = load(folder, device_map={"": "cpu"})
    assert torch.equal(logits(model.module), logits(loud_module()))
    assert model.notes[0] == "spread by device_map={'': 'cpu'}"
    with pytest.raises(ValueError, match="device='cpu' or device_map='auto', not both"):
        load(folder, device="cpu", device_map="auto")


def test_a_package_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda _: None)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"device_map": "auto"}, "accelerate"),
        ({"device": "cuda", "quantization": "8bit"}, "bitsandbytes"),
        ({"device": "cpu", "quantization": "8bit"}, "optimum-quanto"),
    ]
    for options, package in cases:
        with pytest.raises(ImportError, match=f"python -m pip install {package}$"):
            plan(AutoConfig.from_pretrained(folder), "m", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "2bit"}, "must be '8bit' or '4bit', got '2bit'"),
        (
            {"quantization": "8bit", "device": "mps"},
            "does not work on mps; there are 8bit on cuda and",
        ),
        ({"quantization": "4bit"}, "'4bit' does not work on cpu; there are .*8bit on cpu"),
        ({"quantization": "8bit", "dtype": torch.float32}, "slower on a CPU than float32 ones"),
    ],
)
def test_quantisation_that_cannot_work_is_refused(
    folder: Path, options: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"device": "cpu"} | options
    with pytest.raises(ValueError, match=message):
        plan(AutoConfig.from_pretrained(folder), "m", **given)


def test_a_model_that_is_quantised_on_disk_is_not_quantised_again(big: Gemma2Config) -> None:
    big.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(ValueError, match=r"quantised on disk \(gptq\)"):
        plan(big, "m", device="cpu", quantization="8bit")


@pytest.mark.usefixtures("memory")
def test_on_a_gpu_bitsandbytes_is_asked_for(
    big: Gemma2Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "require", lambda *_: None)
    eight = plan(big, "m", device="cuda", quantization="8bit").options["quantization_config"]
    assert eight.load_in_8bit
    four = plan(big, "m", device="cuda", quantization="4bit").options["quantization_config"]
    assert (four.load_in_4bit, four.bnb_4bit_quant_type) == (True, "nf4")
    assert four.bnb_4bit_compute_dtype == torch.bfloat16


def test_on_a_cpu_8_bit_weights_compute_almost_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    module = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            query_pre_attn_scalar=32,
            max_position_embeddings=64,
        )
    ).eval()
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # quanto's, about torch
        model = load(tmp_path, device="cpu", quantization="8bit")
    plain = logits(module)
    error = float((logits(model.module) - plain).norm() / plain.norm())
    assert 1e-4 < error < 0.1
    assert model.notes[1].startswith("8bit linear layers, the rest in bfloat16")
    run = trace(model, [tokenize(model.tokenizer, "Hi there")], [Site(1, "att"), Site(1, "mlp")])
    assert all(x.isfinite().all() and x.any() for x in run.activations.values())


# Adapters


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    """A LoRA of the loud model, with weights that matter."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    base: Any = loud_module()
    base.config._name_or_path = str(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft's
        tuned: Any = get_peft_model(
            base, LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"])
        )
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.3)
    tuned.peft_config["default"].base_model_name_or_path = str(folder)
    tuned.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_is_merged_into_its_base(adapter: Path, folder: Path) -> None:
    from safetensors.torch import load_file

    model = load(adapter, device="cpu")
    assert type(model.module) is Gemma2ForCausalLM, "a plain model, so that sites keep their names"
    # The formula of LoRA (Hu et al. 2021, section 4.1): W + alpha / r * B A.
    change = load_file(adapter / "adapter_model.safetensors")
    oracle = loud_module()
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{stem}.lora_A.weight" in change:
                a, b = change[f"{stem}.lora_A.weight"], change[f"{stem}.lora_B.weight"]
                parameter += 6 / 2 * b @ a
    torch.testing.assert_close(logits(model.module), logits(oracle), atol=1e-2, rtol=1e-4)
    assert (logits(oracle) - logits(loud_module())).abs().max() > 1, "the adapter must matter"
    assert model.name == str(adapter)
    assert model.tokenizer.encode("Hi") == byte_tokenizer().encode("Hi")


def test_the_adapters_own_tokenizer_wins(adapter: Path) -> None:
    own = byte_tokenizer()
    own.add_tokens(["<mine>"])
    own.save_pretrained(adapter)
    assert "<mine>" in load(adapter, device="cpu").tokenizer.get_vocab()


def test_an_adapter_without_peft_says_what_to_install(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"needs the package peft.*python -m pip install peft"):
        load(adapter)


def test_an_adapter_is_not_merged_into_quantised_weights(adapter: Path) -> None:
    with pytest.raises(ValueError, match="cannot be merged into quantised weights"):
        load(adapter, quantization="8bit")


def test_an_adapter_of_a_short_name_needs_that_model(tmp_path: Path) -> None:
    settings = {"base_model_name_or_path": GEMMA, "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    source = find_source(tmp_path)
    assert (source.repo, source.adapter, source.name) == (GEMMA, tmp_path, str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="does not name its base model"):
        find_source(tmp_path)


# The hub


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        for path in folder.iterdir():
            large = path.suffix == ".safetensors"
            server.put(GEMMA, path.name, path.read_bytes(), lfs=large)
        server.put(GEMMA, "README.md", b"# Gemma\n", lfs=False)
        server.put(GEMMA, "original/weights.bin", b"0" * 99)
        server.gated.add(GEMMA)
        server.tokens = {TOKEN: {GEMMA}, OTHER_TOKEN: set()}
        connect(server, tmp_path / "home", monkeypatch)
        yield server
        close_connections()


@pytest.mark.parametrize("name", ["gemma-2-2b", GEMMA])
def test_a_model_of_the_hub_is_fetched_once_and_opened(
    hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    model = load(name, device="cpu")
    assert model.name == "gemma-2-2b"
    assert torch.equal(logits(model.module), logits(loud_module()))
    assert not hub.served("original/weights.bin")
    assert not hub.served("README.md")
    before = len(hub.asked)
    monkeypatch.delenv("HF_TOKEN")
    assert torch.equal(logits(load(name, device="cpu").module), logits(model.module))
    assert len(hub.asked) == before, "a cached model asks nobody"


def test_a_token_is_used_for_its_call_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)
    load("gemma-2-2b", device="cpu", token=TOKEN)
    assert os.environ["HF_TOKEN"] == OTHER_TOKEN
    assert not [one for one in hub.requests("storage") if one.authorized]


@pytest.mark.parametrize(
    ("token", "name", "reason", "words"),
    [
        (None, "gemma-2-2b", "token", ["there is no token (401)", "hf auth login"]),
        (OTHER_TOKEN, "gemma-2-2b", "access", ["has not accepted (403)", f"/{GEMMA}"]),
        (OTHER_TOKEN, "google/gemma-2-9b", "missing", ["there is no repository"]),
        ("hf_made_up", "gemma-2-2b", "token", ["(401)"]),
    ],
)
def test_a_model_that_the_hub_refuses_is_one_error_with_the_next_step(
    hub: Hub, token: str | None, name: str, reason: str, words: list[str]
) -> None:
    with pytest.raises(CannotLoadError) as caught:
        load(name, device="cpu", token=token)
    message = str(caught.value)
    assert caught.value.reason == reason
    assert all(word in message for word in words), message
    assert message.endswith("; meanwhile wb.open('pocket') needs nothing")
    assert caught.value.__suppress_context__, "one error, not a chain of three"
    assert not hub.served("model.safetensors")


def test_a_model_that_does_not_fit_is_not_fetched(hub: Hub, memory: dict[str, float]) -> None:
    memory["cpu"] = 0.00001
    with pytest.raises(CannotLoadError, match="Ways out"):
        load("gemma-2-2b", device="cpu", token=TOKEN)
    assert not hub.served("model.safetensors")
    assert hub.served("config.json")


def test_offline_a_cached_model_opens_and_another_is_explained(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    load("gemma-2-2b", device="cpu", token=TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("gemma-2-2b", device="cpu").name == "gemma-2-2b"
    with pytest.raises(CannotLoadError, match="HF_HUB_OFFLINE is set") as caught:
        load("gemma-2-9b", device="cpu")
    assert caught.value.reason == "offline"


def test_a_model_in_shards_is_complete_only_with_all_of_them(hub: Hub, tmp_path: Path) -> None:
    loud_module().save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    byte_tokenizer().save_pretrained(tmp_path / "sharded")
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 2
    repo = "somebody/sharded"
    for path in (tmp_path / "sharded").iterdir():
        hub.put(repo, path.name, path.read_bytes(), lfs=path.suffix == ".safetensors")
    model = load(repo, device="cpu")
    assert model.name == repo
    assert torch.equal(logits(model.module), logits(loud_module()))
    lost = next((tmp_path / "home" / "hub").glob(f"models--somebody*/snapshots/*/{shards[1].name}"))
    os.remove(lost.resolve())  # noqa: PTH107
    lost.unlink()
    before = hub.served(shards[0].name), hub.served(shards[1].name)
    assert torch.equal(logits(load(repo, device="cpu").module), logits(loud_module()))
    after = hub.served(shards[0].name), hub.served(shards[1].name)
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_notes_say_everything_that_was_chosen(big: Gemma2Config, memory: dict[str, float]) -> None:
    made = plan(big, "m")
    assert made.notes == (
        "on the CPU: torch sees no CUDA GPU",
        "float32, 11.5 GB: exact, and the fastest on most CPUs",
        "eager attention: scores are capped at 50; SDPA cannot",
    )
