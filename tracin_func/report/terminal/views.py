"""Scores of pairs on the terminal: by pair, item, class and pair of classes, as an overview, and as a histogram."""

import itertools
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tracin_func.report.terminal.tables import (
    Column,
    figures,
    influence_style,
    item_columns,
    print_line,
    print_table,
    print_words,
)
from tracin_func.results.names import counted
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

# How the groups of a view are called, and how they are read.
_GROUPS = {
    ITEM: ("item", "items", "Each pair counts for both of its items. High mean: listen to or look at this item."),
    CLASS: (
        "class",
        "classes",
        "Each pair counts for the classes of both items. High mean: hard for the model. Check labels first.",
    ),
    CLASS_PAIR: (
        "classes",
        "class pairs",
        "(a, b) and (b, a) are counted together. High mean: the model confuses these classes. Check their labels, "
        "then record more.",
    ),
}
_SIGNS = "Positive: such pairs helped, more of them may help further. Negative: they hurt; check them first."


def print_pairs(
    console: Console,
    values: Mapping[str, float],
    items: Items,
    *,
    sort: str,
    top: int,
    signed: bool,
    effects: tuple[str, str] | None,
) -> None:
    """The pairs with the largest scores; of scores of both signs both ends.

    Args:
        values: score by pair id.
        items: the two items of each pair, where they are known.
        sort: `score`, `abs` or `id`.
        top: rows of each table.
        signed: whether the scores may be negative.
        effects: what a positive and a negative score did, where it is known.
    """
    order = in_order(values, sort)
    if not (signed and sort == SCORE):
        rows = order[:top]
        ranks = [] if sort == ID else [Column("#", [str(rank) for rank in range(1, len(rows) + 1)])]
        scores = Column("score", figures([values[pair] for pair in rows], signed=signed))
        print_table(console, [*ranks, *item_columns(rows, items), scores])
        _print_rest(console, len(order) - len(rows), len(order))
        return
    sides = [pair for pair in order[:top] if values[pair] > 0], [pair for pair in order[::-1][:top] if values[pair] < 0]
    kinds = [name if row == 0 else "" for name, side in zip(_NAMES, sides, strict=True) for row in range(len(side))]
    rows = [*sides[0], *sides[1]]
    scores = Column("score", figures([values[pair] for pair in rows], signed=True), style=influence_style)
    print_table(console, [Column("", kinds, left=True), *item_columns(rows, items), scores])
    if effects:
        print_words(console, f"Positive: {effects[0]}; negative: {effects[1]}.")


_NAMES = ("proponents", "opponents")


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
    one, many, reading = _GROUPS[by]
    order = groups_in_order(found, sort)
    both = signed and sort == SCORE
    rows = ends(order, top, both=both)
    left = len(order) - len(rows)
    by_what = {SCORE: "mean score", ID: "name"}.get(sort, "mean |score|")
    print_words(console, f"{len(found)} {many} by {by_what}")
    columns = [
        Column(one, [group.name for group in rows], left=True),
        Column("pairs", [f"{group.pairs:,}" for group in rows], drop=3),
        Column("mean", figures([group.mean for group in rows], signed=signed)),
        Column("sum", figures([group.sum for group in rows], signed=signed), drop=5),
        Column("largest", figures([group.largest for group in rows], signed=signed), drop=2),
    ]
    if signed:
        columns.insert(3, Column("mean |score|", figures([group.mean_abs for group in rows]), drop=1))
    if any(group.active != group.pairs for group in rows):
        columns.insert(2, Column("active", [f"{group.active:,}" for group in rows], drop=6))
    if by == ITEM:
        pairs = [items[group.largest_pair] for group in rows]
        others = [first if second == group.name else second for group, (first, second) in zip(rows, pairs, strict=True)]
        columns.append(Column("largest with", others, left=True, drop=7))
    else:
        columns.append(Column("largest in", [group.largest_pair for group in rows], left=True, drop=7))
    print_table(console, columns, gap=top if both and left else None)
    _print_rest(console, left, (len(order) + 1) // 2 if both else len(order), "in between" if both else "more")
    print_words(console, _SIGNS if signed else reading)


def print_overview(console: Console, columns: Mapping[str, Statistics], *, start: str, top: int, signed: bool) -> None:
    """One row per column; `start`, with which all their names begin, is in the title alone."""
    rows = list(columns)[:top]
    found = [columns[name] for name in rows]
    print_words(console, f"{len(columns)} columns" + (f"; each name begins with {start}" if start else ""))
    negative = [Column("negative", [f"{each.negative_share:.0%}" for each in found], drop=2)] if signed else []
    print_table(
        console,
        [
            Column("column", [name.removeprefix(start) for name in rows], left=True),
            Column("pairs", [f"{each.count:,}" for each in found], drop=4),
            Column("zeros", [f"{each.zero_share:.0%}" for each in found], drop=1),
            *negative,
            Column("min", figures([each.minimum for each in found], signed=signed), drop=1),
            Column("median", figures([each.median for each in found], signed=signed)),
            Column("mean", figures([each.mean for each in found], signed=signed), drop=3),
            Column("max", figures([each.maximum for each in found], signed=signed), drop=1),
        ],
    )
    _print_rest(console, len(columns) - len(rows), len(columns))


def print_histogram(console: Console, found: Statistics, counts: Histogram) -> None:
    """The distribution: a line of statistics, and a bar per bin."""
    zero, negative = _share(found.zero_share), _share(found.negative_share)
    signs = "none zero or negative" if zero == negative == "0%" else f"{zero} zero, {negative} negative"
    low, median, mean, high = (f"{each:.3g}" for each in (found.minimum, found.median, found.mean, found.maximum))
    print_words(
        console,
        f"{counted(found.count, 'score')}: min {low}, median {median}, mean {mean}, max {high}; "
        f"middle half {found.lower_quartile:.3g} to {found.upper_quartile:.3g}; {signs}.",
    )
    edges = [f"{edge:.6g}" for edge in counts.edges]
    width = max(map(cell_len, edges))
    label = [f"{low:>{width}} to {high:>{width}}" for low, high in itertools.pairwise(edges)]
    number = max(len(str(count)) for count in counts.counts)
    room = max(min(console.width, 80) - len(label[0]) - number - 3, 1)
    sign = "█" if console.encoding.lower().startswith("utf") else "#"
    for name, count in zip(label, counts.counts, strict=True):
        length = max(round(room * count / max(counts.counts)), 1) if count else 0
        print_line(console, Text(f"{name} {count:>{number}} ") + Text(sign * length, style="cyan"))


def _print_rest(console: Console, left: int, top: int, where: str = "more") -> None:
    if left > 0:
        print_words(console, f"{left:,} {where}: --top {top} shows all.")


def _share(share: float) -> str:
    """A percentage that is 0% or 100% only where it is exact."""
    return (
        f"{share:.0%}" if share in (0, 1) or 0.005 <= share < 0.995 else "less than 1%" if share < 0.5 else "over 99%"
    )
