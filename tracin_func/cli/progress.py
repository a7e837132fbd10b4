"""Progress on stderr: a bar on a terminal, elsewhere a line now and then of what takes long."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tracin_func.cli.errors import say
from tracin_func.report.terminal.tables import open_console

PAUSE = 15.0  # seconds between two lines


class Advance:
    """Counts work done of `total` and shows it; `advance` takes what was done since."""

    def __init__(self, label: str, total: float, bar: Progress | None) -> None:
        self._label, self._total, self._bar = label, total, bar
        self._done, self._began = 0.0, time.monotonic()
        self._shown = self._began
        self._task = bar.add_task(label, total=total) if bar else None

    def __call__(self, amount: float) -> None:
        self._done += amount
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=amount)
        elif now - self._shown >= PAUSE and 0 < self._done < self._total:
            self._shown = now
            left = (now - self._began) * (self._total / self._done - 1)
            say(f"{self._label}: {_count(self._done, self._total)}, about {_duration(left)} left")


def _bars() -> Progress:
    bar = BarColumn(style="dim", complete_style="cyan", finished_style="cyan")  # rich's own is red, as errors are
    columns = TextColumn("{task.description}", markup=False), bar, _Count(), TimeRemainingColumn()
    return Progress(*columns, console=open_console(stderr=True), transient=True)


class _Count(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(_count(task.completed, task.total or 1.0))


def _count(done: float, total: float) -> str:
    """Of checkpoints how many of all; of a share its percentage."""
    return f"{done / total:.0%}" if total == 1 else f"{int(done + 1e-6):,} of {int(total):,} ({done / total:.0%})"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


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
