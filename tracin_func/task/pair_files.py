"""Pairs chosen by a user: files of pairs read whole, and test pairs by their ids."""

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

FIRST = 2000  # pairs that represent a table that is not read


def read_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> tuple[Pairs, Pairs | None]:
    """Training and test pairs (None for none) of a CSV or Parquet file. A row given k times is one pair with `count` k.

    Args:
        path, item_ids, ids: see `PairReader`.

    Raises:
        UsageError: `ids` is something else.
        InputError: as `PairReader`; the file is empty, has no training pair, or repeats a pair with another target,
            weight or margin. The message names the line or row.
    """
    train, test = _merged(PairReader(path, item_ids, ids=ids), None)
    if train is None:
        raise InputError(f"{path} has no training pair; expected a row whose 'split' is train. Add it.")
    return train, test


def read_test_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> Pairs | None:
    """The test pairs of a file, or None when it has none; its other rows are ignored. Errors as `read_pairs`."""
    return _merged(PairReader(path, item_ids, ids=ids), "test")[1]


def first_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> Pairs:
    """The first training pairs of a file, which is not read beyond them. Errors as `read_pairs`."""
    return next(block.pairs() for _, block in PairTable(path, item_ids, ids=ids).blocks(FIRST))


def named_pairs(names: Sequence[str], item_ids: Sequence[str], classes: Tensor) -> Pairs:
    """The pairs with the ids `names`, ID1_ID2, in this order; +1 if the first item's class is the higher one.

    `item_ids` and `classes` are of each item, [items]. InputError for an id of no two items, of two possible pairs, or
    of two items of one class, which cannot be ranked; or for a repeated pair.
    """
    position = {item_id: place for place, item_id in enumerate(item_ids)}
    in_one_form = {one_form(item_id): place for item_id, place in position.items()}
    drawn: dict[DrawnPair, str] = {}
    for name in names:
        both = _fitting(name, position) or _fitting(one_form(name), in_one_form)
        first, second = _both_items(name, both, item_ids)
        if classes[first] == classes[second]:
            raise InputError(f"`test_pairs`: both items of {name!r} are of one class. Expected different classes.")
        pair = DrawnPair(first, second, 1 if classes[first] > classes[second] else -1)
        if pair in drawn:
            raise InputError(f"`test_pairs`: {name!r} is named twice. Remove one.")
        drawn[pair] = name
    return table_of(list(drawn), [1] * len(drawn))


def read_ids(value: str) -> list[str]:
    """Ids separated by commas, or the lines of a file of that name; InputError if there is none."""
    path = Path(value)
    names = read_lines(path) if path.is_file() else [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise InputError(
            f"`test_pairs` {value!r} names no pair. Expected ids ID1_ID2, separated by commas or one per file line."
        )
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
        raise InputError(
            f"`test_pairs`: {name!r} may be {first}, or {second}. Rename items so that joined ids are unambiguous."
        )
    near = difflib.get_close_matches(name.rpartition("_")[0], item_ids, n=2, cutoff=0.3) or item_ids[:2]
    raise InputError(
        f"`test_pairs`: {name!r} does not name two items ID1_ID2. Available items include {', '.join(near)}."
    )


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
    """Add a row to the table, or to the count of an equal one.

    Result files have one entry per two ids, so a pair cannot have two targets or weights.
    """
    known = table.get(pair) or table.get(pair._replace(target=-pair.target))
    if known is None:
        table[pair] = row
    elif pair in table and (known.weight, known.margin) == (row.weight, row.margin):
        table[pair] = known._replace(repeats=known.repeats + row.repeats)
    else:
        raise InputError(
            f"{reader.path}, {reader.unit} {row.number} repeats the pair of {reader.unit} {known.number} with a "
            f"different target, weight or margin. Remove one of the two {reader.unit}s."
        )


def _table_of_rows(table: dict[DrawnPair, _Row]) -> Pairs:
    first, second, target = zip(*table, strict=True)
    weight = [row.weight for row in table.values()]
    margin = [row.margin for row in table.values() if row.margin is not None]
    count = [row.repeats for row in table.values()]
    unweighted = all(value == 1 for value in weight)
    return Pairs(first, second, target, None if unweighted else weight, margin or None, count)
