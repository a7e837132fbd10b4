"""The ghost engine: gradients of all items from batched forwards and backwards that make no weight gradient.

What an operation with a rule received and sent back gives every item's gradient of its parameters: built in a
row, or kept as two factors where there is one position. A scorer with a parameter that enters an operation
without a rule is refused.
"""

import torch
from torch import Tensor

from tracin_func.budget import plan_chunks
from tracin_func.coupling import FORWARD_FAULTS
from tracin_func.engines.ghost.capture import capture_gradients
from tracin_func.engines.ghost.factors import FactorGradients
from tracin_func.engines.ghost.rules import Contribution, Factors
from tracin_func.engines.loop import differentiate as differentiate_alone
from tracin_func.engines.rowwise import batches, cause, gradient_rows, row_dtype
from tracin_func.errors import InputError, UsageError
from tracin_func.gradients import Combination, Plan, Request, Units, UnsuitableError, positions
from tracin_func.items import Batch, each
from tracin_func.rows import Rows
from tracin_func.scorer import State

COMPLETE = 1e-3  # relative deviation of one unit's gradient from autograd's that is rounding, not a fault
NEGLIGIBLE = 1e-5  # and relative to the gradient of all parameters, for parts that are 0 but for rounding


class GhostGradients:
    """Rows of the parameters whose gradients were built, and factors of the others."""

    def __init__(self, rows: Rows, factors: list[FactorGradients]) -> None:
        self._rows = rows
        self._factors = factors

    @property
    def values(self) -> Tensor:
        return self._rows.values

    def columns(self, right: Combination) -> Tensor:
        parts = [self._rows.columns(right), *(factor.products(right) for factor in self._factors)]
        return torch.stack(parts).sum(dim=0)

    def squared_norm(self, combination: Combination) -> Tensor:
        # Parameters are orthogonal: norms add up, and each part sees to its own cancellation.
        parts = [self._rows.squared_norm(combination), *(factor.squared_norm(combination) for factor in self._factors)]
        return torch.stack(parts).sum(dim=0)


class GhostEngine:
    """Exact gradients of all units by capture; needs a batched objective that does not mix units."""

    name = "capture"

    def refusal(self, units: Units, state: State) -> str | None:
        if units.batched is None:
            return (
                f"a batched forward mixes items, through {units.coupled}" if units.coupled else "units are whole pairs"
            )
        few = positions(0, min(3, units.count))
        try:
            for batch, size in batches(units, few, len(few)):
                captured, opaque, _ = _capture(units, state, batch, size)
                if opaque:
                    return f"no rule for an operation that {', '.join(sorted(opaque)[:4])} enters"
                _require_complete(units, state, batch, size, captured)
        except (InputError, UsageError):
            raise
        except UnsuitableError as error:
            return str(error)
        except FORWARD_FAULTS as error:
            return cause(error)
        return None

    def plan(self, units: Units, state: State, request: Request) -> Plan:
        return plan_chunks(self, units, state, request)

    def values(self, units: Units, state: State, chunk: int) -> Tensor:
        assert units.batched is not None
        with torch.no_grad():
            every = batches(units, positions(0, units.count), chunk)
            return torch.cat([units.batched(state.parameters, state.constants, batch) for batch, _ in every])

    def gradients(self, units: Units, state: State, root_rate: dict[str, float], plan: Plan) -> GhostGradients:
        first, size = next(batches(units, positions(0, 1), 1))
        example, _, _ = _capture(units, state, first, size)
        _require_complete(units, state, first, size, example)
        factors = {
            name: _empty_factors(name, part, units, row_dtype(state))
            for name, part in example.items()
            if isinstance(part, Factors)
        }

        def differentiate(batch: Batch, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            captured, opaque, values = _capture(units, state, batch, len(index))
            if opaque or captured.keys() != example.keys():
                names = ", ".join(sorted(opaque | (captured.keys() ^ example.keys()))[:4])
                raise UnsuitableError(f"the scorer uses {names} for some items only")
            for name, factor in factors.items():
                part = captured[name]
                assert isinstance(part, Factors)
                factor.rows[index] = part.rows.to(factor.rows.dtype) * root_rate[name]
                factor.columns[index] = part.columns.to(factor.columns.dtype)
            return captured, values  # type: ignore[return-value]  # the rows take what is built, and leave factors

        def values() -> Tensor:
            """Where rows are not held together, factors still are: one pass makes them."""
            parts, done = [], 0
            for batch, size in batches(units, positions(0, units.count), plan.chunk):
                parts.append(differentiate(batch, positions(done, done + size))[1])
                done += size
            return torch.cat(parts)

        built = [name for name in state.parameters if name in example and name not in factors]
        rows = gradient_rows(units, state, root_rate, plan, differentiate, values, built)
        return GhostGradients(rows, list(factors.values()))


def _capture(units: Units, state: State, batch: Batch, size: int) -> tuple[dict[str, Contribution], set[str], Tensor]:
    """Gradients of the units in `batch` by parameter, the parameters they cannot be told of, and the objectives."""
    batched = units.batched
    assert batched is not None
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in state.parameters.items()}

    def work() -> tuple[dict[str, Contribution], set[str], Tensor]:
        return capture_gradients(lambda: batched(leaves, state.constants, batch), leaves, size)

    captured: tuple[dict[str, Contribution], set[str], Tensor] = units.within(leaves, state.constants, work)
    return captured


def _require_complete(units: Units, state: State, batch: Batch, size: int, captured: dict[str, Contribution]) -> None:
    """Every parameter's gradient of every unit in `batch` against autograd's of that unit alone."""
    for unit in range(size):
        one = _one(batch, unit)
        exact, _ = differentiate_alone(units, state, one)
        total = sum(float(right.norm()) ** 2 for right in exact.values()) ** 0.5
        for name, right in exact.items():
            part = captured.get(name)
            found = 0 if part is None else (part.dense() if isinstance(part, Factors) else part)[unit]
            error = float((found - right[0]).norm())
            # NaN is no fault of the capture; it is told where scores and gradients are used.
            if error > COMPLETE * float(right[0].norm()) + NEGLIGIBLE * total:
                raise UnsuitableError(f"the captured gradient of {name!r} is not autograd's (off by {error:.1e})")


def _one(batch: Batch, unit: int) -> Batch:
    return each(lambda leaf: leaf[unit : unit + 1], batch)


def _empty_factors(name: str, part: Factors, units: Units, dtype: torch.dtype) -> FactorGradients:
    return FactorGradients(
        part.rows.new_empty(units.count, part.rows.shape[1], dtype=dtype),
        part.columns.new_empty(units.count, part.columns.shape[1], dtype=dtype),
        lambda unit: f"{units.label(unit)} with respect to {name!r}",
    )
