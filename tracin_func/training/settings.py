"""The settings of a training run."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tracin_func.errors import UsageError

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one run, recorded in its checkpoints.

    Args:
        epochs: passes over the training pairs; a pair with count k is visited k times in each.
        checkpoint_interval: a checkpoint is saved after each multiple of it, and after the last epoch; or the
            increasing epochs to save after.
        learning_rate, weight_decay, optimizer: of the optimiser, one of `OPTIMIZERS`.
        batch_size: pairs per step.
        drop_last: leave out the last batch of an epoch if it is smaller; another one in each epoch.
        plateau: factor and patience of ReduceLROnPlateau on the mean training loss of an epoch; None for a constant
            learning rate.
        seed: of the order of pairs, of dropout, and of fresh initial weights.
        threads: of the CPU; equal results need an equal number.
    """

    epochs: int = 10
    checkpoint_interval: int | tuple[int, ...] = 1
    learning_rate: float = 0.03
    weight_decay: float = 1e-5
    batch_size: int = 32
    optimizer: str = "adam"
    drop_last: bool = True
    plateau: tuple[float, int] | None = (0.5, 3)
    seed: int = 42
    threads: int = 1

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("threads", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"`{name}` should be at least {least}. Got {getattr(self, name)}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"`learning_rate` should be above 0. Got {self.learning_rate}.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(f"`weight_decay` should be at least 0. Got {self.weight_decay}.")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"`optimizer` should be one of {', '.join(OPTIMIZERS)}. Got {self.optimizer!r}.")
        self._require_interval()

    def _require_interval(self) -> None:
        own = self.checkpoint_interval
        if isinstance(own, int):
            if own < 1:
                raise UsageError(f"`checkpoint_interval` should be at least 1. Got {own}.")
        elif not own or own[0] < 1 or own[-1] != self.epochs or list(own) != sorted(set(own)):
            raise UsageError(
                f"`checkpoint_interval` should be a number of epochs, or increasing epochs from 1 to {self.epochs}. "
                f"Got {own}."
            )

    def is_saved(self, epoch: int) -> bool:
        """Whether a checkpoint is saved after this epoch."""
        own = self.checkpoint_interval
        return epoch in own if isinstance(own, tuple) else epoch % own == 0 or epoch == self.epochs

    def as_args(self) -> dict[str, Any]:
        """The settings by their names in the `args` of checkpoints."""
        return asdict(self)
