"""The loop around one `Trainer`: batches in, SAE out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor
from tqdm.auto import tqdm

from workbench.sae.base import SAE
from workbench.training.config import TrainConfig
from workbench.training.trainer import Trainer

__all__ = ["train"]

Batch = Tensor | tuple[Tensor, Tensor]


def train(
    activations: Iterable[Batch] | Callable[[], Batch],
    config: TrainConfig,
    *,
    progress: bool = True,
    model: str = "",
    layer: int = 0,
    kind: str = "res",
) -> SAE:
    """Train one SAE, or a transcoder where the batches are pairs.

    Args:
        activations: Batches of raw activations `(batch, d_in)`, or `(input, target)` pairs: an
            iterable of at least ``config.steps`` of them, or a function that returns the next.
            Shuffled, and without the first position of any sequence.
        config: The hyper-parameters; ``config.steps`` batches are used.
        progress: Show a progress bar.
        model: Name of the model, for the SAE's `config`.
        layer: Layer, for the SAE's `config`.
        kind: Kind of site, for the SAE's `config`.

    Returns:
        The trained SAE, which takes raw activations.

    Raises:
        ValueError: The activations ended before the last step.
    """
    source = _batches(activations)
    trainer: Trainer | None = None
    bar = tqdm(range(config.steps), desc="training SAE", disable=not progress)
    for done in bar:
        batch = next(source, None)
        if batch is None:
            raise ValueError(f"activations ended after {done} of steps={config.steps} batches.")
        x, target = batch if isinstance(batch, tuple) else (batch, None)
        if trainer is None:
            width = None if target is None else target.shape[-1]
            trainer = Trainer(config, x.shape[-1], width, device=x.device)
        measured = trainer.step(x, target)
        if measured:
            bar.set_postfix(
                {name: f"{measured[name]:.3g}" for name in ("fvu", "l0", "dead")}, refresh=False
            )
    assert trainer is not None
    return trainer.sae(model=model, layer=layer, kind=kind)


def _batches(activations: Iterable[Batch] | Callable[[], Batch]) -> Iterator[Batch]:
    if callable(activations):
        while True:
            yield activations()
    yield from activations
