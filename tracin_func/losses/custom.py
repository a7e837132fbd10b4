"""Any element-wise torch function ℓ(s_a, s_b, y[, margin]) as a loss."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.losses.margin import MarginRankingLoss
from tracin_func.task.loss import PairLoss

DEFAULT_LOSS = MarginRankingLoss(1.0)


@dataclass(frozen=True)
class CallableLoss(PairLoss):
    """Any element-wise torch callable ℓ(s_a, s_b, y[, margin]) as a loss."""

    function: Callable[..., Tensor]
    takes_margin: bool

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        if margin is None:  # the function's own default applies
            return self.function(first, second, target)
        if not self.takes_margin:
            raise UsageError(
                "`pairs.margin` was given, and the loss takes no margin. Add a fourth parameter to the loss, "
                "ℓ(s_a, s_b, y, margin), or leave the margin out."
            )
        return self.function(first, second, target, margin)

    def describe(self) -> dict[str, Any]:
        return {"loss_type": getattr(self.function, "__qualname__", type(self.function).__qualname__)}


def as_loss(loss: PairLoss | Callable[..., Tensor] | None) -> PairLoss:
    """`loss` itself, a callable ℓ(s_a, s_b, y[, margin]) as a `PairLoss`, or the default loss for None."""
    if loss is None:
        return DEFAULT_LOSS
    if isinstance(loss, PairLoss):
        return loss
    if not callable(loss):
        raise UsageError(f"`loss` should be callable as ℓ(s_a, s_b, y[, margin]). Got {type(loss).__name__}.")
    try:
        positional = [
            parameter
            for parameter in inspect.signature(loss).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
    except ValueError:  # some builtins have no signature
        return CallableLoss(loss, takes_margin=False)
    return CallableLoss(loss, takes_margin=len(positional) >= 4)
