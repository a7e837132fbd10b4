"""The gradient-harmonised margin ranking loss, whose weights depend on all training pairs.

Weights are constants: no gradient flows through them.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.losses.margin import MarginRankingLoss, require_finite
from tracin_func.task.pairs import Pairs

GHM_VARIANTS = ("symmetric", "lab")


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
        require_finite("margin", self.margin)
        require_finite("alpha", self.alpha)
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
