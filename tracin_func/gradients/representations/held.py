"""Gradients of all units held as rows, or as factors where a plan says that kernel entries cost less from these."""

import torch
from torch import Tensor

from tracin_func.gradients.batches import batches
from tracin_func.gradients.device import row_dtype
from tracin_func.gradients.factors import Contribution, Factors
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Combination, Engine, Gradients, Plan, Units, UnsuitableError, positions
from tracin_func.gradients.representations.factored import FactorGradients
from tracin_func.gradients.representations.rows import Rows, gradient_rows
from tracin_func.task.items import Batch


class RowsAndFactors:
    """Rows of some parameters and factors of the others."""

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


def held(engine: Engine, units: Units, state: State, root_rate: dict[str, float], plan: Plan) -> Gradients:
    """Gradients of all units, metric applied: rows, but for the parameters whose factors `plan` keeps.

    Raises:
        UnsuitableError: factors are of other shapes in some units.
    """
    differentiate = engine.differentiate(units, state, plan)
    batch, first = next(batches(units, positions(0, units.count), plan.chunk))
    ready = [differentiate(batch, first)]  # says what there will be to hold, and is used
    del batch
    planned = {part.parameter for part in plan.parts if part.form == "factors"}
    factors = {
        name: _empty_factors(name, part, units, row_dtype(state))
        for name, part in ready[0][0].items()
        if isinstance(part, Factors) and name in planned
    }
    built = [name for name in state.parameters if name in ready[0][0] and name not in factors]

    def fill(batch: Batch, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
        captured, values = ready.pop() if ready and torch.equal(index, first) else differentiate(batch, index)
        for name, factor in factors.items():
            part = captured[name]
            assert isinstance(part, Factors)
            if part.positions != factor.factors.positions:
                raise UnsuitableError(f"{name} is used at more positions in some items than in others")
            factor.factors.rows[index] = part.rows.to(factor.factors.rows.dtype) * root_rate[name]
            factor.factors.columns[index] = part.columns.to(factor.factors.columns.dtype)
        return captured, values

    def values() -> Tensor:
        """Where rows are not held together, factors still are: one pass makes them."""
        if not factors:
            return engine.values(units, state, plan.chunk)
        return torch.cat([fill(*some)[1] for some in batches(units, positions(0, units.count), plan.chunk)])

    rows = gradient_rows(units, state, root_rate, plan, fill, values, built)
    return RowsAndFactors(rows, list(factors.values())) if factors else rows


def _empty_factors(name: str, part: Factors, units: Units, dtype: torch.dtype) -> FactorGradients:
    rows = part.rows.new_empty(units.count, *part.rows.shape[1:], dtype=dtype)
    columns = part.columns.new_empty(units.count, *part.columns.shape[1:], dtype=dtype)
    return FactorGradients(Factors(rows, columns), lambda unit: f"{units.label(unit)} with respect to {name!r}")
