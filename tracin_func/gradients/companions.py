"""Do items score the same among other items? A sample and the extreme items are scored again in other batches."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tracin_func.task.items import Batch, RaggedItemsError

SAMPLE = 16  # items of the second batches, besides the extreme ones
LEAST, MOST_SHARE = 8, 0.1  # items scored again: at most this share of all, but at least LEAST
SAME = {torch.float64: 1e-9, torch.float32: 1e-4}  # deviation relative to the largest score that is rounding
SAME_IN_HALF = 3e-2


def outstanding(items: Batch) -> Tensor:
    """Positions of the largest and the smallest of stacked items, by norm and by number of non-zero entries."""
    found = []
    for leaf in pytree.tree_leaves(items):
        if leaf.is_sparse:
            counts = torch.bincount(leaf.indices()[0], minlength=len(leaf))
            found += [int(counts.argmin()), int(counts.argmax())]
            continue
        flat = leaf.reshape(len(leaf), -1)
        if not flat.shape[1]:
            continue
        if flat.is_floating_point():  # the norm of order 0 is the number of non-zero entries, counted in half the time
            wide = torch.promote_types(flat.dtype, torch.float32)
            measures = [torch.linalg.vector_norm(flat, ord=power, dim=1, dtype=wide) for power in (0, 2)]
        else:
            measures = [torch.count_nonzero(flat, dim=1)]
        found += [place for measure in measures for place in (int(measure.argmin()), int(measure.argmax()))]
    positions: Tensor = torch.tensor(found, dtype=torch.int64).unique()
    return positions


def sample_of(values: Tensor, chosen: Tensor, seed: int) -> Tensor:
    """Positions to score again: some at random, those with the extreme scores, and the `chosen`; shuffled."""
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(values), generator=generator)[:SAMPLE]
    ends = torch.stack([values.argmin(), values.argmax()]).cpu()
    order = torch.cat([ends, chosen, some])  # extreme ones are the last to be left out
    most = max(LEAST, int(MOST_SHARE * len(values)))
    kept: Tensor = order[: min(len(order), most)].unique()
    return kept[torch.randperm(len(kept), generator=generator)]


def differ(values: Tensor, again: Callable[[Tensor], Tensor], sample: Tensor, scale: float = 0.0) -> bool:
    """Whether the units of `sample` score differently together than in `values` [units]; see `apart`."""
    if len(values) < 2:
        return False
    try:
        with torch.no_grad():
            found = again(sample)
    except RaggedItemsError:  # never in one batch
        return False
    return apart(values[sample.to(values.device)], found, scale)


def apart(first: Tensor, second: Tensor, scale: float = 0.0) -> bool:
    """Whether two scores of the same units differ beyond rounding, relative to the largest or to `scale`."""
    largest = max(scale, float(first.abs().max().double()), 1e-30)
    tolerance = SAME.get(first.dtype, SAME_IN_HALF) * largest
    return bool(((first.double() - second.double()).abs() > tolerance).any())


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two scores of the same units."""
    ranks = torch.stack([torch.argsort(torch.argsort(scores.double())).double() for scores in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])
