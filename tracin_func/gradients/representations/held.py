"""Gradients of all units held as rows, or as factors of the parameters for which the plan chose these."""

import itertools

import torch
from torch import Tensor
from torch.profiler import record_function

from tracin_func.gradients.batches import Work
from tracin_func.gradients.factors import Contribution, Factors, dense
from tracin_func.gradients.protocol import Combination, Gradients, Units, UnsuitableError
from tracin_func.gradients.representations.factored import FactorGradients
from tracin_func.gradients.representations.rows import Rows, are_exact
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
        # Parameters are orthogonal: norms add up, and each part handles its own cancellation.
        parts = [self._rows.squared_norm(combination), *(factor.squared_norm(combination) for factor in self._factors)]
        return torch.stack(parts).sum(dim=0)


def held(work: Work) -> Gradients:
    """Gradients of all units, metric applied: rows, and factors of the parameters for which the plan chose these.

    Raises:
        UnsuitableError: factors have other shapes in some units.
    """
    units, state, root_rate = work.units, work.state, work.root_rate
    differentiate = work.engine.differentiate(units, state, work.plan)
    planned = {part.parameter for part in work.plan.parts if part.form == "factors"}
    factors: dict[str, FactorGradients] = {}
    columns: dict[str, slice] = {}  # of each parameter in a row

    def lay_out(gradients: dict[str, Contribution]) -> None:
        """What is held is known from the first gradients."""
        for name, part in gradients.items():
            if isinstance(part, Factors) and name in planned:
                factors[name] = _empty_factors(name, part, units, state.row_dtype)
        built = [name for name in state.parameters if name in gradients and name not in factors]
        ends = list(itertools.accumulate(state.parameters[name].numel() for name in built))
        columns.update(zip(built, map(slice, [0, *ends], ends), strict=False))

    def filled(batch: Batch, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
        gradients, values = differentiate(batch, index)
        if not columns and not factors:
            lay_out(gradients)
        for name, factor in factors.items():
            part = gradients[name]
            assert isinstance(part, Factors)
            if part.positions != factor.factors.positions:
                raise UnsuitableError(f"{name} is used at more positions in some items than in others")
            factor.factors.rows[index] = part.rows.to(factor.factors.rows.dtype) * root_rate[name]
            factor.factors.columns[index] = part.columns.to(factor.factors.columns.dtype)
        return gradients, values

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        rows, objectives, low = torch.empty(0), [], 0
        for batch, mine in work.batches(index):
            gradients, values = filled(batch, mine)
            if not low:
                width = max((place.stop for place in columns.values()), default=0)
                rows = torch.empty(len(index), width, dtype=state.row_dtype, device=state.example.device)
            with record_function("rows"):
                for name, place in columns.items():
                    # √η is applied while the gradient is copied to its place: no pass of its own.
                    part = rows[low : low + len(mine), place]
                    torch.mul(dense(gradients[name]).reshape(part.shape), root_rate[name], out=part)
            objectives.append(values)
            low += len(mine)
        return rows, torch.cat(objectives)

    def values() -> Tensor:
        """If not all rows are held, all factors still are: one pass computes them."""
        if not planned:
            return work.values()
        return torch.cat([filled(*some)[1] for some in work.batches(torch.arange(units.count))])

    def locate(unit: int, column: int) -> str:
        name = next(name for name, place in columns.items() if column < place.stop)
        return f"{units.label(unit)} with respect to {name!r}"

    rows = Rows(units.count, fetch, work.plan.block, values, locate, are_exact(state))
    return RowsAndFactors(rows, list(factors.values())) if factors else rows


def _empty_factors(name: str, part: Factors, units: Units, dtype: torch.dtype) -> FactorGradients:
    rows = part.rows.new_empty(units.count, *part.rows.shape[1:], dtype=dtype)
    columns = part.columns.new_empty(units.count, *part.columns.shape[1:], dtype=dtype)
    return FactorGradients(Factors(rows, columns), lambda unit: f"{units.label(unit)} with respect to {name!r}")
