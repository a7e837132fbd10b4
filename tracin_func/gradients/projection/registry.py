"""The projections by name. A new one is a class with the methods of `Projector`, and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
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
    """A linear map, applied parameter by parameter."""

    @property
    def width(self) -> int:
        """Dimension of a row."""

    @property
    def gathered(self) -> bool:
        """Whether units should be collected first, so that drawn values serve all of them."""

    @property
    def halves(self) -> tuple[tuple[slice, slice], ...] | None:
        """The places of independent halves in a row, matrix by matrix; None: the error follows from the width."""

    def place(self, name: str) -> slice:
        """The place in a row to which a parameter's part is added."""

    def sketch(self, name: str, part: Contribution) -> Tensor:
        """The part of one parameter, [units, dimensions of its place]."""

    def form(self, name: str) -> tuple[str, float]:
        """How a parameter is projected, in words, and the multiply-adds per unit."""


@dataclass(frozen=True)
class Kind:
    """A kind of projection.

    Args:
        dim: default row dimension.
        make: (shapes of the parameters, row dimension, seed, name of the checkpoint) -> Π; with `sided` also the size
            of the sides of every matrix, None if the row dimension determines it.
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
        ends = list(accumulate(shape.numel() for shape in shapes.values()))
        self._places = dict(zip(shapes, map(slice, [0, *ends], ends), strict=False))
        self.width = ends[-1]

    def place(self, name: str) -> slice:
        return self._places[name]

    def sketch(self, name: str, part: Contribution) -> Tensor:
        return flat(part)

    def form(self, name: str) -> tuple[str, float]:
        return "kept as it is", float(self._places[name].stop - self._places[name].start)


def kinds() -> tuple[str, ...]:
    return "none", "auto", *PROJECTIONS


def require_known(asked: Projection) -> None:
    """Raise UsageError for an unknown kind of projection, or `side` of a kind without sides."""
    if asked.kind not in kinds():
        raise UsageError(f"`projection` should be one of {', '.join(kinds())}. Got {asked.kind!r}.")
    sided = [name for name, kind in PROJECTIONS.items() if kind.sided]
    if asked.side is not None and asked.kind not in sided:
        names = " or ".join(f'`projection="{name}"`' for name in sided)
        raise UsageError(f'`side` needs {names}. Got `projection="{asked.kind}"`; give `dim` instead.')


def row_dimension(asked: Projection) -> int:
    """Dimension of a projected row, by default that of the kind; for `kronecker` an upper limit."""
    return asked.dim or PROJECTIONS[asked.kind].dim


def projector(asked: Projection, shapes: Shapes, checkpoint: str) -> Projector:
    """Π for parameters of these shapes at one checkpoint; UsageError if the dimension is too small for them."""
    if asked.kind == "none":
        return Whole(shapes)
    kind = PROJECTIONS[asked.kind]  # never `auto`
    sides = {"side": asked.side} if kind.sided else {}
    return kind.make(shapes, row_dimension(asked), asked.seed, checkpoint, **sides)
