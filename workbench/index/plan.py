"""How large a pass may be: what it keeps, and the largest batch that fits beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.doctor import free_bytes
from workbench.index.best import ENTRY
from workbench.index.state import Shape
from workbench.models import Model
from workbench.sae.shelf import parse_bytes

TOKENS = 4096
"""Tokens of a batch, if they fit: more gains nothing."""
SHARE = 0.5
"""Of the free memory, what a pass may take unless told."""
SAMPLE = 2**16
"""Tokens on which features that fire together are counted."""
PAIRS = 10
"""Partners of each feature that are kept."""
ALIVE = 12
"""Half octaves in which a feature fires, in the mean: from a threshold to its maximum."""
L0 = 100
"""Active features a token, where only the order of magnitude counts."""


@dataclass(frozen=True)
class Settings:
    """What an index is made with; part of its identity."""

    context: int
    """Tokens of a row."""
    batch: int
    """Rows at once."""
    shape: Shape
    sample: int = SAMPLE
    pairs: int = PAIRS


def state_bytes(d_saes: Sequence[int], shape: Shape, sample: int = SAMPLE) -> int:
    """About what the state of a pass takes, whatever the length of the corpus."""
    feature = (
        4 * 8  # sums
        + 4 * shape.all_bins
        + 8 * (1 + shape.all_ranges)  # slots and limits of the best
        + ENTRY.itemsize * (shape.top + ALIVE * shape.stratified)
    )
    tokens = sum(2 + L0 * (2 if d <= 2**16 else 4) for d in d_saes)
    # A quarter more for candidates that wait and the copy of an array while it is stored.
    return int(1.25 * (sum(d_saes) * feature + sample * tokens))


def batch_bytes(model: Model, context: int, rows: int) -> int:
    """About what a forward pass over some rows takes."""
    config = model.config
    width = max(config.hidden_size, getattr(config, "intermediate_size", None) or 0)
    # Several copies of the widest activation live at once, in float32 at times, and four of the
    # attention scores.
    each = 8 * 4 * context * width + 4 * 4 * config.num_attention_heads * context**2
    return rows * (each + 4 * config.vocab_size)  # logits of the last position


def settings_for(
    model: Model,
    d_saes: Sequence[int],
    shape: Shape,
    *,
    context: int,
    batch: int | None,
    memory: str | int | None,
    pairs: int = PAIRS,
    begun: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings that fit into `memory`.

    Args:
        model: The model.
        d_saes: Features of each site.
        shape: What to keep of each feature.
        context: Tokens of a row.
        batch: Rows at once; the most that fit, up to 4,096 tokens, if left out.
        memory: Bytes, or such as ``"4GB"``, for all but model and SAEs; half of what is free if
            left out.
        pairs: Partners of each feature to keep.
        begun: The settings of a pass that is to go on: its batch is kept if none is given, because
            other batches round otherwise.

    Raises:
        ValueError: If a number is out of range, or it does not fit; says what would.
    """
    if not 2 <= context <= model.context:
        raise ValueError(f"context must be 2 to {model.context} for {model.name}, got {context}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1 row, got {batch}")
    if batch is None and begun is not None:
        batch = begun["batch"]
    limit = parse_bytes(memory) or int(SHARE * free_bytes("cpu"))
    state = state_bytes(d_saes, shape)
    rows = batch or max(1, TOKENS // context)
    while batch is None and rows > 1 and state + batch_bytes(model, context, rows) > limit:
        rows //= 2
    needed = state + batch_bytes(model, context, rows)
    if needed > limit:
        raise ValueError(
            f"this index needs about {needed / 1e9:.2g} GB beside the model and "
            f"{limit / 1e9:.2g} GB are allowed: name fewer sites, lower top, stratified, bins or "
            "batch, or give memory='8GB' or the like"
        )
    return Settings(context, rows, shape, pairs=pairs)
