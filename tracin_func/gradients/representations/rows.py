"""Gradient rows [units, params]: held if they fit into memory, else recomputed in blocks.

With N units, n combinations and P parameters, `columns` costs N·(units in the combinations)·P multiply-adds and
`squared_norm` the smaller of N²·P and 3·n·P, plus gradients for rows that are not held, see `squared_norm`.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.gradients.device import wide_type
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.products import combine, inner, pair_norms, row_norms

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]  # positions [n] -> rows [n, params], objectives [n]


def are_exact(state: State) -> bool:
    """Whether the product of two row entries is exact in the widest type of the device: float32 in float64."""
    return state.row_dtype != wide_type(state.example)


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

        If not all rows are held, either pairs are processed in the order of their first unit, a block's worth of
        units at a time (at most 2n gradients), or every two blocks together (N · blocks / 2 gradients), whichever is
        less.
        """
        index, coefficient = combination.index.cpu(), combination.coefficient.to("cpu", torch.float64)
        if index.shape[1] == 1:
            return coefficient[:, 0] ** 2 * self._all_norms()[index[:, 0]]
        whole = Combination(index, coefficient)
        if self._held is not None:
            rows = self.take(torch.arange(self._units))
            return pair_norms(rows, rows, whole)
        blocks = -(-self._units // self.block)
        by_blocks = self._units * (blocks + 1) / 2 < 2 * len(index)
        return self._norms_of_blocks(whole) if by_blocks else self._norms_in_order(whole)

    def _norms_in_order(self, combination: Combination) -> Tensor:
        """Of pairs sorted by their first unit, as many at a time as fit into a block of units."""
        result = torch.zeros(len(combination), dtype=torch.float64)
        order = torch.argsort(combination.index.min(dim=1).values, stable=True)
        for chosen in order.split(max(1, self.block // 2)):
            part = combination.select(chosen)
            needed, local = torch.unique(part.index, return_inverse=True)
            rows = self.take(needed)
            result[chosen] = pair_norms(rows, rows, Combination(local, part.coefficient))
        return result

    def _norms_of_blocks(self, combination: Combination) -> Tensor:
        """Of every two blocks that pairs connect, once."""
        result = torch.zeros(len(combination), dtype=torch.float64)
        ascending = combination.index[:, 0] <= combination.index[:, 1]
        index = torch.where(ascending[:, None], combination.index, combination.index.flip(1))
        coefficient = torch.where(ascending[:, None], combination.coefficient, combination.coefficient.flip(1))
        home = index // self.block
        for start, left in self.blocks():
            of_left = home[:, 0] == start // self.block
            for block in torch.unique(home[of_left, 1]).tolist():
                first = block * self.block
                right = left if first == start else self.take(self._range(first))
                mine = (of_left & (home[:, 1] == block)).nonzero()[:, 0]
                local = Combination(index[mine] - torch.tensor([start, first]), coefficient[mine])
                result[mine] = pair_norms(left, right, local)
                del right  # before the next block is computed: the plan counts two
            del left
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
