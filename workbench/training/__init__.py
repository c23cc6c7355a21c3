"""Training sparse autoencoders and transcoders on activations.

`TrainConfig` says what to train, `Trainer` holds one SAE while it is trained (step by step, so one
stream of activations can feed many), and `train` is the loop for a single one. `ActivationStream`
reads a site of a model, and `Together` trains several SAEs on what it reads.
"""

from __future__ import annotations

from workbench.training.config import TrainConfig
from workbench.training.loop import train
from workbench.training.stream import ActivationStream
from workbench.training.together import Measured, Together
from workbench.training.trainer import Trainer

__all__ = [
    "ActivationStream",
    "Measured",
    "Together",
    "TrainConfig",
    "Trainer",
    "train",
]
