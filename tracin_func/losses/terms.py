"""The loss of pairs at given scores: its value, its derivatives u = ∂ℓ/∂s_a and v = ∂ℓ/∂s_b, and weights.

`Terms` are those of a whole table, `Slopes` the derivatives of a block of a table that is read in parts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError, UsageError
from tracin_func.losses.custom import CallableLoss
from tracin_func.losses.ghm import BinWeights, GHMRankingLoss
from tracin_func.losses.logistic import LogisticLoss
from tracin_func.losses.margin import MarginRankingLoss
from tracin_func.task.loss import PairLoss, Weigh, unit_weight
from tracin_func.task.pair_table import Mask, PairBlock, PairBlocks, numbered, require_items
from tracin_func.task.pairs import Pairs
from tracin_func.task.threads import in_order

PIECE = 32_000  # pairs: torch shares 32,768 elements and more among threads, and here each thread has its own block
_VECTORS = 64  # elements: more than the processor's vectors that torch takes at a time


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


@dataclass(frozen=True, eq=False)
class Slopes:
    """u `first` [pairs] and v `second` [pairs], −u where it is left out; they may be narrower than float64."""

    first: Tensor
    second: Tensor | None = None

    @property
    def active(self) -> Mask:
        """Whether u or v is not 0, bool [pairs]."""
        active: Mask = np.not_equal(self.first.numpy(), 0)  # a tenth of what the comparison takes in torch
        return active if self.second is None else active | np.not_equal(self.second.numpy(), 0)

    @property
    def largest(self) -> float:
        """The largest magnitude of u."""
        low, high = self.first.aminmax()
        return max(float(high), -float(low))

    def select(self, rows: Tensor | slice) -> "Slopes":
        """Those of the pairs at `rows`."""
        return Slopes(self.first[rows], None if self.second is None else self.second[rows])

    def wide(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """u and v of the pairs at `rows`, float64."""
        first = self.first[rows].double()
        return first, -first if self.second is None else self.second[rows].double()


def loss_terms(loss: PairLoss, weigh: Weigh, first: Tensor, second: Tensor, pairs: Pairs) -> Terms:
    """Terms of w_p ℓ(s_a, s_b, y); w_p is the loss's own weight times `pairs.weight`.

    Slopes are taken in the precision of the scores, so that a hinge is active here exactly where it was in
    training; `first` and `second` are [pairs]. A joint scorer has Δ as `first` and zeros as `second`.
    """
    weight = pair_weight(weigh, first, second, pairs)
    s_a = first.detach().clone().requires_grad_()
    s_b = second.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = _values(loss, s_a, s_b, pairs)
        slopes = torch.autograd.grad(value.sum(), (s_a, s_b), materialize_grads=True)
    return _terms(value.detach(), weight, slopes[0], slopes[1], first, second, pairs)


def _values(loss: PairLoss, first: Tensor, second: Tensor, pairs: Pairs) -> Tensor:
    """ℓ of each pair, with the graph to its scores.

    Raises:
        UsageError: a loss of the user's that fails, or returns something else.
    """
    margin = None if pairs.margin is None else pairs.margin.to(first)
    name, count = loss.describe().get("loss_type"), len(pairs)
    try:
        value = loss(first, second, pairs.target.to(first), margin)
    except (InputError, UsageError):
        raise
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise UsageError(
            f"`loss` {name} failed on scores of shape ({count},): {words}. Expected an element-wise function "
            "ℓ(s_a, s_b, y[, margin]) of tensors [pairs], with torch.where in place of `if`."
        ) from error
    if not isinstance(value, Tensor):
        raise UsageError(f"`loss` {name} returned {type(value).__name__}. Expected a tensor, one value per pair.")
    if value.shape != first.shape:
        hint = "" if value.ndim else '; losses of torch give it with reduction="none"'
        raise UsageError(
            f"`loss` {name} returned shape {tuple(value.shape)}. Expected one value per pair, ({count},){hint}."
        )
    if not value.requires_grad:
        raise UsageError(
            f"`loss` {name} returned values without a gradient. Expected torch operations on the scores, without "
            "detach(), item() or numpy()."
        )
    return value


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


def joined(parts: Sequence[Slopes]) -> Slopes:
    """The slopes of parts of a table as one."""
    second = [part.second for part in parts if part.second is not None]
    return Slopes(torch.cat([part.first for part in parts]), torch.cat(second) if second else None)


def loss_values(values: Tensor) -> Tensor:
    """Scores in the precision that losses are taken in: float32 at least, as trainers do with half precision."""
    return values.detach().cpu().to(torch.promote_types(values.dtype, torch.float32))


def bound_losses(
    loss: PairLoss,
    values: Sequence[Tensor],
    pairs: PairBlocks,
    size: int,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Weigh]:
    """The loss's own weight of a pair at each checkpoint, learnt from one pass over all pairs where it has one.

    Args:
        values: score of each item at each checkpoint, [items].
        progress: called with the share of this pass that is done since the last call.

    Raises:
        UsageError: a loss of one's own whose `bind` would have to see all pairs at once.
    """
    if isinstance(loss, GHMRankingLoss):
        histograms, population = [torch.zeros(loss.bins, dtype=torch.int64) for _ in values], 0

        def count(read: tuple[int, PairBlock]) -> tuple[int, int, list[Tensor]]:
            start, block = read
            require_items(block, len(values[0]), numbered(start))
            drawn = len(block) if block.count is None else int(block.count.sum())
            return len(block), drawn, [loss.histogram(bins_of(loss, table, block), block.count) for table in values]

        for read, drawn, parts in in_order(count, pairs.blocks(size)):
            population += drawn
            for histogram, part in zip(histograms, parts, strict=True):
                histogram += part
            progress(read / len(pairs))
        return [loss.weights_of(histogram, population) for histogram in histograms]
    if isinstance(loss, CallableLoss):
        for _, block in pairs.blocks(1):
            loss.bind(torch.zeros(1), torch.zeros(1), block.pairs())  # refuses margins that it would not see
            break
    elif not isinstance(loss, MarginRankingLoss | LogisticLoss):
        raise UsageError(
            f"`loss` {type(loss).__name__} weighs pairs by all others in its own way; pairs are read in blocks here. "
            "Expected a margin, GHM or logistic loss, or a plain callable ℓ(s_a, s_b, y[, margin])."
        )
    return [unit_weight] * len(values)


def slopes_of(loss: PairLoss, weigh: Weigh, values: Tensor, block: PairBlock, start: int, checkpoint: str) -> Slopes:
    """The slopes of a block whose first pair is number `start`.

    Raises:
        NumericalError: the loss of a pair, or its slope, is NaN or infinite.
    """
    parts = []
    for at, count, part in _pieces(block):
        slopes = _slopes(loss, weigh, values, part, f"{checkpoint}: the loss of pair {{}}", start + at)
        parts.append(slopes if len(part) == count else slopes.select(slice(count)))
    return parts[0] if len(parts) == 1 else joined(parts)


def _slopes(loss: PairLoss, weigh: Weigh, values: Tensor, block: PairBlock, what: str, start: int) -> Slopes:
    first, second = values.index_select(0, block.first), values.index_select(0, block.second)
    if not isinstance(loss, MarginRankingLoss | LogisticLoss | GHMRankingLoss):
        terms = loss_terms(loss, weigh, first, second, block.pairs())
        if (row := terms.not_finite()) is not None:
            raise NumericalError(
                f"{what.format(start + row)}, or its slope, is NaN or infinite. Expected a loss that is finite there."
            )
        return Slopes(terms.first_slope, terms.second_slope)
    target = block.target.to(first.dtype)
    margin = None if block.margin is None else block.margin.to(first.dtype)
    slope = loss.slope(first, second, target, margin)
    weight = block.weight
    if isinstance(weigh, BinWeights):
        own = weigh.of_bins(weigh.loss.bin(first, second, target, margin))
        weight = own if weight is None else own * weight
    return Slopes(slope if weight is None else weight * slope.double())


def bins_of(loss: GHMRankingLoss, values: Tensor, block: PairBlock) -> Tensor:
    """The GHM bin of each pair, int64 [pairs]."""
    bins = []
    for _, count, part in _pieces(block):
        margin = None if part.margin is None else part.margin.to(values.dtype)
        first, second = values.index_select(0, part.first), values.index_select(0, part.second)
        bins.append(loss.bin(first, second, part.target.to(values.dtype), margin)[:count])
    return torch.cat(bins)


def _pieces(block: PairBlock) -> Iterator[tuple[int, int, PairBlock]]:
    """Where a piece of the block starts, its length, and the piece, filled up with its last pair to whole vectors.

    torch rounds exp in what is left over beyond whole vectors otherwise than in these, and shares what is longer than
    a piece among threads at places of its own: without this a slope would depend on where blocks begin.
    """
    for at in range(0, len(block), PIECE):
        part = block if len(block) <= PIECE else block.select(slice(at, at + PIECE))
        count = len(part)
        if count % _VECTORS:
            rows = torch.arange(count + -count % _VECTORS).clamp_(max=count - 1)
            part = part.select(rows)
        yield at, count, part
