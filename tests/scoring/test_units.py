"""Which units are scored again among other companions, besides those with extreme scores."""

from typing import Any

import torch
from torch import Tensor, nn

import tracin_func as ti
from tracin_func.gradients.model import Scorer
from tracin_func.losses.custom import as_loss
from tracin_func.scoring.units import UnitMaker


def outstanding(items: Any) -> list[int]:
    module = nn.Linear(2, 1)
    checkpoint = ti.Checkpoint(module.state_dict(), 0.1)
    task = ti.Task(module, items, ti.Pairs([0, 1, 3, 4, 4], [1, 3, 0, 0, 1], [1] * 5), [checkpoint])
    maker = UnitMaker(task, Scorer(module.eval()), as_loss(None), ti.Method(), torch.device("cpu"), None)
    found: Tensor = maker.outstanding
    return found.tolist()


def test_the_smallest_and_the_largest_of_stacked_items() -> None:
    items = torch.tensor([[3.0, 0.0], [0.0, 9.0], [50.0, 50.0], [0.0, 0.0], [5.0, 0.0]])  # no pair has the third
    assert outstanding(items) == [2], "the fourth item, by norm and by entries that are not zero"
    items[1] = 60
    assert outstanding(items) == [1, 2]


def test_none_of_items_that_are_not_stacked() -> None:
    assert outstanding([torch.tensor([1.0, float(place)]) for place in range(5)]) == []
