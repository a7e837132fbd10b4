"""Pairs that a user names: CSV and Parquet tables of pairs, and test pairs by their ids."""

import csv
import difflib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.files import one_form, read_lines, read_text
from tracin_func.task.ids import POSITIONS, as_texts, positions_hint, require_distinct, require_kind
from tracin_func.task.pair_table import PairBlocks
from tracin_func.task.pairs import DrawnPair, Pairs, table_of
from tracin_func.task.parquet import ParquetPairs

SPLITS = ("train", "test")
REQUIRED_COLUMNS = ("first", "second", "target")
OPTIONAL_COLUMNS = ("split", "weight")
_UNNAMED = re.compile(r"(Unnamed: \d+)?")  # of pandas, which writes no name and reads it as this
FIRST = 2000  # pairs that stand for a table that is not read


def read_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> tuple[Pairs, Pairs | None]:
    """Training and test pairs from a CSV or Parquet file with the columns first, second, target[, split, weight].

    `first` and `second` are item ids, `target` is 1 or -1, `split` is train (also when empty) or test,
    `weight` the factor of the pair's loss (1 when empty). A row given k times is one pair with `count` k. Columns
    without a name before the others, the index of a data frame, are left out. A Parquet file may have `margin` and
    `count` too, and positions of items as whole numbers in the place of their ids.

    Args:
        path: the file, UTF-8; of Parquet where its name ends in .parquet.
        item_ids: id of each item, [items].
        ids: what `first` and `second` are: `names` of items (item ids) or `positions`. When None texts are names and
            whole numbers of Parquet positions.

    Returns:
        The training pairs, and the test pairs or None when the file has none.

    Raises:
        UsageError: `ids` is something else.
        InputError: the file cannot be read, is empty, has no training pair, lacks a column or has one of
            another name, whole numbers may be names or positions, or a row does not fit: an unknown id, an item with
            itself, a wrong target, split or weight, or a pair that stands elsewhere with another target or weight. The
            message names the line.
    """
    path = Path(path)
    if is_parquet(path):
        train = _merged(ParquetPairs(path, item_ids, ids=ids), f"{path}, train pair")
        return train, read_test_pairs(path, item_ids, ids=ids)
    require_kind(ids)
    names = as_texts(item_ids, "item_ids")
    require_distinct(names, "item_ids")
    known = names if ids != POSITIONS else map(str, range(len(names)))
    position = {name: place for place, name in enumerate(known)}
    position = {one_form(name): place for name, place in position.items()} | position
    tables: dict[str, dict[DrawnPair, _Row]] = {split: {} for split in SPLITS}
    for line, fields in _csv_rows(path):
        where = f"{path}, line {line}"
        pair, split, weight = _parse_row(fields, position, where)
        _enter(tables[split], pair, _Row(line, weight, 1), f"{path}, line")
    if not tables["train"]:
        raise InputError(f"{path} has no training pair; expected at least one row whose split is train. Add it.")
    train, test = (_table_of_rows(tables[split]) for split in SPLITS)
    return train, test if len(test) else None


def is_parquet(path: str | Path | None) -> bool:
    """Whether the name of a file says that it is one of Parquet."""
    return path is not None and Path(path).suffix == ".parquet"


def read_test_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> Pairs | None:
    """The rows of a Parquet file whose `split` is test, or None when it has none; its other rows are not looked at.

    Raises:
        InputError: see `read_pairs`.
    """
    pairs = ParquetPairs(path, item_ids, "test", ids=ids)
    return _merged(pairs, f"{path}, test pair") if len(pairs) else None


def first_pairs(path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> Pairs:
    """The first training pairs of a Parquet file, which is not read beyond them.

    Raises:
        InputError: see `read_pairs`.
    """
    return next(block.pairs() for _, block in ParquetPairs(path, item_ids, ids=ids).blocks(FIRST))


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
    line: int
    weight: float
    repeats: int
    margin: float | None = None


def _enter(table: dict[DrawnPair, _Row], pair: DrawnPair, row: _Row, where: str) -> None:
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
            f"{where} {row.line}: the pair of {where.rpartition(', ')[2]} {known.line} again with another target or "
            "weight; expected one meaning a pair. Swap first and second and turn the target, or remove one of them."
        )


def _merged(blocks: PairBlocks, where: str) -> Pairs:
    """All of a table as one, a row given k times as one pair; `where` names one, before its number."""
    table: dict[DrawnPair, _Row] = {}
    for start, block in blocks.blocks(len(blocks)):
        pairs = zip(block.first.tolist(), block.second.tolist(), block.target.tolist(), strict=True)
        weight, margin, count = (
            repeat(default) if column is None else column.tolist()
            for column, default in ((block.weight, 1.0), (block.margin, None), (block.count, 1))
        )
        for number, (pair, *own) in enumerate(zip(pairs, weight, count, margin, strict=False), start):
            _enter(table, DrawnPair(*pair), _Row(number, *own), where)
    return _table_of_rows(table)


def _table_of_rows(table: dict[DrawnPair, _Row]) -> Pairs:
    weight = [row.weight for row in table.values()]
    unweighted = all(value == 1 for value in weight)
    margin = [row.margin for row in table.values() if row.margin is not None]
    pairs = table_of(list(table), [row.repeats for row in table.values()], None if unweighted else weight)
    return replace(pairs, margin=torch.tensor(margin, dtype=torch.float64)) if margin else pairs


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields by column of each row that is not blank."""
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    columns: list[str] | None = None
    index = 0  # columns before the first with a name: the index of a data frame
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if not any(fields):
                continue
            if columns is None:
                columns = fields
                index = next((place for place, name in enumerate(columns) if not _UNNAMED.fullmatch(name)), 0)
                _require_columns(columns[index:], path)
            elif len(fields) != len(columns):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields; expected {len(columns)} "
                    f"({', '.join(columns)}). Mend the line."
                )
            else:
                yield reader.line_num, dict(zip(columns[index:], fields[index:], strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error}). Mend the line.") from None
    if columns is None:
        raise InputError(f"{path} is empty; expected a header {','.join(REQUIRED_COLUMNS)} and one row a pair.")


def _require_columns(columns: Sequence[str], path: Path) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    unknown = [name or "one without a name" for name in columns if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    if missing or unknown or len(set(columns)) < len(columns):
        raise InputError(
            f"{path}, header {', '.join(columns)!r}: expected the columns {', '.join(REQUIRED_COLUMNS)} "
            f"and, at choice, {', '.join(OPTIONAL_COLUMNS)}, each once, separated by commas. "
            f"Missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )


def _parse_row(fields: dict[str, str], position: dict[str, int], where: str) -> tuple[DrawnPair, str, float]:
    places = []
    for column in ("first", "second"):
        place = position.get(fields[column], position.get(one_form(fields[column])))
        if place is None:
            hint = positions_hint(fields[column], len(position))
            raise InputError(
                f"{where}: `{column}` is {fields[column]!r}, which is no item; expected an id such as "
                f"{next(iter(position), 'none')!r}. Correct it or load the item.{hint}"
            )
        places.append(place)
    if places[0] == places[1]:
        raise InputError(f"{where}: {fields['first']!r} is compared with itself; expected two items. Remove it.")
    target = _number(fields["target"])
    if target not in (1, -1):
        raise InputError(f"{where}: `target` is {fields['target']!r}; expected 1 (first above second) or -1.")
    split = fields.get("split") or "train"
    if split not in SPLITS:
        raise InputError(f"{where}: `split` is {split!r}; expected one of {', '.join(SPLITS)}.")
    weight = _number(fields.get("weight") or "1")
    if not 0 <= weight < float("inf"):
        raise InputError(f"{where}: `weight` is {fields['weight']!r}; expected a number, 0 or more.")
    first, second = places
    return DrawnPair(first, second, int(target)), split, weight


def _number(text: str) -> float:
    """The number `text` spells, NaN when it spells none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
