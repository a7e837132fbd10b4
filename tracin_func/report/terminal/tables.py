"""Consoles, tables and figures, alike for all commands."""

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

PLAIN_WIDTH = 150  # where the stream is no terminal
BETWEEN = "  "  # columns
_LEAST, _MOST = 1e-4, 1e7  # sizes below and from which figures have an exponent
_DIGITS = 3  # of the largest figure of a column


class _Pipe(Console):
    """A console that leaves a broken pipe to `guarded`: the results are in their files by then."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        heading: above the cells.
        cells: one per row.
        left: whether it is aligned to the left, as words are.
        drop: on a narrow terminal the columns with the largest number are left out first, those with 0 never.
        style: of a cell.
    """

    heading: str
    cells: Sequence[str]
    left: bool = False
    drop: int = 0
    style: Callable[[str], str] = lambda cell: ""


def open_console(*, stderr: bool = False) -> Console:
    """stdout or stderr, as wide as the terminal; texts are shown as they are: ids may look like rich's markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return _Pipe(
        stderr=stderr,
        width=width,
        color_system=None if is_plain() else "auto",
        markup=False,
        emoji=False,
        highlight=False,
    )


def is_plain() -> bool:
    """Whether the environment asks for text without color; rich alone would leave bold and dim."""
    return bool(os.environ.get("NO_COLOR"))


def print_table(console: Console, columns: Iterable[Column], *, gap: int | None = None, headings: bool = True) -> None:
    """One line per row, headings above; before the row `gap` a line with an ellipsis.

    Columns that do not fit are left out, the least important first. A line that is still too long is left to the
    terminal, which does not break what is copied from it.
    """
    shown = [column for column in columns if column.drop == 0 or any(column.cells)]
    while (widths := _widths(shown)) and sum(widths) + len(BETWEEN) * (len(widths) - 1) > console.width:
        least = max(shown, key=lambda column: column.drop)
        if least.drop == 0:
            break
        shown.remove(least)
    head = [replace(column, cells=[column.heading], style=lambda cell: "bold") for column in shown]
    if headings and any(column.heading for column in shown):
        _print_row(console, head, widths, 0)
    for row in range(max((len(column.cells) for column in shown), default=0)):
        if row == gap:
            print_line(console, "…")
        _print_row(console, shown, widths, row)


def _widths(columns: Sequence[Column]) -> list[int]:
    return [max(map(cell_len, (column.heading, *column.cells))) for column in columns]


def _print_row(console: Console, columns: Sequence[Column], widths: Sequence[int], row: int) -> None:
    line = Text()
    for place, (column, width) in enumerate(zip(columns, widths, strict=True)):
        cell = column.cells[row]
        space = " " * (width - cell_len(cell))
        line.append(BETWEEN if place else "").append("" if column.left else space)
        line.append(cell, style=column.style(cell)).append(space if column.left else "")
    line.rstrip()
    print_line(console, line)


def item_columns(pairs: Sequence[str], items: Mapping[str, tuple[str, str]]) -> list[Column]:
    """The two items of each pair; ids of one's own that do not name them come first, and are never left out."""
    if not all(pair in items for pair in pairs):
        return [Column("pair", pairs, left=True)]
    first, second = [items[pair][0] for pair in pairs], [items[pair][1] for pair in pairs]
    if all("_".join(filter(None, items[pair])) == pair for pair in pairs):
        return [Column("first item", first, left=True), Column("second item", second, left=True)]
    return [
        Column("pair", pairs, left=True),
        Column("first item", first, left=True, drop=9),
        Column("second item", second, left=True, drop=9),
    ]


def print_line(console: Console, line: str | Text) -> None:
    """One line, however long."""
    console.print(line, soft_wrap=True)


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Names, and beside them the facts, in further lines below themselves."""
    margin = max(map(cell_len, facts), default=0) + len(BETWEEN)
    for name, words in facts.items():
        lines = Text(words).wrap(console, max(console.width - margin, 20)) or [Text()]
        for line in lines:
            line.rstrip()
        first, *rest = lines
        print_line(console, Text(name.ljust(margin), style="dim") + first)
        for line in rest:
            print_line(console, Text(" " * margin) + line)


def print_words(console: Console, sentence: str, indent: int = 0, style: str = "") -> None:
    """A sentence, indented where it continues."""
    for line in Text(sentence, style=style).wrap(console, console.width - indent):
        line.rstrip()
        print_line(console, Text(" " * indent) + line)


def figures(values: Sequence[float], *, signed: bool = False) -> list[str]:
    """Numbers of one column with one precision: three significant digits of the largest.

    Where the largest is below 1e-4 or very large, all have an exponent. A number that would show as 0 without being 0
    has one digit.
    """
    form = figure_form(values)
    return [form(value, signed) for value in values]


def figure_form(values: Sequence[float]) -> Callable[[float, bool], str]:
    """How `figures` writes each number: called with it, and with whether positive ones have a sign."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    exponent = largest != 0 and not _LEAST <= largest < _MOST
    decimals = 0 if exponent or largest == 0 else max(_DIGITS - 1 - math.floor(math.log10(largest)), 0)

    def form(value: float, signed: bool) -> str:
        sign = "+" if signed and value > 0 else ""
        if not math.isfinite(value) or exponent:
            return f"{sign}{value:.2e}" if math.isfinite(value) and value else f"{value:.0f}"
        text = f"{value:,.{decimals}f}"
        return f"{sign}{value:.1g}" if value and float(text.replace(",", "")) == 0 else f"{sign}{text}"

    return form


def influence_style(cell: str) -> str:
    """Blue for what helped, red for what hurt: safe for readers with colour blindness."""
    return "blue" if cell.startswith("+") else "red" if cell.startswith("-") else ""
