"""What a source of tasks is, and what it returns."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracin_func.errors import UsageError
from tracin_func.sources.groups import QueryOptions
from tracin_func.sources.options import Options
from tracin_func.task.queries import Query, placed

if TYPE_CHECKING:
    from tracin_func.sources.settings import Settings
    from tracin_func.task.task import Task

_log = logging.getLogger("tracin_func")


def _ignore(*_: Any) -> None:
    pass


def _unshown(label: str, total: float) -> AbstractContextManager[Callable[[float], None]]:
    return nullcontext(_ignore)


@dataclass(frozen=True)
class Listener:
    """Callbacks of a source.

    Args:
        report: called with each sentence for the user; it begins with `note: ` or `warning: `.
        step: called with a line of text at each step of long work.
        progress: opens a block that shows progress under a label, of a total.
        chosen: called when everything but the content of the items is checked.
    """

    report: Callable[[str], None] = _log.warning
    step: Callable[[str], None] = _ignore
    progress: Callable[[str, float], AbstractContextManager[Callable[[float], None]]] = _unshown
    chosen: Callable[[], None] = _ignore


@dataclass(frozen=True)
class Job:
    """A task and the settings it was made with.

    Args:
        task: where there are queries, they take the place of its test pairs.
        settings: with which it was made.
        queries: those of the options, if the source has placed them itself.
    """

    task: "Task"
    settings: "Settings"
    queries: Sequence[Query] = ()


def queries_of(job: Job, options: Options) -> Sequence[Query]:
    """The pairs to explain in place of test pairs, whose direction may have to be that of the model.

    Raises:
        UsageError, InputError: see `placed`; files are given to a source that does not read them.
    """
    asked = options[QueryOptions]
    if job.queries:
        return job.queries
    if asked.query_audio is not None:
        raise UsageError("`query_audio` needs recordings. Name items of this source with `query`.")
    return placed(asked.query or (), job.task.all_item_ids) if asked.query else ()


@dataclass(frozen=True)
class Source(ABC):
    """The data of one run.

    Attributes:
        options: all options; `__post_init__` raises UsageError if they contradict each other.
        brings: clause that says why options of other sources cannot be used.
        unused: shared options that cannot be used with this source.
    """

    options: Options
    brings: ClassVar[str]
    unused: ClassVar[Sequence[str]] = ()

    @staticmethod
    @abstractmethod
    def asked(options: Options) -> bool:
        """Whether these options select this source."""

    @property
    @abstractmethod
    def stem(self) -> str:
        """Start of the names of its result files."""

    @abstractmethod
    def job(self, listener: Listener, *, with_test: bool = True, streamed: bool = False) -> Job:
        """The task.

        Args:
            listener: callbacks.
            with_test: include test pairs to explain.
            streamed: training pairs are read in blocks later; only the first ones are read now.
        """

    @property
    def synthetic(self) -> bool:
        """Whether the data are the embedded example, whose results are kept apart from others."""
        return False

    @property
    def placeholders(self) -> Mapping[str, str]:
        """The values of {name} in folder names."""
        return {}

    def runs(self) -> Sequence["Source"]:
        """The runs that the options ask for, usually one; each has its own task and files."""
        return [self]

    def check(self) -> None:  # noqa: B027
        """Raise if there are no data or checkpoints, before any model is built."""
