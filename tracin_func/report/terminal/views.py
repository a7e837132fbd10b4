"""Scores of pairs on the terminal: by pair, item, class and pair of classes, as an overview, and as a histogram."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tracin_func.report.terminal.tables import new_table, print_words
from tracin_func.results.views import (
    CLASS,
    CLASS_PAIR,
    ID,
    ITEM,
    SCORE,
    Group,
    Histogram,
    Items,
    Statistics,
    ends,
    groups_in_order,
    in_order,
)

# What a proponent and an opponent did to a test pair, by test functional.
EFFECTS = {
    "loss": ("lowered its loss", "raised its loss"),
    "score-margin": ("raised its score margin", "lowered its score margin"),
}

# What the groups of a view are called, and what they are for.
_GROUPS = {
    ITEM: ("item", "items", "Each pair counts for both of its items. Large: a recording to listen to."),
    CLASS: (
        "class",
        "classes",
        "Each pair counts for the classes of both items. Large: hard for the model; check labels, then record more.",
    ),
    CLASS_PAIR: (
        "classes",
        "pairs of classes",
        "Classes in either order. Large: hard for the model to tell apart; check labels, then record more.",
    ),
}
_SIDES = "Above 0: such pairs helped, more of them may help further; below 0: they hurt, check them first."
_WORDS = ("pair ", "column", "item", "class", "largest in", "largest with", "proponents", "opponents")
_EARLY = 9
_UNBOUNDED = 100_000  # columns; a table's own width is measured on a terminal as wide as this


@dataclass(frozen=True)
class Field:
    """One column of a table that is made to fit.

    Args:
        heading: what stands above it.
        cells: one a row.
        drop: fields with the largest number are left out first; those with 0 never, those with 9 even before
            ids are broken.
        ids: whether the cells are ids, which may be broken in the middle.
    """

    heading: str
    cells: Sequence[str]
    drop: int = 0
    ids: bool = False


def print_pairs(
    console: Console, values: Mapping[str, float], *, sort: str, top: int, signed: bool, effects: tuple[str, str] | None
) -> None:
    """The pairs with the largest scores; of scores of both signs both ends.

    Args:
        values: score by pair id.
        sort: `score`, `abs` or `id`.
        top: rows of each table.
        signed: whether the scores may be negative.
        effects: what a positive and a negative score did, where it is known.
    """
    order = in_order(values, sort)
    if not (signed and sort == SCORE):
        rows = order[:top]
        ranks = Field("rank", [str(rank) for rank in range(1, len(rows) + 1)], drop=_EARLY)
        names = Field("pair ", rows, ids=True)
        scores = Field("score", _scores(rows, values, signed))
        _print_fitting(console, [names, scores] if sort == ID else [ranks, names, scores])
        _print_rest(console, len(order) - len(rows), len(order))
        return
    sides = [pair for pair in order[:top] if values[pair] > 0], [pair for pair in order[::-1][:top] if values[pair] < 0]
    named = zip(("proponents", "opponents"), effects or ("positive", "negative"), sides, strict=True)
    fields = [
        [Field(f"{name} ({effect})", rows, ids=True), Field("score", _scores(rows, values, signed))]
        for name, effect, rows in named
    ]
    if _width(console, beside := _table(console, [*fields[0], *fields[1]])) <= console.width:
        console.print(beside)
        return
    for own in fields:
        _print_fitting(console, own)


def print_groups(
    console: Console, found: Sequence[Group], by: str, items: Items, *, sort: str, top: int, signed: bool
) -> None:
    """The groups of a view; of scores of both signs both ends.

    Args:
        found: the groups.
        by: the view.
        items: the two items of each pair.
        sort: `score` (by mean), `abs` (by mean size) or `id`.
        top: rows; where both ends are shown, of each.
        signed: whether scores may be negative.
    """
    one, many, purpose = _GROUPS[by]
    order = groups_in_order(found, sort)
    both = signed and sort == SCORE
    rows = ends(order, top, both=both)
    by_what = {SCORE: "mean score", ID: "name"}.get(sort, "mean size of the scores")
    print_words(console, f"{len(found)} {many} by {by_what}")
    fields = [
        Field(one, [group.name for group in rows]),
        Field("pairs", [str(group.pairs) for group in rows], drop=3),
        Field("active", [str(group.active) for group in rows], drop=6),
        Field("mean", [_score(group.mean, signed) for group in rows]),
        *([Field("mean size", [f"{group.mean_abs:.4g}" for group in rows], drop=1)] if signed else []),
        Field("sum", [_score(group.sum, signed) for group in rows], drop=5),
        Field("largest", [_score(group.largest, signed) for group in rows], drop=2),
    ]
    if by == ITEM:
        pairs = [items[group.largest_pair] for group in rows]
        others = [first if second == group.name else second for group, (first, second) in zip(rows, pairs, strict=True)]
        fields.append(Field("largest with", others, drop=4))
    else:
        fields.append(Field("largest in", [group.largest_pair for group in rows], drop=4, ids=True))
    left = len(order) - len(rows)
    _print_fitting(console, fields, gap=top if both and left else None)
    _print_rest(console, left, (len(order) + 1) // 2 if both else len(order), "in between" if both else "more")
    print_words(console, _SIDES if signed else purpose)


def print_overview(console: Console, columns: Mapping[str, Statistics], *, start: str, top: int, signed: bool) -> None:
    """One row a column; `start`, with which all their names begin, stands in the title alone."""
    rows = list(columns)[:top]
    found = [columns[name] for name in rows]
    print_words(console, f"{len(columns)} columns" + (f"; each name begins with {start}" if start else ""))
    fields = [
        Field("column", [name.removeprefix(start) for name in rows], ids=True),
        Field("pairs", [str(each.count) for each in found], drop=4),
        Field("zeros", [f"{each.zero_share:.0%}" for each in found]),
        *([Field("negative", [f"{each.negative_share:.0%}" for each in found], drop=2)] if signed else []),
        Field("min", [_score(each.minimum, signed) for each in found], drop=1),
        Field("median", [_score(each.median, signed) for each in found]),
        Field("mean", [_score(each.mean, signed) for each in found], drop=3),
        Field("max", [_score(each.maximum, signed) for each in found], drop=1),
    ]
    _print_fitting(console, fields)
    _print_rest(console, len(columns) - len(rows), len(columns))


def print_histogram(console: Console, found: Statistics, counts: Histogram) -> None:
    """The distribution: a line of statistics, and a bar a bin."""
    print_words(
        console,
        f"{found.count} scores: {found.minimum:.4g} to {found.maximum:.4g}, mean {found.mean:.4g}, median "
        f"{found.median:.4g}, half of them from {found.lower_quartile:.4g} to {found.upper_quartile:.4g}; "
        f"{_share(found.zero_share)} are 0, {_share(found.negative_share)} below 0.",
    )
    edges = [f"{edge:.6g}" for edge in counts.edges]
    width = max(map(cell_len, edges))
    label = [f"{low:>{width}} to {high:>{width}}" for low, high in itertools.pairwise(edges)]
    number = max(len(str(count)) for count in counts.counts)
    room = max(min(console.width, 100) - len(label[0]) - number - 3, 1)
    sign = "█" if console.encoding.lower().startswith("utf") else "#"
    for name, count in zip(label, counts.counts, strict=True):
        length = max(round(room * count / max(counts.counts)), 1) if count else 0
        console.print(Text(f"{name} {count:>{number}} ") + Text(sign * length, style="cyan"))


def _print_rest(console: Console, left: int, top: int, where: str = "more") -> None:
    if left > 0:
        print_words(console, f"{left} {where}: --top {top} shows all.")


def _print_fitting(console: Console, fields: Sequence[Field], gap: int | None = None) -> None:
    """The table as it is, else with ids broken in the middle, else with its least important fields left out.

    Before the row `gap` others were left out.
    """
    left = _dropped(console, fields, least=_EARLY)
    if _width(console, _table(console, left)) > console.width:
        left = [Field(each.heading, list(map(folded, each.cells)), each.drop) if each.ids else each for each in fields]
        left = _dropped(console, left, least=1)
    console.print(_table(console, left, gap))


def _dropped(console: Console, fields: Sequence[Field], least: int) -> list[Field]:
    """The fields that fit, where leaving out those of `least` or more makes them fit."""
    left = list(fields)
    while _width(console, _table(console, left)) > console.width and any(each.drop >= least for each in left):
        left.remove(max(left, key=lambda each: each.drop))
    return left


def _table(console: Console, fields: Sequence[Field], gap: int | None = None) -> Table:
    table = new_table(console, None, [each.heading for each in fields], _WORDS)
    for place, row in enumerate(itertools.zip_longest(*(each.cells for each in fields), fillvalue="")):
        if place == gap:
            table.add_row("…")
        table.add_row(*map(Text, row))
    return table


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(width=_UNBOUNDED), table).maximum


def folded(name: str) -> str:
    """An id on two lines: a pair's two items, where its halves have equally many parts."""
    parts = name.split("_")
    half = (len(parts) + 1) // 2
    return name if len(parts) == 1 else f"{'_'.join(parts[:half])}_\n{'_'.join(parts[half:])}"


def _scores(pairs: Sequence[str], values: Mapping[str, float], signed: bool) -> list[str]:
    return [_score(values[pair], signed) for pair in pairs]


def _score(value: float, signed: bool) -> str:
    return f"{value:+.4g}" if signed and value else f"{value:.4g}"


def _share(share: float) -> str:
    """A percentage that is 0% or 100% only where it is exact."""
    return (
        f"{share:.0%}" if share in (0, 1) or 0.005 <= share < 0.995 else "less than 1%" if share < 0.5 else "over 99%"
    )
