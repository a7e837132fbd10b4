"""Fill a store with gradients without scoring, for array jobs and long preparations."""

from tracin_func.errors import UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.scoring.observer import LOG, Observer
from tracin_func.scoring.steps import Filled
from tracin_func.scoring.stored_rows import unit_in
from tracin_func.scoring.walk import Walk
from tracin_func.task.method import Method
from tracin_func.task.task import Task


def fill_store(
    task: Task, compute: Compute, *, items: bool = True, method: Method = Method(), observer: Observer = LOG
) -> tuple[Filled, ...]:
    """Compute the gradients of all items that `compute.store` lacks, at every checkpoint; of a shard only its share.

    A new store holds a gradient per item, which serves any pairs; without `items`, one per pair of the task where these
    are fewer. An existing store is continued with its own units.

    Raises:
        UsageError: `compute` names no store.
        InputError, NumericalError, OutputError: as `self_influence`; blocks that are finished stay in the store.
    """
    if compute.store is None:
        raise UsageError("`store` is missing. Give the folder in which gradients are cached.")
    every = items and unit_in(compute.store) != "differences"
    filled: list[Filled] = []
    with Walk(task, method, compute, observer, every=every) as walk:
        walk.visit(lambda opened: filled.append(walk.fill(opened)))
    return tuple(filled)
