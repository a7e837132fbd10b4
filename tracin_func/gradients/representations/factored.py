"""Gradients of all units held as factors: dot products and norms, and their cost."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.gradients.device import wide_type
from tracin_func.gradients.factors import Factors
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.products import GRAM_ADVANTAGE, TINY

CANCELLED_FACTORS_WIDE = 1e-6  # below this share of its terms, rounding in float64 shows in a norm beyond 1e-10
GATHERED_PAIRS = 1 << 19  # elements of factors gathered at a time for pairs
KERNEL_BLOCKS = 4  # in which a symmetric kernel is computed, 10 of 16 products of two blocks
CANCELLED_FACTORS = 0.3  # below this share of its terms, rounding of float32 products of factors shows beyond 1e-5


@dataclass(frozen=True, eq=False)
class FactorGradients:
    """Gradients of one matrix parameter as factors of all units, metric applied; `locate` names one in errors."""

    factors: Factors
    locate: Callable[[int], str]

    def products(self, right: Combination) -> Tensor:
        """⟨g_i, right_j⟩, float64 [units, right]; T²(d_in + d_out) multiply-adds for each of 2 · units · right."""
        self._require_finite()
        factors = self.factors.to(wide_type(self.factors.rows))
        result = torch.zeros(len(factors.rows), len(right), dtype=torch.float64)
        for chosen in torch.arange(len(right)).split(factors.fitting(2 * len(factors.rows))):
            for theirs in _outer(factors, right.select(chosen)):
                result[:, chosen] += factors.products(theirs).to("cpu", torch.float64)
        return result

    def squared_norm(self, combination: Combination) -> Tensor:
        """‖Σ_j c_j g_j‖², float64 [n]: by the kernel of all units if pairs are dense in them, else pair by pair."""
        index, c = combination.index.cpu(), combination.coefficient.to("cpu", torch.float64)
        first, own = index[:, 0], self._norms
        self._require_finite()
        if index.shape[1] == 1:
            return c[:, 0] ** 2 * own[first]
        second, factors = index[:, 1], self._working()
        if are_dense(len(factors.rows), len(index)):
            cross = _kernel_entries(factors, first, second)
        else:
            cross = _pair_products(factors, first, second)
        terms = c[:, 0] ** 2 * own[first] + c[:, 1] ** 2 * own[second]
        result = terms + 2 * c[:, 0] * c[:, 1] * cross
        if factors.rows.dtype == wide_type(factors.rows):
            doubtful = (result <= CANCELLED_FACTORS_WIDE * terms) & (terms > 0)
        else:
            large = (own[first] > TINY) & (own[second] > TINY)
            doubtful = ~((result > CANCELLED_FACTORS * terms) & large & result.isfinite()) & (terms > 0)
        again = doubtful.nonzero()[:, 0]
        if len(again):
            result[again] = _direct_norms(self.factors, combination.select(again))
        return result

    def _working(self) -> Factors:
        """In float64 where that is cheap, or if products of several positions may cancel each other."""
        if self.factors.positions == 1 and self.factors.rows.device.type != "cpu":
            return self.factors
        return self.factors.to(wide_type(self.factors.rows))

    @cached_property
    def _norms(self) -> Tensor:
        factors = self._working()
        norms = factors.matched(factors).clamp(min=0)
        narrow = (~((norms > TINY) & norms.isfinite())).nonzero()[:, 0]
        if len(narrow):
            wide = self.factors.select(narrow).to(wide_type(factors.rows))
            norms[narrow] = wide.matched(wide).clamp(min=0)
        return norms

    def _require_finite(self) -> None:
        for unit in (~self._norms.isfinite()).nonzero()[:, 0].tolist():
            if not bool(self.factors.rows[unit].isfinite().all() & self.factors.columns[unit].isfinite().all()):
                raise NumericalError(f"the gradient of {self.locate(unit)} is NaN or infinite.")


def keeps_factors(positions: int, d_out: int, d_in: int, entries: float) -> bool:
    """Whether `entries` Gram entries per unit cost less from factors than from the built gradient."""
    return factor_operations(positions, d_out, d_in, entries) < built_operations(positions, d_out, d_in, entries)


def kernel_entries(units: int, combinations: int | None) -> float:
    """Gram entries per unit for norms of `combinations` pairs: all of them if pairs are dense, else one per pair."""
    if combinations is None or are_dense(units, combinations):
        return units
    return 1 + combinations / units


def are_dense(units: int, combinations: int) -> bool:
    """Whether a product of all units with all costs less than products of the pairs alone."""
    return units**2 <= GRAM_ADVANTAGE * combinations


def factor_operations(positions: int, d_out: int, d_in: int, entries: float) -> float:
    """Multiply-adds per unit for `entries` Gram entries from factors."""
    return entries * positions**2 * (d_out + d_in)


def built_operations(positions: int, d_out: int, d_in: int, entries: float) -> float:
    """Multiply-adds per unit for `entries` Gram entries of the built gradient."""
    return (positions + entries) * d_out * d_in


def _pair_products(factors: Factors, first: Tensor, second: Tensor) -> Tensor:
    """⟨g_first, g_second⟩, float64 [n], of these pairs alone, in the order of their first units."""
    result = torch.empty(len(first), dtype=torch.float64)
    for chosen in torch.argsort(first, stable=True).split(_pairs_together(factors)):
        result[chosen] = factors.select(first[chosen]).matched(factors.select(second[chosen]))
    return result


def _pairs_together(factors: Factors) -> int:
    """The number of pairs whose factors are gathered at a time, so that they stay in cache."""
    numbers = factors.positions * (factors.rows.shape[-1] + factors.columns.shape[-1])
    return min(factors.fitting(), max(1, GATHERED_PAIRS // numbers))


def _kernel_entries(factors: Factors, first: Tensor, second: Tensor) -> Tensor:
    """The same, from products of blocks of units with these and later ones: the kernel is symmetric."""
    result, units = torch.empty(len(first), dtype=torch.float64), len(factors.rows)
    sooner, later = torch.minimum(first, second), torch.maximum(first, second)
    for block in torch.arange(units).split(min(factors.fitting(units), -(-units // KERNEL_BLOCKS))):
        start, stop = int(block[0]), int(block[-1]) + 1
        mine = ((sooner >= start) & (sooner < stop)).nonzero()[:, 0]
        others = factors.select(slice(start, None))
        products = factors.select(slice(start, stop)).products(others).to("cpu", torch.float64)
        result[mine] = products[sooner[mine] - start, later[mine] - start]
    return result


def _direct_norms(factors: Factors, combination: Combination) -> Tensor:
    """‖Σ_j c_j g_j‖², float64 [n], subtracting before anything is rounded."""
    factors = factors.to(wide_type(factors.rows))
    result = torch.zeros(len(combination), dtype=torch.float64)
    for chosen in torch.arange(len(combination)).split(_pairs_together(factors)):
        parts = _outer(factors, combination.select(chosen))
        norms = torch.stack([left.matched(right) for left in parts for right in parts]).sum(dim=0)
        result[chosen] = norms.clamp(min=0)
    return result


def _outer(factors: Factors, combination: Combination) -> list[Factors]:
    """The combinations as sums of outer products."""
    index = combination.index.to(factors.rows.device)
    c = combination.coefficient.to(factors.rows.device, factors.rows.dtype)[..., None, None]
    a = factors.select(index[:, 0])
    if index.shape[1] == 1:
        return [Factors(c[:, 0] * a.rows, a.columns)]
    u, v, b = c[:, 0], c[:, 1], factors.select(index[:, 1])
    second = u * (a.columns - b.columns) + (u + v) * b.columns
    return [Factors(u * (a.rows - b.rows), a.columns), Factors(b.rows, second)]
