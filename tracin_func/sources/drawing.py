"""Which pairs a job compares: the lab's split and drawing, every pair, a table of one's own, exclusions.

The split and the drawing reproduce the lab's training to the last pair, so that scores belong to the pairs
its models saw. Positions are those of the whole list of items, whatever the split.
"""

import csv
import io
import random
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.pairs import Pairs

SPLITS = ("train", "test")
REQUIRED_COLUMNS = ("first", "second", "target")
OPTIONAL_COLUMNS = ("split", "weight")


class DrawnPair(NamedTuple):
    """One draw: positions of two items, and +1 when the first should score above the second, else −1."""

    first: int
    second: int
    target: int


def split_items(items: int, seed: int, train_share: float = 0.70) -> tuple[Tensor, Tensor]:
    """Positions of the training and of the test items, int64 [n] and [items − n].

    n = int(train_share · items). Positions and order are those of `torch.utils.data.random_split` with lengths
    [n, items − n] and a generator of this seed. The global random state is untouched.

    Raises:
        UsageError: `train_share` is not between 0 and 1.
        InputError: fewer than two items would be left to train on, so there is no pair.
    """
    if not 0 < train_share <= 1:
        raise UsageError(f"`train_share` should be above 0 and at most 1. Got {train_share}.")
    train = int(train_share * items)
    if train < 2:
        raise InputError(
            f"{items} items leave {train} to train on at a share of {train_share}; expected at least 2, to "
            "compare. Add recordings, classes or takes."
        )
    positions = torch.randperm(items, generator=torch.Generator().manual_seed(seed))
    return positions[:train], positions[train:]


def draw_sequence(positions: Tensor, classes: Tensor, rng: np.random.RandomState) -> list[DrawnPair]:
    """The lab's drawing from one split, with its repeats, in the order drawn.

    n(n−1)/2 times, two different items out of n are drawn; a draw of equal classes is dropped, the rest gets
    target +1 when the first item's class is the higher one, −1 otherwise. Draw the training split first and
    the test split with the same `rng` afterwards: it is one stream.

    Args:
        positions: the items of the split in their order, int64 [n].
        classes: class of each of all items, integer [items].
        rng: moved on by n(n−1)/2 draws.
    """
    members, class_of = positions.tolist(), classes.tolist()
    drawn = []
    for _ in range(len(members) * (len(members) - 1) // 2):
        first, second = (members[place] for place in rng.choice(len(members), 2, replace=False))
        if class_of[first] != class_of[second]:
            drawn.append(DrawnPair(first, second, 1 if class_of[first] > class_of[second] else -1))
    return drawn


def merge_repeats(drawn: Sequence[DrawnPair]) -> Pairs:
    """One row for each distinct ordered pair, in the order first drawn, with how often it was: `count`."""
    count: dict[DrawnPair, int] = {}
    for draw in drawn:
        count[draw] = count.get(draw, 0) + 1
    return _table(list(count), list(count.values()))


def draw_pairs(positions: Tensor, classes: Tensor, rng: np.random.RandomState) -> Pairs:
    """The lab's drawing from one split, a repeated pair being one row: see `draw_sequence`, `merge_repeats`.

    No rows when the split has no two items of different classes.
    """
    return merge_repeats(draw_sequence(positions, classes, rng))


def all_pairs(positions: Tensor, classes: Tensor) -> Pairs:
    """Each pair of items of different classes once, the item that comes earlier in the split first.

    Args:
        positions: the items of the split in their order, int64 [n].
        classes: class of each of all items, integer [items].
    """
    earlier, later = torch.triu_indices(len(positions), len(positions), offset=1)
    first, second = positions[earlier], positions[later]
    unequal = classes[first] != classes[second]
    first, second = first[unequal], second[unequal]
    return Pairs(first, second, torch.where(classes[first] > classes[second], 1, -1))


def sample_test_pairs(
    drawn: Sequence[DrawnPair],
    k: int | None,
    seed: int,
    *,
    table: Pairs | None = None,
    kept: Sequence[int] | None = None,
) -> Pairs:
    """`k` distinct pairs out of the drawn test pairs, as the lab picks them: `random.Random(seed).sample`.

    The sample is of draws. One that was excluded or repeats a pair already picked gives way to the next draw
    after it, from the last on to the first, that does not. `count` is that of the whole drawing.

    Args:
        drawn: the test drawing with its repeats, from `draw_sequence`.
        k: how many; None for every distinct pair in the order first drawn.
        seed: of the sample.
        table: the distinct pairs in the order first drawn, where they carry weights; else `merge_repeats(drawn)`.
        kept: the rows of the distinct pairs that may be picked; all when left out.

    Raises:
        UsageError: `k` is below 1.
        InputError: nothing was drawn, or fewer than `k` distinct pairs.
    """
    if k is not None and k < 1:
        raise UsageError(f"`k` should be at least 1, or None for all test pairs. Got {k}.")
    distinct = merge_repeats(drawn) if table is None else table
    allowed = list(range(len(distinct))) if kept is None else list(kept)
    if not allowed:
        raise InputError(
            "no test pair was drawn; expected test items of at least two classes. Add recordings, or choose "
            "another --seed."
        )
    if k is None:
        return distinct.select(torch.tensor(allowed))
    if k > len(allowed):
        raise InputError(
            f"{k} test pairs were asked for and there are {len(allowed)}; expected at most as many. Use "
            "--num-test all for every one of them."
        )
    row_of = {pair: row for row, pair in enumerate(dict.fromkeys(drawn))}
    left = set(allowed)
    rows: list[int] = []
    for place in random.Random(seed).sample(range(len(drawn)), k):
        while (row := row_of[drawn[place]]) not in left:
            place = (place + 1) % len(drawn)
        left.remove(row)
        rows.append(row)
    return distinct.select(torch.tensor(rows))


def read_pairs(path: str | Path, item_ids: Sequence[str]) -> tuple[Pairs, Pairs | None]:
    """Training and test pairs from a CSV file with the columns first, second, target[, split, weight].

    `first` and `second` are item ids, `target` is 1 or -1, `split` is train (also when empty) or test,
    `weight` the factor of the pair's loss (1 when empty). A row given k times is one pair with `count` k.

    Args:
        path: the file, UTF-8.
        item_ids: id of each item, [items].

    Returns:
        The training pairs, and the test pairs or None when the file has none.

    Raises:
        InputError: the file cannot be read, is empty, has no training pair, lacks a column or has one of
            another name, or a row does not fit: an unknown id, an item with itself, a wrong target, split or
            weight, or a pair that stands elsewhere with another target or weight. The message names the line.
    """
    path = Path(path)
    position = {item_id: place for place, item_id in enumerate(item_ids)}
    if len(position) < len(item_ids):
        raise InputError("item ids repeat; expected one id an item, since pairs name items by id. Rename them.")
    tables: dict[str, dict[DrawnPair, _Row]] = {split: {} for split in SPLITS}
    for line, fields in _csv_rows(path):
        where = f"{path}, line {line}"
        pair, split, weight = _parse_row(fields, position, where)
        table = tables[split]
        # Result files key a pair by its two ids, so one pair cannot have two meanings.
        known = table.get(pair) or table.get(pair._replace(target=-pair.target))
        if known is None:
            table[pair] = _Row(line, weight, 1)
        elif pair in table and known.weight == weight:
            table[pair] = known._replace(repeats=known.repeats + 1)
        else:
            raise InputError(
                f"{where}: the pair of line {known.line} again with another target or weight; expected one "
                "meaning a pair. Swap first and second and turn the target, or remove one of the lines."
            )
    if not tables["train"]:
        raise InputError(f"{path} has no training pair; expected at least one row whose split is train. Add it.")
    train, test = (_table_of_rows(tables[split]) for split in SPLITS)
    return train, test if len(test) else None


def read_exclusions(path: str | Path) -> frozenset[str]:
    """Ids of items or pairs from a text file, one a line; a line that starts with `#` is a comment.

    Raises:
        InputError: the file cannot be read or is not UTF-8 text.
    """
    path = Path(path)
    lines = [line.strip() for line in _text(path).split("\n")]
    return frozenset(line for line in lines if line and not line.startswith("#"))


def kept_rows(pairs: Pairs, item_ids: Sequence[str], excluded: Collection[str]) -> tuple[list[int], frozenset[str]]:
    """The rows that no id of `excluded` names, and the ids that name nothing.

    A pair is named by either of its items' ids, by its own id, or by `ID1_ID2` in either order. To find the
    ids that name nothing in several tables, intersect what the calls return.

    Args:
        pairs: positions into the items.
        item_ids: id of each item, [items].
        excluded: ids of items or pairs, as from `read_exclusions`.
    """
    excluded = frozenset(excluded)
    known = excluded.intersection(item_ids)
    kept = []
    for row, (first, second) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        a, b = item_ids[first], item_ids[second]
        names = {a, b, f"{a}_{b}", f"{b}_{a}"} | ({pairs.ids[row]} if pairs.ids is not None else set())
        hits = names & excluded
        known |= hits
        if not hits:
            kept.append(row)
    return kept, excluded - known


def exclude(pairs: Pairs, item_ids: Sequence[str], excluded: Collection[str]) -> tuple[Pairs, frozenset[str]]:
    """The pairs left when those are dropped that an id of `excluded` names, and the ids that name nothing.

    See `kept_rows`.
    """
    kept, unknown = kept_rows(pairs, item_ids, excluded)
    return pairs.select(torch.tensor(kept, dtype=torch.int64)), unknown


class _Row(NamedTuple):
    line: int
    weight: float
    repeats: int


def _table(draws: Sequence[DrawnPair], count: Sequence[int], weight: Sequence[float] | None = None) -> Pairs:
    first, second, target = zip(*draws, strict=True) if draws else ((), (), ())
    return Pairs(first, second, target, weight=weight, count=count)


def _table_of_rows(table: dict[DrawnPair, _Row]) -> Pairs:
    weight = [row.weight for row in table.values()]
    unweighted = all(value == 1 for value in weight)
    return _table(list(table), [row.repeats for row in table.values()], None if unweighted else weight)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Expected a text file.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields by column of each row that is not blank."""
    reader = csv.reader(io.StringIO(_text(path)), strict=True)
    columns: list[str] | None = None
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if not any(fields):
                continue
            if columns is None:
                columns = fields
                _require_columns(columns, path)
            elif len(fields) != len(columns):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields; expected {len(columns)} "
                    f"({', '.join(columns)}). Mend the line."
                )
            else:
                yield reader.line_num, dict(zip(columns, fields, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error}). Mend the line.") from None
    if columns is None:
        raise InputError(f"{path} is empty; expected a header {','.join(REQUIRED_COLUMNS)} and one row a pair.")


def _require_columns(columns: Sequence[str], path: Path) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    if missing or unknown or len(set(columns)) < len(columns):
        raise InputError(
            f"{path}, header {', '.join(columns)!r}: expected the columns {', '.join(REQUIRED_COLUMNS)} "
            f"and, at choice, {', '.join(OPTIONAL_COLUMNS)}, each once, separated by commas. "
            f"Missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )


def _parse_row(fields: dict[str, str], position: dict[str, int], where: str) -> tuple[DrawnPair, str, float]:
    for column in ("first", "second"):
        if fields[column] not in position:
            raise InputError(
                f"{where}: `{column}` is {fields[column]!r}, which is no item; expected an id such as "
                f"{next(iter(position), 'none')!r}. Mend the id or load the item."
            )
    if fields["first"] == fields["second"]:
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
    pair = DrawnPair(position[fields["first"]], position[fields["second"]], int(target))
    return pair, split, weight


def _number(text: str) -> float:
    """The number `text` spells, NaN when it spells none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
