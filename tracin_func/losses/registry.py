"""The losses of the package, and any callable as one of them."""

import inspect
from collections.abc import Callable

from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.losses.custom import CallableLoss
from tracin_func.losses.ghm import GHMRankingLoss
from tracin_func.losses.logistic import LogisticLoss
from tracin_func.losses.margin import MarginRankingLoss
from tracin_func.task.loss import PairLoss

DEFAULT = MarginRankingLoss(1.0)


def as_loss(loss: PairLoss | Callable[..., Tensor] | None) -> PairLoss:
    """`loss` itself when it is one of ours, else the callable ℓ(s_a, s_b, y[, margin]) wrapped; None: the default."""
    if loss is None:
        return DEFAULT
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


def sees_only_difference(loss: PairLoss) -> bool:
    """Whether ℓ is known to be a function of s_a − s_b, so that ∂ℓ/∂s_b = −∂ℓ/∂s_a."""
    return isinstance(loss, MarginRankingLoss | LogisticLoss | GHMRankingLoss)
