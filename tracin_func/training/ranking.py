"""Scores and pair accuracy of a module, outside of training steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tracin_func.errors import InputError
from tracin_func.gradients.coupling import FORWARD_FAULTS
from tracin_func.task.items import Items, RaggedItemsError, as_items, place
from tracin_func.task.pairs import Pairs

SCORED = 32  # items, or pairs of a joint scorer, at once


def score(scorer: nn.Module, items: Tensor) -> Tensor:
    """Scores [items] in eval mode; the mode of `scorer` is restored."""
    every = as_items(items)
    with evaluating(scorer):
        rows = torch.arange(len(every)).split(SCORED)
        return torch.cat([forward(scorer, every, [batch], items.device) for batch in rows])


def differences(scorer: nn.Module, items: Items, pairs: Pairs, joint: bool, device: torch.device) -> Tensor:
    """Score differences s_a − s_b of pairs in eval mode, [pairs] on the CPU; the mode of `scorer` is restored."""
    both = torch.stack([pairs.first, pairs.second])
    with evaluating(scorer):
        if joint:
            batches = both.split(SCORED, dim=1)
            return torch.cat([forward(scorer, items, list(batch), device) for batch in batches]).cpu()
        used, slot = torch.unique(both, return_inverse=True)
        scores = torch.cat([forward(scorer, items, [batch], device) for batch in used.split(SCORED)]).cpu()
        return scores[slot[0]] - scores[slot[1]]


def accuracy(difference: Tensor, pairs: Pairs) -> float:
    """Pair accuracy: share of drawn pairs in the right order by their score differences [pairs]; a tie is wrong."""
    right = pairs.target * difference > 0
    return float((right * pairs.counts).sum() / pairs.counts.sum())


def forward(scorer: nn.Module, items: Items, sides: list[Tensor], device: torch.device) -> Tensor:
    """Scores [items] of the items at the positions of `sides`, one tensor of them or, of a joint scorer, two.

    Items that cannot share a batch are scored one by one.

    Raises:
        InputError: the scorer fails, or does not return one score per item.
    """
    expected = len(sides[0])
    try:
        batches = [place(items.take(side), device, None) for side in sides]
    except RaggedItemsError:
        if expected == 1:
            raise
        singles = zip(*(side.split(1) for side in sides), strict=True)
        return torch.cat([forward(scorer, items, list(each), device) for each in singles])
    try:
        scores: Tensor = scorer(*batches)
    except FORWARD_FAULTS as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"the scorer {type(scorer).__qualname__} failed on a batch of {expected} items: {words}. It should take "
            "a batch of these items and return one score per item."
        ) from error
    if not isinstance(scores, Tensor) or scores.numel() != expected:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(
            f"the scorer {type(scorer).__qualname__} returned {found} for {expected} items. Expected scores [items] or "
            "[items, 1]."
        )
    return scores.reshape(expected)


@contextmanager
def evaluating(scorer: nn.Module) -> Iterator[None]:
    """In the block every submodule is in eval mode and no gradient is recorded."""
    modes = {module: module.training for module in scorer.modules()}
    for module in modes:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
