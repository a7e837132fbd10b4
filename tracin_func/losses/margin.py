"""The margin ranking loss."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.task.loss import PairLoss


@dataclass(frozen=True)
class MarginRankingLoss(PairLoss):
    """Margin ranking loss ℓ = max(0, margin − y (s_a − s_b)).

    At y (s_a − s_b) ≥ margin, kink included, the gradient is exactly 0.
    """

    loss_type = "standard"
    of_difference = True

    margin: float = 1.0

    def __post_init__(self) -> None:
        require_finite("margin", self.margin)

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        # torch.relu, not torch.maximum: the subgradient at the tie is 0, not −1/2.
        return torch.relu((self.margin if margin is None else margin) - target * (first - second))

    def derivative(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """∂ℓ/∂s_a, equal to autograd to the last bit: −y if the pair is active, else 0."""
        excess = (self.margin if margin is None else margin) - target * (first - second)
        derivative: Tensor = torch.ops.aten.threshold_backward(-target, excess, 0)  # as in the backward of relu
        return derivative


def require_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise UsageError(f"`{name}` should be finite. Got {value}.")
