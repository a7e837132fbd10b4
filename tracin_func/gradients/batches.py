"""The units to differentiate at one checkpoint, in batches."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Engine, Plan, Units
from tracin_func.task.items import Batch, RaggedItemsError


@dataclass(frozen=True, eq=False)
class Work:
    """What is differentiated at one checkpoint, and how; `root_rate` is √η by parameter, a factor of its gradients."""

    engine: Engine
    units: Units
    state: State
    root_rate: dict[str, float]
    plan: Plan

    def batches(self, index: Tensor) -> Iterator[tuple[Batch, Tensor]]:
        return batches(self.units, index, self.plan.chunk)

    def values(self) -> Tensor:
        return self.engine.values(self.units, self.state, self.plan)


def batches(units: Units, index: Tensor, chunk: int) -> Iterator[tuple[Batch, Tensor]]:
    """The units at `index` in batches of `chunk`, with their positions; one by one if they cannot be stacked."""
    for part in index.split(chunk) if len(index) else ():
        try:
            yield units.take(part), part
        except RaggedItemsError:
            for one in part.split(1):
                yield units.take(one), one
