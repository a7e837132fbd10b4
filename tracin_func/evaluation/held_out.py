"""Held-out pairs of an evaluation: the queries of scores, and others on which retrained models are judged."""

import torch

from tracin_func.errors import InputError
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task


def held_out_pairs(task: Task) -> Pairs:
    """The held-out pairs of the task, else its test pairs.

    Raises:
        InputError: it has neither.
    """
    pairs = task.held_out if task.held_out is not None else task.test
    if pairs is None:
        raise InputError("evaluation needs held-out pairs. Give the task `held_out` or `test` pairs.")
    return pairs


def halves(pairs: Pairs, seed: int) -> tuple[Pairs, Pairs]:
    """Pairs for queries and pairs for judging that share no item, so that no model is judged by what it was chosen by.

    Items are split at random; pairs with an item on each side are left out.

    Raises:
        InputError: one side has no pair.
    """
    items = torch.unique(torch.cat([pairs.first, pairs.second]).long())
    order = items[torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))]
    side = torch.zeros(int(items.max()) + 1, dtype=torch.bool)
    side[order[: len(order) // 2]] = True
    first, second = side[pairs.first.long()], side[pairs.second.long()]
    queries, judged = pairs.select(first & second), pairs.select(~first & ~second)
    if not len(queries) or not len(judged):
        raise InputError(
            f"the {len(pairs)} held-out pairs cannot be split into two parts without a common item. Give more of them."
        )
    return queries, judged


def sampled(pairs: Pairs, count: int, seed: int) -> Pairs:
    """At most `count` of the pairs, drawn without replacement, in their order."""
    if count >= len(pairs):
        return pairs
    rows = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))[:count]
    return pairs.select(rows.sort().values)
