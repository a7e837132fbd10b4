"""Rows of tests that are a cross of sets: all of them with --thorough, and enough of them in a plain run."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest


def cross(*sets: Sequence[Any], plain: Callable[..., bool]) -> list[Any]:
    """Every combination of one value of each set; with the mark thorough where `plain` of its positions is False."""
    rows = []
    for places in product(*(range(len(each)) for each in sets)):
        row = [each[place] for each, place in zip(sets, places, strict=True)]
        name = "-".join(str(getattr(value, "name", value)).removeprefix("torch.") for value in row)
        rows.append(pytest.param(*row, id=name, marks=() if plain(*places) else pytest.mark.thorough))
    return rows
