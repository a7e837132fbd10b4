"""Tables of pairs of any length, read in blocks, as often as needed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tracin_func.errors import InputError, UsageError
from tracin_func.task.pair_reader import PairReader
from tracin_func.task.pairs import (
    FloatLike,
    IntLike,
    PairBlock,
    Pairs,
    as_columns,
    as_tensor,
    checked,
    joined,
    numbered,
    require_items,
)


class PairTable:
    """Pairs in a file or in arrays, read in blocks and never copied whole.

        PairTable("pairs.parquet")        PairTable(first=..., second=..., target=...)

    Args:
        path: a CSV or Parquet file with the columns first, second, target[, weight, margin, count, split]; see
            `PairReader`. A Parquet file is faster, and its length is known without reading it.
        item_ids: id of each item, [items]; a `Task` supplies its own.
        split: `train` or `test`: the rows of the file to use, numbered in their order.
        ids: the meaning of `first` and `second` of the file: `names` of items (item ids) or `positions`.
        first, second, target, weight, margin, count: as for `Pairs`; arrays and tensors stay in their memory and types.

    Raises:
        UsageError: both a file and arrays, or neither.
        InputError: as `Pairs` and `PairReader`, or a file without a training pair. Values are checked block by block,
            when they are read; the message names row and column.
    """

    ids: tuple[str, ...] | None = None  # pairs are named `first_second` by item id

    def __init__(
        self,
        path: str | Path | None = None,
        item_ids: Sequence[str] | None = None,
        split: str = "train",
        *,
        ids: str | None = None,
        first: IntLike | None = None,
        second: IntLike | None = None,
        target: IntLike | None = None,
        weight: FloatLike | None = None,
        margin: FloatLike | None = None,
        count: IntLike | None = None,
    ) -> None:
        given = [column is not None for column in (first, second, target, weight, margin, count)]
        if any(given) if path is not None else not all(given[:3]):
            raise UsageError("a PairTable needs a path, or 'first', 'second' and 'target'. Give one of the two.")
        self._path, self._split, self._kind = path, split, ids
        self._reader: PairReader | None = None
        if path is None:
            self._columns = as_columns(first, second, target, weight, margin, count)
            self._length = len(self._columns["first"])
        elif item_ids is not None:
            self._reader = PairReader(path, item_ids, ids=ids)
            self._length = self._reader.count(split)
            if not self._length and split == "train":
                raise InputError(f"{path} has no training pair; expected a row whose 'split' is train. Add it.")

    def over(self, item_ids: Sequence[str]) -> "PairTable":
        """The same table with ids of items, if it is a file without them."""
        if self._path is None or self._reader is not None:
            return self
        return PairTable(self._path, item_ids, self._split, ids=self._kind)

    def __repr__(self) -> str:
        return f"PairTable({f'{len(self)} pairs' if self._path is None else self._path})"

    def __len__(self) -> int:
        self._require_items()
        return self._length

    def blocks(self, size: int) -> Iterator[tuple[int, PairBlock]]:
        """The position of the first pair of each block, and the block, in order; none longer than `size`."""
        self._require_items()
        if self._reader is None:
            for start in range(0, self._length, size):
                part = {name: as_tensor(column[start : start + size]) for name, column in self._columns.items()}
                yield start, checked(part, numbered(start))
            return
        start = 0
        for block, _, _ in self._reader.read(self._split) if self._length else ():
            for at in range(0, len(block), size):
                yield start + at, block.select(slice(at, at + size))
            start += len(block)

    def pairs(self) -> Pairs:
        return joined([block for _, block in self.blocks(len(self))]).pairs()

    def _require_items(self) -> None:
        if self._path is not None and self._reader is None:
            raise UsageError(f"{self._path} needs the ids of items. Use the table in a Task, or give 'item_ids'.")


PairBlocks = Pairs | PairTable  # pairs that are read block by block, each time from the first one


def blocks_over(pairs: PairBlocks, size: int, items: int) -> Iterator[tuple[int, PairBlock]]:
    """The blocks of a table of `items` items; InputError for a position beyond the last one."""
    for start, block in pairs.blocks(size):
        require_items(block, items, numbered(start))
        yield start, block
