"""The steps of a walk over checkpoints: each as it was opened, and its gradients, traced or stored."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Gradients
from tracin_func.scoring.combinations import TracedPairs
from tracin_func.task.checkpoints import LoadedCheckpoint, digest
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task
from tracin_func.task.weight_names import renamed


@dataclass(frozen=True, eq=False)
class Traced:
    """One checkpoint. `gradients` is None where no pair is active or the learning rate is 0.

    `values` are the objectives of the units.
    """

    name: str
    values: Tensor
    gradients: Gradients | None
    train: TracedPairs
    test: TracedPairs | None


@dataclass(frozen=True)
class Filled:
    """The blocks of one checkpoint in a store: those this process computed, those missing, and all."""

    name: str
    made: int
    missing: int
    blocks: int


@dataclass(frozen=True, eq=False)
class Opened:
    """A checkpoint that was read, its state on the device, and √η by parameter.

    `describe` is its record for provenance.
    """

    loaded: LoadedCheckpoint
    state: State
    scales: dict[str, float]
    describe: dict[str, Any]


def require_test(task: Task) -> Pairs:
    """The test pairs of a task.

    Raises:
        InputError: it has none.
    """
    if task.test is None:
        raise InputError("`test` is missing in the task, and influence explains test pairs. Give `Task(test=...)`.")
    return task.test


class Reading:
    """Reports other names of weights, and weights that two checkpoints share, as checkpoints are read.

    Args:
        known: the names of the model's parameters.
        notice: receives the sentences.
    """

    def __init__(self, known: Collection[str], notice: Callable[[str], None]) -> None:
        self._known = known
        self._notice = notice
        self._names: dict[str, str] = {}  # of checkpoints, by the digest of their weights

    def __call__(self, loaded: LoadedCheckpoint) -> None:
        if not self._names and (change := renamed(loaded.weights, self._known)[1]):
            self._notice(f"{loaded.name}: the names of its weights are read {change}.")
        first = self._names.setdefault(digest(loaded.weights), loaded.name)
        if first != loaded.name:
            self._notice(
                f"warning: {loaded.name} holds the same weights as {first}, so this state counts twice. Leave one out "
                "of `checkpoints`."
            )
