"""The plan of a run and the time and memory it takes, measured on a few units; nothing is scored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tracin_func.gradients.compute import Compute
from tracin_func.gradients.processes import ALONE
from tracin_func.scoring.accuracy import Evaluating, Evaluation
from tracin_func.scoring.observer import LOG, Observer
from tracin_func.scoring.steps import Opened
from tracin_func.scoring.walk import Walk
from tracin_func.task.method import Method
from tracin_func.task.task import Task


@dataclass(frozen=True, repr=False)
class Forecast:
    """The expected cost of a run.

    Args:
        evaluations: of each checkpoint, on a sample of the pairs.
        engine: the plan, as in provenance.
        over: the units that are differentiated: items, pairs or score differences.
        units: their number at each checkpoint.
        tried: the number that was measured.
        differentiations: of units at each checkpoint; more than `units` if not all gradients fit into memory.
        seconds: expected for the gradients of all checkpoints, without the dot products of pairs.
        bytes: expected peak of memory above the model and the items.
    """

    evaluations: tuple[Evaluation, ...]
    engine: Mapping[str, Any]
    over: str
    units: int
    tried: int
    differentiations: int
    seconds: float
    bytes: int

    def __repr__(self) -> str:
        return (
            f"Forecast({self.units:,} {self.over} by engine {self.engine['engine']}: {self.seconds:.2g} s, "
            f"{self.bytes / 1e6:,.0f} MB)"
        )


def forecast(
    task: Task,
    *,
    self_influence: bool = True,
    influence: bool = False,
    every: bool = False,
    method: Method = Method(),
    compute: Compute = Compute(),
    observer: Observer = LOG,
) -> Forecast:
    """Evaluate every checkpoint, choose the engine and its sizes, and time it on a few units of the first one.

    A store is neither created nor filled.

    Args:
        self_influence, influence: the scores of the run.
        every: all items are units, whatever the pairs, as for pairs that are read in blocks.

    Raises:
        As `self_influence` and `influence`, for errors that are found without scoring.
    """
    task = task if influence else replace(task, test=None)
    alone = replace(compute, store=None, shard=None, world=ALONE)
    norms = self_influence or method.normalize == "cosine"
    measured: list[tuple[int, int, float]] = []
    with Walk(task, method, alone, observer, norms=norms, every=every) as walk:
        evaluating = Evaluating(walk, observer)

        def measure(opened: Opened) -> None:
            if not measured:
                measured.append(walk.sample(opened))

        walk.visit(evaluating, measure)
    (tried, units, seconds), engine = measured[0], walk.prepared.describe()
    total = walk.prepared.repeats.total
    expected = seconds / tried * total * len(task.checkpoints)
    return Forecast(
        *(tuple(evaluating.found), engine, walk.prepared.over, units, tried, total, expected, engine["expected_bytes"])
    )
