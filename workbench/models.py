"""Open a model, and let one caller use it at a time.

nnsight keeps a run's state on the model, so two traces at once break each other. A `Turn` is the
queue in front of a model: a second caller waits, or asks the first to stop, as it chooses.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from nnsight import TransformersModel
from torch import nn

from workbench.loading import Attention, Quantization, plan
from workbench.sources import fetch_config, fetch_model, find_source, require, token_for_now

Busy = Literal["wait", "cancel"]


class Turn:
    """Whose turn it is to use a model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._stop: threading.Event | None = None

    @property
    def busy(self) -> bool:
        """True while somebody uses the model."""
        return self._lock.locked()

    @contextmanager
    def take(self, *, busy: Busy = "wait", stop: threading.Event | None = None) -> Iterator[None]:
        """Hold the model for a ``with`` block.

        Args:
            busy: What to do if it is in use: ``"wait"`` for the end, or ``"cancel"``, which sets
                the `stop` of the present holder and then waits for it.
            stop: How a later caller may ask this one to stop.

        Raises:
            RuntimeError: If this very thread holds it already, which would wait for ever.
            ValueError: For another word than these two.
        """
        if busy not in get_args(Busy):
            raise ValueError(f"busy must be 'wait' or 'cancel', got {busy!r}")
        if self._owner == threading.get_ident():
            raise RuntimeError(
                "the model is in use by this very call (a stream callback, perhaps): "
                "start the second run after the first has returned"
            )
        self._acquire(cancel=busy == "cancel")
        try:
            self._owner, self._stop = threading.get_ident(), stop
            yield
        finally:
            self._owner = self._stop = None
            self._lock.release()

    def _acquire(self, *, cancel: bool) -> None:
        free = self._lock.acquire(blocking=False)
        while not free:
            # Asked before every wait: the holder may be one that came in between.
            holder = self._stop
            if cancel and holder is not None:
                holder.set()
            # Short waits keep the main thread open to KeyboardInterrupt on every platform.
            free = self._lock.acquire(timeout=0.05)


@dataclass(frozen=True, eq=False)
class Model:
    """A model ready to be traced."""

    name: str
    """What it was opened by."""
    nnsight: TransformersModel
    """The plain nnsight model: ``with model.nnsight.trace(...)`` works as documented there."""
    module: nn.Module
    """The transformers model inside, as nnsight runs it."""
    tokenizer: Any
    """Its tokenizer."""
    notes: tuple[str, ...] = ()
    """What was chosen when it was loaded, each with its reason."""
    turn: Turn = field(default_factory=Turn, repr=False)

    @property
    def config(self) -> Any:
        """The transformers config of the text model."""
        return _text_config(self.module)

    @property
    def device(self) -> torch.device:
        """Where the first parameter is."""
        return next(self.module.parameters()).device

    @property
    def context(self) -> int:
        """Most positions in one run."""
        return self.config.max_position_embeddings

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids that end a generation."""
        end = getattr(self.module.generation_config, "eos_token_id", None)
        end = self.tokenizer.eos_token_id if end is None else end
        if end is None:
            return ()
        return (end,) if isinstance(end, int) else tuple(end)


def wrap(module: nn.Module, tokenizer: Any, *, name: str, notes: tuple[str, ...] = ()) -> Model:
    """A `Model` around a loaded transformers module. The module is put into evaluation mode.

    Raises:
        ValueError: If its attention cannot soft-cap although its config asks for it, or it is in
            float16.
    """
    config = _text_config(module)
    if getattr(config, "attn_logit_softcapping", None) and config._attn_implementation == "sdpa":
        raise ValueError(
            "this model soft-caps its attention scores and 'sdpa' attention leaves the cap out: "
            "load it with attn_implementation='eager'"
        )
    if next(module.parameters()).dtype == torch.float16:
        raise ValueError("Gemma 2 overflows in float16: load it in bfloat16 or float32")
    traced = TransformersModel(module.eval(), task="text-generation", tokenizer=tokenizer)
    return Model(name, traced, module, tokenizer, notes)


def load(
    path: str | Path,
    *,
    name: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    attention: Attention | None = None,
    device_map: Any = None,
    quantization: Quantization | None = None,
    token: str | None = None,
) -> Model:
    """A `Model` from a folder, an adapter's folder, or the hub.

    Args:
        path: A folder in Hugging Face's layout; a folder of a PEFT adapter, which is merged into
            its base model; a hub id such as ``"google/gemma-2-2b"``, or a name of
            `workbench.sources.SHORT_NAMES` such as ``"gemma-2-2b"``.
        name: What to call it, if not by `path`.
        device: Such as ``"cuda"``; a CUDA GPU if there is one, else the CPU, if left out.
        dtype: Float32 or bfloat16. If left out, bfloat16 on a GPU and where float32 does not fit.
        attention: ``"eager"``, ``"sdpa"``, ``"flex_attention"`` or ``"flash_attention_2"``; the
            safe one for this model if left out.
        device_map: Of transformers, such as ``"auto"``, instead of `device`: spreads the model.
        quantization: ``"8bit"`` or ``"4bit"`` for the linear layers.
        token: Token of the hub for this call, instead of the one of this machine.

    Raises:
        CannotLoadError: It does not fit, or the hub does not give it.
        ValueError: For choices that contradict each other or would compute wrongly.
        ImportError: An optional package is missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = find_source(path)
    if source.adapter is not None:
        require("peft", f"the adapter {source.adapter}")
        if quantization is not None:
            raise ValueError(
                "an adapter cannot be merged into quantised weights without loss: open it without "
                "quantization=, or merge it first"
            )
    with token_for_now(token):
        # The config first: it tells whether the rest is worth fetching.
        config = AutoConfig.from_pretrained(fetch_config(source))
        chosen = plan(
            config,
            name or source.name,
            device=device,
            dtype=dtype,
            attention=attention,
            device_map=device_map,
            quantization=quantization,
        )
        folder = fetch_model(source)
    module: Any = AutoModelForCausalLM.from_pretrained(folder, config=config, **chosen.options)
    if source.adapter is not None:
        module = _merged(module, source.adapter)
    if "device_map" not in chosen.options:
        module = module.to(chosen.device)
    own = source.adapter is not None and (source.adapter / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(source.adapter if own else folder)
    return wrap(module, tokenizer, name=name or source.name, notes=chosen.notes)


def _merged(module: nn.Module, adapter: Path) -> nn.Module:
    """The model with an adapter's change written into its weights."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by an older name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        tuned: Any = PeftModel.from_pretrained(module, str(adapter))  # pyright: ignore[reportArgumentType]
    # As a plain transformers module: sites keep their names, and a pass costs nothing more.
    return tuned.merge_and_unload()


def _text_config(module: Any) -> Any:
    # A model that also sees images keeps its language part's numbers one level down.
    return module.config.get_text_config()
