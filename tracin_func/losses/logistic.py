"""The logistic (Bradley-Terry) loss."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tracin_func.errors import UsageError
from tracin_func.task.loss import PairLoss


@dataclass(frozen=True)
class LogisticLoss(PairLoss):
    """Logistic (Bradley-Terry) loss ℓ = (1 − ε) softplus(−z) + ε softplus(z), z = y (s_a − s_b) − margin.

    ε is `label_smoothing`. The margin of a pair without one is 0.
    """

    loss_type = "logistic"
    of_difference = True

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"`label_smoothing` should lie in [0, 1). Got {self.label_smoothing}.")

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        logit = _logit(first, second, target, margin)
        return (1 - self.label_smoothing) * softplus(-logit) + self.label_smoothing * softplus(logit)

    def derivative(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """∂ℓ/∂s_a = y (ε σ(z) − (1 − ε) σ(−z)), equal to autograd to the last bit."""
        logit = _logit(first, second, target, margin)
        right = torch.full_like(logit, 1 - self.label_smoothing)
        wrong = torch.full_like(logit, self.label_smoothing)
        # The derivative of softplus itself: torch.sigmoid rounds differently.
        derivative = torch.ops.aten.softplus_backward
        of_logit: Tensor = derivative(wrong, logit, 1, 20) - derivative(right, -logit, 1, 20)
        return of_logit * target


def _logit(first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None) -> Tensor:
    logit = target * (first - second)
    return logit if margin is None else logit - margin
