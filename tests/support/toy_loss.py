"""A loss of a user's own, for the registry."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.losses.registry import LossOption
from tracin_func.task.loss import PairLoss, Weigh


@dataclass(frozen=True)
class Toy(PairLoss):
    """ℓ = max(0, 1 − y (s_a − s_b))^power; misranked pairs weigh what share of the training pairs they are."""

    loss_type = "toy"
    of_difference = True
    weighted = True

    power: float = 1.0
    share: bool = True

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        return torch.relu((1.0 if margin is None else margin) - target * (first - second)) ** self.power

    def tally(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None, count: Tensor) -> Tensor:
        misranked = target * (first - second) <= 0
        return torch.stack([(misranked * count).sum(), count.sum()])

    def weights(self, tally: Tensor) -> Weigh:
        weight = float(tally[0] / tally[1]) if self.share else 1.0
        return lambda first, second, target, margin: torch.where(target * (first - second) <= 0, weight, 1.0)


@dataclass(frozen=True)
class Unweighted(Toy):
    """The same without weights."""

    loss_type = "unweighted"
    weighted = False


POWER = LossOption("toy_power", "power", float, "Power of the hinge.", 1.0)
