"""Self-influence of a table of any length, block by block."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError, UsageError
from tracin_func.gradients.protocol import Combination, Gradients
from tracin_func.losses.ghm import PairLoss
from tracin_func.losses.slopes import bound_losses, loss_values, slopes_of
from tracin_func.task.pair_table import PairBlocks, numbered, require_items

BLOCK = 1 << 16  # pairs at a time


def self_scores(
    pairs: PairBlocks,
    loss: PairLoss,
    gradients_of: Sequence[tuple[Tensor, Gradients]],
    block: int = BLOCK,
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
        UsageError: `block` below 1, or a loss that cannot be bound block by block.
        InputError: no checkpoint, or a pair that does not fit.
        NumericalError: a loss or a score is NaN or infinite.
    """
    if block < 1:
        raise UsageError(f"`block` should be at least 1. Got {block}.")
    if not gradients_of:
        raise InputError("`gradients_of` is empty. Expected scores and gradients of the items of a checkpoint.")
    values = [loss_values(table) for table, _ in gradients_of]
    weighs = bound_losses(loss, values, pairs, block)
    for start, part in pairs.blocks(block):
        require_items(part, len(values[0]), numbered(start))
        index = torch.stack([part.first.long(), part.second.long()], dim=1)
        scores = torch.zeros(len(part), dtype=torch.float64)
        for number, (weigh, table, (_, gradients)) in enumerate(zip(weighs, values, gradients_of, strict=True)):
            slopes = slopes_of(loss, weigh, table, part, start, f"checkpoint {number}")
            rows = torch.from_numpy(np.flatnonzero(slopes.active))
            if len(rows):
                coefficient = torch.stack(slopes.wide(rows), dim=1)
                scores[rows] += gradients.squared_norm(Combination(index[rows], coefficient))
        if not bool(scores.isfinite().all()):
            row = int((~scores.isfinite()).nonzero()[0])
            raise NumericalError(f"the self-influence of pair {start + row} overflows. Use smaller weights.")
        yield start, scores
