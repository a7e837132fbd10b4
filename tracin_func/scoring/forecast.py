"""What a run would do, how long it takes and how much memory: decided and measured on a few units, nothing scored."""

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
    """A run that was not made.

    Args:
        evaluations: of each checkpoint, on a sample of the pairs.
        engine: what was decided, as in provenance.
        over: what is differentiated: items, pairs or score differences.
        units: how many of these at each checkpoint, and `tried` how many were, for the measurement.
        seconds: expected of the gradients of all checkpoints; products of pairs come on top.
        bytes: expected peak above the model and the items.
    """

    evaluations: tuple[Evaluation, ...]
    engine: Mapping[str, Any]
    over: str
    units: int
    tried: int
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

    A store is neither made nor filled.

    Args:
        self_influence, influence: what would be scored.
        every: all items are units, whatever the pairs, as when these are read in blocks.

    Raises:
        As `self_influence` and `influence`, of what is found without scoring.
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
    expected = seconds / tried * units * len(task.checkpoints)
    return Forecast(
        *(tuple(evaluating.found), engine, walk.prepared.over, units, tried, expected, engine["expected_bytes"])
    )
