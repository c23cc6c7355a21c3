"""Open a model with its SAEs."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.doctor import free_bytes
from workbench.models import Model, load, wrap
from workbench.pocket.manifest import verify, weights
from workbench.sae.catalog_data import model_name
from workbench.sae.published import PublishedSuite, is_published
from workbench.sae.shelf import parse_bytes
from workbench.sae.suite import Suite

if TYPE_CHECKING:
    from torch import nn


from workbench.lab.core import SHIPPED
from workbench.lab.facade import Lab

SHARE = 0.5
"""Of the memory that is free once the model is open, what open SAEs may take unless told."""


def open(
    name: str | Path | nn.Module = "pocket",
    *,
    suite: str | Path | Suite | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    memory: str | int | None = None,
    sae_dtype: torch.dtype = torch.float32,
    tokenizer: Any = None,
    **loading: Any,
) -> Lab:
    """Open a model with its SAEs.

    Args:
        name: ``"pocket"`` or ``"pocket-it"``, which are shipped; a hub id or short name such as
            ``"gemma-2-2b"``, whose SAEs are Gemma Scope's; a folder of a model in Hugging Face's
            layout, or of a PEFT adapter; or a loaded transformers module.
        suite: Folder of SAEs in Gemma Scope's layout, or the name of the model whose published SAEs
            to use (those of ``"gemma-2-2b"`` for your fine-tune of it).
        device: Such as ``"cuda"``; a GPU if there is one, else the CPU, if left out.
        dtype: Of the model; chosen for the device if left out. Float16 overflows.
        memory: What open SAEs may take together, such as ``"8GB"``: the least recently used are
            closed. Half of what is free if left out.
        sae_dtype: What SAEs compute in, float32 or bfloat16.
        tokenizer: For a loaded module.
        loading: For large models: ``attention``, ``device_map``, ``quantization`` (``"8bit"`` or
            ``"4bit"``) and ``token``; see `workbench.models.load`. `Lab.notes` says what was
            chosen and why.

    Raises:
        TypeError: If `name` is none of these, or an option does not exist.
        ValueError: If a shipped file does not match its manifest, or the model cannot be opened.
    """
    published = None
    _check_names(loading)
    if not isinstance(name, str | Path | torch.nn.Module):
        raise TypeError(
            "name is a model's name such as 'pocket' or 'gemma-2-2b', a folder, or a loaded "
            f"transformers module; got {name!r}"
        )
    name = str(name) if isinstance(name, Path) else name
    if isinstance(name, str) and name in SHIPPED:
        verify()
        folder = weights() / SHIPPED[name]
        # So small a model gains nothing from a GPU or from half the bits.
        model = load(
            folder, name=name, device=device or "cpu", dtype=dtype or torch.float32, **loading
        )
        suite, published = suite or weights() / "sae", "pocket"
    elif isinstance(name, str):
        model = load(name, device=device, dtype=dtype, **loading)
    else:
        if tokenizer is None or device or dtype or loading:
            raise ValueError(
                "a loaded module stays as it is: give its tokenizer=, and no device, dtype or "
                f"loading options (got {', '.join(loading) or 'tokenizer=None, a device or dtype'})"
            )
        model = wrap(name, tokenizer, name=type(name).__name__)
    return Lab(model, _suite(model, suite, published, parse_bytes(memory), sae_dtype))


def _check_names(loading: Mapping[str, Any]) -> None:
    known = {*signature(open).parameters, *signature(load).parameters} - {"loading", "path"}
    if not loading.keys() <= known:
        # Here because widgets cost time to import, and a lab needs none of them.
        from workbench.widgets.base import refuse_unknown

        refuse_unknown("wb.open", loading, known)


def _suite(
    model: Model,
    suite: str | Path | Suite | None,
    published: str | None,
    memory: int | None,
    dtype: torch.dtype,
) -> Suite | None:
    """The SAEs that were asked for, or those that are published for the model."""
    if isinstance(suite, Suite):
        return suite
    options: dict[str, Any] = {
        "device": model.device,
        "dtype": dtype,
        "memory": memory or int(SHARE * free_bytes(model.device)),
    }
    name = published or model_name(model.name)
    if suite is None:
        # Those of the base model serve its tuned sibling where it has none, and a note says so.
        known = next((n for n in (name, name.removesuffix("-it")) if is_published(n)), None)
        return PublishedSuite(known, **options) if known else None
    if isinstance(suite, str) and is_published(model_name(suite)):
        return PublishedSuite(model_name(suite), **options)
    return Suite(suite, model=name, **options)
