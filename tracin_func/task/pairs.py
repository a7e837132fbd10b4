"""Ranking pairs: who was compared with whom, and who should score higher.

A pair p = (a, b, y) names two items by their positions; y = +1 when item a should score above item b and
-1 when below. A pair that was drawn k times is one row with `count` k.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.task.ids import as_texts

IntLike = Tensor | Sequence[int]
FloatLike = Tensor | Sequence[float]


@dataclass(frozen=True, eq=False)
class Pairs:
    """A table of ranking pairs over items 0 .. items-1.

    Args:
        first: positions of item a, integer [pairs].
        second: positions of item b, integer [pairs].
        target: +1 (a above b) or -1 (a below b), [pairs]; texts that spell these are read as numbers.
        weight: factor of each pair's loss, [pairs], at least 0; 1 when left out.
        margin: margin of each pair, [pairs]; the loss's own when left out.
        count: how often each pair was drawn, integer [pairs], at least 1; 1 when left out. Histograms and
            sums over pairs respect it; the score of a pair is per visit and does not.
        ids: one name per pair, kept as text, [pairs]; `first_second` by item id when left out.

    Raises:
        InputError: lengths differ, a position is negative, an item is compared with itself, or a value lies
            outside what is listed above. The message names the first offending row.
    """

    first: Tensor
    second: Tensor
    target: Tensor
    weight: Tensor | None = None
    margin: Tensor | None = None
    count: Tensor | None = None
    ids: tuple[str, ...] | None = None

    def __init__(
        self,
        first: IntLike,
        second: IntLike,
        target: IntLike,
        weight: FloatLike | None = None,
        margin: FloatLike | None = None,
        count: IntLike | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        columns = {
            "first": _column("first", first, torch.int64),
            "second": _column("second", second, torch.int64),
            "target": _column("target", target, torch.int8),
            "weight": None if weight is None else _column("weight", weight, torch.float64),
            "margin": None if margin is None else _column("margin", margin, torch.float64),
            "count": None if count is None else _column("count", count, torch.int64),
            "ids": None if ids is None else tuple(as_texts(ids, "ids")),
        }
        for name, column in columns.items():
            object.__setattr__(self, name, column)
        pairs = len(self.first)
        for name, column in columns.items():
            if column is not None and len(column) != pairs:
                raise InputError(f"`{name}` has {len(column)} rows, `first` has {pairs}; expected one per pair.")
        _require(self.first >= 0, "`first` should be a position of an item, 0 or more", self.first)
        _require(self.second >= 0, "`second` should be a position of an item, 0 or more", self.second)
        _require(self.target.abs() == 1, "`target` should be +1 or -1 (a tie cannot be ranked)", self.target)
        _require(self.first != self.second, "a pair should compare two different items", self.first)
        if self.weight is not None:
            valid = self.weight.isfinite() & (self.weight >= 0)
            _require(valid, "`weight` should be finite and at least 0", self.weight)
        if self.margin is not None:
            _require(self.margin.isfinite(), "`margin` should be finite", self.margin)
        if self.count is not None:
            _require(self.count >= 1, "`count` should be at least 1", self.count)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def counts(self) -> Tensor:
        """How often each pair was drawn, int64 [pairs]; ones when `count` was left out."""
        return torch.ones_like(self.first) if self.count is None else self.count

    @property
    def shares(self) -> Tensor:
        """The share of each pair in all that was drawn, float64 [pairs]; 1 in all."""
        return self.counts.double() / int(self.counts.sum())

    def select(self, rows: Tensor) -> "Pairs":
        """The pairs at `rows` (positions or a mask), in that order."""
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        return Pairs(
            self.first[rows],
            self.second[rows],
            self.target[rows],
            None if self.weight is None else self.weight[rows],
            None if self.margin is None else self.margin[rows],
            None if self.count is None else self.count[rows],
            None if self.ids is None else [self.ids[row] for row in rows.tolist()],
        )


class DrawnPair(NamedTuple):
    """One draw: positions of two items, and +1 when the first should score above the second, else −1."""

    first: int
    second: int
    target: int


def table_of(draws: Sequence[DrawnPair], count: Sequence[int], weight: Sequence[float] | None = None) -> Pairs:
    """Distinct draws and how often each was drawn, as `Pairs`."""
    first, second, target = zip(*draws, strict=True) if draws else ((), (), ())
    return Pairs(first, second, target, weight=weight, count=count)


def _column(name: str, values: IntLike | FloatLike, dtype: torch.dtype) -> Tensor:
    # By way of numpy a list of Python floats keeps its double precision; torch would make it float32.
    column = (values if isinstance(values, Tensor) else torch.as_tensor(_array(name, values))).detach().cpu()
    if column.ndim != 1:
        raise InputError(f"`{name}` should have one axis, [pairs]; got shape {tuple(column.shape)}.")
    converted = column.to(dtype)
    if not dtype.is_floating_point and len(column) and not torch.equal(converted.to(column.dtype), column):
        row = int((converted.to(column.dtype) != column).nonzero()[0])
        raise InputError(f"`{name}` should hold whole numbers that fit {dtype}; row {row} is {column[row].item()}.")
    return converted


def _array(name: str, values: Any) -> np.ndarray[Any, Any]:
    """Numbers as an array, texts that spell numbers too, but for positions: these may be meant as ids.

    Raises:
        InputError: something else.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"`{name}` should have one axis, [pairs]: {error}") from None
    if array.dtype.kind in "biuf":
        return array
    if array.ndim != 1:
        raise InputError(f"`{name}` should be a list of numbers, [pairs]. Got {type(values).__name__}.")
    numbers = []
    for row, value in enumerate(array.tolist()):
        if name in ("first", "second") and isinstance(value, str | bytes):
            raise InputError(
                f"`{name}` should hold positions of items, whole numbers; row {row} is the text {value!r}. "
                "Look ids up: item_ids.index(id)."
            )
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            raise InputError(f"`{name}` should hold numbers; row {row} is {value!r}.") from None
    return np.array(numbers)


def _require(valid: Tensor, expectation: str, column: Tensor) -> None:
    if not bool(valid.all()):
        row = int((~valid).nonzero()[0])
        raise InputError(f"{expectation}; row {row} is {column[row].item()}.")
