"""Units in batches, and the signature of a function that differentiates one batch."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.protocol import Differentiation, Sketch, Units
from tracin_func.task.items import Batch, RaggedItemsError

# units with a first axis [n], and their positions -> gradients by parameter name, and objectives [n]
Differentiate = Callable[[Batch, Tensor], tuple[dict[str, Contribution], Tensor]]


def batches(units: Units, index: Tensor, chunk: int) -> Iterator[tuple[Batch, int]]:
    """The units at `index` in batches of `chunk`, with their sizes; one by one where they cannot be stacked."""
    for part in index.split(chunk) if len(index) else ():
        try:
            yield units.take(part), len(part)
        except RaggedItemsError:
            for one in part.split(1):
                yield units.take(one), 1


def sketched(differentiate: Differentiate, sketch: Sketch) -> Differentiation:
    """Gradients of one batch by `differentiate`, each parameter's as `sketch` leaves it."""

    def work(batch: Batch, index: Tensor) -> tuple[dict[str, Any], Tensor]:
        gradients, objectives = differentiate(batch, index)
        # One after another out of the mapping: what was sketched need not stay.
        return {name: sketch(name, gradients.pop(name)) for name in list(gradients)}, objectives

    return work
