"""The table of pairs: what it takes, what it refuses, and what it says then."""

from typing import Any

import numpy as np
import pytest
import torch

from tracin_func import InputError, Pairs


def test_columns_from_lists_arrays_and_tensors() -> None:
    for make in (list, np.array, torch.tensor):
        pairs = Pairs(make([0, 1]), make([2, 3]), make([1, -1]), count=make([1, 4]))
        assert pairs.first.tolist() == [0, 1]
        assert pairs.target.tolist() == [1, -1]
        assert pairs.counts.tolist() == [1, 4]
    assert Pairs([0], [1], [1.0]).target.tolist() == [1]
    assert Pairs([0], [1], [1]).counts.tolist() == [1]


def test_python_numbers_keep_their_digits() -> None:
    pairs = Pairs([0], [1], [1], weight=[0.1], margin=[1 / 3])
    assert pairs.weight is not None
    assert pairs.margin is not None
    assert (pairs.weight.item(), pairs.margin.item()) == (0.1, 1 / 3)


def test_select_by_positions_and_by_mask() -> None:
    pairs = Pairs([0, 1, 2], [1, 2, 0], [1, -1, 1], [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [1, 2, 3], ["a", "b", "c"])
    for rows in (torch.tensor([2, 0]), torch.tensor([True, False, True])):
        chosen = pairs.select(rows)
        order = [2, 0] if rows.dtype == torch.int64 else [0, 2]
        assert chosen.ids == tuple("abc"[row] for row in order)
        assert chosen.first.tolist() == order
        assert chosen.counts.tolist() == [row + 1 for row in order]
        assert chosen.margin is not None
        assert chosen.margin.tolist() == [row + 1.0 for row in order]
    assert len(pairs.select(torch.tensor([], dtype=torch.int64))) == 0


GOOD: dict[str, Any] = {"first": [0, 1], "second": [1, 2], "target": [1, -1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second": [1]}, "`second` has 1 rows, `first` has 2; expected one per pair."),
        ({"weight": [1.0]}, "`weight` has 1 rows, `first` has 2"),
        ({"ids": ["a"]}, "`ids` has 1 rows, `first` has 2"),
        ({"first": [0, -1]}, "`first` should be a position of an item, 0 or more; row 1 is -1."),
        ({"second": [-3, 2]}, "`second` should be a position of an item, 0 or more; row 0 is -3."),
        ({"target": [1, 0]}, r"`target` should be \+1 or -1 \(a tie cannot be ranked\); row 1 is 0."),
        ({"target": [2, 1]}, "`target` should be .* row 0 is 2."),
        ({"target": [1, 0.5]}, "`target` should hold whole numbers that fit torch.int8; row 1 is 0.5."),
        ({"target": [1, 300]}, "`target` should hold whole numbers that fit torch.int8; row 1 is 300."),
        ({"target": [1.0, float("nan")]}, "`target` should hold whole numbers that fit torch.int8; row 1 is nan."),
        ({"first": [0.5, 1]}, "`first` should hold whole numbers that fit torch.int64; row 0 is 0.5."),
        ({"second": [1, 1]}, "a pair should compare two different items; row 1 is 1."),
        ({"weight": [1.0, -0.5]}, "`weight` should be finite and at least 0; row 1 is -0.5."),
        ({"weight": [float("nan"), 1.0]}, "`weight` should be finite and at least 0; row 0 is nan."),
        ({"margin": [1.0, float("inf")]}, "`margin` should be finite; row 1 is inf."),
        ({"count": [1, 0]}, "`count` should be at least 1; row 1 is 0."),
        ({"count": [1, 1.5]}, "`count` should hold whole numbers that fit torch.int64; row 1 is 1.5."),
        ({"first": [[0, 1]]}, r"`first` should have one axis, \[pairs\]; got shape \(1, 2\)."),
        ({"first": 3}, r"`first` should have one axis, \[pairs\]; got shape \(\)."),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pairs(**{**GOOD, **changes})
