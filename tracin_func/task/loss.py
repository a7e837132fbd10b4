"""A pair loss: its values, and what scoring asks about it."""

from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar

from torch import Tensor

from tracin_func.errors import UsageError

Weigh = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class PairLoss:
    """An element-wise loss ℓ(s_a, s_b, y[, margin]) of pairs. Derive a loss of your own from it; only `__call__` is
    required, and where nothing else is declared, a plain callable does the same.

    All arguments have equal shapes, mostly [pairs]: scores `first` and `second`, `target` ±1, and the pairs' own
    `margin` or None. Where the weight of a pair depends on all training pairs, `tally` and `weights` say how. Weights
    are constants: no gradient flows through them.

    Attributes:
        loss_type: name in provenance and on the command line; that of the class when empty.
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
        """∂ℓ/∂s_a = −∂ℓ/∂s_b in closed form, of a loss that is `of_difference`; None: by autograd."""
        return None

    def tally(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None, count: Tensor) -> Tensor:
        """What the weights depend on, of some training pairs at one checkpoint; the tallies of all of them add up.

        `count` int64 [pairs] says how often each pair was drawn; one with count 0 is padding. Integers make the sum,
        and with it every score, independent of how the pairs are cut into blocks.
        """
        raise UsageError(f"`loss` {type(self).__name__} declares `weighted`. Expected its `tally` and `weights`.")

    def weights(self, tally: Tensor) -> Weigh:
        """What weighs any pairs by their scores, [pairs], given the tally of all training pairs."""
        raise UsageError(f"`loss` {type(self).__name__} declares `weighted`. Expected its `tally` and `weights`.")

    def remark(
        self, tally: Tensor, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None
    ) -> str | None:
        """A notice about the weights of test pairs, or None."""
        return None

    def bin(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor | None:
        """The bin of each pair for the record of a run, int64, −1 for none; None where the loss has no bins."""
        return None

    def describe(self) -> dict[str, Any]:
        """The settings that provenance records: the name, and the fields of a dataclass."""
        fields: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        return {"loss_type": self.loss_type or type(self).__qualname__, **fields}


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
