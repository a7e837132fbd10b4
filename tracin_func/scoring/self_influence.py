"""Self-influence: norms of pair gradients, of the pairs of a task and of a table read in blocks."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.profiler import record_function

from tracin_func.errors import InputError, NumericalError, UsageError
from tracin_func.gradients.processes import ALONE, World
from tracin_func.gradients.protocol import Combination, Gradients
from tracin_func.gradients.representations.projected import ProjectedGradients
from tracin_func.losses.terms import both, loss_values, slopes_of, weights_of
from tracin_func.scoring.combinations import PairTable, own_chunks
from tracin_func.task.loss import PairLoss
from tracin_func.task.pair_table import PairBlocks, blocks_over

SELF_BLOCK = 1 << 16  # pairs at a time


def squared_norms(gradients: Gradients | None, pairs: PairTable, world: World = ALONE) -> Tensor:
    """‖∇ℓ_p‖²_M, float64 [pairs]; inactive pairs are skipped and exactly 0. Each process takes its blocks of pairs."""
    result = torch.zeros(len(pairs.combination), dtype=torch.float64)
    rows = pairs.terms.active.nonzero()[:, 0]
    if gradients is not None and len(rows):
        with record_function("norms of pairs"):
            for chunk in own_chunks(rows, world):
                result[chunk] = gradients.squared_norm(pairs.combination.select(chunk))
    return world.sum(result)


def norm_variance(gradients: ProjectedGradients | None, pairs: PairTable, found: Tensor) -> Tensor:
    """The variance, over projections, of `found` = ‖∇ℓ_p‖²_M [pairs]; 0 where gradients are exact or inactive."""
    result = torch.zeros_like(found)
    rows = pairs.terms.active.nonzero()[:, 0]
    if gradients is not None and len(rows):
        result[rows] = gradients.norm_variance(pairs.combination.select(rows), found[rows])
    return result


def self_scores(
    pairs: PairBlocks,
    loss: PairLoss,
    gradients_of: Sequence[tuple[Tensor, Gradients]],
    block: int = SELF_BLOCK,
) -> Iterator[tuple[int, Tensor]]:
    """self(p) = Σ_t ‖u_p g_a + v_p g_b‖²_M of every pair, in the order of the table; inactive pairs are exactly 0.

    A GHM loss needs a pass of its own first. Memory is that of a block and of the gradients.

    Args:
        pairs: the pairs.
        loss: their loss.
        gradients_of: at each checkpoint the score of each item [items] in the precision it was computed in, and the
            gradients of the items.
        block: pairs read at a time.

    Yields:
        The number of the first pair, and scores, float64 [pairs of the block].

    Raises:
        UsageError: `block` below 1, or a loss of the user's that fails.
        InputError: no checkpoint, or a pair that does not fit.
        NumericalError: a loss or a score is NaN or infinite.
    """
    if block < 1:
        raise UsageError(f"`block` should be at least 1. Got {block}.")
    if not gradients_of:
        raise InputError("`gradients_of` is empty. Expected scores and gradients of the items of a checkpoint.")
    values = [loss_values(table) for table, _ in gradients_of]
    weighs = weights_of(loss, values, pairs, block)
    for start, part in blocks_over(pairs, block, len(values[0])):
        index = torch.stack([part.first.long(), part.second.long()], dim=1)
        scores = torch.zeros(len(part), dtype=torch.float64)
        for number, (weigh, table, (_, gradients)) in enumerate(zip(weighs, values, gradients_of, strict=True)):
            slopes = slopes_of(loss, weigh, table, part, start, f"checkpoint {number}")
            rows = (slopes != 0).any(dim=0).nonzero()[:, 0]
            if len(rows):
                scores[rows] += gradients.squared_norm(Combination(index[rows], both(slopes[:, rows]).T))
        if not bool(scores.isfinite().all()):
            row = int((~scores.isfinite()).nonzero()[0])
            raise NumericalError(f"the self-influence of pair {start + row} overflows. Use smaller weights.")
        yield start, scores
