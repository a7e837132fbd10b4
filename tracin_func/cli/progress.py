"""Progress on stderr: a bar on a terminal, a line at each tenth elsewhere."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tracin_func.cli.errors import say
from tracin_func.report.terminal.tables import open_console


class Advance:
    """Counts work done of `total` and shows it; `advance` takes what was done since."""

    def __init__(self, label: str, total: float, bar: Progress | None) -> None:
        self._label, self._total, self._bar = label, total, bar
        self._done, self._shown = 0.0, 0
        self._task = bar.add_task(label, total=total) if bar else None

    def __call__(self, amount: float) -> None:
        self._done += amount
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=amount)
        elif (tenth := int(10 * min(self._done / self._total, 1) + 1e-6)) > self._shown:
            self._shown = tenth
            if tenth % 5 == 0:
                say(f"{self._label}: {10 * tenth}%")


@contextmanager
def phases(totals: Mapping[str, float], *, quiet: bool = False) -> Iterator[list[Callable[[float], None]]]:
    """Shows work in several phases, each under its label and of its total, while the block runs."""
    if quiet:
        yield [lambda amount: None] * len(totals)
        return
    if not sys.stderr.isatty():
        yield [Advance(label, total, None) for label, total in totals.items()]
        return
    with _bars() as bar:
        yield [Advance(label, total, bar) for label, total in totals.items()]


@contextmanager
def progress(label: str, total: float, *, quiet: bool = False) -> Iterator[Callable[[float], None]]:
    """Shows work of `total` while the block runs."""
    with phases({label: total}, quiet=quiet) as (advance,):
        yield advance


def _bars() -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=open_console(stderr=True), transient=True)
