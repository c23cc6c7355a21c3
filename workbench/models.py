"""Open a model, and let one caller use it at a time.

nnsight keeps a run's state on the model, so two traces at once break each other. A `Turn` is the
queue in front of a model: a second caller waits, or asks the first to stop, as it chooses.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from nnsight import TransformersModel
from torch import nn

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


def wrap(module: nn.Module, tokenizer: Any, *, name: str) -> Model:
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
    return Model(name, traced, module, tokenizer)


def load(
    path: str | Path,
    *,
    name: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """A `Model` from a folder in Hugging Face's layout, or from a hub id."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype or torch.float32, attn_implementation="eager"
    )
    if device is not None:
        module = module.to(device)
    return wrap(module, AutoTokenizer.from_pretrained(path), name=name or str(path))


def _text_config(module: Any) -> Any:
    # A model that also sees images keeps its language part's numbers one level down.
    return module.config.get_text_config()
