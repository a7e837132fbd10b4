"""Gradient rows [units, params]: held if they fit into memory, else recomputed in blocks.

With N units, n combinations and P parameters, `columns` costs N·(units in the combinations)·P multiply-adds and
`squared_norm` the smaller of N²·P and 3·n·P, plus gradients for rows that are not held: those that `for_columns` and
`for_norms` count.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.gradients.device import wide_type
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.products import combine, inner, pair_norms, row_norms
from tracin_func.gradients.representations.schedule import schedule, sizes

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]  # positions [n] -> rows [n, params], objectives [n]


def are_exact(state: State) -> bool:
    """Whether the product of two row entries is exact in the widest type of the device: float32 in float64."""
    return state.row_dtype != wide_type(state.example)


def for_norms(index: Tensor, units: int, block: int) -> int:
    """The rows that norms of combinations of the units `index` [n, m] compute, of `units` of which a block is held."""
    if index.shape[1] == 1:
        return units
    return sum(len(step.units) for step in schedule(index, 2 * block))


def for_any_norms(units: int, block: int) -> int:
    """About the most rows that norms of any combinations of two of `units` compute, if only blocks are held."""
    kept = sizes(2 * block)[0]
    return sum(range(units, 0, -kept))  # those that are kept at a time meet all that come after


def for_columns(index: Tensor, units: int, block: int, *, exact: bool) -> int:
    """The rows that products of all units with combinations of the units `index` [n, m] compute, in the same case."""
    index = index.unique()[:, None] if exact else index
    together = index.split(max(1, block // index.shape[1]))
    return sum(units + len(some.unique()) for some in together)


class Rows:
    """Gradients as rows.

    Args:
        units: number of rows.
        fetch: computes rows.
        block: rows held at a time.
        values: computes the objectives of all units, if not all rows are held.
        locate: (unit, column) -> the gradient's name in errors.
        exact: see `are_exact`.
    """

    def __init__(
        self,
        units: int,
        fetch: Fetch,
        block: int,
        values: Callable[[], Tensor],
        locate: Callable[[int, int], str],
        exact: bool,
    ) -> None:
        self._units = units
        self._fetch = fetch
        self.block = max(1, min(block, units))
        self._locate = locate
        self._exact = exact
        self._norms = torch.full((units,), torch.nan, dtype=torch.float64)  # of rows seen so far
        self._held: Tensor | None = None
        if self.block >= units:
            self._held, self.values = fetch(torch.arange(units))
        else:
            self.values = values()

    def columns(self, right: Combination) -> Tensor:
        """⟨g_i, right_j⟩, float64 [units, right].

        If products are exact, products with the units of `right` are computed and then combined. Other rows are
        combined first, before anything is rounded.
        """
        index, coefficient = right.index.cpu(), right.coefficient.to("cpu", torch.float64)
        if not self._exact:
            return self._products(Combination(index, coefficient))
        needed, local = torch.unique(index, return_inverse=True)
        products = self._products(Combination(needed[:, None], torch.ones(len(needed), 1, dtype=torch.float64)))
        result = torch.zeros(self._units, len(right), dtype=torch.float64)
        for j in range(local.shape[1]):
            result += products[:, local[:, j]] * coefficient[:, j]
        return result

    def _products(self, right: Combination) -> Tensor:
        """⟨g_i, right_j⟩, float64 [units, right], of rows combined first, as many at a time as fit into memory."""
        result = torch.zeros(self._units, len(right), dtype=torch.float64)
        width = right.index.shape[1]
        for chosen in torch.arange(len(right)).split(max(1, self.block // width)):
            needed, local = torch.unique(right.index[chosen], return_inverse=True)
            rows = self.take(needed)
            basis = rows if self._exact else combine(rows, rows, Combination(local, right.coefficient[chosen]))
            del rows
            for start, block in self.blocks():
                result[start : start + len(block), chosen] = inner(block, basis, torch.float64)
                del block  # before the next is computed: the plan counts two
            del basis
        return result

    def squared_norm(self, combination: Combination) -> Tensor:
        """‖Σ_j c_j g_j‖², float64 [n].

        If not all rows are held, they are computed in the order of `schedule`, with memory for two blocks.
        """
        index, coefficient = combination.index.cpu(), combination.coefficient.to("cpu", torch.float64)
        if index.shape[1] == 1:
            return coefficient[:, 0] ** 2 * self._all_norms()[index[:, 0]]
        whole = Combination(index, coefficient)
        if self._held is not None:
            rows = self.take(torch.arange(self._units))
            return pair_norms(rows, rows, whole)
        return self._scheduled_norms(whole)

    def _scheduled_norms(self, combination: Combination) -> Tensor:
        """Of pairs of rows that are computed a group at a time, with each other and with those kept meanwhile."""
        result = torch.zeros(len(combination), dtype=torch.float64)
        in_group, in_kept = torch.full((2, self._units), -1)  # the place of each unit
        kept, filled = torch.empty(0), 0
        for step in schedule(combination.index, 2 * self.block):
            rows = self.take(step.units)
            in_group[step.units] = torch.arange(len(step.units))
            pairs = combination.select(step.pairs)
            inside = (in_group[pairs.index] >= 0).all(dim=1)
            if bool(inside.any()):
                own = pairs.select(inside)
                result[step.pairs[inside]] = pair_norms(rows, rows, replace(own, index=in_group[own.index]))
            if not bool(inside.all()):
                others = _kept_first(pairs.select(~inside), in_group)
                places = torch.stack([in_kept[others.index[:, 0]], in_group[others.index[:, 1]]], dim=1)
                result[step.pairs[~inside]] = pair_norms(kept[:filled], rows, replace(others, index=places))
            in_group[step.units] = -1
            if len(step.stay):
                if not filled:
                    kept = rows.new_empty(min(sizes(2 * self.block)[0], self._units), rows.shape[1])
                kept[step.places.to(kept.device)] = rows[step.stay.to(kept.device)]
                in_kept[step.units[step.stay]] = step.places
                filled = max(filled, int(step.places.max()) + 1)
            del rows  # before the next are computed: the plan counts two blocks
        return result

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The first position of each block, and its rows."""
        for start in range(0, self._units, self.block):
            yield start, self.take(self._range(start))

    def _range(self, start: int) -> Tensor:
        return torch.arange(start, min(start + self.block, self._units))

    def take(self, index: Tensor) -> Tensor:
        """Rows of the units at `index`; their norms are kept. NumericalError for NaN or infinite gradients."""
        if self._held is None:
            rows = self._fetch(index)[0]
        else:
            rows = self._held if len(index) == self._units else self._held[index.to(self._held.device)]
        if not rows.is_meta and bool(self._norms[index].isnan().any()):
            # When rows are used, not when they are computed: a score that is not finite is reported first.
            norms = self._norms[index] = row_norms(rows)
            if not bool(norms.isfinite().all()) and not bool(rows.isfinite().all()):
                row, column = (~rows.isfinite()).nonzero()[0].tolist()
                raise NumericalError(f"the gradient of {self._locate(int(index[row]), column)} is NaN or infinite.")
        return rows

    def _all_norms(self) -> Tensor:
        for start in range(0, self._units, self.block):
            index = self._range(start)
            if bool(self._norms[index].isnan().any()):
                self.take(index)
        return self._norms


def _kept_first(combination: Combination, in_group: Tensor) -> Combination:
    """Pairs of a kept unit and one of the group, in this order."""
    order = (in_group[combination.index] >= 0).long().argsort(dim=1)
    index, coefficient = combination.index.gather(1, order), combination.coefficient.gather(1, order)
    return Combination(index, coefficient)
