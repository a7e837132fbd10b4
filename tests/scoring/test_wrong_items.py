"""Items of another kind than the model takes are named in one line, without words of torch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti


class Difference(nn.Module):
    """A scorer of whole pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.inner(first) - self.inner(second)


FLOAT64 = r"^`items`: item 'a' is torch.float64. Expected torch.float32, .* with .to\(torch.float32\), or set `dtype`.$"
WRONG_ITEMS: dict[str, tuple[Any, str]] = {
    "lists of floats": (
        [[1.0, 2.0, 3.0]] * 4,
        r"^`items`: item 'a' holds 3 numbers in lists, .*torch.tensor\(items\).$",
    ),
    "lists of lists": (
        [[[1.0, 2.0, 3.0]] * 2] * 4,
        r"^`items`: item 'a' holds 6 numbers in lists, .* Expected a tensor.",
    ),
    "tuples of floats": ([(1.0, 2.0, 3.0)] * 4, r"^`items`: item 'a' holds 3 numbers in lists, .* Expected a tensor."),
    "a tensor in float64": (torch.randn(4, 3).double(), FLOAT64),
    "an array in float64": (np.ones((4, 3)), FLOAT64),
    "a dataset in float64": (list(torch.randn(4, 3).double()), FLOAT64),
    "whole numbers": (
        torch.ones(4, 3).long(),
        r"^`items`: item 'a' is torch.int64. Expected .* with .to\(torch.float32\).$",
    ),
}


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("case", WRONG_ITEMS)
def test_items_of_another_kind_than_the_model_takes_are_named(case: str, joint: bool) -> None:
    items, words = WRONG_ITEMS[case]
    module = Difference() if joint else nn.Linear(3, 1)
    pairs = ti.Pairs([0, 1], [2, 3], [1, -1])
    own: Any = {"item_ids": list("abcd"), "joint": joint}
    with pytest.raises(ti.InputError, match=words):
        ti.self_influence(ti.Task(module, items, pairs, [ti.Checkpoint(module, 0.1)], **own))


def test_items_of_the_right_kind_and_another_shape_are_left_to_the_model() -> None:
    module = nn.Linear(3, 1)
    task = ti.Task(module, torch.ones(4, 5), ti.Pairs([0], [1], [1]), [ti.Checkpoint(module, 0.1)])
    with pytest.raises(ti.InputError, match="shapes cannot be multiplied"):
        ti.self_influence(task)
