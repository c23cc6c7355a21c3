"""Train pocket's language model: a small, real `Gemma2ForCausalLM`, from scratch.

Everything that makes Gemma 2 awkward is there: alternating sliding and global layers, soft caps on
scores and logits, grouped-query attention, norms before and after each sub-layer, and an attention
width (``n_heads * head_dim`` = 160) that differs from ``d_model`` (128), so that mixing the sites
up fails.

Training runs in two parts. Most steps use a fast attention without the soft cap on the scores: at
50 the cap bends a score of 10 by 0.13, and small models hardly reach that. The last steps use the
exact eager attention, so the weights that are shipped were settled under the function that will
read them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from tqdm.auto import tqdm
from transformers import AttentionInterface, Gemma2Config, Gemma2ForCausalLM

from workbench.pocket.muon import Muon

CONTEXT = 256
WINDOW = 64


def config(vocabulary: int) -> Gemma2Config:
    """Pocket's architecture."""
    return Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=40,
        query_pre_attn_scalar=40,
        max_position_embeddings=CONTEXT,
        sliding_window=WINDOW,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one training run."""

    tokens: int = 12_800_000
    """Training tokens, padding never among them."""
    batch: int = 8
    """Rows of `CONTEXT` tokens a step."""
    learning_rate: float = 8e-3
    """Peak; linear warm-up, then linear decay to a twentieth."""
    warmup: float = 0.02
    """Share of the steps."""
    exact: float = 0.08
    """Share of the steps, at the end, under exact soft-capped attention."""
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.tokens // (self.batch * CONTEXT)


def uncapped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    scaling: float,
    sliding_window: int | None = None,
    **_unused: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention without the cap on the scores, ``(batch, head, pos, head_dim)`` in.

    A sliding layer looks only at its own block of `sliding_window` positions and the one before,
    which holds all that the window admits.
    """
    groups: int = module.num_key_value_groups  # pyright: ignore[reportAssignmentType]
    key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    width, length = sliding_window, query.shape[2]
    if not width or width >= length:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return out.transpose(1, 2).contiguous(), None
    blocks = (*query.shape[:2], length // width, width, query.shape[3])
    query, key, value = (tensor.reshape(blocks) for tensor in (query, key, value))
    key, value = (
        torch.cat([F.pad(tensor, (0, 0, 0, 0, 1, 0))[:, :, :-1], tensor], 3)
        for tensor in (key, value)
    )
    ahead = torch.arange(2 * width) - width
    here = torch.arange(width)[:, None]
    admitted = ((ahead <= here) & (ahead > here - width)).repeat(blocks[2], 1, 1)
    admitted[0] &= ahead >= 0
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~admitted, float("-inf"))
    out = (torch.softmax(scores, -1) @ value).flatten(2, 3)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("uncapped", uncapped_attention)


def next_token_loss(model: Gemma2ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over all but the first token of each row ``(row, pos)``."""
    fast = model.config._attn_implementation == "uncapped"
    mask = {"full_attention": None, "sliding_attention": None} if fast else None
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    cap: Any = model.config.final_logit_softcapping
    logits = torch.tanh(model.lm_head(hidden[:, :-1]).flatten(0, 1) / cap) * cap
    return F.cross_entropy(logits, ids[:, 1:].flatten())


def make_optimizers(model: Gemma2ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, Adam for embeddings and norms.

    On this corpus a run of 0.7 million tokens ends at a loss of 2.55 with Muon; AdamW's best rate
    and batch needed well over twice as many.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    lr = recipe.learning_rate
    return [
        Muon(matrices, lr=lr, weight_decay=recipe.weight_decay),
        torch.optim.Adam(others, lr=lr, betas=(0.9, 0.98), fused=True),
    ]


def rate(step: int, recipe: Recipe) -> float:
    """Learning rate at `step`."""
    warm = max(1, round(recipe.warmup * recipe.steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * (1 - 0.95 * (step - warm) / max(1, recipe.steps - warm))


def train(
    rows: np.ndarray,
    recipe: Recipe,
    folder: Path,
    *,
    start: Gemma2ForCausalLM | None = None,
    vocabulary: int = 2048,
    checkpoint_seconds: float = 120,
) -> Gemma2ForCausalLM:
    """Train on `rows` ``(row, CONTEXT)``, from the checkpoint in `folder` if there is one.

    Args:
        rows: Token ids. Each epoch visits them in a new order fixed by the recipe's seed.
        recipe: Hyper-parameters.
        folder: Checkpoints and ``log.jsonl``; made when missing.
        start: Weights to continue from, for tuning.
        vocabulary: Number of tokens, when there is no `start`.
        checkpoint_seconds: Time between two checkpoints.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model = start if start is not None else Gemma2ForCausalLM(config(vocabulary))
    optimizers = make_optimizers(model, recipe)
    checkpoint = folder / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    order, saved_at = _batches(rows, recipe, first), time.monotonic()
    with tqdm(total=recipe.steps, initial=first, desc="language model", unit="step") as bar:
        for step, ids in zip(range(first, recipe.steps), order, strict=False):
            exact = step >= (1 - recipe.exact) * recipe.steps
            model.config._attn_implementation = "eager" if exact else "uncapped"
            for group in (group for one in optimizers for group in one.param_groups):
                group["lr"] = rate(step, recipe)
            loss = next_token_loss(model, ids)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad()
            bar.update()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
                with (folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
            if time.monotonic() - saved_at > checkpoint_seconds or step + 1 == recipe.steps:
                _save(checkpoint, model, optimizers, step + 1)
                saved_at = time.monotonic()
    model.config._attn_implementation = "eager"
    return model.eval()


def _save(
    path: Path, model: Gemma2ForCausalLM, optimizers: list[torch.optim.Optimizer], step: int
) -> None:
    """Write a checkpoint so that a kill leaves either the old one or the new one."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _batches(rows: np.ndarray, recipe: Recipe, first: int) -> Iterator[torch.Tensor]:
    """Batches from step `first` on, the same whether or not the run was interrupted."""
    per_epoch = len(rows) // recipe.batch
    step = first
    while True:
        epoch = step // per_epoch
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(rows))
        for index in range(step % per_epoch, per_epoch):
            chosen = order[index * recipe.batch : (index + 1) * recipe.batch]
            yield torch.from_numpy(rows[np.sort(chosen)].astype(np.int64))
            step += 1


@torch.inference_mode()
def held_out_loss(model: Gemma2ForCausalLM, rows: np.ndarray, batch: int = 16) -> float:
    """Mean next-token loss in nats over `rows`, under exact attention."""
    total = count = 0.0
    for start in range(0, len(rows), batch):
        ids = torch.from_numpy(rows[start : start + batch].astype(np.int64))
        total += next_token_loss(model, ids).item() * len(ids)
        count += len(ids)
    return total / max(count, 1) if math.isfinite(total) else float("inf")
