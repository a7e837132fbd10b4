"""The interface of engines: gradients of units at one checkpoint, seen only through dot products.

A UNIT is an item with the objective f(x) or a whole pair with its loss; an engine knows neither. With the
metric M_t = diag η_t applied, g_i = √M_t ∇θ objective_i(θ_t).
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.model import State
from tracin_func.task.items import Batch


@dataclass(frozen=True, eq=False)
class Combination:
    """n linear combinations Σ_j coefficient_j g_{index_j}: both [n, m]; m = 2 over items, 1 over pairs."""

    index: Tensor
    coefficient: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: Tensor | slice) -> "Combination":
        return Combination(self.index[rows], self.coefficient[rows])


class Gradients(Protocol):
    """Gradients of all units at one checkpoint, metric applied."""

    @property
    def values(self) -> Tensor:
        """The objective of every unit, [units]."""

    def columns(self, right: Combination) -> Tensor:
        """⟨g_i, right_j⟩, float64 [units, right]."""

    def squared_norm(self, combination: Combination) -> Tensor:
        """‖Σ_j c_j g_j‖² ≥ 0, float64 [n]. Cancellation between nearly equal units is handled here and only here."""


@dataclass(frozen=True)
class Units:
    """What an engine differentiates.

    Args:
        count: number of units.
        take: positions [n] -> the data of these units, a pytree with the units on the first axis, on the device.
        holding: state -> context in which the scorer holds these tensors; gives its own parameters by name, the leaves
            of what is computed in it.
        alone: one unit -> scalar, by the scorer with the tensors that it holds; one unit has no first axis.
        objective: (parameters, constants, one unit) -> the same with these tensors, for transforms; its first call has
            to be outside of them.
        label: position -> the name of the unit in errors.
        batched: units on a first axis -> objectives [n] of one joint forward with the tensors that are held; None where
            one unit's objective depends on its companions, through the operation `coupled`.
        width: (units on a first axis) -> rows of a batched forward per unit: 2 for the difference of two items that go
            through the scorer together.
        minuend: of a difference, what the other is subtracted from, as `alone`; rounding is relative to it.
    """

    count: int
    take: Callable[[Tensor], Batch]
    holding: Callable[[State], AbstractContextManager[dict[str, Tensor]]]
    alone: Callable[[Batch], Tensor]
    objective: Callable[[dict[str, Tensor], dict[str, Tensor], Batch], Tensor]
    label: Callable[[int], str]
    batched: Callable[[Batch], Tensor] | None = None
    coupled: str | None = None
    width: Callable[[Batch], int] = lambda _: 1
    minuend: Callable[[Batch], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Need:
    """What gradients will be used for, and the limits of a plan for them.

    Args:
        norms: whether norms of combinations are needed.
        combined: whether combinations are of two units, which may cancel; else of single ones.
        right: sorted positions of the units on the right-hand side [right]; used only where rows are not kept.
        combinations: number of combinations of two units whose norms are needed; any number when None.
        batch_size: units differentiated together, or "auto".
        budget: bytes; half for rows, half for the work.
        visits: number of checkpoints, at each of which the units are differentiated.
        row: bytes kept per unit, where that is not its gradient.
        kernels: as an earlier run recorded them; chosen anew when None.
    """

    norms: bool = True
    combined: bool = True
    right: Tensor = field(default_factory=lambda: torch.arange(0))
    combinations: int | None = None
    batch_size: int | Literal["auto"] = "auto"
    budget: int = 1 << 30
    visits: int = 1
    row: int | None = None
    kernels: "Kernels | None" = None

    @property
    def held(self) -> bool:
        """Whether gradients are held, for products of any two units; else each is used as soon as it is computed."""
        return self.norms and self.combined

    @property
    def entries(self) -> int:
        """Gram entries per unit whose gradient is not held: its norm, and its products with the right ones."""
        return max(1, self.norms + len(self.right))


ANYTHING = Need()  # rows are held, and answer all


@dataclass(frozen=True)
class Plan:
    """How an engine works through units; fixed once, recorded, and the same for every checkpoint.

    Args:
        chunk: units differentiated together.
        block: units whose gradient rows are held at a time; if fewer than all, rows are recomputed when needed again.
        chunk_bytes: expected peak memory for one chunk, rows not included.
        reason: how the sizes were chosen.
        bytes_held: expected memory for held gradients.
        parts: how each parameter's gradient enters the products, where an engine has a choice.
        kernels: how gradients of convolutions are computed.
        largest: the largest chunk that memory allows, if a measurement will choose it; 0 if it is fixed.
        trial: seconds that one unit took when the engine was tried, with all that is done for the first time.
    """

    chunk: int
    block: int
    chunk_bytes: int
    reason: str
    bytes_held: int = 0
    parts: tuple["Part", ...] = ()
    kernels: "Kernels" = field(default_factory=lambda: Kernels())
    largest: int = 0
    trial: float = math.inf


@dataclass(frozen=True)
class Kernels:
    """How gradients of convolutions are computed; recorded, since another choice rounds otherwise.

    Args:
        channels_last: whether convolutions work with the channels as the last axis in memory.
        convolutions: "factors" or the name of a kernel, by parameter; the usual kernel where none is named.
    """

    channels_last: bool = False
    convolutions: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The record, ready for JSON."""
        return {"channels_last": self.channels_last, "convolutions": dict(self.convolutions)}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """What `describe` gave; UsageError for anything else."""
        last, convolutions = record.get("channels_last"), record.get("convolutions")
        if not isinstance(last, bool) or not isinstance(convolutions, Mapping):
            raise UsageError(f'`kernels` should be the `run.engine["kernels"]` of a result. Got {record!r}.')
        return cls(last, {str(name): str(kernel) for name, kernel in convolutions.items()})


@dataclass(frozen=True)
class Part:
    """The plan for one parameter: the operations that use it, the form of its gradient and the cost of that.

    `form` is "factors", "built", "vmap" or a projection; `multiply_adds` are per unit, of gradient and Gram entries.
    """

    parameter: str
    operations: str
    form: str
    multiply_adds: float
    reason: str


# (units with a first axis [n], their positions) -> gradients by parameter name, and objectives [n]
Differentiate = Callable[[Batch, Tensor], tuple[dict[str, Contribution], Tensor]]
# (parameter, its gradients of some units in any form) -> what is kept of them
Sketch = Callable[[str, Contribution], Contribution]


def whole(_: str, part: Contribution) -> Contribution:
    """The sketch that keeps gradients unchanged."""
    return part


def sketched(
    gradients: dict[str, Contribution], objectives: Tensor, sketch: Sketch
) -> tuple[dict[str, Contribution], Tensor]:
    """Gradients of one batch, each parameter's sketched, and its objectives."""
    # Popped one after another, so that memory of the unsketched is freed.
    return {name: sketch(name, gradients.pop(name)) for name in list(gradients)}, objectives


class UnsuitableError(ValueError):
    """An engine found that it cannot differentiate these units."""


Planner = Callable[[Need], Plan]  # how to work through all units within the memory budget


class Engine(Protocol):
    """One way to obtain gradients. Engines run on `meta` tensors: no choice of theirs depends on data."""

    @property
    def name(self) -> str:
        """Its name in plans and notices."""

    @property
    def factored(self) -> bool:
        """Whether gradients of matrices come as factors."""

    def tried(self, units: Units, state: State) -> Planner:
        """Differentiate a few units; what they show serves the plan.

        Raises:
            UnsuitableError: why these units cannot be differentiated this way.
        """

    def values(self, units: Units, state: State, plan: Plan) -> Tensor:
        """The objective of every unit alone, [units]; no gradient."""

    def differentiate(self, units: Units, state: State, plan: Plan, sketch: Sketch = whole) -> Differentiate:
        """A function that gives gradients of any units by parameter, times `state.scale`, each sketched once computed.

        It may raise UnsuitableError for what `tried` could not know from a few units.
        """
