"""The projections there are, by name. Another one is a class with the methods of `Projector`, and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.gradients.factors import Contribution, flat
from tracin_func.gradients.projection.dense import DenseProjector
from tracin_func.gradients.projection.kronecker import KroneckerProjector
from tracin_func.gradients.projection.layout import Shapes
from tracin_func.gradients.projection.sparse import SparseProjector
from tracin_func.task.method import Projection


class Projector(Protocol):
    """A linear map, taken parameter by parameter."""

    @property
    def width(self) -> int:
        """Dimension of a row."""
        ...

    @property
    def gathered(self) -> bool:
        """Whether units should be collected first, as what is drawn serves all of them."""
        ...

    @property
    def halves(self) -> tuple[tuple[slice, slice], ...] | None:
        """Where a row has independent halves, matrix by matrix; None: the error follows from the width."""
        ...

    def place(self, name: str) -> slice:
        """Where in a row a parameter's part is added."""
        ...

    def sketch(self, name: str, part: Contribution) -> Tensor:
        """The part of one parameter, [units, its numbers]."""
        ...

    def form(self, name: str) -> tuple[str, float]:
        """How a parameter is projected, in words, and the multiply-adds per unit."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of projection.

    Args:
        dim: row dimension by default.
        make: (shapes of the parameters, row dimension, seed, name of the checkpoint) -> Π; with `sided` also the size
            of the sides of every matrix, None where the row dimension sets it.
    """

    dim: int
    make: Callable[..., Projector]
    sided: bool = False


PROJECTIONS = {
    "rademacher": Kind(512, partial(DenseProjector, "rademacher")),
    "gaussian": Kind(512, partial(DenseProjector, "gaussian")),
    "sjlt": Kind(4096, SparseProjector),
    "kronecker": Kind(4096, KroneckerProjector, sided=True),
}


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


def kinds() -> tuple[str, ...]:
    """What a projection may be called."""
    return "none", "auto", *PROJECTIONS


def require_known(asked: Projection) -> None:
    """Raise where there is no such projection.

    Raises:
        UsageError: an unknown kind, or `side` of a kind without sides.
    """
    if asked.kind not in kinds():
        raise UsageError(f"`projection` should be one of {', '.join(kinds())}. Got {asked.kind!r}.")
    sided = [name for name, kind in PROJECTIONS.items() if kind.sided]
    if asked.side is not None and asked.kind not in sided:
        names = " or ".join(map(repr, sided))
        raise UsageError(f"`side` belongs to the projection {names}. Got it with {asked.kind!r}; give `dim`.")


def row_dimension(asked: Projection) -> int:
    """Dimension of a projected row: as asked, else the default of the kind; of `kronecker` an upper limit."""
    return asked.dim or PROJECTIONS[asked.kind].dim


def projector(asked: Projection, shapes: Shapes, checkpoint: str) -> Projector:
    """What `asked` is for parameters of these shapes at one checkpoint.

    Raises:
        UsageError: rows are too narrow for the number of parameters.
    """
    if asked.kind == "none":
        return Whole(shapes)
    kind = PROJECTIONS[asked.kind]  # `auto` was decided before
    sides = {"side": asked.side} if kind.sided else {}
    return kind.make(shapes, row_dimension(asked), asked.seed, checkpoint, **sides)
