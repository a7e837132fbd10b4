"""A screen for pairs whose score may exceed a threshold, in small integers and without a miss.

For a loss of s_a − s_b the score of a pair is Σ_t u_t (P_t[a] − P_t[b]), so with |u_t| ≤ U and P_t[i] rounded to whole
steps q_t[i] of a column,

    |score| ≤ U · step · (Σ_t |q_t[a] − q_t[b]| + T),

T the number of checkpoints: each difference of two rounded numbers is off by one step at most. Columns lie side by
side in a 64-bit word per item, so that one gather and a few operations on words serve eight or four columns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Words = np.ndarray[Any, Any]

LANES = 8  # columns of a screen
_COARSE = 8  # steps of a threshold above the slack, below which bytes are too coarse
_EPSILON = 2.0**-53
_NUMPY: Mapping[torch.dtype, type[np.int8 | np.int16]] = {torch.int8: np.int8, torch.int16: np.int16}
_SIGNS = {torch.int8: np.int64(0x8080808080808080 - 2**64), torch.int16: np.int64(0x8000800080008000 - 2**64)}


@dataclass(frozen=True, eq=False)
class Screen:
    """Columns of products in whole steps.

    Args:
        words: int64 [words, items] per checkpoint, each word of 8 bytes or of 4 16-bit integers.
        lane: int8 or int16.
        step: of each column, float64 [lanes]; infinite where all products are equal, as then every score is 0.
        slack: steps by which a sum may fall short, float64 [lanes].
    """

    words: tuple[Tensor, ...]
    lane: torch.dtype
    step: Tensor
    slack: Tensor

    def limits(self, threshold: Tensor, slope: float) -> Tensor:
        """Steps that a pair needs in each column, float64 [lanes]: below 0 where any pair may pass.

        Args:
            threshold: the magnitude that a score has to exceed, float64 [columns].
            slope: U, above 0.
        """
        padded = torch.zeros(len(self.step), dtype=torch.float64)
        padded[: len(threshold)] = threshold
        limits = (padded / (self.step * slope) * (1 - 1e-9) - self.slack).ceil()
        return torch.where(self.step.isinf(), torch.inf, limits)

    def carries(self, limits: Tensor) -> Words:
        """The words that, added to the steps of a pair, set the sign bit of a column at its limit, int64 [words]."""
        top = int(torch.iinfo(self.lane).max)
        # Sums of steps are below `top`, so that none carries into the next column.
        carry = (top + 1 - limits.clamp(0, top)).long()
        return torch.where(carry > top, carry - 2 * (top + 1), carry).to(self.lane).view(torch.int64).numpy()

    def passes(self, first: Tensor, second: Tensor, carries: Words) -> Words:
        """Whether a pair reaches a limit, bool [pairs]; False only where it surely does not."""
        beyond: Words | None = None
        for word, carry in enumerate(carries):
            steps = self._distance(word, first, second).view(np.int64)
            np.add(steps, carry, out=steps)
            beyond = steps if beyond is None else np.bitwise_or(beyond, steps, out=beyond)
        assert beyond is not None
        passes: Words = np.not_equal(np.bitwise_and(beyond, _SIGNS[self.lane], out=beyond), 0)
        return passes

    def _distance(self, word: int, first: Tensor, second: Tensor) -> Words:
        """Σ_t |q_t[a] − q_t[b]| of the columns of one word, [pairs × lanes of a word]."""
        lane = _NUMPY[self.lane]
        total: Words | None = None
        for table in self.words:
            # numpy, as it works in the thread that calls it, and threads have blocks of their own
            steps = table[word].index_select(0, first).numpy().view(lane)
            np.subtract(steps, table[word].index_select(0, second).numpy().view(lane), out=steps)
            np.abs(steps, out=steps)
            total = steps if total is None else np.add(total, steps, out=total)
        assert total is not None
        return total


def screen(products: Sequence[Tensor], lane: torch.dtype) -> Screen:
    """A screen of at most `LANES` columns of products [items, columns] at each checkpoint, in integers of `lane`."""
    top, checkpoints = torch.iinfo(lane).max - 1, len(products)
    items, columns = products[0].shape
    low = [table.amin(dim=0) for table in products]
    high = [table.amax(dim=0) for table in products]
    spread = torch.stack([b - a for a, b in zip(low, high, strict=True)]).sum(dim=0)
    largest = torch.stack([torch.maximum(a.abs(), b.abs()) for a, b in zip(low, high, strict=True)]).sum(dim=0)
    step = torch.full((LANES,), math.inf, dtype=torch.float64)
    slack = torch.zeros(LANES, dtype=torch.float64)
    varied = (spread > 0).nonzero()[:, 0]
    step[varied] = spread[varied] / (top - checkpoints) * (1 + 1e-9)
    rounding = 4 * (checkpoints + 4) * _EPSILON * largest[varied]  # of the scores, and of the steps
    slack[varied] = checkpoints + rounding / step[varied] + 1e-6
    words = []
    for table, a, b in zip(products, low, high, strict=True):
        lanes = torch.zeros(items, LANES, dtype=lane)
        lanes[:, :columns] = ((table - (a + b) / 2) / step[:columns]).round().to(lane)
        words.append(lanes.view(torch.int64).T.contiguous())
    return Screen(tuple(words), lane, step, slack)


def bytes_suffice(bytewise: Screen, threshold: Tensor, slope: float) -> bool:
    """Whether the thresholds above 0 are many steps above the slack of a screen in bytes."""
    limits = bytewise.limits(threshold, slope)[: len(threshold)]
    return bool((limits[threshold > 0] > _COARSE * len(bytewise.words)).all())
