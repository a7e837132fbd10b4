"""Where the pairs of a query come from: tables of any length that are read in blocks, as often as needed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.task.pairs import Pairs

Mask = np.ndarray[Any, Any]
Array = Tensor | np.ndarray[Any, Any] | Sequence[float]

COLUMNS = ("first", "second", "target", "weight", "margin", "count")
_POSITIONS = (torch.int32, torch.int64)  # what a gather takes as it is


@dataclass(frozen=True, eq=False)
class PairBlock:
    """Some pairs of a table, valid but for positions beyond the items: the columns of `Pairs`, each [pairs].

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
        """The pairs at `rows`, positions or a mask."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        return PairBlock(**{name: column[rows] for name, column in columns.items() if column is not None})

    def pairs(self) -> Pairs:
        """The same pairs as a table of their own."""
        return Pairs(self.first, self.second, self.target, self.weight, self.margin, self.count)


class PairBlocks(Protocol):
    """A table of pairs that is read block by block, from its start each time."""

    def __len__(self) -> int:
        """The number of pairs."""
        ...

    def blocks(self, size: int) -> Iterator[tuple[int, PairBlock]]:
        """The position of the block's first pair and the block, in order; none longer than `size`."""
        ...


class ArrayPairs:
    """Pairs in arrays, which stay where they are and in their own types: nothing is copied whole.

    Args:
        first: positions of item a, of any integer type [pairs].
        second: positions of item b, of any integer type [pairs].
        target: +1 (a above b) or −1 (a below b), [pairs].
        weight: factor of each pair's loss, [pairs]; 1 when left out.
        margin: margin of each pair, [pairs]; the loss's own when left out.
        count: how often each pair was drawn, integer [pairs]; 1 when left out.

    Raises:
        InputError: columns differ in length, have more than one axis, or hold no numbers of the right kind. Values
            are checked block by block, when they are read; the message names column and row.
    """

    def __init__(
        self,
        first: Array,
        second: Array,
        target: Array,
        weight: Array | None = None,
        margin: Array | None = None,
        count: Array | None = None,
    ) -> None:
        given = zip(COLUMNS, (first, second, target, weight, margin, count), strict=True)
        self._columns = {name: _array(name, values) for name, values in given if values is not None}
        lengths = {name: len(column) for name, column in self._columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"columns of pairs should have one length, [pairs]. Got {lengths}.")

    def __len__(self) -> int:
        return len(self._columns["first"])

    def blocks(self, size: int) -> Iterator[tuple[int, PairBlock]]:
        """Blocks of `size` pairs.

        Raises:
            InputError: a value that no pair may have; see `checked`.
        """
        for start in range(0, len(self), size):
            part = {name: _block(column[start : start + size]) for name, column in self._columns.items()}
            yield start, checked(part, numbered(start))


def checked(columns: dict[str, Tensor], where: Callable[[int], str]) -> PairBlock:
    """A block of columns in any number types, in the types of a block.

    Args:
        columns: [pairs] by name.
        where: row of the block -> how a message names it.

    Raises:
        InputError: a negative position, an item with itself, a target that is not ±1, a weight that is not finite or
            below 0, a margin that is not finite, or a count below 1.
    """
    # In numpy, which compares ten times as fast as torch.
    plain = {name: column.numpy() for name, column in columns.items()}
    first, second = plain["first"], plain["second"]
    if len(first) and min(first.min(), second.min()) < 0:
        name = "first" if first.min() < 0 else "second"
        raise _refusal(plain, name, plain[name] >= 0, where, "the position of an item, 0 or more")
    for name, (expected, test) in _EXPECTED.items():
        if name not in plain:
            continue
        valid = first != second if test is None else test(plain[name])
        if not valid.all():
            raise _refusal(plain, name, valid, where, expected)
    wide = {"weight": torch.float64, "margin": torch.float64, "count": torch.int64}
    return PairBlock(
        _positions(columns["first"]),
        _positions(columns["second"]),
        columns["target"].to(torch.int8),
        **{name: columns[name].to(dtype) for name, dtype in wide.items() if name in columns},
    )


def require_items(block: PairBlock, items: int, where: Callable[[int], str]) -> None:
    """Refuse positions beyond the last item.

    Raises:
        InputError: with the first such row.
    """
    for name, column in (("first", block.first.numpy()), ("second", block.second.numpy())):
        if len(column) and column.max() >= items:
            row = int(np.argmax(column >= items))
            raise InputError(
                f"{where(row)}: `{name}` is {column[row]}; expected the position of an item, below {items}. Use the "
                "items that the pairs were made for."
            )


def numbered(start: int) -> Callable[[int], str]:
    """How messages name the rows of a block whose first pair is number `start` of a table in memory."""
    return lambda row: f"pairs, row {start + row}"


_EXPECTED: Mapping[str, tuple[str, Callable[[Mask], Mask] | None]] = {
    "target": ("1 (first above second) or -1", lambda values: (values == 1) | (values == -1)),
    "second": ("another item than `first`", None),
    "weight": ("a number, 0 or more", lambda values: np.isfinite(values) & (values >= 0)),
    "margin": ("a finite number", np.isfinite),
    "count": ("1 or more", lambda values: values >= 1),
}


def _refusal(
    columns: Mapping[str, Mask], name: str, valid: Mask, where: Callable[[int], str], expected: str
) -> InputError:
    row = int(np.argmin(valid))
    return InputError(f"{where(row)}: `{name}` is {columns[name][row]}; expected {expected}. Mend or remove it.")


def _positions(column: Tensor) -> Tensor:
    return column if column.dtype in _POSITIONS else column.long()


def _array(name: str, values: Array) -> Tensor | np.ndarray[Any, Any]:
    array = values.detach() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"`{name}` should have one axis, [pairs]. Got shape {tuple(array.shape)}.")
    kind = _kind(array)
    whole = name in ("first", "second", "count")
    if kind not in ("iu" if whole and len(array) else "iuf"):
        raise InputError(f"`{name}` should hold {'whole numbers' if whole else 'numbers'}. Got {array.dtype}.")
    return array


def _kind(array: Tensor | Mask) -> str:
    """The kind of numbers, as numpy calls it: i, u, f or another."""
    if not isinstance(array, Tensor):
        return str(array.dtype.kind)
    if array.dtype == torch.bool or array.is_complex():
        return "b"
    return "f" if array.is_floating_point() else "i"


def _block(values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    if isinstance(values, Tensor):
        return values.cpu() if values.is_floating_point() or values.dtype.is_signed else values.cpu().long()
    native = values.dtype.newbyteorder("=")
    plain = np.dtype(np.int64) if native.kind == "u" else native
    # torch warns about memory that it may not write to, as that of a file mapped for reading
    return torch.from_numpy(values.astype(plain, copy=not values.flags.writeable))
