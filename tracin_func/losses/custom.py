"""Any element-wise torch function ℓ(s_a, s_b, y[, margin]) as a loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.task.loss import Weigh, unit_weight
from tracin_func.task.pairs import Pairs


@dataclass(frozen=True)
class CallableLoss:
    """Any element-wise torch callable ℓ(s_a, s_b, y[, margin]) as a loss."""

    function: Callable[..., Tensor]
    takes_margin: bool

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        if margin is None:  # a default of the function's own stays in force
            return self.function(first, second, target)
        return self.function(first, second, target, margin)

    def bind(self, first: Tensor, second: Tensor, pairs: Pairs) -> Weigh:
        if pairs.margin is not None and not self.takes_margin:
            raise UsageError(
                "`pairs.margin` is given, and the loss takes no margin. Expected ℓ(s_a, s_b, y, margin); "
                "add a fourth parameter to the loss or leave the margin out."
            )
        return unit_weight

    def describe(self) -> dict[str, Any]:
        return {"loss_type": getattr(self.function, "__qualname__", type(self.function).__qualname__)}
