"""What a loss makes of a pair's scores: its value and the slopes u = ∂ℓ/∂s_a, v = ∂ℓ/∂s_b."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.losses.ghm import PairLoss, Weigh
from tracin_func.task.pairs import Pairs

TEST_FUNCTIONALS = ("loss", "score-margin")


@dataclass(frozen=True, eq=False)
class Terms:
    """Of every pair at one checkpoint, each [pairs], on the CPU in float64 (masks bool).

    ∇θ ℓ_p = first_slope · g_a + second_slope · g_b: the slopes include `weight`, `loss` does not. `active` is False
    where both slopes are 0; `score_margin` is y (s_a − s_b), above 0 where the pair is ranked right.
    """

    loss: Tensor
    score_margin: Tensor
    first_slope: Tensor
    second_slope: Tensor
    weight: Tensor
    active: Tensor

    def not_finite(self) -> int | None:
        """The first pair whose loss or slope is NaN or infinite."""
        finite = self.loss.isfinite() & self.first_slope.isfinite() & self.second_slope.isfinite()
        return None if bool(finite.all()) else int((~finite).nonzero()[0])


def loss_terms(loss: PairLoss, weigh: Weigh, first: Tensor, second: Tensor, pairs: Pairs) -> Terms:
    """Terms of w_p ℓ(s_a, s_b, y); w_p is the loss's own weight times `pairs.weight`.

    Slopes are taken in the precision of the scores, so that a hinge is active here exactly where it was in
    training; `first` and `second` are [pairs]. A joint scorer has Δ as `first` and zeros as `second`.
    """
    weight = pair_weight(weigh, first, second, pairs)
    s_a = first.detach().clone().requires_grad_()
    s_b = second.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = loss(s_a, s_b, pairs.target.to(s_a), None if pairs.margin is None else pairs.margin.to(s_a))
        if value.shape != s_a.shape:
            got, expected = tuple(value.shape), tuple(s_a.shape)
            raise UsageError(f"`loss` returned shape {got}. Expected one value a pair: {expected}.")
        slopes = torch.autograd.grad(value.sum(), (s_a, s_b), materialize_grads=True)
    return _terms(value.detach(), weight, slopes[0], slopes[1], first, second, pairs)


def functional_terms(
    functional: str, loss: PairLoss, weigh: Weigh, first: Tensor, second: Tensor, pairs: Pairs
) -> Terms:
    """Terms of the test functional: `loss`, or `score-margin` −y (s_a − s_b), which does not saturate."""
    if functional == "loss":
        return loss_terms(loss, weigh, first, second, pairs)
    target = pairs.target.to(first)
    weight = torch.ones(len(first), dtype=torch.float64)
    return _terms(-target * (first - second), weight, -target, target, first, second, pairs)


def pair_weight(weigh: Weigh, first: Tensor, second: Tensor, pairs: Pairs) -> Tensor:
    """w_p, float64 [pairs]: the loss's weight at these scores times the pairs' own; a constant."""
    weight = weigh(first.detach(), second.detach(), pairs)
    return weight if pairs.weight is None else weight * pairs.weight


def _terms(
    value: Tensor,
    weight: Tensor,
    first_slope: Tensor,
    second_slope: Tensor,
    first: Tensor,
    second: Tensor,
    pairs: Pairs,
) -> Terms:
    wide = [tensor.detach().to("cpu").double() for tensor in (value, weight, first_slope, second_slope)]
    value, weight, first_slope, second_slope = wide
    margin = pairs.target * (first - second).detach().cpu().double()
    active = (weight * first_slope != 0) | (weight * second_slope != 0)
    return Terms(value, margin, weight * first_slope, weight * second_slope, weight, active)
