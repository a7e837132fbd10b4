"""What a run would do, how long it takes and how much memory: decided and measured on a few units, nothing scored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tracin_func.gradients.compute import Compute
from tracin_func.gradients.processes import ALONE
from tracin_func.scoring.accuracy import EVALUATED_PAIRS, Evaluation, evaluate
from tracin_func.scoring.walk import Tracer
from tracin_func.task.task import Task


@dataclass(frozen=True)
class Outlook:
    """A run that was not made.

    Args:
        evaluations: of each checkpoint.
        engine: what was decided, as in provenance.
        units: what is differentiated at each checkpoint, and `tried` how many of these were, for the measurement.
        seconds: expected of the gradients of all checkpoints; products of pairs come on top.
        bytes: expected peak above the model and the items.
    """

    evaluations: tuple[Evaluation, ...]
    engine: Mapping[str, Any]
    units: int
    tried: int
    seconds: float
    bytes: int


def outlook(
    task: Task, compute: Compute, *, self_influence: bool = True, influence: bool = False, every: bool = False
) -> Outlook:
    """Evaluate every checkpoint, choose the engine and its sizes, and time it on a few units of the first one.

    With `every`, of a query: all items are units, whatever the pairs.

    Raises:
        As `score`, of what is found without scoring.
    """
    # A store is neither made nor filled.
    tracer = Tracer(
        task,
        replace(compute, store=None, shard=None, world=ALONE),
        norms=self_influence or compute.normalize == "cosine",
        every=every,
    )
    evaluations = []
    for evaluated in tracer.evaluations(EVALUATED_PAIRS):
        evaluations.append(evaluate(evaluated))
        if compute.evaluated is not None:
            compute.evaluated(evaluations[-1])
    tried, units, seconds = tracer.sample()
    assert tracer.prepared is not None
    engine = tracer.prepared.describe()
    expected = seconds / tried * units * len(task.checkpoints)
    return Outlook(tuple(evaluations), engine, units, tried, expected, engine["expected_bytes"])
