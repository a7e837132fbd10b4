"""Two results side by side: two losses, margins, models or runs. Without tensors, see `views`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracin_func.errors import InputError, UsageError
from tracin_func.results.agreement import Agreement, Shift, agreement
from tracin_func.results.files.choice import columns_named
from tracin_func.results.files.read import ResultFile, read_result, recorded_classes
from tracin_func.results.names import few, meaning_of, start_of
from tracin_func.results.views import CLASS, CLASS_PAIR, ITEM, Items, items_of_ids, numbers

if TYPE_CHECKING:
    from tracin_func.results.influence import Influence, SelfInfluence

SUM = "sum"  # in place of a test pair, where several are added
_KINDS = _SELF, _INFLUENCE = "self", "influence"
Key = tuple[str | None, str]


@dataclass(frozen=True)
class Side:
    """One of two results.

    Args:
        label: its name in messages.
        columns: scores by pair id by column.
        keys: kind and test pair (or checkpoint) of each column, which columns of another name may share.
        items: the two items of each pair, where they are known.
        classes: the class of each item, where it is recorded.
        file: the file, if it is one.
        strongest: whether only the strongest pairs of each test pair are known.
    """

    label: str
    columns: Mapping[str, Mapping[str, float]]
    keys: Mapping[str, Key]
    items: Items
    classes: Mapping[str, str]
    file: ResultFile | None = None
    strongest: bool = False


@dataclass(frozen=True, repr=False)
class Comparison:
    """How far two results put the same pairs in the same order.

    Args:
        first: the first result.
        second: the second result.
        agreements: of each column that both have, in the order of the first.
        total: of the sum of these columns, for several columns of influence; else None.
        only: columns that only one of the results has.
        items: the two items of each pair, where they are known.
        classes: the class of each item, where it is known.

    Example:
        >>> own = ti.self_influence(task)
        >>> other = ti.self_influence(task, method=ti.Method(checkpoint_weights="uniform"))
        >>> ti.compare(own, other)
        Comparison(4 common pairs, rank correlation 1)
    """

    first: Side
    second: Side
    agreements: tuple[Agreement, ...]
    total: Agreement | None
    only: tuple[tuple[str, ...], tuple[str, ...]]
    items: Items
    classes: Mapping[str, str]

    @property
    def whole(self) -> Agreement | None:
        """The agreement of the sum, or of the only column; None for several columns that have no sum."""
        return self.agreements[0] if len(self.agreements) == 1 else self.total

    @property
    def identical(self) -> bool:
        """Whether both have the same columns with the same pairs and equal scores."""
        return self.only == ((), ()) and all(each.identical for each in self.agreements)

    def by(self, view: str, *, classes: Mapping[str, str] | None = None) -> list[Shift]:
        """How the common pairs of each "item", "class" or "class-pair" moved, the largest mean change of rank first.

        Args:
            view: what to group by; a pair counts in each of its groups.
            classes: class by item id; None for those of the results.

        Raises:
            UsageError: the view is unknown. InputError: items or classes are unknown, or there is no sum to group.
        """
        if view not in (ITEM, CLASS, CLASS_PAIR):
            raise UsageError(f"`view` should be {ITEM!r}, {CLASS!r} or {CLASS_PAIR!r}. Got {view!r}.")
        if self.whole is None:
            raise InputError(f"{len(self.agreements)} columns have no meaningful sum. Choose one with `column`.")
        found = self.whole.by(view, self.items, self.classes if classes is None else classes)
        if not found:
            what = "of the form ID1_ID2" if view == ITEM else "of items with a known class, such as deg036"
            raise InputError(f'`by="{view}"` needs pairs {what}. Got {next(iter(self.whole.pairs), None)!r}.')
        return found

    def __repr__(self) -> str:
        shown = self.whole or self.agreements[0]
        words = "undefined" if shown.correlation is None else f"{shown.correlation:.3g}"
        columns = f" of {shown.name} ({len(self.agreements)} columns)" if len(self.agreements) > 1 else ""
        return f"Comparison({len(shown.pairs)} common pairs, rank correlation{columns} {words})"


def compare(
    first: "str | Path | SelfInfluence | Influence",
    second: "str | Path | SelfInfluence | Influence",
    *,
    column: str | tuple[str, str] | None = None,
) -> Comparison:
    """How far two results put the same pairs in the same order: two losses, margins, models or runs.

    Columns of the same test pair are compared, whatever their scores are called, and their sums.

    Args:
        first: scores, or a result file in any format.
        second: the scores or the file to compare them with.
        column: the column of files to compare: a name, a part of one that no other has, a kind such as
            `tracin_influence`, or `all`; or one for each of both. By default self-influence where both have it, else
            all columns that they share.

    Raises:
        UsageError: an argument wrong in itself.
        InputError: a file cannot be read, a column is not found, or there is no common column or pair.
    """
    wanted = [column, column] if column is None or isinstance(column, str) else list(column)
    if len(wanted) != 2:
        raise UsageError(f"`column` should be one name, or one for each of both results. Got {column!r}.")
    sides = _side(first, "the first result"), _side(second, "the second result")
    return _compared(sides, wanted)


def _compared(sides: tuple[Side, Side], wanted: Sequence[str | None]) -> Comparison:
    chosen = _chosen(sides, wanted)
    matched = _matched(sides, chosen, anything=wanted[0] is not None)
    if not matched:
        raise InputError(
            f"{sides[0].label} and {sides[1].label} have no column in common: {few(chosen[0])} in the first, "
            f"{few(chosen[1])} in the second. Choose one of each with `column`, given twice."
        )
    items = {**sides[1].items, **sides[0].items}
    agreements = tuple(_agreement("", sides, [names], items) for names in matched)
    if not any(each.pairs for each in agreements):
        some = [next(iter(side.columns[name])) for side, name in zip(sides, matched[0], strict=True)]
        raise InputError(
            f"{sides[0].label} and {sides[1].label} have no pair in common: {some[0]!r} is a pair of the first, "
            f"{some[1]!r} of the second. Compare scores of the same pairs."
        )
    kinds = {sides[0].keys[name][0] for name, _ in matched}
    summed = len(matched) > 1 and len(kinds) == 1 and None not in kinds
    left = [
        tuple(name for name in names if name not in {both[place] for both in matched})
        for place, names in enumerate(chosen)
    ]
    return Comparison(
        first=sides[0],
        second=sides[1],
        agreements=agreements,
        total=_agreement(SUM, sides, matched, items) if summed else None,
        only=(left[0], left[1]),
        items=items,
        classes={**sides[1].classes, **sides[0].classes},
    )


def _side(result: Any, words: str) -> Side:
    if isinstance(result, str | Path):
        return _of_file(read_result(Path(result)))
    kind = getattr(result, "KIND", None)
    if kind not in _KINDS:
        raise UsageError(f"{words} should be a result file, SelfInfluence or Influence. Got {type(result).__name__}.")
    record, tests = (result.pairs, [""]) if kind == _SELF else (result.train, result.test_ids)
    scores = result.scores.reshape(len(record.ids), -1).T.tolist()
    names = ["_".join(filter(None, (result.column, test))) for test in tests]
    items = getattr(record, "items", None)
    return Side(
        words,
        {name: numbers(dict(zip(record.ids, each, strict=True))) for name, each in zip(names, scores, strict=True)},
        {name: (kind, test) for name, test in zip(names, tests, strict=True)},
        items_of_ids(record.ids) if items is None else dict(zip(record.ids, items, strict=True)),
        record.classes or {},
    )


def _of_file(file: ResultFile) -> Side:
    items = items_of_ids(file.pairs) | file.items
    record = next((found for name in file.columns if (found := file.origin(name)) is not None), {})
    strongest = any(start == "side" for start, *_ in file.parts.values())  # and their ranks, which are no scores
    names = [name for name in file.columns if not strongest or file.parts[name][0] != "rank"]
    return Side(
        f"`{file.path}`",
        {name: numbers(file.columns[name]) for name in names},
        {name: _key(file, name) for name in names},
        items,
        recorded_classes(record, items.values()),
        file,
        strongest,
    )


def _key(file: ResultFile, name: str) -> Key:
    """The kind of a column of a file, and what it is about; (None, its name) where the kind is unknown."""
    origin = file.origin(name) or {}
    start, *about = file.parts.get(name, (start_of(name, origin),))
    meant = None if start is None else meaning_of(start)
    kind = meant if meant in (None, _SELF) else _INFLUENCE
    if origin.get("score") in _KINDS:
        kind = str(origin["score"])
    if start is None or kind is None:
        return None, name
    return kind, "_".join(filter(None, about)) if about else name.removeprefix(start).removeprefix("_")


def _chosen(sides: Sequence[Side], wanted: Sequence[str | None]) -> list[list[str]]:
    """The columns of each side that are asked for; by default self-influence where both have it, else all."""
    chosen = []
    for side, name in zip(sides, wanted, strict=True):
        if name is not None and side.file is None:
            raise UsageError(f"`column` chooses columns of files. Got {name!r}, and {side.label} is no file.")
        chosen.append([*side.columns] if name is None or side.file is None else columns_named(side.file, name))
    of_self = [[name for name in side.columns if side.keys[name] == (_SELF, "")] for side in sides]
    return of_self if wanted == [None, None] and all(of_self) else chosen


def _matched(sides: Sequence[Side], chosen: Sequence[Sequence[str]], *, anything: bool) -> list[tuple[str, str]]:
    """Columns of equal names, then those of one kind about the same; one of each if `anything` may be compared."""
    first, second = chosen
    found = {name: name for name in first if name in second}
    rest: dict[Key, str] = {}
    for name in second:
        if name not in found:
            rest.setdefault(sides[1].keys[name], name)
    for name in first:
        key = sides[0].keys[name]
        if name not in found and key[0] is not None and key in rest:
            found[name] = rest.pop(key)
    if not found and len(first) == len(second) == 1:
        kinds = sides[0].keys[first[0]][0], sides[1].keys[second[0]][0]
        if anything or None in kinds:
            found[first[0]] = second[0]
    return [(name, found[name]) for name in first if name in found]


def _agreement(name: str, sides: tuple[Side, Side], matched: Sequence[tuple[str, str]], items: Items) -> Agreement:
    """The agreement of one column, or of the sum of several, which has a name, over the pairs scored in each."""
    values: list[dict[str, float]] = []
    kinds = []
    for place, side in enumerate(sides):
        columns = [side.columns[names[place]] for names in matched]
        kinds.append(side.keys[matched[0][place]][0])
        pairs = [pair for pair in columns[0] if all(pair in column for column in columns)]
        values.append({pair: sum(column[pair] for column in columns) for pair in pairs})
    negative = any(score < 0 for each in values for score in each.values())
    about = name or sides[0].keys[matched[0][0]][1]
    first, second = values
    return agreement(
        about, matched[0], first, second, items, signed=_INFLUENCE in kinds or (None in kinds and negative)
    )
