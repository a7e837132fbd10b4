"""What scoring requires of a pair loss, and the weight of a loss that has none."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.task.pairs import Pairs

Weigh = Callable[[Tensor, Tensor, Pairs], Tensor]


@runtime_checkable
class PairLoss(Protocol):
    """What scoring asks of a loss."""

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """Element-wise loss of scores `first` and `second`, any equal shapes; `margin` is the pairs' own."""
        ...

    def bind(self, first: Tensor, second: Tensor, pairs: Pairs) -> Weigh:
        """Learn from the scores [pairs] of all training pairs; the result weighs any pairs by their scores."""
        ...

    def describe(self) -> dict[str, Any]:
        """The settings that provenance records."""
        ...


def instance_of(loss: Any) -> Any:
    """`loss`, or where it is a class, an instance of it without arguments.

    Raises:
        UsageError: the class needs arguments.
    """
    if not isinstance(loss, type):
        return loss
    try:
        return loss()
    except Exception as error:
        raise UsageError(
            f"`loss` is the class {loss.__name__}, which needs arguments ({error}). Give an instance: "
            f"{loss.__name__}(...)."
        ) from error


def unit_weight(first: Tensor, second: Tensor, pairs: Pairs) -> Tensor:
    """Weight 1 for every pair, float64 [pairs] on the CPU."""
    return torch.ones(len(first), dtype=torch.float64)
