"""How to open a model: what a name means, where and in which dtype, and whether it fits there.

Decisions only, each with its reason, which the user can read in `workbench.models.Model.notes`;
`workbench.models.load` carries them out. Sizes are counted on a model without storage, made from
its config, so nothing is loaded to find out that it does not fit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import nn

from workbench.doctor import free_bytes
from workbench.sources import CannotLoadError, require

Attention = Literal["eager", "sdpa", "flex_attention", "flash_attention_2"]
Quantization = Literal["8bit", "4bit"]

HEADROOM = 1.1
"""What a model takes beside its weights for a prompt of some hundred tokens, as a factor."""
STORED_BYTES = {"8bit": 1.03, "4bit": 0.57}
"""Bytes of a quantised weight, its share of the scales included."""
QUANTIZERS: dict[tuple[str, str], str] = {
    ("8bit", "cuda"): "bitsandbytes",
    ("4bit", "cuda"): "bitsandbytes",
    ("8bit", "cpu"): "optimum.quanto",
}
"""What and kind of device -> the package that packs linear layers so. Of those that transformers
takes, only quanto has kernels for a CPU that need no compiler and write faster than bfloat16, and
those in 8 bits only."""


@dataclass(frozen=True)
class Plan:
    """How a model will be loaded."""

    device: str | None
    """Where to; None where a ``device_map`` says it."""
    options: Mapping[str, Any]
    """For ``from_pretrained`` of transformers."""
    notes: tuple[str, ...]
    """What was chosen, and why."""


def plan(
    config: Any,
    name: str,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attention: Attention | None = None,
    device_map: Any = None,
    quantization: Quantization | None = None,
) -> Plan:
    """Choose what is left open, and refuse what would not fit or would compute wrongly.

    Args:
        config: The transformers config of the model.
        name: What to call it in errors.
        device: As in `workbench.models.load`, like the rest.
        dtype: Of the weights.
        attention: Implementation.
        device_map: Of transformers.
        quantization: Of the linear layers.

    Raises:
        ValueError: The choices contradict each other, or the model would compute wrongly.
        CannotLoadError: It does not fit.
        ImportError: A package is missing.
    """
    if device is not None and device_map is not None:
        raise ValueError(f"give device={device!r} or device_map={device_map!r}, not both")
    if dtype not in (None, torch.float32, torch.bfloat16):
        raise ValueError(
            f"dtype must be torch.float32 or torch.bfloat16, got {dtype}: Gemma overflows in "
            "float16"
        )
    size = Size.of(config)
    place, where = _device(device, device_map)
    chosen, how = _attention(size, attention, place)
    options: dict[str, Any] = {"attn_implementation": chosen}
    if quantization is not None:
        _check_quantization(size, quantization, dtype, place)
    free = None if device_map is not None else free_bytes(place)
    dtype, precision = _dtype(size, name, place, dtype, quantization, free)
    options["dtype"] = dtype
    if quantization is not None:
        options["quantization_config"] = _quantization_config(quantization, place, dtype)
    if device_map is not None:
        require("accelerate", f"device_map={device_map!r}")
        options["device_map"] = device_map
    elif place != "cpu" and find_spec("accelerate"):
        # Straight onto the GPU: otherwise the machine's memory must hold the model first.
        options["device_map"] = {"": place}
    notes = tuple(note for note in (where, precision, how) if note)
    return Plan(None if device_map is not None else place, options, notes)


@dataclass(frozen=True)
class Size:
    """What the config alone tells of a model."""

    parameters: int
    """All of them, each once."""
    linear: int
    """Those in linear layers inside the model, which quantisation packs."""
    soft_caps: float | None
    """Where its attention scores are capped."""
    sdpa: bool
    """Whether transformers offers SDPA for it."""
    stored: str | None
    """How its weights are quantised on disk."""

    @classmethod
    def of(cls, config: Any) -> Size:
        """Count on a model without storage."""
        from transformers import AutoModelForCausalLM

        stored = getattr(config, "quantization_config", None)
        config = copy.deepcopy(config)
        with torch.device("meta"):
            module = AutoModelForCausalLM.from_config(config)
        head = module.get_output_embeddings()
        linear = sum(
            m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear) and m is not head
        )
        text = config.get_text_config()
        return cls(
            sum(p.numel() for p in module.parameters()),
            linear,
            getattr(text, "attn_logit_softcapping", None),
            module._supports_sdpa,
            stored and str(dict(stored).get("quant_method", "quantised")),
        )

    def needed(self, dtype: torch.dtype, quantization: str | None = None) -> int:
        """Bytes to run it."""
        if quantization is None:
            return int(HEADROOM * self.parameters * dtype.itemsize)
        packed = self.linear * STORED_BYTES[quantization]
        return int(HEADROOM * ((self.parameters - self.linear) * dtype.itemsize + packed))


def _device(device: str | None, device_map: Any) -> tuple[str, str]:
    if device_map is not None:
        return "cuda" if torch.cuda.is_available() else "cpu", f"spread by device_map={device_map}"
    if device is not None:
        try:
            return str(torch.device(device)), f"on {device}, as asked"
        except (RuntimeError, TypeError):
            raise ValueError(
                f"device={device!r} is none that torch knows here: give 'cpu', 'cuda', 'cuda:0' or "
                "'mps', or leave it out"
            ) from None
    if torch.cuda.is_available():
        return "cuda", f"on the GPU: {torch.cuda.get_device_name()}"
    return "cpu", "on the CPU: torch sees no CUDA GPU"


def _attention(size: Size, asked: Attention | None, place: str) -> tuple[str, str]:
    """The implementation and why.

    Raises:
        ValueError: For another name, one that would leave a soft cap out, or one that needs a GPU.
    """
    if asked is not None and asked not in get_args(Attention):
        raise ValueError(
            f"attention must be one of {', '.join(get_args(Attention))}, got {asked!r}"
        )
    if size.soft_caps and asked == "sdpa":
        raise ValueError(
            f"this model caps its attention scores at {size.soft_caps:g}, which SDPA cannot: use "
            "'eager', or on a GPU 'flex_attention' or 'flash_attention_2'"
        )
    if asked in ("flex_attention", "flash_attention_2") and torch.device(place).type != "cuda":
        raise ValueError(f"{asked!r} is made for CUDA GPUs, and this is {place}: use 'eager'")
    if asked is not None:
        return asked, f"{asked} attention, as asked"
    if size.soft_caps:
        return "eager", f"eager attention: scores are capped at {size.soft_caps:g}; SDPA cannot"
    if size.sdpa:
        return "sdpa", "SDPA attention: no soft cap in this model"
    return "eager", "eager attention: transformers offers no SDPA for this model"


def _dtype(
    size: Size,
    name: str,
    place: str,
    asked: torch.dtype | None,
    quantization: Quantization | None,
    free: int | None,
) -> tuple[torch.dtype, str]:
    """The dtype and why.

    Raises:
        CannotLoadError: It does not fit into the `free` bytes; None for no limit.
    """
    full = size.needed(torch.float32, quantization)
    dtype, reason = _preferred(full, torch.device(place).type, asked, quantization, free)
    if size.stored:
        return dtype, f"{size.stored} on disk, computes in {_word(dtype)}"
    needed = size.needed(dtype, quantization)
    if free is not None and needed > free:
        ways = ", ".join(_ways_out(size, place, dtype, quantization, free))
        kept = f"{quantization} and " if quantization else ""
        raise CannotLoadError(
            f"{name} needs {_gb(needed)} in {kept}{_word(dtype)}, and {_gb(free)} are free on "
            f"{place}. Ways out: {ways}",
            reason="memory",
        )
    packed = f"{quantization} linear layers, the rest in " if quantization else ""
    return dtype, f"{packed}{_word(dtype)}, {_gb(needed)}: {reason}"


def _preferred(
    full: int,
    kind: str,
    asked: torch.dtype | None,
    quantization: Quantization | None,
    free: int | None,
) -> tuple[torch.dtype, str]:
    """The dtype and why, whether or not it fits; `full` is what float32 needs."""
    if quantization and kind == "cpu":
        return asked or torch.bfloat16, "on a CPU quick to write, slow to read a long prompt"
    if asked:
        return asked, "as asked"
    need = f"float32 would need {_gb(full)}" + (
        "" if free is None else f" and {_gb(free)} are free"
    )
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "Gemma's own precision, at half the size of float32"
        # Before compute capability 8.0, as on Colab's T4: see `workbench.doctor`.
        if quantization is None and free is not None and full <= free:
            return torch.float32, "this GPU has no bfloat16 arithmetic, only a slow emulation"
        return torch.bfloat16, f"{need}; slow on this GPU, which emulates bfloat16"
    if quantization:
        return torch.bfloat16, "Gemma's own precision, at half the size of float32"
    if free is None or full <= free:
        return torch.float32, "exact, and the fastest on most CPUs"
    return torch.bfloat16, f"{need}; slower on a CPU without bfloat16 arithmetic"


def _ways_out(
    size: Size, place: str, dtype: torch.dtype, quantization: Quantization | None, free: int
) -> Iterator[str]:
    half = size.needed(torch.bfloat16)
    if quantization is None and dtype == torch.float32 and half <= free:
        yield f"dtype=torch.bfloat16 ({_gb(half)})"
    on = torch.device(place).type
    for kind in (kind for kind in get_args(Quantization) if (kind, on) in QUANTIZERS):
        needed = size.needed(torch.bfloat16, kind)
        if needed <= free and needed < size.needed(dtype, quantization):
            yield f"quantization={kind!r} ({_gb(needed)})"
    if on == "cuda":
        yield "device_map='auto', which puts the rest into the machine's memory and is slow"
    yield "a smaller model"
    yield "closing other notebooks"


def _check_quantization(
    size: Size, quantization: Quantization, dtype: torch.dtype | None, place: str
) -> None:
    """Refuse what cannot work, before anything is fetched.

    Raises:
        ValueError: For another word, or a model that is quantised already.
        ImportError: The package is missing.
    """
    if quantization not in get_args(Quantization):
        raise ValueError(f"quantization must be '8bit' or '4bit', got {quantization!r}")
    if size.stored:
        raise ValueError(
            f"this model is quantised on disk ({size.stored}): open it without quantization="
        )
    kind = torch.device(place).type
    if (quantization, kind) not in QUANTIZERS:
        able = " and ".join(f"{word} on {on}" for word, on in QUANTIZERS)
        raise ValueError(
            f"quantization={quantization!r} does not work on {place}; there are {able}"
        )
    if kind == "cpu" and dtype == torch.float32:
        raise ValueError(
            "8-bit weights that compute in float32 are slower on a CPU than float32 ones: leave "
            "dtype out, or give torch.bfloat16"
        )
    for package in (QUANTIZERS[quantization, kind], "accelerate"):
        require(package, f"quantization={quantization!r} on {place}")


def _quantization_config(quantization: Quantization, place: str, dtype: torch.dtype) -> Any:
    if torch.device(place).type == "cpu":
        from transformers import QuantoConfig

        return QuantoConfig(weights="int8")
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
