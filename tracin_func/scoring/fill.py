"""Fill a store with gradient rows, and score nothing: what array jobs and long preparations do."""

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
    """Make the rows of all items, at every checkpoint, that `compute.store` lacks; of a shard only its share.

    A new store holds a row of each item, which serves any pairs; without `items`, a row of each of the task's pairs
    where these are fewer. A store that is there goes on as it began.

    Raises:
        UsageError: `compute` names no store.
        InputError, NumericalError, OutputError: as `self_influence`; blocks that are finished stay in the store.
    """
    if compute.store is None:
        raise UsageError("`store` is not given. Expected the folder that is to keep the gradients.")
    every = items and unit_in(compute.store) != "differences"
    filled: list[Filled] = []
    with Walk(task, method, compute, observer, every=every) as walk:
        walk.visit(lambda opened: filled.append(walk.fill(opened)))
    return tuple(filled)
