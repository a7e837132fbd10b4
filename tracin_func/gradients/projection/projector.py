"""The projection of one checkpoint: from gradients by parameter to rows."""

from typing import Protocol

from torch import Tensor

from tracin_func.gradients.factors import Contribution, flat
from tracin_func.gradients.projection.dense import DenseProjector
from tracin_func.gradients.projection.kronecker import KroneckerProjector
from tracin_func.gradients.projection.layout import Shapes, widest_side
from tracin_func.gradients.projection.sparse import SparseProjector
from tracin_func.task.method import DENSE, Projection


class Projector(Protocol):
    """A linear map, taken parameter by parameter."""

    @property
    def width(self) -> int:
        """Numbers a row."""
        ...

    @property
    def gathered(self) -> bool:
        """Whether units should be collected first, as what is drawn serves all of them."""
        ...

    @property
    def halves(self) -> tuple[tuple[slice, slice], ...] | None:
        """Where a row has independent halves, matrix by matrix; None: the error is told by the width."""
        ...

    def place(self, name: str) -> slice:
        """Where in a row a parameter's part is added."""
        ...

    def sketch(self, name: str, part: Contribution) -> Tensor:
        """The part of one parameter, [units, its numbers]."""
        ...

    def form(self, name: str) -> tuple[str, float]:
        """How a parameter is projected, in words, and the multiply-adds a unit."""
        ...


class Whole:
    """No projection: the gradients themselves, parameter after parameter."""

    gathered = False
    halves = ()

    def __init__(self, shapes: Shapes) -> None:
        self._places: dict[str, slice] = {}
        self.width = 0
        for name, shape in shapes.items():
            self._places[name] = slice(self.width, self.width + shape.numel())
            self.width += shape.numel()

    def place(self, name: str) -> slice:
        return self._places[name]

    def sketch(self, name: str, part: Contribution) -> Tensor:
        return flat(part)

    def form(self, name: str) -> tuple[str, float]:
        place = self._places[name]
        return "kept as it is", float(place.stop - place.start)


def projector(asked: Projection, shapes: Shapes, checkpoint: str) -> Projector:
    """What `asked` is for parameters of these shapes at one checkpoint.

    Raises:
        UsageError: rows are too narrow for so many parameters.
    """
    if asked.kind in DENSE:
        return DenseProjector(asked.kind, shapes, asked.width, asked.seed, checkpoint)
    if asked.kind == "sjlt":
        return SparseProjector(shapes, asked.width, asked.seed, checkpoint)
    if asked.kind == "kronecker":
        side = asked.side or widest_side(shapes, asked.width)
        return KroneckerProjector(shapes, side, asked.seed, checkpoint)
    assert asked.kind == "none"  # `auto` was decided before
    return Whole(shapes)
