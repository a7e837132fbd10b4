"""Jobs for `--task`: eight items, six training pairs, one checkpoint with weights of its own."""

from typing import Any

import torch
from torch import nn

import tracin_func as ti
from tests.support.cases.aliases import Keyed
from tests.support.cases.backwards import Hooked, clamped, folding
from tests.support.cases.modules import Factors, perceptron
from tests.support.cases.reference import Make, State, Table, noise, seeded

TRAIN = Table([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6], [1, -1, 1, 1, -1, 1])
TEST = Table([0, 1, 6], [7, 5, 2], [1, -1, 1])
ITEMS = noise(8, 5)
TOKENS = torch.randint(0, 7, (8, 3), generator=torch.Generator().manual_seed(0))
RATE = 0.1


def job(ids: Any = None, classes: Any = None, module: nn.Module | None = None, items: Any = ITEMS) -> ti.Task:
    """The job of a module, with names for its items."""
    scorer = seeded(perceptron) if module is None else module
    return ti.Task(
        scorer,
        items,
        ti.Pairs(TRAIN.first, TRAIN.second, TRAIN.target),
        [ti.Checkpoint(trained(scorer), RATE)],
        ti.Pairs(TEST.first, TEST.second, TEST.target),
        ti.LogisticLoss(),
        item_ids=ids,
        item_classes=classes,
    )


def trained(module: nn.Module) -> State:
    """The weights of the checkpoint: not those of the module."""
    return {name: 0.7 * value for name, value in module.state_dict().items()}


# Each job's scorer, and the one whose scores are right.
SCORERS: dict[str, tuple[Make, Make]] = {
    "alias": (Keyed, Keyed),
    "fold": (folding, lambda: folding(fold=False)),
    "clamp": (lambda: Hooked(clamped), lambda: Hooked(clamped)),
    "sparse": (lambda: Factors(sparse=True), lambda: Factors(sparse=False)),
}


def alias() -> ti.Task:
    return job(module=seeded(SCORERS["alias"][0]))


def fold() -> ti.Task:
    return job(module=seeded(SCORERS["fold"][0]))


def clamp() -> ti.Task:
    return job(module=seeded(SCORERS["clamp"][0]))


def sparse() -> ti.Task:
    return job(module=seeded(SCORERS["sparse"][0]), items=TOKENS)
