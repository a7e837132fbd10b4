"""Losses of ranking pairs: margin, GHM-weighted margin, logistic, or any callable of one's own.

Every loss sees a pair through its two scores s_a, s_b and its target y. A loss may also weigh a pair by
where it stands among ALL training pairs at a checkpoint (`bind`); such weights are constants: no gradient
flows through them.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tracin_func.errors import UsageError
from tracin_func.task.pairs import Pairs

Weigh = Callable[[Tensor, Tensor, Pairs], Tensor]
GHM_VARIANTS = ("symmetric", "lab")


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


@dataclass(frozen=True)
class MarginRankingLoss:
    """Margin ranking loss ℓ = max(0, margin − y (s_a − s_b)).

    At y (s_a − s_b) ≥ margin the pair is satisfied: its gradient is exactly 0, at the kink as well.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        _require_finite("margin", self.margin)

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


@dataclass(frozen=True)
class LogisticLoss:
    """Logistic (Bradley-Terry) loss ℓ = (1 − ε) softplus(−z) + ε softplus(z), z = y (s_a − s_b) − margin.

    ε is `label_smoothing`. The margin of a pair, where it has one, shifts z; it is 0 otherwise.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"`label_smoothing` should lie in [0, 1). Got {self.label_smoothing}.")

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        logit = target * (first - second)
        if margin is not None:
            logit = logit - margin
        return (1 - self.label_smoothing) * softplus(-logit) + self.label_smoothing * softplus(logit)

    def slope(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """∂ℓ/∂s_a = −∂ℓ/∂s_b = y (ε σ(z) − (1 − ε) σ(−z)), to the last bit what autograd gives."""
        logit = target * (first - second)
        if margin is not None:
            logit = logit - margin
        right = torch.full_like(logit, 1 - self.label_smoothing)
        wrong = torch.full_like(logit, self.label_smoothing)
        # softplus's own derivative: torch.sigmoid rounds otherwise.
        derivative = torch.ops.aten.softplus_backward
        of_logit: Tensor = derivative(wrong, logit, 1, 20) - derivative(right, -logit, 1, 20)
        return of_logit * target

    def bind(self, first: Tensor, second: Tensor, pairs: Pairs) -> Weigh:
        return unit_weight

    def describe(self) -> dict[str, Any]:
        return {"loss_type": "logistic", **asdict(self)}


@dataclass(frozen=True)
class GHMRankingLoss:
    """Gradient-harmonised margin ranking loss: w_k × margin loss (arXiv 1811.05181, adapted to pairs).

    The difficulty d = sigmoid(margin − c y (s_a − s_b)) of a pair falls in one of `bins` equal bins on [0, 1].
    With R_k of the P training pairs (repeats counted) in bin k, a pair of bin k weighs what it weighs on
    average over the random training batches of B pairs that hold it,

        w_k = E[(1 + H)^(−alpha)],   H ~ Hypergeometric(P − 1, R_k − 1, B − 1),

    summed exactly. With `batch_size` None the batch is all P pairs and w_k = R_k^(−alpha).

    Args:
        margin: margin of the hinge and of the difficulty.
        bins: number of equal bins.
        alpha: exponent of the density; 0 is the standard loss.
        batch_size: B, the batch size of the training; None for all pairs.
        variant: `symmetric`: c = 1 and the last bin is closed. `lab`: c = 1 for y = +1 and 3 for y = −1, and a
            difficulty that rounds to 1 in float32 falls in no bin and weighs 0, as such models were trained;
            swapping (a, b, −y) then does change a score.

    Does not: give weights inside a batch gradient; weights come from a pass over scores, outside vmap.
    """

    margin: float = 1.0
    bins: int = 10
    alpha: float = 0.75
    batch_size: int | None = 32
    variant: Literal["symmetric", "lab"] = "symmetric"

    def __post_init__(self) -> None:
        _require_finite("margin", self.margin)
        _require_finite("alpha", self.alpha)
        if self.bins < 1:
            raise UsageError(f"`bins` should be at least 1. Got {self.bins}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"`batch_size` should be at least 1, or None for all. Got {self.batch_size}.")
        if self.variant not in GHM_VARIANTS:
            raise UsageError(f"`variant` should be one of {', '.join(GHM_VARIANTS)}. Got {self.variant!r}.")

    def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        return MarginRankingLoss(self.margin)(first, second, target, margin)

    def slope(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """∂ℓ/∂s_a = −∂ℓ/∂s_b of the loss without its weight; that of the margin loss."""
        return MarginRankingLoss(self.margin).slope(first, second, target, margin)

    def bin(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """The bin of each pair, int64 [pairs]; −1 where the `lab` variant puts it in none."""
        difference = target * (first - second)
        excess = (self.margin if margin is None else margin) - difference
        if self.variant == "symmetric":
            difficulty = torch.sigmoid(excess)
            return (difficulty * self.bins).long().clamp(max=self.bins - 1)
        factor = torch.where(target > 0, 1.0, 3.0).to(difference)
        difficulty = torch.sigmoid((excess - (factor - 1) * difference).float())
        index = (difficulty * self.bins).long().clamp(max=self.bins - 1)
        return torch.where(difficulty >= 1, -1, index)

    def bind(self, first: Tensor, second: Tensor, pairs: Pairs) -> "BinWeights":
        histogram = self.histogram(self.bins_of(first, second, pairs), pairs.count)
        return self.weights_of(histogram, int(pairs.counts.sum()))

    def histogram(self, index: Tensor, count: Tensor | None = None) -> Tensor:
        """R_k, how many pairs (repeats counted) are in each bin, int64 [bins]; those of parts of a table add up."""
        inside = index >= 0
        if count is None:
            return torch.bincount(index[inside], minlength=self.bins)
        histogram = torch.zeros(self.bins, dtype=torch.int64)
        return histogram.index_add_(0, index[inside], count[inside])

    def weights_of(self, histogram: Tensor, population: int) -> "BinWeights":
        """The weights that a histogram of all `population` training pairs (repeats counted) gives."""
        weights = [
            batch_expectation(population, size, self.batch_size, self.alpha) if size else math.nan
            for size in histogram.tolist()
        ]
        return BinWeights(self, torch.tensor(weights, dtype=torch.float64), histogram.nonzero()[:, 0])

    def bins_of(self, first: Tensor, second: Tensor, pairs: Pairs) -> Tensor:
        """The bin of each pair by its scores, int64 [pairs] on the CPU; −1 for none."""
        margin = None if pairs.margin is None else pairs.margin.to(first)
        return self.bin(first, second, pairs.target.to(first), margin).cpu()

    def bin_of_margin(self, score_margin: Tensor, pairs: Pairs) -> Tensor:
        """The bin of each pair by y (s_a − s_b), float64 [pairs] as recorded; scores of float32 give it exactly."""
        target = pairs.target.to(score_margin)
        return self.bins_of(target * score_margin, torch.zeros_like(score_margin), pairs)

    def describe(self) -> dict[str, Any]:
        return {"loss_type": "ghm", **asdict(self)}


@dataclass(frozen=True, eq=False)
class BinWeights:
    """GHM weights at one checkpoint: `weight` of each bin, float64 [bins], and the `occupied` bins."""

    loss: GHMRankingLoss
    weight: Tensor
    occupied: Tensor

    def __call__(self, first: Tensor, second: Tensor, pairs: Pairs) -> Tensor:
        """The weight of each pair, float64 [pairs] on the CPU; an empty bin takes the nearest occupied one's."""
        return self.of_bins(self.loss.bins_of(first, second, pairs))

    def of_bins(self, index: Tensor) -> Tensor:
        """The weight of pairs by their bins [pairs], float64 [pairs]; 0 for bin −1."""
        if not len(self.occupied):
            return torch.zeros(len(index), dtype=torch.float64)
        bins = torch.arange(len(self.weight))
        nearest = self.occupied[(bins[:, None] - self.occupied[None, :]).abs().argmin(dim=1)]
        return torch.cat([self.weight[nearest], torch.zeros(1, dtype=torch.float64)])[index]  # -1 is the last

    def borrowed(self, first: Tensor, second: Tensor, pairs: Pairs) -> int:
        """How many pairs (test pairs, as it is) fall in an empty bin."""
        index = self.loss.bins_of(first, second, pairs)
        return int((~torch.isin(index, self.occupied) & (index >= 0)).sum())


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


def as_loss(loss: PairLoss | Callable[..., Tensor]) -> PairLoss:
    """`loss` itself when it is one of ours, else the callable ℓ(s_a, s_b, y[, margin]) wrapped."""
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


def _require_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise UsageError(f"`{name}` should be finite. Got {value}.")


def unit_weight(first: Tensor, second: Tensor, pairs: Pairs) -> Tensor:
    """Weight 1 for every pair, float64 [pairs] on the CPU."""
    return torch.ones(len(first), dtype=torch.float64)


def batch_expectation(population: int, members: int, batch_size: int | None, alpha: float) -> float:
    """E[(1 + H)^(−alpha)], H ~ Hypergeometric(population − 1, members − 1, batch_size − 1).

    The mean GHM weight, over random batches, of a pair whose bin has `members` of the `population` pairs.
    """
    if batch_size is None or batch_size >= population:
        return math.pow(members, -alpha)
    others, peers, draws = population - 1, members - 1, batch_size - 1
    fewest, most = max(0, draws - (others - peers)), min(peers, draws)
    hits = torch.arange(fewest, most + 1, dtype=torch.float64)
    log_probability = _log_choose(peers, hits) + _log_choose(others - peers, draws - hits)
    probability = torch.softmax(log_probability, dim=0)  # the common factor 1/C(others, draws) cancels
    return float((probability * (1 + hits) ** -alpha).sum())


def _log_choose(total: int, chosen: Tensor) -> Tensor:
    size = torch.tensor(float(total), dtype=torch.float64)
    return torch.lgamma(size + 1) - torch.lgamma(chosen + 1) - torch.lgamma(size - chosen + 1)
