"""Who hears of a run while it goes on. An observer never changes what is computed or recorded."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.progress import Progress

_log = logging.getLogger("tracin_func")


def _ignore(*_: Any) -> None:
    pass


@dataclass(frozen=True)
class Observer:
    """Callbacks of a run.

    Args:
        notice: receives each sentence that the user should read; a warning of the logger `tracin_func`.
        progress: receives the share of one checkpoint that was begun since the last call.
        planned: receives what was decided (the `engine` of provenance) before the first checkpoint is scored.
        opened: receives the name of each checkpoint and the `args` in it when it is read.
        evaluated: receives the `Evaluation` of each checkpoint, its pair accuracy and loss.
    """

    notice: Callable[[str], None] = _log.warning
    progress: Callable[[float], None] = _ignore
    planned: Callable[[Mapping[str, Any]], None] = _ignore
    opened: Callable[[str, Mapping[str, Any]], None] = _ignore
    evaluated: Callable[[Any], None] = _ignore


LOG = Observer()  # notices to the log, nothing else


@contextmanager
def reporting_progress(
    observer: Observer, progress: bool | Callable[[float], None], checkpoints: int
) -> Iterator[Observer]:
    """`observer`, with a progress bar on stderr while the block runs, or a callback that receives the share done."""
    if progress is False:
        yield observer
    elif progress is True:
        with Progress(transient=True) as bar:
            task = bar.add_task("scoring", total=checkpoints)
            yield replace(observer, progress=lambda share: bar.advance(task, share))
    else:
        done = 0.0

        def advance(share: float) -> None:
            nonlocal done
            done += share
            progress(min(1.0, done / checkpoints))

        yield replace(observer, progress=advance)
