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
        ({"second": [1]}, "'second' has 1 rows, 'first' has 2; expected one per pair."),
        ({"weight": [1.0]}, "'weight' has 1 rows, 'first' has 2"),
        ({"ids": ["a"]}, "'ids' has 1 rows, 'first' has 2"),
        (
            {"first": [0, -1]},
            "pairs, row 1: 'first' is -1; expected the position of an item, 0 or more. Correct or remove it.",
        ),
        ({"second": [-3, 2]}, "row 0: 'second' is -3; expected the position of an item, 0 or more"),
        ({"target": [1, 0]}, r"row 1: 'target' is 0; expected 1 \(first above second\) or -1"),
        ({"target": [2, 1]}, "row 0: 'target' is 2; expected 1"),
        ({"target": [1, 0.5]}, "row 1: 'target' is 0.5; expected 1"),
        ({"target": [1, 300]}, "row 1: 'target' is 300; expected 1"),
        ({"target": [1.0, float("nan")]}, "row 1: 'target' is nan; expected 1"),
        ({"first": [0.5, 1]}, "row 0: 'first' is 0.5; expected the position of an item"),
        ({"second": [1, 1]}, "row 1: 'second' is 1; expected another item than 'first'"),
        ({"weight": [1.0, -0.5]}, "row 1: 'weight' is -0.5; expected a number, 0 or more"),
        ({"weight": [float("nan"), 1.0]}, "row 0: 'weight' is nan; expected a number, 0 or more"),
        ({"margin": [1.0, float("inf")]}, "row 1: 'margin' is inf; expected a finite number"),
        ({"count": [1, 0]}, "row 1: 'count' is 0; expected an integer, 1 or more"),
        ({"count": [1, 1.5]}, "row 1: 'count' is 1.5; expected an integer, 1 or more"),
        ({"first": [[0, 1]]}, r"'first' should have one axis, \[pairs\]; got shape \(1, 2\)."),
        ({"first": 3}, r"'first' should have one axis, \[pairs\]; got shape \(\)."),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pairs(**{**GOOD, **changes})
