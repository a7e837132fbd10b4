"""Lists of pairs to exclude or to flip on the terminal: counts by threshold, the first rows, items and classes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console

from tracin_func.report.terminal.tables import (
    Column,
    figures,
    influence_style,
    item_columns,
    open_console,
    print_table,
    print_words,
)
from tracin_func.results.exclusion_rule import FULL_PAIR, Rule
from tracin_func.results.exclusions import Exclusions
from tracin_func.results.names import counted
from tracin_func.results.score_table import ScoreTable
from tracin_func.results.views import CLASS, ITEM, members_of

GROUPS_SHOWN = 5
LARGE_SHARE = 1 / 3  # share of the pairs, above which a list is rarely what is wanted


class Count(NamedTuple):
    """How many pairs (items in the mode full_pair) thresholds choose, by the least number of occurrences."""

    lower: float | None
    upper: float | None
    threshold: float | str | None
    upper_threshold: float | str | None
    chosen: dict[int, int]


def print_counts(table: ScoreTable, found: Sequence[Count], mode: str) -> None:
    """How many pairs each threshold would exclude."""
    console = open_console()
    _print_live(console, table)
    _print_counts(console, table, found, mode)


def print_exclusions(table: ScoreTable, found: Sequence[Count], chosen: Exclusions, rule: Rule, *, top: int) -> None:
    """A list: result, counts by threshold, first rows, most affected items and classes, and how to read it."""
    console = open_console()
    print_words(console, _title(table, chosen, rule), style="bold")
    _print_share(console, table, chosen, rule)
    _print_live(console, table)
    if len(chosen):
        console.print()
        _print_rows(console, table, chosen, top)
    if found:
        console.print()
        _print_counts(console, table, found, rule.mode)
    if len(chosen):
        console.print()
        _print_hit(console, table, chosen)
    for sentence in _reading(table, chosen, rule):
        print_words(console, sentence)


def document(table: ScoreTable, found: Sequence[Count], chosen: Exclusions | None) -> dict[str, Any]:
    """What the tables show, for programs."""
    content: dict[str, Any] = {
        "score": "self" if table.of_self else "influence",
        "pairs": len(table.ids),
        "columns": list(table.tests),
        "live": [table.tests[place] for place in table.live],
        "counts": [each._asdict() for each in found],
    }
    if chosen is not None:
        content |= {
            "action": chosen.verb,
            "kind": chosen.kind,
            "lower": chosen.lower,
            "upper": chosen.upper,
            "pairs_left": int(chosen.kept.sum()),
            "mirrored": chosen.mirrored,
            "rows": [row._asdict() for row in chosen.rows],
        }
    return content


def _title(table: ScoreTable, chosen: Exclusions, rule: Rule) -> str:
    pairs = counted(len(table.ids), "training pair")
    if chosen.verb == "flip":
        return f"{len(chosen):,} of {pairs} with a label that looks inverted"
    what = f"{len(chosen):,} of {pairs} to exclude"
    if chosen.kind == "item":
        gone = int((~chosen.kept).sum())
        what = f"{counted(len(chosen), 'item')} to exclude, with {gone:,} of {pairs}"
    if rule.drop is not None:
        return f"{what}: the {rule.drop} with the {'highest self-influence' if table.of_self else 'lowest influence'}"
    limits = [
        f"{side} {limit:.4g}" for side, limit in (("below", chosen.lower), ("above", chosen.upper)) if limit is not None
    ]
    where = "" if table.of_self else f" on at least {counted(rule.min_occurrences, 'test pair')}"
    return f"{what}: {'self-influence' if table.of_self else 'influence'} {' or '.join(limits)}{where}"


def _print_share(console: Console, table: ScoreTable, chosen: Exclusions, rule: Rule) -> None:
    """A warning where thresholds list a large part of the pairs."""
    share = int((~chosen.kept).sum()) / len(chosen.kept)
    if chosen.verb == "exclude" and rule.drop is None and share > LARGE_SHARE:
        stricter = "--upper-threshold 99%" if table.of_self else "--threshold 1% or --min-occurrences 2"
        print_words(console, f"These are {share:.0%} of all pairs. For a shorter list: {stricter}.", style="yellow")


def _print_live(console: Console, table: ScoreTable) -> None:
    if not table.of_self and (left := len(table.tests) - len(table.live)):
        print_words(
            console,
            f"{left} of {counted(len(table.tests), 'test column')} not counted: all scores are equal (saturated).",
        )


def _print_counts(console: Console, table: ScoreTable, found: Sequence[Count], mode: str) -> None:
    what, total = ("items", len(table.item_ids)) if mode == FULL_PAIR else ("pairs", len(table.ids))
    if table.of_self:
        print_words(console, f"Number of {what} (of {total:,}) above a threshold")
        print_table(console, [_thresholds(found), Column(what, [f"{each.chosen[1]:,}" for each in found])])
        return
    times = list(found[0].chosen)
    print_words(
        console,
        f"Number of {what} (of {total:,}) beyond a threshold on at least {', '.join(map(str, times))} test pairs",
    )
    columns = [Column(str(least), [f"{each.chosen[least]:,}" for each in found]) for least in times]
    print_table(console, [_thresholds(found), *columns])


def _thresholds(found: Sequence[Count]) -> Column:
    cells = []
    for each in found:
        sides = ((each.threshold, each.lower, "<"), (each.upper_threshold, each.upper, ">"))
        words = [
            f"{sign} {number:.4g}" + (f" ({given})" if str(given).endswith("%") else "")
            for given, number, sign in sides
            if number is not None
        ]
        cells.append(", ".join(words))
    return Column("threshold", cells, left=True)


def _print_rows(console: Console, table: ScoreTable, chosen: Exclusions, top: int) -> None:
    rows = chosen.rows[:top]
    ids = [row.id for row in rows]
    names = [Column("item", ids, left=True)] if chosen.kind == "item" else item_columns(ids, table.items)
    columns = [Column("#", [str(rank) for rank in range(1, len(rows) + 1)]), *names]
    if table.of_self:
        columns.append(Column("score", figures([row.score for row in rows])))
    else:
        lowest, totals = (figures([getattr(row, name) for row in rows], signed=True) for name in ("score", "total"))
        columns += [
            Column("tests", [str(row.occurrences) for row in rows], drop=2) if rows[0].occurrences else Column("", []),
            Column("lowest", lowest, drop=1, style=influence_style),
            Column("sum", totals, style=influence_style),
        ]
    print_table(console, [column for column in columns if column.cells])
    if more := len(chosen) - len(rows):
        print_words(console, f"{more:,} more: --top {len(chosen)} shows all.")


def _print_hit(console: Console, table: ScoreTable, chosen: Exclusions) -> None:
    """The items and classes with the largest share of listed pairs."""
    listed = [pair for pair, kept in zip(chosen.pairs, chosen.kept.tolist(), strict=True) if not kept]
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for by in (ITEM, CLASS):
        every, gone = (
            Counter(name for pair in pairs for name in members_of(pair, by, table.items, table.classes))
            for pairs in (table.ids, listed)
        )
        order = sorted(gone, key=lambda name: (-gone[name], name))[:GROUPS_SHOWN]
        groups[by] = [(name, gone[name], every[name]) for name in order]
    rows = [(by if place == 0 else "", *row) for by, found in groups.items() for place, row in enumerate(found)]
    if not rows:
        return
    print_words(console, "Most affected items and classes")
    print_table(
        console,
        [
            Column("", [row[0] for row in rows], left=True),
            Column("name", [row[1] for row in rows], left=True),
            Column("listed", [f"{row[2]:,}" for row in rows]),
            Column("of pairs", [f"{row[3]:,}" for row in rows]),
            Column("share", [f"{row[2] / row[3]:.0%}" for row in rows]),
        ],
    )


def _reading(table: ScoreTable, chosen: Exclusions, rule: Rule) -> list[str]:
    """How to read the list: three sentences at most."""
    if chosen.verb == "flip":
        if not len(chosen):
            return ["No pair fits the criterion."]
        return ["Look at or listen to each pair before you change its label."]
    if not len(chosen):
        known = table.live_scores[~table.live_scores.isnan()]
        if table.of_self:
            return [f"Highest score: {float(known.max()):.4g}. Set a lower threshold, or a quantile such as 90%."]
        return [f"Lowest live score: {float(known.min()):.4g}. Set a higher threshold, or a quantile such as 1%."]
    found = []
    if not table.of_self and (helped := sum(row.total > 0 for row in chosen.rows)):
        found.append(f"Sum above 0: {helped:,} of these {chosen.kind}s, which helped the test pairs together.")
    if chosen.mirrored:
        found.append(
            f"{counted(chosen.mirrored, 'more pair')} of the same items in the other order: --exclusions-file leaves "
            "these out too."
        )
    found.append("Scores are first order: compare models trained with and without them, with several seeds.")
    return found
