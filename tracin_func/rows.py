"""Gradient rows [units, params] and their inner products, in blocks that fit memory.

Products are summed in float64 over runs of columns; with N units, n combinations and P parameters,
`columns` costs N·n·P multiply-adds and `squared_norm` the smaller of N²·P (a Gram matrix) and 3·n·P.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.gradients import Combination

COLUMN_RUN = 8192  # columns a product takes at a time: a few hundred rows of them stay in cache
GRAM_ADVANTAGE = 16  # a Gram entry costs about 1/16 of a combination's pass over two rows
CANCELLED = 0.02  # below this share of its terms, a Gram entry's rounding shows in the norm


class Rows:
    """Gradients held as rows, or recomputed block by block where not all fit.

    Args:
        units: number of rows.
        fetch: (start, stop) -> (rows [stop − start, params], values [stop − start]).
        block: rows held at a time.
        values: the objective of every unit, or None to take it from the rows as they are fetched.
        locate: (unit, column) -> words naming both, for errors.

    Raises:
        NumericalError: a gradient is NaN or infinite; the message names unit and parameter.
    """

    def __init__(
        self,
        units: int,
        fetch: Callable[[int, int], tuple[Tensor, Tensor]],
        block: int,
        values: Callable[[], Tensor],
        locate: Callable[[int, int], str],
    ) -> None:
        self._units = units
        self._fetch = fetch
        self._block = max(1, min(block, units))
        self._locate = locate
        self._norms: dict[int, Tensor] = {}  # squared norms of the rows of each block seen, by its start
        self._held: tuple[Tensor, Tensor] | None = None
        if self._block >= units:
            self._held = fetch(0, units)
        self.values: Tensor = values() if self._held is None else self._held[1]

    def columns(self, right: Combination) -> Tensor:
        result = torch.zeros(self._units, len(right), dtype=torch.float64)
        for chosen in range(0, len(right), self._block):
            span = slice(chosen, chosen + self._block)
            combined = self._combine(right.select(span))
            for start, rows in self._blocks():
                result[start : start + len(rows), span] = inner(rows, combined, torch.float64).cpu()
        return result

    def squared_norm(self, combination: Combination) -> Tensor:
        index = combination.index.cpu()
        coefficient = combination.coefficient.to("cpu", torch.float64)
        if index.shape[1] == 1:
            return coefficient[:, 0] ** 2 * self._all_norms()[index[:, 0]]
        result = torch.zeros(len(index), dtype=torch.float64)
        home = index // self._block
        # Each unordered pair of blocks once; first and second may lie either way round.
        swap = home[:, 0] > home[:, 1]
        index = torch.where(swap[:, None], index.flip(1), index)
        coefficient = torch.where(swap[:, None], coefficient.flip(1), coefficient)
        home = index // self._block
        for left_block, (left_start, left) in enumerate(self._blocks()):
            for right_block in home[home[:, 0] == left_block, 1].unique().tolist():
                right_start = right_block * self._block
                right = left if right_block == left_block else self._rows_at(right_start)
                mine = ((home[:, 0] == left_block) & (home[:, 1] == right_block)).nonzero()[:, 0]
                local = index[mine] - torch.tensor([left_start, right_start])
                norms = self._norms[left_start][local[:, 0]], self._norms[right_start][local[:, 1]]
                result[mine] = pair_norms(left, right, Combination(local, coefficient[mine]), norms)
        return result

    def _combine(self, combination: Combination) -> Tensor:
        """The combinations as rows [n, params], subtracting before anything is rounded."""
        index = combination.index.cpu()
        needed, local = index.unique(return_inverse=True)
        gathered: Tensor | None = None
        for start, rows in self._blocks():
            inside = ((needed >= start) & (needed < start + len(rows))).nonzero()[:, 0]
            if gathered is None:
                gathered = rows.new_empty(len(needed), rows.shape[1])
            gathered[inside.to(rows.device)] = rows[(needed[inside] - start).to(rows.device)]
        assert gathered is not None
        return combine(gathered, gathered, Combination(local, combination.coefficient))

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, self._units, self._block):
            yield start, self._rows_at(start)

    def _rows_at(self, start: int) -> Tensor:
        # Norms are taken when rows are used: a score that is not finite should be told before its gradient.
        rows = self._fetch(start, min(start + self._block, self._units))[0] if self._held is None else self._held[0]
        self._learn_norms(start, rows)
        return rows

    def _all_norms(self) -> Tensor:
        for start in range(0, self._units, self._block):
            if start not in self._norms:
                self._rows_at(start)
        return torch.cat([self._norms[start] for start in range(0, self._units, self._block)])

    def _learn_norms(self, start: int, rows: Tensor) -> None:
        if start in self._norms or rows.is_meta:
            return
        norms = row_norms(rows)
        if not bool(norms.isfinite().all()):
            unit = int((~norms.isfinite()).nonzero()[0])
            column = int((~rows[unit].isfinite()).nonzero()[0]) if not bool(rows[unit].isfinite().all()) else 0
            raise NumericalError(f"the gradient of {self._locate(start + unit, column)} is NaN or infinite.")
        self._norms[start] = norms


def inner(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """⟨left_i, right_j⟩, float64 [left, right]: products of `dtype` within a run of columns, runs summed in float64."""
    wide = _wide(left)
    total = torch.zeros(len(left), len(right), dtype=wide, device=left.device)
    dtype = dtype if wide == torch.float64 else left.dtype
    for columns in _runs(left):
        a, b = left[:, columns].to(dtype), right[:, columns].to(dtype)
        total += (a @ b.T).to(wide)
    return total


def combine(first: Tensor, second: Tensor, combination: Combination) -> Tensor:
    """u first_i + v second_j as rows [n, params], written u (first − second) + (u + v) second: for losses of
    s_a − s_b, u + v = 0 and nearly equal rows subtract exactly."""
    index = combination.index.to(first.device)
    coefficient = combination.coefficient.to(first.device, first.dtype)
    if index.shape[1] == 1:
        return first[index[:, 0]] * coefficient
    base = second[index[:, 1]]
    rows = (first[index[:, 0]] - base).mul_(coefficient[:, :1])
    return rows.add_(base.mul_(coefficient.sum(dim=1, keepdim=True)))


def row_norms(rows: Tensor) -> Tensor:
    """Squared norms of rows, float64 [rows]."""
    total = torch.zeros(len(rows), dtype=_wide(rows), device=rows.device)
    for columns in _runs(rows):
        total += rows[:, columns].square().sum(dim=1, dtype=total.dtype)
    return total.to("cpu", torch.float64)


def pair_norms(left: Tensor, right: Tensor, combination: Combination, norms: tuple[Tensor, Tensor]) -> Tensor:
    """‖u left_i + v right_j‖², float64 [n], by a Gram matrix where pairs are dense in rows, else directly.

    A norm that is small beside its terms is computed again directly: u² K_aa + 2uv K_ab + v² K_bb in float32 is
    wrong by factors on nearly equal rows.
    """
    if len(left) * len(right) > GRAM_ADVANTAGE * len(combination):
        return _direct_norms(left, right, combination)
    index, coefficient = combination.index, combination.coefficient
    cross = inner(left, right, left.dtype).to("cpu", torch.float64)[index[:, 0], index[:, 1]]
    terms = coefficient[:, 0] ** 2 * norms[0] + coefficient[:, 1] ** 2 * norms[1]
    result = terms + 2 * coefficient[:, 0] * coefficient[:, 1] * cross
    doubtful = (result <= CANCELLED * terms).nonzero()[:, 0]
    if len(doubtful):
        result[doubtful] = _direct_norms(left, right, combination.select(doubtful))
    return result


def _direct_norms(left: Tensor, right: Tensor, combination: Combination) -> Tensor:
    total = torch.zeros(len(combination), dtype=torch.float64)
    most = 512  # combinations at a time: 512 × COLUMN_RUN floats are 16 MB
    for start in range(0, len(combination), most):
        part = combination.select(slice(start, start + most))
        for columns in _runs(left):
            total[start : start + most] += row_norms(combine(left[:, columns], right[:, columns], part))
    return total


def _runs(rows: Tensor) -> Iterator[slice]:
    for start in range(0, rows.shape[1], COLUMN_RUN):
        yield slice(start, start + COLUMN_RUN)


def _wide(rows: Tensor) -> torch.dtype:
    """float64, where the device has it (MPS does not)."""
    return torch.float32 if rows.device.type == "mps" else torch.float64
