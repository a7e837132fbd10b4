"""Ranking pairs: which items were compared, and which should score higher.

A pair p = (a, b, y) consists of the positions of two items and y = +1 if item a should score above item b, else -1. A
pair that was drawn k times is one row with `count` k.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.task.ids import as_texts

IntLike = Tensor | np.ndarray[Any, Any] | Sequence[int]
FloatLike = Tensor | np.ndarray[Any, Any] | Sequence[float]
Mask = np.ndarray[Any, Any]
Where = Callable[[int], str]  # row of a block -> its name in errors

COLUMNS = ("first", "second", "target", "weight", "margin", "count")
_DTYPES = (torch.int64, torch.int64, torch.int8, torch.float64, torch.float64, torch.int64)


@dataclass(frozen=True, eq=False)
class PairBlock:
    """Some pairs of a table, checked except for positions beyond the items: see `Pairs`; each column [pairs].

    Positions are int32 or int64, targets int8, `weight` and `margin` float64, `count` int64.
    """

    first: Tensor
    second: Tensor
    target: Tensor
    weight: Tensor | None = None
    margin: Tensor | None = None
    count: Tensor | None = None

    def __len__(self) -> int:
        return len(self.first)

    def select(self, rows: Tensor | slice) -> "PairBlock":
        return PairBlock(**_chosen(self, rows))

    def pairs(self) -> "Pairs":
        return Pairs(self.first, self.second, self.target, self.weight, self.margin, self.count)


def joined(blocks: Sequence[PairBlock]) -> PairBlock:
    columns = {name: [getattr(block, name) for block in blocks] for name in COLUMNS}
    return PairBlock(**{name: torch.cat(parts) for name, parts in columns.items() if parts[0] is not None})


@dataclass(frozen=True, eq=False)
class Pairs(PairBlock):
    """A table of ranking pairs over items 0 .. items-1.

    Args:
        first: positions of item a, integer [pairs].
        second: positions of item b, integer [pairs].
        target: +1 (a above b) or -1 (a below b), [pairs]; also as texts.
        weight: factor of each pair's loss, [pairs], at least 0; 1 by default.
        margin: margin of each pair, [pairs]; that of the loss by default.
        count: how often each pair was drawn, integer [pairs], at least 1; 1 by default. Histograms and sums over pairs
            use it; the score of a pair is per visit and does not.
        ids: one name per pair, kept as text, [pairs]; `first_second` by item id by default.

    Raises:
        InputError: lengths differ, a position is negative, an item is compared with itself, or a value is not
            allowed. The message names the first wrong row.
    """

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
        columns = as_columns(first, second, target, weight, margin, count)
        block = checked({name: as_tensor(column) for name, column in columns.items()}, numbered(0))
        for name, dtype in zip(COLUMNS, _DTYPES, strict=True):
            column = getattr(block, name)
            object.__setattr__(self, name, None if column is None else column.to(dtype))
        names = None if ids is None else tuple(as_texts(ids, "ids"))
        if names is not None and len(names) != len(self):
            raise InputError(f"'ids' has {len(names)} rows, 'first' has {len(self)}; expected one per pair.")
        object.__setattr__(self, "ids", names)

    @property
    def counts(self) -> Tensor:
        """How often each pair was drawn, int64 [pairs]."""
        return torch.ones_like(self.first) if self.count is None else self.count

    @property
    def shares(self) -> Tensor:
        """The share of each pair in all drawn pairs, float64 [pairs]; their sum is 1."""
        return self.counts.double() / int(self.counts.sum())

    def blocks(self, size: int) -> Iterator[tuple[int, PairBlock]]:
        """The position of the first pair of a block, and the block, in order; none longer than `size`."""
        for start in range(0, len(self), size):
            yield start, PairBlock(**_chosen(self, slice(start, start + size)))

    def select(self, rows: Tensor | slice) -> "Pairs":
        """The pairs at `rows` (positions or a mask), in that order."""
        rows = torch.arange(len(self))[rows]
        return Pairs(**_chosen(self, rows), ids=None if self.ids is None else [self.ids[row] for row in rows.tolist()])


def _chosen(pairs: PairBlock, rows: Tensor | slice) -> dict[str, Any]:
    return {name: column[rows] for name in COLUMNS if (column := getattr(pairs, name)) is not None}


class DrawnPair(NamedTuple):
    """Positions of two items, and +1 if the first should score above the second, else −1."""

    first: int
    second: int
    target: int


def table_of(draws: Sequence[DrawnPair], count: Sequence[int], weight: Sequence[float] | None = None) -> Pairs:
    """Distinct drawn pairs with counts, as `Pairs`."""
    first, second, target = zip(*draws, strict=True) if draws else ((), (), ())
    return Pairs(first, second, target, weight=weight, count=count)


# Validation


def as_columns(*given: Any) -> dict[str, Tensor | Mask]:
    """The columns of pairs in the order of `COLUMNS`, without those that are None: numbers on one axis, not copied.

    Numbers may be texts, except positions, where texts may be meant as ids. InputError for anything else.
    """
    columns = {name: _column(name, each) for name, each in zip(COLUMNS, given, strict=True) if each is not None}
    pairs = len(columns["first"])
    for name, column in columns.items():
        if len(column) != pairs:
            raise InputError(f"'{name}' has {len(column)} rows, 'first' has {pairs}; expected one per pair.")
    return columns


def as_tensor(values: Tensor | Mask) -> Tensor:
    """Numbers as a tensor on the CPU, of a type that torch computes with; copied only if necessary."""
    if isinstance(values, Tensor):
        return values.cpu() if values.is_floating_point() or values.dtype.is_signed else values.cpu().long()
    native = values.dtype.newbyteorder("=")
    plain = np.dtype(np.int64) if native.kind == "u" else native
    # torch warns about read-only memory, such as that of a mapped file
    return torch.from_numpy(values.astype(plain, copy=not values.flags.writeable))


def checked(columns: Mapping[str, Tensor], where: Where, shown: Callable[[str, int], Any] | None = None) -> PairBlock:
    """A block of columns in any number types, in the types of a block.

    Args:
        columns: [pairs] by name.
        where: row of the block -> its name in errors.
        shown: name and row -> the value in errors, if it is not the number.

    Raises:
        InputError: a position that is negative or no integer, an item with itself, a target that is not ±1, a weight
            that is not finite or below 0, a margin that is not finite, or a count below 1.
    """
    plain = {name: column.numpy() for name, column in columns.items()}  # compares ten times as fast as torch

    def require(valid: Mask, name: str, expected: str) -> None:
        if not valid.all():
            row = int(np.argmin(valid))
            value = plain[name][row] if shown is None else shown(name, row)
            raise InputError(f"{where(row)}: '{name}' is {value}; expected {expected}. Correct or remove it.")

    for name, (expected, test) in _EXPECTED.items():
        if name in plain:
            require(test(plain[name]), name, expected)
    require(plain["first"] != plain["second"], "second", "another item than 'first'")
    narrow = {name for name in ("first", "second") if columns[name].dtype in (torch.int32, torch.int64)}  # gather's own
    types = dict(zip(COLUMNS, _DTYPES, strict=True))
    return PairBlock(**{name: each if name in narrow else each.to(types[name]) for name, each in columns.items()})


def require_items(block: PairBlock, items: int, where: Where) -> None:
    """Raise InputError for the first position beyond the last item."""
    for name, column in (("first", block.first.numpy()), ("second", block.second.numpy())):
        if len(column) and column.max() >= items:
            row = int(np.argmax(column >= items))
            raise InputError(
                f"{where(row)}: '{name}' is {column[row]}; expected the position of an item, below {items}. Use the "
                "items of these pairs."
            )


def numbered(start: int, what: str = "pairs, row") -> Where:
    """Names in errors for the rows of a block that begins at `start` of a table in memory."""
    return lambda row: f"{what} {start + row}"


def _whole(values: Mask, least: int) -> Mask:
    if values.dtype.kind != "f":
        return np.asarray(values >= least)
    return np.asarray((values >= least) & (values < 2**53) & (values == np.floor(values)))


_EXPECTED: Mapping[str, tuple[str, Callable[[Mask], Mask]]] = {
    "first": ("the position of an item, 0 or more", lambda values: _whole(values, 0)),
    "second": ("the position of an item, 0 or more", lambda values: _whole(values, 0)),
    "target": ("1 (first above second) or -1 (a tie cannot be ranked)", lambda values: (values == 1) | (values == -1)),
    "weight": ("a number, 0 or more", lambda values: np.isfinite(values) & (values >= 0)),
    "margin": ("a finite number", np.isfinite),
    "count": ("an integer, 1 or more", lambda values: _whole(values, 1)),
}


def _column(name: str, values: Any) -> Tensor | Mask:
    of_torch = isinstance(values, Tensor) and not values.is_complex()
    array = values.detach() if of_torch else _array(name, values)
    if array.ndim != 1:
        raise InputError(f"'{name}' should have one axis, [pairs]; got shape {tuple(array.shape)}.")
    return array


def _array(name: str, values: Any) -> Mask:
    try:
        array = np.asarray(values)  # by way of numpy a list of Python floats keeps its double precision
    except ValueError as error:  # rows of different lengths
        raise InputError(f"'{name}' should have one axis, [pairs]: {error}") from None
    if array.dtype.kind in "biuf":
        return array
    if array.ndim != 1:
        raise InputError(f"'{name}' should be a list of numbers, [pairs]. Got {type(values).__name__}.")
    numbers = []
    for row, value in enumerate(array.tolist()):
        if name in ("first", "second") and isinstance(value, str | bytes):
            raise InputError(
                f"'{name}' should contain positions of items, integers; row {row} is the text {value!r}. "
                "Look ids up: item_ids.index(id)."
            )
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            raise InputError(f"'{name}' should contain numbers; row {row} is {value!r}.") from None
    return np.array(numbers)
