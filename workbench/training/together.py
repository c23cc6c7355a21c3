"""Several SAEs of one site, trained side by side on the same batches.

What differs between them afterwards is then what their configurations differ in: every one saw the
same tokens in the same order, and reading the model, which costs most, is paid once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from workbench.sae.base import SAE
from workbench.training.config import TrainConfig
from workbench.training.stream import ActivationStream
from workbench.training.trainer import Trainer

__all__ = ["COLUMNS", "Measured", "Together"]

COLUMNS = ("name", "step", "tokens", "loss", "fvu", "l0", "dead", "lr", "sparsity")
"""Of the table of what was measured on the way."""


@dataclass(frozen=True)
class Measured:
    """What one SAE did on one batch."""

    name: str
    step: int
    """Steps that were done."""
    tokens: int
    """Tokens that these took; a token that was used twice counts twice."""
    loss: float
    """Squared error a token, in units in which the activations' variance is 1."""
    fvu: float
    """Fraction of variance unexplained."""
    l0: float
    """Mean number of active features a token."""
    dead: float
    """Share of the features that were not active for `TrainConfig.dead_tokens` tokens."""
    lr: float
    """Learning rate."""
    sparsity: float
    """Weight of the penalty: of the L0 term of a JumpReLU, the L1 coefficient of a ReLU."""


class Together:
    """Trains SAEs side by side, a step at a time.

    Attributes:
        stream: Where the batches come from.
        trainers: The `Trainer` of each SAE, by name.
        history: What was measured so far.
        step_count: Steps done.
    """

    def __init__(self, stream: ActivationStream, configs: Mapping[str, TrainConfig]) -> None:
        """Draw the weights; nothing is trained yet.

        Args:
            stream: Where the batches come from.
            configs: A configuration for each SAE, by the name that it is to have.

        Raises:
            TypeError: If a configuration is none.
            ValueError: If there is none, or their batches differ in size.
        """
        if not configs:
            raise ValueError("configs is empty: give a TrainConfig for each SAE, by its name")
        for name, config in configs.items():
            if not isinstance(config, TrainConfig):
                raise TypeError(f"configs[{name!r}] is {config!r}: expected a TrainConfig")
        sizes = sorted({config.batch_size for config in configs.values()})
        if len(sizes) > 1:
            raise ValueError(f"SAEs that share batches need one batch_size, got {sizes}")
        self.stream = stream
        width = stream.width
        self.trainers = {
            name: Trainer(config, width, width if stream.is_transcoder else None)
            for name, config in configs.items()
        }
        self.batch_size = sizes[0]
        self.steps = max(config.steps for config in configs.values())
        self.step_count = 0
        self.history: list[Measured] = []

    @property
    def finished(self) -> bool:
        """Whether every SAE has done its steps."""
        return self.step_count >= self.steps

    @property
    def tokens(self) -> int:
        """Tokens trained on; one that was used twice counts twice."""
        return self.step_count * self.batch_size

    def step(self) -> list[Measured]:
        """One batch, and one optimiser step of each SAE that is not done.

        Returns:
            What was measured in this step; mostly nothing, see `TrainConfig.log_every`.

        Raises:
            ValueError: If all are done, or the texts came to an end.
        """
        if self.finished:
            raise ValueError(f"all {self.steps} steps are done")
        x, target = self.stream.batch(self.batch_size)
        self.step_count += 1
        found = []
        for name, trainer in self.trainers.items():
            if trainer.step_count < trainer.config.steps:
                figures = trainer.step(x, target)
                if figures:
                    found.append(self._measured(name, figures))
        self.history += found
        return found

    def _measured(self, name: str, figures: Mapping[str, float]) -> Measured:
        kept = {key: figures[key] for key in ("loss", "fvu", "l0", "dead", "lr", "sparsity")}
        return Measured(name, self.step_count, self.tokens, **kept)

    def saes(self, *, model: str = "") -> dict[str, SAE]:
        """Each SAE as far as it is trained, by name.

        Raises:
            ValueError: If no step was done.
        """
        site = self.stream.site
        return {
            name: trainer.sae(model=model, layer=site.layer, kind=site.kind, path=name)
            for name, trainer in self.trainers.items()
        }

    def frame(self) -> pd.DataFrame:
        """`history` as a table with the columns of `COLUMNS`."""
        return pd.DataFrame([vars(one) for one in self.history], columns=list(COLUMNS))
