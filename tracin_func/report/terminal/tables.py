"""Consoles and tables that fit the terminal, alike for all commands."""

import os
import sys
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 150  # where the stream is no terminal
WIDE = 100  # a narrower terminal gets fewer columns
IN_WORDS = (
    "pair",
    "proponents",
    "opponents",
    "parameter",
    "operations",
    "form",
    "why",
)  # headings of words, not numbers


class _Pipe(Console):
    """A console that leaves a broken pipe to `guarded`: the results are in their files by then."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


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


def new_table(console: Console, title: str | None, headings: Sequence[str], words: tuple[str, ...] = IN_WORDS) -> Table:
    """Names to the left, numbers to the right; on a narrow terminal without the frame.

    A heading that begins with one of `words` stands above names.
    """
    table = Table(title=title, title_justify="left", box=box.HEAVY_HEAD if console.width >= WIDE else box.SIMPLE_HEAD)
    if console.width < WIDE:
        table.padding = (0, 1, 0, 0)
        table.pad_edge = False
    for heading in headings:
        name = heading.startswith(words)
        short = heading.replace(" ", "\n").replace("-", "-\n") if console.width < WIDE and not name else heading
        table.add_column(short, justify="left" if name else "right", overflow="fold")
    return table


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Names, and beside them what is said of each."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in facts.items():
        table.add_row(Text(name, style="dim"), Text(words))
    console.print(table)


def print_words(console: Console, sentence: str, indent: int = 0) -> None:
    """A sentence, indented where it goes on."""
    text = Text(sentence)
    console.print(Text("\n").join(Text(" " * indent) + line for line in text.wrap(console, console.width - indent)))
