"""A result file as tables or as JSON: the columns to show, and a view of their scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError
from tracin_func.report.terminal.origin import print_file, print_flags
from tracin_func.report.terminal.tables import open_console, print_words
from tracin_func.report.terminal.views import (
    EFFECTS,
    print_groups,
    print_histogram,
    print_overview,
    print_pairs,
)
from tracin_func.results.files.choice import ALL, READING, columns_named, meaning
from tracin_func.results.files.read import ResultFile
from tracin_func.results.names import common_start, counted, few
from tracin_func.results.views import (
    ABS,
    ITEM,
    PAIR,
    SCORE,
    Flag,
    Group,
    Items,
    ends,
    flags,
    groups,
    groups_in_order,
    histogram,
    in_order,
    items_named,
    items_of_ids,
    members_of,
    numbers,
    summary,
)
from tracin_func.sources.registry import classes_of_ids


@dataclass(frozen=True)
class Selection:
    """What is shown of a file.

    Args:
        result: the file.
        columns: names of the columns.
        values: score by pair, the sum of the columns where they are many; empty for an overview of them.
        flags: by column, of every column that was looked at.
        items, classes: of the pairs, where they are known.
        groups: of a view other than by pair.
    """

    result: ResultFile
    columns: list[str]
    values: dict[str, float]
    flags: dict[str, list[Flag]]
    items: Items
    classes: Mapping[str, str]
    groups: list[Group]

    @property
    def meaning(self) -> str | None:
        """What the columns are; None where it is not known, or where they are of several kinds."""
        found = {meaning(self.result, name) for name in self.columns}
        return found.pop() if len(found) == 1 else None

    @property
    def signed(self) -> bool:
        """Whether scores may be below 0."""
        columns = [numbers(self.result.columns[name]) for name in self.columns]
        return self.meaning in EFFECTS or any(value < 0 for column in columns for value in column.values())

    @property
    def title(self) -> str:
        """What the scores are called."""
        if len(self.columns) == 1:
            return self.columns[0]
        return f"sum of {len(self.columns)} columns {common_start(self.columns)}…"


def select(result: ResultFile, wanted: str | None, by: str) -> Selection:
    columns = columns_named(result, wanted)
    looked_at = columns if wanted else list(result.columns)
    items = items_of_ids(result.pairs) | result.items
    found = {name: flags(result.columns[name], items) for name in looked_at}
    values = numbers(result.columns[columns[0]]) if len(columns) == 1 else {}
    if by != PAIR and len(columns) > 1:
        values = _sum(result, columns)
    classes = classes_of_ids(sorted(items_named(items)))
    in_groups = [] if by == PAIR else _groups(result.path, values, by, items, classes)
    return Selection(result, columns, values, found, items, classes, in_groups)


def _sum(result: ResultFile, columns: Sequence[str]) -> dict[str, float]:
    """The sum of columns of one kind, of pairs that have a score in each: influence on all test pairs together."""
    kinds = {meaning(result, name) for name in columns}
    if len(kinds) > 1 or None in kinds:
        raise InputError(
            f"`{result.path}` has columns that have no meaningful sum: {few(columns)}. Select one, or one kind, with "
            "--column NAME, such as --column tracin_influence."
        )
    found = [numbers(result.columns[name]) for name in columns]
    return {
        pair: sum(column[pair] for column in found) for pair in result.pairs if all(pair in column for column in found)
    }


def _groups(path: Path, values: Mapping[str, float], by: str, items: Items, classes: Mapping[str, str]) -> list[Group]:
    """The groups of a view.

    Raises:
        InputError: the ids of the pairs do not name them.
    """
    found = groups(values, by, items, classes)
    if found or not values:
        return found
    what = "of the form ID1_ID2" if by == ITEM else "of items with a class such as deg036"
    raise InputError(
        f"--by {by} needs pair ids {what}. Got '{next(iter(values))}' in `{path}`. Use --by {PAIR}"
        f"{'' if by == ITEM else f' or --by {ITEM}'}."
    )


def print_selection(
    selection: Selection, by: str, sort: str | None, top: int, *, with_histogram: bool, verbose: bool
) -> None:
    console = open_console()
    result, columns = selection.result, selection.columns
    print_file(console, result, columns, verbose=verbose)
    print_flags(console, selection.flags, ours=all(result.origin(name) for name in columns))
    console.print()
    if not selection.values:
        names = _columns_in_order(selection, sort)
        found = {name: summary(list(numbers(result.columns[name]).values())) for name in names}
        print_overview(console, found, start=common_start(names), top=top, signed=selection.signed)
        print_words(console, "--column PART shows the pairs of one; --by item, class or class-pair shows their sum.")
        return
    reading = READING.get(selection.meaning or "")
    print_words(console, selection.title + (f" ({reading})" if reading else ""), style="bold")
    order, signed = sort or SCORE, selection.signed
    if by == PAIR:
        effects = EFFECTS.get(selection.meaning or "")
        print_pairs(console, selection.values, selection.items, sort=order, top=top, signed=signed, effects=effects)
    else:
        print_groups(console, selection.groups, by, selection.items, sort=order, top=top, signed=signed)
    if left := _left_out(selection, by):
        print_words(console, f"Left out: {left} of {len(selection.values)} pairs, whose ids name no {by}.")
    if others := len(result.columns) - len(columns):
        print_words(console, f"{counted(others, 'more column')}: --column {ALL} lists them.")
    if with_histogram:
        values = list(selection.values.values())
        console.print()
        print_histogram(console, summary(values), histogram(values))


def _columns_in_order(selection: Selection, sort: str | None) -> list[str]:
    """Columns as in the file, or sorted as groups are."""
    if sort is None:
        return selection.columns
    keys = {}
    for name in selection.columns:
        values = numbers(selection.result.columns[name]).values()
        keys[name] = sum(abs(value) if sort == ABS else value for value in values) / len(values)
    return in_order(keys, sort)


def _left_out(selection: Selection, by: str) -> int:
    """How many pairs belong to no group of a view."""
    return sum(not members_of(pair, by, selection.items, selection.classes) for pair in selection.values)


def document(selection: Selection, by: str, sort: str | None, top: int) -> dict[str, Any]:
    """What the tables show, for programs; a number that JSON lacks is null."""
    result = selection.result
    document = {
        "file": str(result.path),
        "format": result.format,
        "pairs": len(result.pairs),
        "columns": list(result.columns),
        "shown": selection.columns,
        "by": by,
        "provenance": {name: result.origin(name) for name in selection.columns},
        "flags": [{"column": name, **asdict(flag)} for name, found in selection.flags.items() for flag in found],
    }
    if selection.values:
        values = list(selection.values.values())
        document |= {
            "rows": _rows(selection, by, sort or SCORE, top),
            "left_out": _left_out(selection, by),
            "statistics": asdict(summary(values)),
            "histogram": asdict(histogram(values)),
        }
    else:
        order = _columns_in_order(selection, sort)[:top]
        columns = {name: list(numbers(result.columns[name]).values()) for name in order}
        document["rows"] = [{"name": name, **asdict(summary(values))} for name, values in columns.items()]
    return {name: _finite(value) for name, value in document.items()}


def _rows(selection: Selection, by: str, sort: str, top: int) -> list[dict[str, Any]]:
    both = selection.signed and sort == SCORE
    if by == PAIR:
        order = ends(in_order(selection.values, sort), top, both=both)
        return [{"name": name, "score": selection.values[name]} for name in order]
    return [group._asdict() for group in ends(groups_in_order(selection.groups, sort), top, both=both)]


def _finite(value: Any) -> Any:
    """`value` with null for NaN and infinity, which are no JSON."""
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
