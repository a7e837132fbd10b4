"""The loss of pairs at given scores: its value, its derivatives u = ∂ℓ/∂s_a and v = ∂ℓ/∂s_b, and weights.

`loss_terms` is for pairs in memory, `slopes_of` for a block of a table that is read in parts. Both use the closed
derivative of a loss if it has one, else autograd.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError, UsageError
from tracin_func.task.loss import PairLoss, Weigh
from tracin_func.task.pair_table import PairBlocks, blocks_over
from tracin_func.task.pairs import PairBlock, Pairs
from tracin_func.task.threads import in_order

PIECE = 32_000  # pairs: torch divides 32,768 elements and more among threads, and here each thread has its own block
_VECTORS = 64  # elements: a multiple of the vectors of any processor

Scored = tuple[Tensor, Tensor, Tensor, Tensor | None]  # s_a, s_b, y and the pairs' own margin


@dataclass(frozen=True, eq=False)
class Terms:
    """Per-pair quantities at one checkpoint: CPU float64 tensors [pairs]; masks are bool.

    ∇θ ℓ_p = first_slope · g_a + second_slope · g_b: these derivatives include `weight`, `loss` does not. `active` is
    False where both are 0; `score_margin` is y (s_a − s_b), above 0 for a pair in the right order.
    """

    loss: Tensor
    score_margin: Tensor
    first_slope: Tensor
    second_slope: Tensor
    weight: Tensor
    active: Tensor

    def not_finite(self) -> int | None:
        """The first pair whose loss or derivative is NaN or infinite."""
        finite = self.loss.isfinite() & self.first_slope.isfinite() & self.second_slope.isfinite()
        return None if bool(finite.all()) else int((~finite).nonzero()[0])


def loss_terms(loss: PairLoss, weigh: Weigh | None, first: Tensor, second: Tensor, pairs: Pairs) -> Terms:
    """Terms of w_p ℓ(s_a, s_b, y); w_p is the weight of the loss by `weigh` (1 if None) times `pairs.weight`.

    Derivatives have the precision of the scores, so that a hinge is active exactly where it was in training. `first`
    and `second` are [pairs]. A joint scorer has Δ as `first` and zeros as `second`.
    """
    scored = scored_pairs(first, second, pairs)
    value, u, v = _derivatives(loss, *scored)
    weight = _weight(weigh, scored, pairs.weight)
    return _terms(loss(*scored) if value is None else value, u, -u if v is None else v, weight, scored)


def functional_terms(
    functional: str, loss: PairLoss, weigh: Weigh | None, first: Tensor, second: Tensor, pairs: Pairs
) -> Terms:
    """Terms of the test functional: `loss`, or `score-margin` −y (s_a − s_b), which does not saturate."""
    if functional == "loss":
        return loss_terms(loss, weigh, first, second, pairs)
    s_a, s_b, target, _ = scored = scored_pairs(first, second, pairs)
    return _terms(-target * (s_a - s_b), -target, target, None, scored)


def tally_of(loss: PairLoss, first: Tensor, second: Tensor, pairs: Pairs) -> Tensor | None:
    """The tally of all training pairs, from which the loss computes weights; None if every weight is 1."""
    return loss.tally(*scored_pairs(first, second, pairs), pairs.counts) if loss.weighted else None


def weigh_by(loss: PairLoss, first: Tensor, second: Tensor, pairs: Pairs) -> Weigh | None:
    """The weights of the loss, from all training pairs at once; None if every weight is 1."""
    tally = tally_of(loss, first, second, pairs)
    return None if tally is None else loss.weights(tally)


def recorded_bins(loss: PairLoss, score_margin: Tensor, pairs: Pairs) -> Tensor | None:
    """The bin of each pair by y (s_a − s_b), float64 [checkpoints, pairs] as recorded; float32 scores give it exactly.

    None for a loss without bins.
    """
    target = pairs.target.to(score_margin).expand_as(score_margin)
    margin = None if pairs.margin is None else pairs.margin.to(score_margin).expand_as(score_margin)
    return loss.bin(target * score_margin, torch.zeros_like(score_margin), target, margin)


def scored_pairs(first: Tensor, second: Tensor, pairs: PairBlock) -> Scored:
    """The arguments of a loss, in the type and on the device of the scores [pairs]."""
    margin = None if pairs.margin is None else pairs.margin.to(first)
    return first.detach(), second.detach(), pairs.target.to(first), margin


def _terms(value: Tensor, first_slope: Tensor, second_slope: Tensor, weight: Tensor | None, scored: Scored) -> Terms:
    first, second, target, _ = scored
    value, first_slope, second_slope, difference, target = (
        tensor.detach().cpu().double() for tensor in (value, first_slope, second_slope, first - second, target)
    )
    weight = torch.ones_like(value) if weight is None else weight
    u, v = weight * first_slope, weight * second_slope
    return Terms(value, target * difference, u, v, weight, (u != 0) | (v != 0))


def _weight(weigh: Weigh | None, scored: Scored, own: Tensor | None) -> Tensor | None:
    """w_p, float64 [pairs] on the CPU: the loss's weight at these scores times the pairs' own; None if all are 1."""
    if weigh is None:
        return own
    weight = weigh(*scored).detach().cpu().double()
    return weight if own is None else weight * own


def _derivatives(
    loss: PairLoss, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """ℓ if autograd computed it, u, and v if it is not −u, in the precision of the scores.

    Raises:
        UsageError: the user's loss fails, or contradicts its declaration.
    """
    if loss.of_difference and (closed := loss.derivative(first, second, target, margin)) is not None:
        return None, closed, None
    s_a, s_b = first.clone().requires_grad_(), second.clone().requires_grad_()
    with torch.enable_grad():
        value = _values(loss, s_a, s_b, target, margin)
        u, v = torch.autograd.grad(value.sum(), (s_a, s_b), materialize_grads=True)
    if loss.of_difference and not torch.allclose(v, -u, rtol=1e-4, equal_nan=True):
        row = int((v + u).abs().nan_to_num().argmax())
        raise UsageError(
            f"`loss` {type(loss).__name__} declares `of_difference=True`, but a pair has the derivatives "
            f"{float(u[row]):g} by s_a and {float(v[row]):g} by s_b, which are not opposite. Declare "
            "`of_difference=False`."
        )
    return value.detach(), u, None if loss.of_difference else v


def _values(loss: PairLoss, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None) -> Tensor:
    """ℓ of each pair, with the graph to its scores."""
    name, count = loss.describe().get("loss_type"), len(first)
    try:
        value = loss(first, second, target, margin)
    except (InputError, UsageError):
        raise
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise UsageError(
            f"`loss` {name} failed on scores of shape ({count},): {words}. It should be an element-wise function "
            "ℓ(s_a, s_b, y[, margin]) of tensors [pairs], with torch.where in place of 'if'."
        ) from error
    if not isinstance(value, Tensor):
        raise UsageError(f"`loss` {name} returned {type(value).__name__}. It should return a tensor [pairs].")
    if value.shape != first.shape:
        hint = "" if value.ndim else ' Set reduction="none" in losses of torch.'
        raise UsageError(
            f"`loss` {name} returned shape {tuple(value.shape)}. It should return one value per pair, ({count},).{hint}"
        )
    if not value.requires_grad:
        raise UsageError(
            f"`loss` {name} returned values without a gradient. Use torch operations on the scores, without detach(), "
            "item() or numpy()."
        )
    return value


# Tables that are read in blocks


def loss_values(values: Tensor) -> Tensor:
    """Scores in the precision of losses: at least float32, as in training with half precision."""
    return values.detach().cpu().to(torch.promote_types(values.dtype, torch.float32))


def weights_of(
    loss: PairLoss,
    values: Sequence[Tensor],
    pairs: PairBlocks,
    size: int,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Weigh | None]:
    """The weights of the loss at each checkpoint, from one pass over all pairs if it has weights.

    Args:
        values: score of each item at each checkpoint, [items].
        progress: called with the share of this pass since the last call.
    """
    if not loss.weighted:
        return [None] * len(values)

    def count(read: tuple[int, PairBlock]) -> tuple[int, list[Tensor]]:
        return len(read[1]), [_tally_of_block(loss, table, read[1]) for table in values]

    tallies: list[Tensor] = []
    for read, parts in in_order(count, blocks_over(pairs, size, len(values[0]))):
        tallies = [total + part for total, part in zip(tallies, parts, strict=True)] if tallies else parts
        progress(read / len(pairs))
    return [loss.weights(tally) for tally in tallies]


def slopes_of(
    loss: PairLoss, weigh: Weigh | None, values: Tensor, block: PairBlock, start: int, checkpoint: str
) -> Tensor:
    """u and v of a block whose first pair is number `start`, weights included, [2, pairs], or u alone [1, pairs] if
    v = −u, see `both`; float64 with weights.

    Raises:
        NumericalError: the loss of a pair, or its derivative, is NaN or infinite.
    """
    parts = []
    for at, count, part in _pieces(block):
        scored = _of_block(values, part)
        value, u, v = _derivatives(loss, *scored)
        finite = [each for each in (value, u, v) if each is not None and not math.isfinite(float(each.sum()))]
        if bad := [row for each in finite for row in (~each.isfinite()).nonzero()[:, 0].tolist()]:
            raise NumericalError(
                f"{checkpoint}: the loss of pair {start + at + min(*bad, count - 1)}, or its derivative, is NaN or "
                "infinite. Check the scores and the loss."
            )
        slopes, weight = u[None] if v is None else torch.stack([u, v]), _weight(weigh, scored, part.weight)
        parts.append((slopes if weight is None else weight * slopes.double())[:, :count])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def both(slopes: Tensor) -> Tensor:
    """u and v, float64 [2, pairs], from derivatives [1 or 2, pairs]."""
    wide = slopes.double()
    return wide if len(wide) == 2 else torch.cat([wide, -wide])


def _tally_of_block(loss: PairLoss, values: Tensor, block: PairBlock) -> Tensor:
    parts = []
    for _, count, part in _pieces(block):
        drawn = torch.ones(len(part), dtype=torch.int64) if part.count is None else part.count
        parts.append(loss.tally(*_of_block(values, part), torch.where(torch.arange(len(part)) < count, drawn, 0)))
    return torch.stack(parts).sum(dim=0)


def _of_block(values: Tensor, block: PairBlock) -> Scored:
    return scored_pairs(values.index_select(0, block.first), values.index_select(0, block.second), block)


def _pieces(block: PairBlock) -> Iterator[tuple[int, int, PairBlock]]:
    """The start of each piece of the block, its length, and the piece, padded with its last pair to whole vectors.

    torch rounds exp differently in the remainder after whole vectors, and divides longer tensors among threads at its
    own places. Without padding a derivative would depend on where blocks begin.
    """
    for at in range(0, len(block), PIECE):
        part = block if len(block) <= PIECE else block.select(slice(at, at + PIECE))
        count = len(part)
        if count % _VECTORS:
            rows = torch.arange(count + -count % _VECTORS).clamp_(max=count - 1)
            part = part.select(rows)
        yield at, count, part
