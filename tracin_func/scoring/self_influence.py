"""Self-influence of training pairs that are read in blocks."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tracin_func.errors import NumericalError, UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.protocol import Combination, Gradients
from tracin_func.losses.custom import as_loss
from tracin_func.losses.terms import both, loss_values, slopes_of, weights_of
from tracin_func.results.top import StreamedSelfInfluence
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.record import in_blocks
from tracin_func.scoring.repeats import PAIR_RUN
from tracin_func.scoring.steps import Traced
from tracin_func.task.loss import PairLoss
from tracin_func.task.method import Method
from tracin_func.task.pair_table import PairBlocks, blocks_over
from tracin_func.task.task import Task

SELF_BLOCK = 1 << 16  # pairs at a time


def query_self(
    task: Task, method: Method, compute: Compute, observer: Observer, of_pairs: Callable[[float], None]
) -> StreamedSelfInfluence:
    """self(p) = Σ_t ‖∇ℓ_p‖²_M of each training pair; pairs are read in blocks at every checkpoint.

    Memory is that of the gradients of all items at one checkpoint and of one number per pair.

    Args:
        task, method, compute, observer: as for `self_influence`; `observer.progress` is that of the checkpoints.
        of_pairs: receives the share of pairs × checkpoints that were read since the last call.
    """
    require_no_cosine(method)
    recorded = in_blocks(replace(task, test=None), method, compute, observer, norms=True)
    pairs, loss = task.train, as_loss(task.loss)
    scores, share = torch.zeros(len(pairs), dtype=torch.float64), 1 / (len(pairs) * len(task.checkpoints))

    def visit(traced: Traced) -> None:
        if traced.gradients is not None:
            # Gradients that do not fit are recomputed for every block.
            fit = recorded.walk.prepared.plan.block >= len(traced.values)
            own = traced.name, traced.values, traced.gradients, SELF_BLOCK if fit else PAIR_RUN
            for start, found in self_scores(pairs, loss, *own):
                scores[start : start + len(found)] += found
                of_pairs(len(found) * share)

    with recorded.walk:
        recorded.visit(visit)
    return StreamedSelfInfluence(scores, pairs, recorded.run(), task.all_item_ids)


def require_no_cosine(method: Method) -> None:
    """Refuse self-influence normalised by cosine.

    Raises:
        UsageError: as it is a constant.
    """
    if method.normalize == "cosine":
        raise UsageError(
            '`normalize="cosine"` makes every self-influence 1, the cosine of a gradient with itself. Leave it out.'
        )


def self_scores(
    pairs: PairBlocks, loss: PairLoss, name: str, values: Tensor, gradients: Gradients, block: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """‖u_p g_a + v_p g_b‖²_M of every pair at one checkpoint, in the order of the table; exactly 0 where inactive.

    A loss with weights (GHM) needs a pass of its own first. Memory is that of a block and of the gradients.

    Args:
        pairs: the pairs.
        loss: their loss.
        name: of the checkpoint.
        values: the score of each item in the precision it was computed in, [items].
        gradients: of the items.
        block: pairs read at a time, `SELF_BLOCK` when None.

    Yields:
        The position of the first pair, and scores, float64 [pairs of the block].

    Raises:
        UsageError: a loss of the user's that fails.
        InputError: a pair that does not fit.
        NumericalError: a loss or a score is NaN or infinite.
    """
    values, block = loss_values(values), block or SELF_BLOCK
    (weigh,) = weights_of(loss, [values], pairs, block)
    for start, part in blocks_over(pairs, block, len(values)):
        scores = torch.zeros(len(part), dtype=torch.float64)
        slopes = slopes_of(loss, weigh, values, part, start, name)
        rows = (slopes != 0).any(dim=0).nonzero()[:, 0]
        if len(rows):
            index = torch.stack([part.first.long(), part.second.long()], dim=1)
            scores[rows] = gradients.squared_norm(Combination(index[rows], both(slopes[:, rows]).T))
        if not bool(scores.isfinite().all()):
            row = int((~scores.isfinite()).nonzero()[0])
            raise NumericalError(f"the self-influence of pair {start + row} overflows. Use smaller weights.")
        yield start, scores
