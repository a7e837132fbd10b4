"""Callbacks that follow a run. An observer never changes what is computed or recorded."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tracin_func.errors import UsageError

SHARE_ROUNDING = 1e-6  # of a sum of shares of checkpoints
_log = logging.getLogger("tracin_func")


def _ignore(*_: Any) -> None:
    pass


def _logged(sentence: str) -> None:
    """As a warning where it begins with `warning: ` or `note: `, otherwise as information."""
    _log.log(logging.WARNING if sentence.startswith(("warning: ", "note: ")) else logging.INFO, sentence)


@dataclass(frozen=True)
class Observer:
    """Callbacks of a run.

    Args:
        notice: receives each sentence of the run. "warning: ..." names an effect on the scores, "note: ..." a choice to
            consider; any other is information. By default a warning or information of the logger `tracin_func`.
        progress: receives the share of one checkpoint that was begun since the last call.
        planned: receives the plan (`engine` in provenance) before the first checkpoint is scored.
        opened: receives the name of each checkpoint and its `args` when it is read.
        evaluated: receives the `Evaluation` of each checkpoint, its pair accuracy and loss.
    """

    notice: Callable[[str], None] = _logged
    progress: Callable[[float], None] = _ignore
    planned: Callable[[Mapping[str, Any]], None] = _ignore
    opened: Callable[[str, Mapping[str, Any]], None] = _ignore
    evaluated: Callable[[Any], None] = _ignore


LOG = Observer()  # notices to the log, nothing else


@contextmanager
def reporting_progress(
    observer: Observer, progress: bool | Callable[[float], None], checkpoints: int
) -> Iterator[Observer]:
    """`observer`, with a progress bar on stderr in the block, or a callback that receives the share done.

    Raises:
        UsageError: `progress` is neither.
    """
    if progress is False:
        yield observer
        return
    if progress is not True and not callable(progress):
        raise UsageError(f"`progress` should be True, False or a callback. Got {progress!r}.")
    done = 0.0

    def advance(share: float) -> None:
        nonlocal done
        done += share
        observer.progress(share)
        report(1.0 if done > checkpoints - SHARE_ROUNDING else done / checkpoints)

    with Progress(console=Console(stderr=True), transient=True, disable=progress is not True) as bar:
        task = bar.add_task("scoring", total=1.0)
        report = (lambda share: bar.update(task, completed=share)) if progress is True else progress
        yield replace(observer, progress=advance)
