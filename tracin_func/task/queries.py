"""Pairs to explain that need not be in any split: two items and, if it is known, which should score higher."""

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tracin_func.errors import InputError, UsageError
from tracin_func.files import one_form

FORM = "FIRST,SECOND[,TARGET]"
_TARGETS = {"1": 1, "+1": 1, "-1": -1}
Asked = str | Sequence[str | int]  # "a,b,1", ("a", "b", 1) or (0, 5)


class Query(NamedTuple):
    """Positions of two items; +1 if the first should score above the second, -1 if below, None for the model's own."""

    first: int
    second: int
    target: int | None


def parsed(asked: Asked) -> tuple[str, str, int | None]:
    """The two items and the target of a query.

    Raises:
        UsageError: it does not have the form, compares an item with itself, or has another target.
    """
    parts = [part.strip() for part in (asked.split(",") if isinstance(asked, str) else map(str, asked))]
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"`query` should be {FORM}. Got {asked!r}.")
    first, second, target = parts[0], parts[1], parts[2] if len(parts) == 3 else None
    if first == second:
        raise UsageError(f"`query` should name two items. Got {asked!r}.")
    if target is not None and target not in _TARGETS:
        raise UsageError(
            f"the target in `query` should be 1 (first above second), -1, or left out for the model's own ranking. "
            f"Got {asked!r}."
        )
    return first, second, None if target is None else _TARGETS[target]


def placed(queries: Iterable[Asked], item_ids: Sequence[str]) -> list[Query]:
    """The queries by positions of items. If no id is a whole number, items may be named by position too.

    Raises:
        UsageError: a query is malformed, or given twice. InputError: no item has this name.
    """
    found: list[Query] = []
    for asked in queries:
        first, second, target = parsed(asked)
        query = Query(_place(first, item_ids), _place(second, item_ids), target)
        if query.first == query.second:
            raise UsageError(f"`query` should name two items. Got {asked!r}.")
        if any(query[:2] == other[:2] for other in found):
            raise UsageError(f"`query` {asked!r} is given twice. Leave one out.")
        found.append(query)
    return found


def _place(name: str, item_ids: Sequence[str]) -> int:
    if name in item_ids:
        return item_ids.index(name)
    same = [place for place, item_id in enumerate(item_ids) if one_form(item_id) == one_form(name)]
    if len(same) == 1:
        return same[0]
    by_position = not any(map(_is_whole, item_ids))
    if by_position and _is_whole(name) and int(name) < len(item_ids):
        return int(name)
    near = difflib.get_close_matches(name, item_ids, n=1, cutoff=0.0) or item_ids[:1]
    positions = f", or a position from 0 to {len(item_ids) - 1}" if by_position else ""
    raise InputError(f"`query`: item {name!r} not found. The nearest id is {near[0]!r}. Give an id{positions}.")


def _is_whole(name: str) -> bool:
    return name.isascii() and name.isdecimal()
