"""Where tasks come from: what a source is, and what it gives."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tracin_func.sources.options import Options

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
    """Callbacks of a source at work.

    Args:
        report: called with each sentence that the user should read; it begins with `note: ` or `warning: `.
        step: called with a line of text at each step of what takes long.
        progress: shows work under a label and of a total, while the block that it opens runs.
        chosen: called when all but the content of the items is checked.
    """

    report: Callable[[str], None] = _log.warning
    step: Callable[[str], None] = _ignore
    progress: Callable[[str, float], AbstractContextManager[Callable[[float], None]]] = _unshown
    chosen: Callable[[], None] = _ignore


@dataclass(frozen=True)
class Job:
    """A task, and the settings it was made with, which know how they contradict the checkpoints."""

    task: "Task"
    settings: "Settings"


@dataclass(frozen=True)
class Source(ABC):
    """One run's worth of data. What a source does not say of itself holds as it is here.

    Attributes:
        options: that name it; it raises UsageError where they contradict each other, before anything is read.
        synthetic: whether its results are of made-up data, and go into no file of other results.
        brings: what it is, in a sentence about options that cannot be used with it.
        unused: options of the shared groups that cannot.
    """

    options: Options
    synthetic: ClassVar[bool] = False
    brings: ClassVar[str]
    unused: ClassVar[Sequence[str]] = ()

    @staticmethod
    @abstractmethod
    def asked(options: Options) -> bool:
        """Whether these options ask for this source."""

    @property
    @abstractmethod
    def stem(self) -> str:
        """How the names of its result files begin."""

    @abstractmethod
    def job(self, listener: Listener, *, with_test: bool = True, streamed: bool = False) -> Job:
        """The task.

        Args:
            listener: its callbacks.
            with_test: with test pairs to explain.
            streamed: training pairs are read in blocks later; the first ones stand for all.
        """

    @property
    def placeholders(self) -> Mapping[str, str]:
        """The value of {name} in the name of a folder."""
        return {}

    def runs(self) -> Sequence["Source"]:
        """The runs that the options ask for, one as a rule; each has its own task and files."""
        return [self]

    def check(self) -> None:  # noqa: B027
        """Raise where a run would find no data or no checkpoints, before any model is built."""
