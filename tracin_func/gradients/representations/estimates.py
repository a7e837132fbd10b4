"""Projected gradients of one checkpoint: estimates of inner products, and how far off these may be."""

import torch
from torch import Tensor

from tracin_func.gradients.projection.projector import Projector
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.products import DIRECT, combine, inner, row_norms
from tracin_func.gradients.representations.rows import Rows

TOGETHER = 1 << 24  # products of halves held at a time


class ProjectedGradients:
    """Rows Π g_i, whose inner products are those of the g_i on average over projections.

    Args:
        rows: Π g_i of all units.
        projector: Π.
    """

    def __init__(self, rows: Rows, projector: Projector) -> None:
        self._rows = rows
        self._width = projector.width
        self._halves = projector.halves

    @property
    def values(self) -> Tensor:
        return self._rows.values

    def columns(self, right: Combination) -> Tensor:
        return self._rows.columns(right)

    def squared_norm(self, combination: Combination) -> Tensor:
        return self._rows.squared_norm(combination)

    def norm_variance(self, combination: Combination, found: Tensor) -> Tensor:
        """An estimate of the variance, over projections, of `found` [n], the squared norms of combinations; [n].

        2 ‖Πx‖⁴ / k, or from independent halves of every matrix: Σ (e₁ − e₂)²/4 over matrices, with the estimates e₁ and
        e₂ of each half.
        """
        if self._halves is None:
            return 2 * found**2 / self._width
        result = torch.zeros(len(combination), dtype=torch.float64)
        if not self._halves:
            return result
        index, coefficient = combination.index.cpu(), combination.coefficient.to("cpu", torch.float64)
        order = torch.argsort(index.min(dim=1).values, stable=True)
        for chosen in order.split(max(1, min(DIRECT, self._rows.block // 2))):
            rows = self._combined(Combination(index[chosen], coefficient[chosen])).square_()
            for first, second in self._halves:
                of_halves = rows[:, first].sum(dim=1) - rows[:, second].sum(dim=1)
                result[chosen] += of_halves.to("cpu", torch.float64) ** 2
        return result

    def product_variance(
        self, left: Combination, right: Combination, found: Tensor, shares: Tensor | None = None
    ) -> Tensor:
        """The same of `found` [n, m], the products of combinations `left` [n] and `right` [m]; [n, m].

        (‖Πx‖²‖Πy‖² + ⟨Πx, Πy⟩²) / k, or from the halves. With `shares` [m], of products [n, 1] with Σ_m share_m y_m.
        """
        basis = self._combined(right)
        if shares is not None:
            basis = shares.to(basis)[None, :] @ basis
        if self._halves is None:
            return (torch.outer(self.squared_norm(left), row_norms(basis)) + found**2) / self._width
        result = torch.zeros(len(left), len(basis), dtype=torch.float64)
        if not self._halves:
            return result
        step = max(1, TOGETHER // (len(self.values) * len(self._halves)))
        for chosen in torch.arange(len(basis)).split(step):
            of_units = self._differences(basis[chosen.to(basis.device)])
            for some in torch.arange(len(left)).split(max(1, TOGETHER // (len(chosen) * len(self._halves)))):
                part = left.select(some)
                of_pairs = torch.zeros(len(some), *of_units.shape[1:], dtype=torch.float64)
                for j in range(part.index.shape[1]):
                    of_pairs += part.coefficient[:, j, None, None].to(of_pairs) * of_units[part.index[:, j]]
                result[some[:, None], chosen] = of_pairs.square().sum(dim=1)
        return result

    def _differences(self, basis: Tensor) -> Tensor:
        """Of the products of units with `basis` [m, width], what the first half of each matrix gives less the second's,
        float64 [units, matrices, m]."""
        halves = self._halves or ()
        result = torch.zeros(len(self.values), len(halves), len(basis), dtype=torch.float64)
        for start, rows in self._rows.blocks():
            for position, both in enumerate(halves):
                first, second = (inner(rows[:, half], basis[:, half], torch.float64) for half in both)
                result[start : start + len(rows), position] = first - second
        return result

    def _combined(self, combination: Combination) -> Tensor:
        needed, local = torch.unique(combination.index.cpu(), return_inverse=True)
        rows = self._rows.take(needed)
        return combine(rows, rows, Combination(local, combination.coefficient))
