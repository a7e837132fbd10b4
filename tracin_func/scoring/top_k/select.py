"""The strongest proponents and opponents of many test pairs, in one pass over a table of any length."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.losses.terms import PIECE, both, loss_values, slopes_of, weights_of
from tracin_func.results.top import Strongest, Winners
from tracin_func.scoring.top_k.extremes import Extremes
from tracin_func.scoring.top_k.screen import LANES, Screen, bytes_suffice, screen
from tracin_func.task.loss import PairLoss
from tracin_func.task.pair_table import PairBlocks, blocks_over
from tracin_func.task.pairs import Mask, PairBlock, joined
from tracin_func.task.threads import in_order

BLOCK = PIECE  # pairs at a time
_MANY = 2000  # pairs whose scores are worth computing together
LARGEST = 1e300  # of a product: sums and differences of such ones do not overflow
_BYTE_CHECKPOINTS = 8  # with more, the slack of bytes is too large


@dataclass(frozen=True, eq=False)
class Columns:
    """The items at one checkpoint, for a query.

    Args:
        name: of the checkpoint.
        values: the score of each item in the precision it was computed in, [items].
        products: ⟨g_i, M ∇ℓ_q⟩ of each item and test pair, float64 [items, tests].
    """

    name: str
    values: Tensor
    products: Tensor


def strongest(
    pairs: PairBlocks,
    loss: PairLoss,
    checkpoints: Sequence[Columns],
    k: int,
    *,
    block: int = BLOCK,
    progress: Callable[[float], None] = lambda share: None,
) -> Strongest:
    """The k strongest proponents and opponents of each test pair among all training pairs.

        influence(p, q) = Σ_t u_p ⟨g_a, M ∇ℓ_q⟩ + v_p ⟨g_b, M ∇ℓ_q⟩,   u = ∂ℓ_p/∂s_a, v = ∂ℓ_p/∂s_b at checkpoint t

    Exact in float64, and the same for every size of block; of equal scores the earlier pair comes first. Memory is
    that of a block and of the columns: training × test is never held. A loss with weights needs a pass before it.

    Args:
        pairs: the training pairs.
        loss: their loss.
        checkpoints: scores and dot products of the items at each checkpoint, at least one.
        k: the number of pairs of each sign, at least 1.
        block: pairs read at a time, at least 1.
        progress: called with the share of all work that is done since the last call.

    Raises:
        UsageError: a loss that fails.
        InputError: a pair that does not fit.
        NumericalError: a score, dot product or loss is NaN or infinite.
    """
    _require_finite(checkpoints)
    values = [loss_values(checkpoint.values) for checkpoint in checkpoints]
    passes = 2 if loss.weighted else 1
    weighs = weights_of(loss, values, pairs, block, lambda share: progress(share / passes))
    groups = _groups(checkpoints, k, loss.of_difference)

    def answer(read: tuple[int, PairBlock]) -> tuple[int, int, list[_Candidates]]:
        start, part = read
        slopes = [
            slopes_of(loss, weigh, table, part, start, checkpoint.name)
            for weigh, table, checkpoint in zip(weighs, values, checkpoints, strict=True)
        ]
        # In numpy, which compares ten times as fast as torch.
        masks = [reduce(np.logical_or, (np.not_equal(row, 0) for row in each.numpy())) for each in slopes]
        inactive = sum(len(part) - int(np.count_nonzero(mask)) for mask in masks)
        active = np.logical_or.reduce(masks) if len(masks) > 1 else masks[0]
        return len(part), inactive, [group.candidates(start, part, slopes, active) for group in groups]

    inactive = 0
    for read, of_block, found in in_order(answer, blocks_over(pairs, block, len(values[0]))):
        inactive += of_block
        for group, candidates in zip(groups, found, strict=True):
            group.add(candidates)
        progress(read / (len(pairs) * passes))
    sides = [tuple(winners for group in groups for winners in group.winners(sign)) for sign in range(2)]
    return Strongest(sides[0], sides[1], len(pairs), inactive / max(1, len(pairs) * len(checkpoints)))


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Pairs that may be among the strongest: their positions int64 [n], themselves, and slopes at each checkpoint.

    If they are many, `scores` are their exact scores, float64 [n, columns].
    """

    numbers: Tensor
    pairs: PairBlock
    slopes: Sequence[Tensor]
    scores: Tensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)


class _Group:
    """A few test pairs: their columns of products, a screen over them, and the strongest scores so far."""

    def __init__(self, products: Sequence[Tensor], k: int, screened: bool) -> None:
        self._columns = products[0].shape[1]
        self._extremes = Extremes(k, self._columns, fields=4 + 2 * len(products))
        self._products = products
        lane = torch.int8 if len(products) <= _BYTE_CHECKPOINTS else torch.int16
        self._screen: Screen | None = screen(products, lane) if screened else None
        self._limits: tuple[Tensor, float, Screen, Mask] | None = None
        self._waiting: list[_Candidates] = []
        self._pairs_waiting = 0

    def candidates(self, start: int, block: PairBlock, slopes: Sequence[Tensor], active: Mask) -> _Candidates:
        """The pairs of a block that may be among the strongest, in order.

        Threads may ask for blocks at the same time: thresholds that are not up to date only let more pairs pass.
        """
        rows = self._screened(block, slopes, active)
        if len(rows) == len(block):
            found = _Candidates(rows + start, block, slopes)
        else:
            found = _Candidates(rows + start, block.select(rows), [slope[:, rows] for slope in slopes])
        return replace(found, scores=self._scores(found)) if len(found) >= _MANY else found

    def add(self, found: _Candidates) -> None:
        """Add the candidates of the next block; few ones wait until they are many, as each operation has a cost."""
        if len(found):
            self._waiting.append(found)
            self._pairs_waiting += len(found)
        if found.scores is not None or self._pairs_waiting >= _MANY:
            self._sort_in()

    def winners(self, sign: int) -> Iterator[Winners]:
        """The proponents (`sign` 0) or opponents (1) of each column."""
        self._sort_in()
        for column in range(self._columns):
            records, scores = self._extremes.of(column, sign)
            rows, first, second, target = records[:, :4].T.long()
            yield Winners(rows, scores, first, second, target, records[:, 4:].unflatten(1, (-1, 2)))

    def _sort_in(self) -> None:
        waiting, self._waiting, self._pairs_waiting = self._waiting, [], 0
        few = [found for found in waiting if found.scores is None]  # all but the last, if that
        for found in [*([_joined(few)] if few else []), *waiting[len(few) :]]:
            scores = self._scores(found) if found.scores is None else found.scores
            pair = (found.numbers, found.pairs.first, found.pairs.second, found.pairs.target)
            # Positions are below 2⁵³, and so are exact in float64.
            fields = [torch.stack([column.double() for column in pair]), *map(both, found.slopes)]
            self._extremes.add(torch.cat(fields).T.contiguous(), scores)

    def _scores(self, found: _Candidates) -> Tensor:
        """Σ_t u ⟨g_a, M ∇ℓ_q⟩ + v ⟨g_b, M ∇ℓ_q⟩, float64 [n, columns]."""
        result = torch.zeros(len(found), self._columns, dtype=torch.float64)
        for rows in torch.arange(len(found)).split(max(1, PIECE // self._columns)):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            first, second = found.pairs.first[part], found.pairs.second[part]
            for slopes, products in zip(found.slopes, self._products, strict=True):
                u, v = both(slopes[:, part])
                score = products.index_select(0, first).mul_(u[:, None])
                result[part] += score.add_(products.index_select(0, second).mul_(v[:, None]))
        if not bool(result.isfinite().all()):
            row = int((~result.isfinite()).nonzero()[0, 0])
            raise NumericalError(f"the influence of pair {int(found.numbers[row])} overflows. Use smaller weights.")
        return result

    def _screened(self, block: PairBlock, slopes: Sequence[Tensor], active: Mask) -> Tensor:
        """Rows of the block that may be among the strongest, ascending."""
        largest = max(float(each[0].abs().max()) for each in slopes)
        limits = self._current_limits(largest)
        if limits is not None:
            found, carries = limits
            active = active & found.passes(block.first, block.second, carries)
        return torch.from_numpy(np.flatnonzero(active))

    def _current_limits(self, largest: float) -> tuple[Screen, Mask] | None:
        """A screen and its limits for the current thresholds; None where all pairs pass."""
        thresholds = self._extremes.thresholds
        known = self._limits  # another thread may put newer ones in their place
        if known is not None and known[0] is thresholds and known[1] == largest:
            return known[2:]
        threshold = thresholds.amin(dim=0)
        if self._screen is None or not largest or not bool(threshold.any()):
            return None
        if self._screen.lane == torch.int8 and not bytes_suffice(self._screen, threshold, largest):
            self._screen = screen(self._products, torch.int16)
        found = self._screen
        self._limits = (thresholds, largest, found, found.carries(found.limits(threshold, largest)))
        return self._limits[2:]


def _groups(checkpoints: Sequence[Columns], k: int, screened: bool) -> list[_Group]:
    tests = range(0, checkpoints[0].products.shape[1], LANES)
    return [
        _Group([checkpoint.products[:, at : at + LANES].contiguous() for checkpoint in checkpoints], k, screened)
        for at in tests
    ]


def _joined(parts: Sequence[_Candidates]) -> _Candidates:
    slopes = [torch.cat(of_checkpoint, dim=1) for of_checkpoint in zip(*(part.slopes for part in parts), strict=True)]
    return _Candidates(torch.cat([part.numbers for part in parts]), joined([part.pairs for part in parts]), slopes)


def _require_finite(checkpoints: Sequence[Columns]) -> None:
    for checkpoint in checkpoints:
        for name, table, largest in (
            ("score", checkpoint.values, torch.inf),
            ("product", checkpoint.products, LARGEST),
        ):
            sound = table.isfinite() & (table.abs() <= largest)
            if not bool(sound.all()):
                item = int((~sound).nonzero()[0, 0])
                what = "NaN or infinite" if name == "score" else f"NaN or infinite, or above {largest:g}"
                raise NumericalError(f"{checkpoint.name}: a {name} of item {item} is {what}.")
