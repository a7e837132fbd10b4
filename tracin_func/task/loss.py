"""A pair loss: its values and properties."""

from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tracin_func.errors import UsageError

Weigh = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class PairLoss:
    """An element-wise loss ℓ(s_a, s_b, y[, margin]) of pairs, the base class for custom losses.

    Only `__call__` is required; a loss with nothing else may be a plain callable, too. All arguments have equal shapes,
    mostly [pairs]: scores `first` and `second`, `target` ±1, and the pairs' own `margin` or None. If the weight of a
    pair depends on all training pairs, define `tally` and `weights`. Weights are constants, without a gradient.

    Attributes:
        loss_type: name in provenance and on the command line; by default that of the class.
        of_difference: ℓ is a function of s_a − s_b, so that ∂ℓ/∂s_b = −∂ℓ/∂s_a.
        weighted: the loss has `tally` and `weights`.
    """

    loss_type: ClassVar[str] = ""
    of_difference: ClassVar[bool] = False
    weighted: ClassVar[bool] = False

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """ℓ of each pair, without its weight."""
        raise NotImplementedError

    def derivative(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor | None:
        """∂ℓ/∂s_a = −∂ℓ/∂s_b in closed form, for a loss that is `of_difference`; None: by autograd."""
        return None

    def tally(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None, count: Tensor) -> Tensor:
        """The statistics of some training pairs on which weights depend; summed over all pairs at a checkpoint.

        `count` int64 [pairs] is how often each pair was drawn; 0 is padding. Integers make the sum, and every score,
        independent of the blocks of pairs.
        """
        raise UsageError(f"`loss` {type(self).__name__} declares 'weighted'. Define its methods tally and weights.")

    def weights(self, tally: Tensor) -> Weigh:
        """A function from any pairs' scores to their weights [pairs], given the tally of all training pairs."""
        raise UsageError(f"`loss` {type(self).__name__} declares 'weighted'. Define its methods tally and weights.")

    def batch_weights(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """The weights [pairs] of the pairs of one training batch, from these pairs alone."""
        scored = first, second, target, margin
        return self.weights(self.tally(*scored, torch.ones_like(first, dtype=torch.int64)))(*scored).to(first)

    def remark(
        self, tally: Tensor, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None
    ) -> str | None:
        """A notice about the weights of test pairs, or None."""
        return None

    def bin(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor | None:
        """The bin of each pair for the record of a run, int64, −1 for none; None if the loss has no bins."""
        return None

    def describe(self) -> dict[str, Any]:
        """The settings that provenance records: the name, and the fields of a dataclass."""
        fields: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        return {"loss_type": self.loss_type or type(self).__qualname__, **fields}


def instance_of(loss: Any) -> Any:
    """`loss`, or an instance of it if it is a class; UsageError if the class needs arguments."""
    if not isinstance(loss, type):
        return loss
    try:
        return loss()
    except Exception as error:
        raise UsageError(
            f"`loss` should be an instance. Got the class {loss.__name__}, which needs arguments ({error}). Give "
            f"{loss.__name__}(...)."
        ) from error
