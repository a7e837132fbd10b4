"""The margin ranking loss."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.task.loss import Weigh, unit_weight
from tracin_func.task.pairs import Pairs


@dataclass(frozen=True)
class MarginRankingLoss:
    """Margin ranking loss ℓ = max(0, margin − y (s_a − s_b)).

    At y (s_a − s_b) ≥ margin the pair is satisfied: its gradient is exactly 0, at the kink as well.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        require_finite("margin", self.margin)

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        # torch.relu, not torch.maximum: the subgradient at the tie is 0, not −1/2.
        return torch.relu((self.margin if margin is None else margin) - target * (first - second))

    def slope(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """∂ℓ/∂s_a = −∂ℓ/∂s_b, to the last bit what autograd gives: −y where the pair is active, else 0."""
        excess = (self.margin if margin is None else margin) - target * (first - second)
        slope: Tensor = torch.ops.aten.threshold_backward(-target, excess, 0)  # what relu's backward calls
        return slope

    def bind(self, first: Tensor, second: Tensor, pairs: Pairs) -> Weigh:
        return unit_weight

    def describe(self) -> dict[str, Any]:
        return {"loss_type": "standard", **asdict(self)}


def require_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise UsageError(f"`{name}` should be finite. Got {value}.")
