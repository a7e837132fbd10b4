"""The split of items, the drawing of pairs and the sample of test pairs.

They reproduce the original training script to the last pair, so that scores belong to the pairs its models saw.
Positions are those in the whole list of items.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.task.pairs import DrawnPair, Pairs, table_of


def split_items(items: int, seed: int, train_share: float = 0.70) -> tuple[Tensor, Tensor]:
    """Positions of the training and of the test items, int64 [n] and [items − n].

    n = int(train_share · items). Positions and order are those of `torch.utils.data.random_split` with lengths
    [n, items − n] and a generator of this seed. The global random state is untouched.

    Raises:
        UsageError: `train_share` is not between 0 and 1.
        InputError: fewer than two items would be left for training.
    """
    if not 0 < train_share <= 1:
        raise UsageError(f"`train_share` should be above 0 and at most 1. Got {train_share}.")
    train = int(train_share * items)
    if train < 2:
        raise InputError(
            f"{items} items leave {train} for training at a share of {train_share}. At least 2 are needed. Add "
            "recordings, classes or takes."
        )
    positions = torch.randperm(items, generator=torch.Generator().manual_seed(seed))
    return positions[:train], positions[train:]


def draw_sequence(positions: Tensor, classes: Tensor, rng: np.random.RandomState) -> list[DrawnPair]:
    """The pairs drawn from one split, with repeats, in the order drawn.

    n(n−1)/2 times two different items out of n are drawn. Pairs of equal classes are dropped; the others get target +1
    if the class of the first item is the higher one, else −1. The original script draws the training pairs first, then
    the test pairs with the same `rng`. `positions` [n] are the items of the split in their order, `classes` [items]
    those of all items.
    """
    members, class_of = positions.tolist(), classes.tolist()
    drawn = []
    for _ in range(len(members) * (len(members) - 1) // 2):
        first, second = (members[place] for place in rng.choice(len(members), 2, replace=False))
        if class_of[first] != class_of[second]:
            drawn.append(DrawnPair(first, second, 1 if class_of[first] > class_of[second] else -1))
    return drawn


def merge_repeats(drawn: Sequence[DrawnPair]) -> Pairs:
    """One row per distinct ordered pair, in the order first drawn; `count` is how often it was drawn."""
    count: dict[DrawnPair, int] = {}
    for draw in drawn:
        count[draw] = count.get(draw, 0) + 1
    return table_of(list(count), list(count.values()))


def all_pairs(positions: Tensor, classes: Tensor) -> Pairs:
    """Each pair of items of different classes once, the item earlier in the split first; see `draw_sequence`."""
    earlier, later = torch.triu_indices(len(positions), len(positions), offset=1)
    first, second = positions[earlier], positions[later]
    unequal = classes[first] != classes[second]
    first, second = first[unequal], second[unequal]
    return Pairs(first, second, torch.where(classes[first] > classes[second], 1, -1))


def sample_test_pairs(
    drawn: Sequence[DrawnPair],
    k: int | None,
    seed: int,
    *,
    table: Pairs | None = None,
    kept: Sequence[int] | None = None,
) -> Pairs:
    """`k` distinct pairs out of the drawn test pairs, sampled by `random.Random(seed).sample`.

    Places in the drawing are sampled. If the pair there is excluded or already picked, the next place follows, the
    first after the last. `count` is that of the whole drawing.

    Args:
        drawn: the drawn test pairs with repeats, from `draw_sequence`.
        k: number of pairs; None for every distinct pair in the order first drawn.
        seed: seed of the sample.
        table: the distinct pairs in the order first drawn, if they have weights; else `merge_repeats(drawn)`.
        kept: rows of the distinct pairs that may be picked; None for all.

    Raises:
        UsageError: `k` is below 1.
        InputError: nothing was drawn, or fewer than `k` distinct pairs.
    """
    if k is not None and k < 1:
        raise UsageError(f"`k` should be at least 1, or None for all test pairs. Got {k}.")
    distinct = merge_repeats(drawn) if table is None else table
    allowed = list(range(len(distinct))) if kept is None else list(kept)
    if not allowed:
        raise InputError(
            "no test pair was drawn: the test items are of one class. Add recordings, or choose another `seed`."
        )
    if k is None:
        return distinct.select(torch.tensor(allowed))
    if k > len(allowed):
        raise InputError(
            f'`num_test={k}` is more than the {len(allowed)} distinct test pairs. Use `num_test="all"` for all of them.'
        )
    row_of = {pair: row for row, pair in enumerate(dict.fromkeys(drawn))}
    left = set(allowed)
    rows: list[int] = []
    for place in random.Random(seed).sample(range(len(drawn)), k):
        while (row := row_of[drawn[place]]) not in left:
            place = (place + 1) % len(drawn)
        left.remove(row)
        rows.append(row)
    return distinct.select(torch.tensor(rows))
