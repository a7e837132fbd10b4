"""The gradient-harmonised margin ranking loss, whose weights depend on all training pairs.

Weights are constants: no gradient flows through them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.losses.margin import MarginRankingLoss, require_finite
from tracin_func.task.loss import PairLoss, Weigh

GHM_VARIANTS = ("symmetric", "lab")


@dataclass(frozen=True)
class GHMRankingLoss(PairLoss):
    """Gradient-harmonised margin ranking loss: w_k × margin loss (arXiv 1811.05181, adapted to pairs).

    The difficulty d = sigmoid(margin − c y (s_a − s_b)) of a pair falls in one of `bins` equal bins on [0, 1].
    With R_k of the P training pairs (repeats counted) in bin k, the weight of a pair in bin k is its mean over the
    random training batches of B pairs that contain it,

        w_k = E[(1 + H)^(−alpha)],   H ~ Hypergeometric(P − 1, R_k − 1, B − 1),

    summed exactly. With `batch_size` None the batch is all P pairs and w_k = R_k^(−alpha).

    Args:
        margin: margin of the hinge and of the difficulty.
        bins: number of equal bins.
        alpha: exponent of the density; 0 for the standard loss.
        batch_size: B, the batch size of the training; None for all pairs.
        variant: `symmetric`: c = 1 and the last bin is closed. `lab`: c = 1 for y = +1 and 3 for y = −1, and a
            difficulty that rounds to 1 in float32 falls in no bin and has weight 0, as in the training of such models;
            the scores of (a, b, y) and (b, a, −y) then differ.

    Weights are not computed inside a batch gradient; they come from a pass over scores, outside vmap.
    """

    loss_type = "ghm"
    of_difference = True
    weighted = True

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

    def derivative(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """The derivative of the margin loss."""
        return MarginRankingLoss(self.margin).derivative(first, second, target, margin)

    def bin(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """The bin of each pair, int64; −1 for no bin, with the variant `lab`."""
        difference = target * (first - second)
        excess = (self.margin if margin is None else margin) - difference
        if self.variant == "symmetric":
            difficulty = torch.sigmoid(excess)
            return (difficulty * self.bins).long().clamp(max=self.bins - 1)
        factor = torch.where(target > 0, 1.0, 3.0).to(difference)
        difficulty = torch.sigmoid((excess - (factor - 1) * difference).float())
        index = (difficulty * self.bins).long().clamp(max=self.bins - 1)
        return torch.where(difficulty >= 1, -1, index)

    def tally(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None, count: Tensor) -> Tensor:
        """The number of pairs (repeats counted) in no bin, and R_k of each bin, int64 [1 + bins]."""
        place = self._place(first, second, target, margin)
        return torch.bincount(place, weights=count.double(), minlength=1 + self.bins).long()

    def weights(self, tally: Tensor) -> Weigh:
        """w_k by bin; an empty bin takes the weight of the nearest occupied one, and pairs in no bin have weight 0."""
        population, sizes, table = int(tally.sum()), tally[1:], torch.zeros(1 + self.bins, dtype=torch.float64)
        occupied = sizes.nonzero()[:, 0]
        if len(occupied):
            own = [
                batch_expectation(population, size, self.batch_size, self.alpha) for size in sizes[occupied].tolist()
            ]
            nearest = (torch.arange(self.bins)[:, None] - occupied).abs().argmin(dim=1)
            table[1:] = torch.tensor(own, dtype=torch.float64)[nearest]
        return lambda *scored: table[self._place(*scored)]

    def batch_weights(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
        """R_k^(−alpha) of each pair, with R_k of the batch's pairs in bin k; 0 for a pair in no bin."""
        place = self.bin(first, second, target, margin) + 1
        density = torch.bincount(place, minlength=1 + self.bins)[place]
        return torch.where(place > 0, density.to(first) ** -self.alpha, 0.0)

    def remark(
        self, tally: Tensor, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None
    ) -> str | None:
        """A sentence about test pairs in a bin without training pairs."""
        place = self._place(first, second, target, margin)
        borrowed = int(((tally[place] == 0) & (place > 0)).sum())
        sentence = f"{borrowed} test pairs are in GHM bins without training pairs. They take the nearest bin's weight."
        return sentence if borrowed else None

    def _place(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None) -> Tensor:
        """The bin of each pair counted from 1, on the CPU; 0 for none."""
        return self.bin(first, second, target, margin).cpu() + 1


def batch_expectation(population: int, members: int, batch_size: int | None, alpha: float) -> float:
    """E[(1 + H)^(−alpha)], H ~ Hypergeometric(population − 1, members − 1, batch_size − 1).

    This is the mean GHM weight, over random batches, of a pair whose bin has `members` of the `population` pairs.
    """
    if batch_size is None or batch_size >= population:
        return math.pow(members, -alpha)
    others, peers, drawn = population - 1, members - 1, batch_size - 1
    fewest, most = max(0, drawn - (others - peers)), min(peers, drawn)
    hits = torch.arange(fewest, most + 1, dtype=torch.float64)
    log_probability = _log_choose(peers, hits) + _log_choose(others - peers, drawn - hits)
    probability = torch.softmax(log_probability, dim=0)  # the common factor 1/C(others, drawn) cancels
    return float((probability * (1 + hits) ** -alpha).sum())


def _log_choose(total: int, chosen: Tensor) -> Tensor:
    size = torch.tensor(float(total), dtype=torch.float64)
    return torch.lgamma(size + 1) - torch.lgamma(chosen + 1) - torch.lgamma(size - chosen + 1)
