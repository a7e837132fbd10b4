"""Pairs that a user names: files of pairs read whole, and test pairs by their ids."""

import difflib
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.files import one_form, read_lines
from tracin_func.task.pair_reader import SPLITS, PairReader
from tracin_func.task.pair_table import PairTable
from tracin_func.task.pairs import DrawnPair, Pairs, table_of

FIRST = 2000  # pairs that stand for a table that is not read


def read_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> tuple[Pairs, Pairs | None]:
    """Training and test pairs of a CSV or Parquet file, read once. A row given k times is one pair with `count` k.

    Args:
        path, item_ids, ids: see `PairReader`.

    Returns:
        The training pairs, and the test pairs or None when the file has none.

    Raises:
        UsageError: `ids` is something else.
        InputError: as `PairReader`; the file is empty, has no training pair, or a pair again with another target,
            weight or margin. The message names the line or row.
    """
    train, test = _merged(PairReader(path, item_ids, ids=ids), None)
    if train is None:
        raise InputError(f"{path} has no training pair; expected at least one row whose split is train. Add it.")
    return train, test


def read_test_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> Pairs | None:
    """The rows of a file whose `split` is test, or None when it has none; its other rows are not looked at.

    Raises:
        InputError: see `read_pairs`.
    """
    return _merged(PairReader(path, item_ids, ids=ids), "test")[1]


def first_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> Pairs:
    """The first training pairs of a file, which is not read beyond them.

    Raises:
        InputError: see `read_pairs`.
    """
    return next(block.pairs() for _, block in PairTable(path, item_ids, ids=ids).blocks(FIRST))


def named_pairs(names: Sequence[str], item_ids: Sequence[str], classes: Tensor) -> Pairs:
    """The pairs that ids `ID1_ID2` name, in this order; +1 where the first item's class is the higher one.

    Args:
        names: ids of pairs.
        item_ids: id of each item, [items].
        classes: class of each item, integer [items].

    Raises:
        InputError: an id names no two items, two pairs of items, or two items of one class, which cannot be ranked;
            or a pair is named twice.
    """
    position = {item_id: place for place, item_id in enumerate(item_ids)}
    in_one_form = {one_form(item_id): place for item_id, place in position.items()}
    drawn: dict[DrawnPair, str] = {}
    for name in names:
        both = _fitting(name, position) or _fitting(one_form(name), in_one_form)
        first, second = _both_items(name, both, item_ids)
        if classes[first] == classes[second]:
            raise InputError(f"test pair {name!r}: both items are of one class, a tie. Expected different classes.")
        pair = DrawnPair(first, second, 1 if classes[first] > classes[second] else -1)
        if pair in drawn:
            raise InputError(f"test pair {name!r} is named twice. Expected each once.")
        drawn[pair] = name
    return table_of(list(drawn), [1] * len(drawn))


def read_ids(value: str) -> list[str]:
    """Ids separated by commas, or one a line in a file of that name.

    Raises:
        InputError: the file cannot be read, or there is no id.
    """
    path = Path(value)
    names = read_lines(path) if path.is_file() else [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise InputError(f"{value!r} names no pair. Expected ids ID1_ID2, separated by commas or one a line of a file.")
    return names


def _fitting(name: str, position: dict[str, int]) -> list[tuple[int, int]]:
    """Every two items whose ids, joined, are `name`."""
    places = [place for place, sign in enumerate(name) if sign == "_"]
    splits = [(name[:place], name[place + 1 :]) for place in places]
    return [(position[a], position[b]) for a, b in splits if a in position and b in position and a != b]


def _both_items(name: str, fitting: Sequence[tuple[int, int]], item_ids: Sequence[str]) -> tuple[int, int]:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        first, second = (f"{item_ids[a]} and {item_ids[b]}" for a, b in fitting[:2])
        raise InputError(f"test pair {name!r} may be {first}, or {second}. Rename the items so that ids join clearly.")
    near = difflib.get_close_matches(name.rpartition("_")[0], item_ids, n=2, cutoff=0.3) or item_ids[:2]
    raise InputError(f"test pair {name!r} does not name two items ID1_ID2; there are items such as {', '.join(near)}.")


class _Row(NamedTuple):
    number: int
    weight: float
    repeats: int
    margin: float | None


def _merged(reader: PairReader, split: str | None) -> tuple[Pairs | None, Pairs | None]:
    """The training and the test pairs of a file, each None where there are none."""
    tables: list[dict[DrawnPair, _Row]] = [{} for _ in SPLITS]
    for block, numbers, test in reader.read(split):
        weight, margin, count = (
            repeat(default) if column is None else column.tolist()
            for column, default in ((block.weight, 1.0), (block.margin, None), (block.count, 1))
        )
        pairs = map(DrawnPair, block.first.tolist(), block.second.tolist(), block.target.tolist())
        rows = map(_Row, numbers.tolist(), weight, count, margin)
        for of_test, pair, row in zip(test.tolist(), pairs, rows, strict=True):
            _enter(tables[of_test], pair, row, reader)
    train, test_pairs = (_table_of_rows(table) if table else None for table in tables)
    return train, test_pairs


def _enter(table: dict[DrawnPair, _Row], pair: DrawnPair, row: _Row, reader: PairReader) -> None:
    """Put a row into the table, or count it where it is there already.

    Result files key a pair by its two ids, so one pair cannot have two meanings.
    """
    known = table.get(pair) or table.get(pair._replace(target=-pair.target))
    if known is None:
        table[pair] = row
    elif pair in table and (known.weight, known.margin) == (row.weight, row.margin):
        table[pair] = known._replace(repeats=known.repeats + row.repeats)
    else:
        raise InputError(
            f"{reader.path}, {reader.unit} {row.number}: the pair of {reader.unit} {known.number} again with another "
            "target or weight; expected one meaning per pair. Swap first and second and turn the target, or remove one "
            "of them."
        )


def _table_of_rows(table: dict[DrawnPair, _Row]) -> Pairs:
    first, second, target = zip(*table, strict=True)
    weight = [row.weight for row in table.values()]
    margin = [row.margin for row in table.values() if row.margin is not None]
    count = [row.repeats for row in table.values()]
    unweighted = all(value == 1 for value in weight)
    return Pairs(first, second, target, None if unweighted else weight, margin or None, count)
