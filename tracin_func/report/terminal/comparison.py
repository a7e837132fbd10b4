"""Two result files side by side, as tables or as JSON."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from tracin_func.report.terminal.origin import print_file
from tracin_func.report.terminal.tables import Column, figures, item_columns, open_console, print_table, print_words
from tracin_func.results.agreement import OVERVIEW, Agreement, Move, Overlap, Shift
from tracin_func.results.comparison import Comparison, Side
from tracin_func.results.names import counted, few
from tracin_func.results.views import CLASS, CLASS_PAIR, ITEM, PAIR, items_named
from tracin_func.sources.registry import classes_of_ids

_GROUPS = {ITEM: ("item", "Items"), CLASS: ("class", "Classes"), CLASS_PAIR: ("classes", "Class pairs")}


def rows_of(found: Comparison, by: str) -> list[Move] | list[Shift]:
    """The pairs, or the groups of another view, whose rank changed most; none where ranks cannot be compared.

    Raises:
        InputError: the ids of the pairs do not name the groups, or several columns have no sum.
    """
    if by != PAIR:
        classes = classes_of_ids(sorted(items_named(found.items)))
        return found.by(by, classes={**classes, **found.classes})
    whole = found.whole
    return [] if whole is None or whole.undefined is not None else whole.moves()


def print_comparison(
    found: Comparison, rows: Sequence[Move] | Sequence[Shift], by: str, top: int, *, verbose: bool
) -> None:
    """The two files, what they have in common, and the first `top` of the `rows`; see `rows_of`."""
    console, whole = open_console(), found.whole
    for place, side in enumerate((found.first, found.second)):
        if side.file is not None:
            print_file(console, side.file, [each.columns[place] for each in found.agreements], verbose=verbose)
    console.print()
    if found.identical:
        print_words(console, "Identical: both have the same pairs with equal scores in every compared column.")
        print_words(console, "--column NAME --column NAME compares two columns, also of one file.")
        return
    if len(found.agreements) > 1:
        _print_overview(console, found.agreements, top)
    for names, where in zip(found.only, ("first", "second"), strict=True):
        if names:
            print_words(console, f"{counted(len(names), 'column')} only in the {where}: {few(names)}.")
    if found.first.strongest or found.second.strongest:
        print_words(console, "A file holds only the strongest pairs (--keep): pairs that are in both are compared.")
    if whole is None:
        print_words(console, "The columns have no meaningful sum. --column PART compares one of them in full.")
        return
    if len(found.agreements) > 1:
        console.print()
    _print_agreement(console, whole, len(found.agreements))
    if whole.undefined is not None:
        return
    console.print()
    if not rows:
        print_words(console, "No common pair changed its rank.")
        return
    if by == PAIR:
        _print_moves(console, [row for row in rows[:top] if isinstance(row, Move)], found)
    else:
        _print_shifts(console, [row for row in rows[:top] if isinstance(row, Shift)], by)
    if left := len(rows) - len(rows[:top]):
        print_words(console, f"{left:,} more: --top {len(rows)} shows all.")
    print_words(console, "Rank 1: the highest score. Positive change: the second file ranks it higher.")


def document(found: Comparison, rows: Sequence[Move] | Sequence[Shift], by: str, top: int) -> dict[str, Any]:
    """What the tables show, for programs; null where a correlation is undefined."""
    return {
        "first": _described(found.first),
        "second": _described(found.second),
        "identical": found.identical,
        "columns": [_document(each) for each in found.agreements],
        "sum": None if found.total is None else _document(found.total),
        "only_first": list(found.only[0]),
        "only_second": list(found.only[1]),
        "by": by,
        "rows": [row._asdict() for row in rows[:top]],
    }


def _described(side: Side) -> dict[str, Any]:
    file = side.file
    return {} if file is None else {"file": str(file.path), "format": file.format, "pairs": len(file.pairs)}


def _document(each: Agreement) -> dict[str, Any]:
    return {
        "name": each.name,
        "columns": list(each.columns),
        "common": len(each.pairs),
        "only_first": each.only[0],
        "only_second": each.only[1],
        "swapped": each.swapped,
        "identical": each.identical,
        "correlation": each.correlation,
        "undefined": each.undefined,
        "highest": [overlap._asdict() for overlap in each.highest],
        "lowest": [overlap._asdict() for overlap in each.lowest],
    }


def _print_overview(console: Console, agreements: Sequence[Agreement], top: int) -> None:
    """A line per column."""
    rows = agreements[:top]
    print_words(console, f"{len(agreements)} columns in both", style="bold")
    columns = [
        Column("test pair" if any(each.signed for each in rows) else "column", [each.name for each in rows], left=True),
        Column("pairs", [f"{len(each.pairs):,}" for each in rows], drop=2),
        Column("rank correlation", [_correlation(each) for each in rows]),
    ]
    for heading, side in (("highest", [each.highest for each in rows]), ("lowest", [each.lowest for each in rows])):
        cells = [next((_share(each) for each in overlaps if each.asked == OVERVIEW), "") for overlaps in side]
        if any(cells):
            columns.append(Column(f"{heading} {OVERVIEW}", cells, drop=1))
    print_table(console, columns)
    if undefined := [each for each in agreements if each.undefined is not None]:
        print_words(console, f"{undefined[0].name}: no rank correlation; {undefined[0].undefined}.")
    if left := len(agreements) - len(rows):
        print_words(console, f"{left:,} more: --top {len(agreements)} shows all.")


def _print_agreement(console: Console, each: Agreement, columns: int) -> None:
    """Counts, rank correlation and overlaps of one column, or of a sum."""
    first, second = each.columns
    title = f"Sum of {columns} columns" if columns > 1 else first if first == second else f"{first} and {second}"
    print_words(console, title, style="bold")
    swapped = f", {each.swapped:,} of them as ID2_ID1" if each.swapped else ""
    print_words(
        console,
        f"{counted(len(each.pairs), 'common pair')}{swapped}; {each.only[0]:,} only in the first, {each.only[1]:,} "
        "only in the second.",
    )
    if each.undefined is not None:
        print_words(console, f"No rank correlation: {each.undefined}.", style="yellow")
        return
    if each.scores[0] == each.scores[1]:
        print_words(console, "All common pairs have equal scores.")
    print_words(console, f"Rank correlation (Spearman): {_correlation(each)}")
    sides = [("highest", each.highest), ("lowest", each.lowest)]
    overlaps = [(name, overlap) for name, found in sides for overlap in found]
    if not overlaps:
        return
    names = [name if overlap is found[0] else "" for name, found in sides for overlap in found]
    print_table(
        console,
        [
            Column("", names, left=True),
            Column("top", [overlap.asked for _, overlap in overlaps]),
            Column("pairs", [f"{overlap.top:,}" for _, overlap in overlaps], drop=1),
            Column("in both", _counts([overlap.shared for _, overlap in overlaps])),
            Column("share", [_share(overlap) for _, overlap in overlaps]),
            Column("by chance", [f"{overlap.chance / overlap.top:.0%}" for _, overlap in overlaps]),
        ],
    )


def _print_moves(console: Console, rows: Sequence[Move], found: Comparison) -> None:
    print_words(console, "Pairs whose rank changed most", style="bold")
    columns = [
        Column("in first", _counts([row.first_rank for row in rows])),
        Column("in second", _counts([row.second_rank for row in rows])),
        Column("change", _counts([row.change for row in rows], signed=True)),
    ]
    print_table(console, [*item_columns([row.pair for row in rows], found.items), *columns])


def _print_shifts(console: Console, rows: Sequence[Shift], by: str) -> None:
    one, many = _GROUPS[by]
    print_words(console, f"{many} whose mean rank changed most", style="bold")
    within = ["" if row.correlation is None else f"{row.correlation:+.2f}" for row in rows]
    columns = [
        Column(one, [row.name for row in rows], left=True),
        Column("pairs", [f"{row.pairs:,}" for row in rows], drop=2),
        Column("in first", figures([row.first_rank for row in rows])),
        Column("in second", figures([row.second_rank for row in rows])),
        Column("change", figures([row.change for row in rows], signed=True)),
        Column("correlation within", within, drop=1),
    ]
    print_table(console, columns)


def _correlation(each: Agreement) -> str:
    return "undefined" if each.correlation is None else f"{each.correlation:+.2f}"


def _share(overlap: Overlap) -> str:
    return f"{overlap.shared / overlap.top:.0%}"


def _counts(values: Sequence[float], *, signed: bool = False) -> list[str]:
    """Whole numbers; with one decimal where ties make halves."""
    decimals = 0 if all(value == int(value) for value in values) else 1
    return [f"{value:+,.{decimals}f}" if signed and value else f"{value:,.{decimals}f}" for value in values]
