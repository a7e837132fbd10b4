"""Units in batches."""

from collections.abc import Iterator

from torch import Tensor

from tracin_func.gradients.protocol import Units
from tracin_func.task.items import Batch, RaggedItemsError


def batches(units: Units, index: Tensor, chunk: int) -> Iterator[tuple[Batch, Tensor]]:
    """The units at `index` in batches of `chunk`, with their positions; one by one where they cannot be stacked."""
    for part in index.split(chunk) if len(index) else ():
        try:
            yield units.take(part), part
        except RaggedItemsError:
            for one in part.split(1):
                yield units.take(one), one
