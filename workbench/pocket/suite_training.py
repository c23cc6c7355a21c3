"""Train pocket's SAEs: all sites from one stream of activations.

The model reads a block of rows once (through `workbench.engine.tracing.trace`, like any user),
every site's activations are shuffled with the same order, and each trainer in turn works through
the block while its weights are in the cache. Position 0 and separators are left out, as Gemma Scope
does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from workbench.engine.tracing import trace
from workbench.models import Model
from workbench.pocket.dataset import EOS
from workbench.sae import SAE
from workbench.sae.gemma_scope import params_folder, write_params
from workbench.sites import KINDS, Site
from workbench.tokens import tokens_of
from workbench.training import TrainConfig, Trainer

TARGET_L0 = {"att": 14.0, "mlp": 14.0, "res": 20.0, "transcoder": 14.0}
"""What each kind of site is trained towards; measured L0s are in the manifest."""


@dataclass(frozen=True)
class Plan:
    """Hyper-parameters of one suite."""

    config: TrainConfig
    """For every SAE; the L0 to aim at comes from `TARGET_L0`."""
    block: int = 64
    """Rows of 256 tokens that are read and shuffled together."""
    seed: int = 0


def activations(model: Model, rows: np.ndarray, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Activations ``(token, d_in)`` of `rows` ``(row, pos)``, without ``<bos>`` and separators."""
    keep = torch.from_numpy(rows != EOS)
    keep[:, 0] = False
    prompts = [tokens_of(model.tokenizer, row) for row in rows.tolist()]
    read = trace(model, prompts, sites).activations
    return {site: x[keep] for site, x in read.items()}


def blocks(
    model: Model, rows: np.ndarray, sites: Sequence[Site], plan: Plan, first: int = 0
) -> Iterator[dict[Site, Tensor]]:
    """Shuffled blocks of activations without end, from block `first` on."""
    count = len(rows) // plan.block
    number = first
    while True:
        order = np.random.default_rng((plan.seed, number // count)).permutation(len(rows))
        start = number % count * plan.block
        chosen = np.sort(order[start : start + plan.block])
        read = activations(model, rows[chosen], sites)
        length = len(next(iter(read.values())))
        shuffle = torch.randperm(length, generator=torch.Generator().manual_seed(number))
        yield {site: x[shuffle] for site, x in read.items()}
        number += 1


def targets(sites: Sequence[Site]) -> dict[Site, Site]:
    """What each site's SAE reconstructs: its own input, but a transcoder the output of the MLP."""
    return {site: site.writes_at for site in sites}


def train_suite(
    model: Model, rows: np.ndarray, sites: Sequence[Site], plan: Plan, folder: Path
) -> dict[Site, SAE]:
    """Train an SAE for each of `sites`; resumes from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    trainers = {site: _trainer(site, model, plan) for site in sites}
    done = _resume(trainers, folder)
    read_sites = sorted({*sites, *targets(sites).values()})
    steps = plan.config.steps
    with tqdm(total=steps, initial=done * _per_block(plan), desc="SAEs", unit="step") as bar:
        for number, block in enumerate(blocks(model, rows, read_sites, plan, done), done):
            fvus, left = [], 0
            for site, trainer in trainers.items():
                measured = _train_on(trainer, block, site, plan)
                left = steps - trainer.step_count
                fvus += [measured["fvu"]] if "fvu" in measured else []
            bar.update(min(_per_block(plan), steps - bar.n))
            if fvus:
                bar.set_postfix(fvu=f"{np.mean(fvus):.3f}", worst=f"{max(fvus):.3f}")
            if number % 20 == 19 or left <= 0:
                _checkpoint(trainers, folder, number + 1)
            if left <= 0:
                break
    return {
        site: trainer.sae(model=model.name, layer=site.layer, kind=site.kind)
        for site, trainer in trainers.items()
    }


def _trainer(site: Site, model: Model, plan: Plan) -> Trainer:
    # One start for all would leave kinship between sites that training did not make.
    seed = plan.seed + len(KINDS) * site.layer + KINDS.index(site.kind)
    config = replace(plan.config, target_l0=TARGET_L0[site.kind], seed=seed)
    d_in = site.width(model.config)
    return Trainer(config, d_in, d_in if site.kind == "transcoder" else None)


def _per_block(plan: Plan) -> int:
    # A block loses its first positions and separators, at most one token in twenty.
    return int(plan.block * 256 * 0.95) // plan.config.batch_size


def _train_on(
    trainer: Trainer, block: dict[Site, Tensor], site: Site, plan: Plan
) -> dict[str, float]:
    x, y = block[site], block[site.writes_at] if trainer.is_transcoder else None
    measured: dict[str, float] = {}
    if trainer.step_count == 0:
        trainer.set_normalisation(x, y)
    size = plan.config.batch_size
    for start in range(0, _per_block(plan) * size, size):
        if trainer.step_count >= trainer.config.steps:
            break
        part = slice(start, start + size)
        measured |= trainer.step(x[part], None if y is None else y[part])
    return measured


def _checkpoint(trainers: dict[Site, Trainer], folder: Path, done: int) -> None:
    state = {
        f"{s.kind}/{s.layer}/{n}": t
        for s, trainer in trainers.items()
        for n, t in trainer.state_dict().items()
    }
    partial = folder / "checkpoint.partial"
    save_file(state, partial, {"blocks": str(done)})
    partial.replace(folder / "checkpoint.safetensors")
    (folder / "blocks.txt").write_text(str(done))


def _resume(trainers: dict[Site, Trainer], folder: Path) -> int:
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    state = load_file(path)
    for site, trainer in trainers.items():
        prefix = f"{site.kind}/{site.layer}/"
        trainer.load_state_dict(
            {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        )
    return int((folder / "blocks.txt").read_text())


@dataclass(frozen=True)
class Calibration:
    """What an SAE's features do on ordinary text."""

    l0: float
    """Mean active features a token."""
    density: Tensor
    """``(d_sae,)`` share of tokens on which each feature fires."""
    maximum: Tensor
    """``(d_sae,)`` 99th percentile of the activation where it fires; 0 if it never does."""
    norm: float
    """Mean norm of what the SAE reconstructs."""


def calibrate(sae: SAE, x: Tensor, written: Tensor) -> Calibration:
    """Statistics of `sae` on inputs `x` and targets `written`, ``(token, d)`` both."""
    _, indices, values = sae.encode_sparse(x)
    counts = torch.bincount(indices, minlength=sae.config.d_sae)
    order = torch.argsort(values, stable=True)
    order = order[torch.argsort(indices[order], stable=True)]
    ends = counts.cumsum(0)
    places = ends - 1 - (counts * 0.01).long().clamp(max=counts - 1).clamp(min=0)
    maximum = values[order][places.clamp(min=0, max=max(len(values) - 1, 0))] * (counts > 0)
    return Calibration(
        l0=len(values) / len(x),
        density=counts / len(x),
        maximum=maximum,
        norm=float(written.norm(dim=-1).mean()),
    )


def write_suite(saes: dict[Site, SAE], statistics: dict[Site, Calibration], root: Path) -> None:
    """Write SAEs in Gemma Scope's layout as float16, and their calibration."""
    tensors: dict[str, Tensor] = {}
    for site, sae in saes.items():
        measured = statistics[site]
        write_params(
            sae, root / site.kind / params_folder(sae.config, measured.l0), dtype=np.float16
        )
        key = f"{site.kind}/{site.layer}"
        tensors[f"{key}/density"] = measured.density.float()
        tensors[f"{key}/maximum"] = measured.maximum.float()
        tensors[f"{key}/norm"] = torch.tensor(measured.norm)
    save_file(tensors, root / "calibration.safetensors")
