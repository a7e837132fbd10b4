"""Fill a store with gradient rows, and score nothing: what array jobs and long preparations do."""

from dataclasses import replace

from tracin_func.compute import Compute
from tracin_func.errors import UsageError
from tracin_func.task import Task
from tracin_func.trace import Filled, Tracer


def fill_store(task: Task, compute: Compute) -> tuple[Filled, ...]:
    """Make the rows of all items, at every checkpoint, that `compute.store` lacks; of a shard only its share.

    Raises:
        UsageError: `compute` names no store.
        InputError, NumericalError, OutputError: as `score`; blocks that are finished stay in the store.
    """
    if compute.store is None:
        raise UsageError("`store` is not given. Expected the folder that is to keep the gradients.")
    with Tracer(task, replace(compute, evaluated=None)) as tracer:
        return tuple(tracer.filled())
