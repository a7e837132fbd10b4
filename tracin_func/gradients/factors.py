"""Gradients as sums of outer products D_iᵀ A_i = Σ_τ D_iτᵀ A_iτ, and their inner products without forming them.

    ⟨D_iᵀ A_i, D_jᵀ A_j⟩ = Σ_τσ (D_iτ·D_jσ)(A_iτ·A_jσ)

A combination u g_a + v g_b is two such sums that subtract before anything is rounded,

    u (D_a − D_b)ᵀ A_a + D_bᵀ (u (A_a − A_b) + (u + v) A_b).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from einops import einsum, rearrange
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.products import GRAM_ADVANTAGE, TINY, wide_type

CANCELLED_WIDE = 1e-6  # below this share of its terms, rounding in float64 shows in a norm beyond 1e-10
OPPOSED = 1e-7  # below this share of their bound, rounding in float32 shows in built differences
CANCELLED_FACTORS = 0.3  # below this share of its terms, rounding of float32 products of factors shows beyond 1e-5
RUN = 1 << 21  # numbers of factors or of kernel entries that are worked on at a time


@dataclass(frozen=True)
class Factors:
    """Gradients D_iᵀ A_i of a matrix: `rows` D [units, positions, d_out], `columns` A [units, positions, d_in].

    `opposed`: the second half of the positions is another item's, with the opposite sign.
    """

    rows: Tensor
    columns: Tensor
    opposed: bool = False

    @property
    def positions(self) -> int:
        """τ = 1, ..., positions."""
        return self.rows.shape[1]

    def dense(self) -> Tensor:
        """The gradients themselves, [units, d_out, d_in]; T·d_in·d_out multiply-adds a unit."""
        result = torch.bmm(self.rows.transpose(1, 2), self.columns)
        if self.opposed and not result.is_meta:
            largest = _squares(self.rows) * _squares(self.columns)  # Cauchy and Schwarz's bound of the square
            cancelled = (_squares(result) <= OPPOSED * largest).nonzero()[:, 0]
            if len(cancelled):
                result[cancelled] = self.select(cancelled)._aligned().dense()
        return result

    def products(self, other: "Factors") -> Tensor:
        """⟨g_i, g_j⟩, [units, units of other]; T²(d_in + d_out) multiply-adds an entry."""
        rows = self.rows.flatten(0, 1) @ other.rows.flatten(0, 1).T
        columns = self.columns.flatten(0, 1) @ other.columns.flatten(0, 1).T
        by_unit = rearrange(rows * columns, "(i t) (j s) -> i j (t s)", t=self.positions, s=other.positions)
        return by_unit.sum(dim=-1)

    def matched(self, other: "Factors") -> Tensor:
        """⟨g_i, g_i of other⟩, float64 [units]."""
        if self.positions == other.positions == 1:
            # One product of two numbers, each of which float32 may hold where it does not hold the product.
            of_rows: Tensor = torch.linalg.vecdot(self.rows[:, 0], other.rows[:, 0])
            of_columns: Tensor = torch.linalg.vecdot(self.columns[:, 0], other.columns[:, 0])
            return of_rows.to("cpu", torch.float64) * of_columns.to("cpu", torch.float64)
        rows = torch.bmm(self.rows, other.rows.transpose(1, 2))
        columns = torch.bmm(self.columns, other.columns.transpose(1, 2))
        return einsum(rows, columns, "units t s, units t s -> units").to("cpu", torch.float64)

    def to(self, dtype: torch.dtype) -> "Factors":
        """The same in another type."""
        return replace(self, rows=self.rows.to(dtype), columns=self.columns.to(dtype))

    def only(self, unit: int) -> "Factors":
        """One unit."""
        return replace(self, rows=self.rows[unit : unit + 1], columns=self.columns[unit : unit + 1])

    def fitting(self, partners: int = 1) -> int:
        """How many units, each with so many partners, may be worked on together."""
        own = self.positions * (self.rows.shape[-1] + self.columns.shape[-1])
        return max(1, RUN // max(own, partners * self.positions**2))

    def select(self, index: Tensor | slice) -> "Factors":
        """The units at `index`."""
        return replace(self, rows=self.rows[index], columns=self.columns[index])

    def join(self, other: "Factors") -> "Factors":
        """The sum g_i + g_i of other: the positions of both."""
        rows = torch.cat([self.rows, other.rows], dim=1)
        return Factors(rows, torch.cat([self.columns, other.columns], dim=1))

    def paired(self) -> "Factors":
        """Sums of neighbouring units, g_0 + g_1, g_2 + g_3, ...: [units / 2, 2 · positions].

        The second of two comes with the opposite sign: the objective is a difference.
        """
        both = Factors(self.rows.unflatten(0, (-1, 2)).flatten(1, 2), self.columns.unflatten(0, (-1, 2)).flatten(1, 2))
        return replace(both, opposed=True)

    def _aligned(self) -> "Factors":
        """D_0ᵀ A_0 + D_1ᵀ A_1 as (D_0 + D_1)ᵀ A_0 + D_1ᵀ (A_1 − A_0): equal halves cancel before the product."""
        (d_0, d_1), (a_0, a_1) = self.rows.chunk(2, dim=1), self.columns.chunk(2, dim=1)
        return Factors(torch.cat([d_0 + d_1, d_1], dim=1), torch.cat([a_0, a_1 - a_0], dim=1))


@dataclass(frozen=True)
class Lookup:
    """Gradients of a table of `size` rows, of which row x_τ receives D_iτ: a one-hot factor x and `rows` D.

    index: int64 [units, positions]; rows: [units, positions, d_out].
    """

    index: Tensor
    rows: Tensor
    size: int

    def dense(self) -> Tensor:
        """The gradients themselves, [units, size, d_out]."""
        result = self.rows.new_zeros(len(self.index), self.size, self.rows.shape[-1])
        return result.scatter_add_(1, self.index[..., None].expand_as(self.rows), self.rows)

    def to(self, dtype: torch.dtype) -> "Lookup":
        """The same in another type."""
        return replace(self, rows=self.rows.to(dtype))

    def only(self, unit: int) -> "Lookup":
        """One unit."""
        return replace(self, index=self.index[unit : unit + 1], rows=self.rows[unit : unit + 1])

    def norms(self) -> Tensor:
        """‖g_i‖² = Σ_τσ [x_τ = x_σ] D_τ·D_σ, [units]."""
        same = self.index[:, :, None] == self.index[:, None, :]
        norms: Tensor = (torch.bmm(self.rows, self.rows.transpose(1, 2)) * same).sum(dim=(1, 2))
        return norms

    def dotted(self, table: Tensor) -> Tensor:
        """⟨g_i, table_r⟩ with tables [few, size, d_out], [units, few]."""
        return torch.stack([(self.rows * one[self.index]).sum(dim=(1, 2)) for one in table], dim=1)

    def join(self, other: "Lookup") -> "Lookup":
        """The sum g_i + g_i of other: the positions of both."""
        return Lookup(torch.cat([self.index, other.index], 1), torch.cat([self.rows, other.rows], 1), self.size)

    def paired(self) -> "Lookup":
        """Sums of neighbouring units, the second of which comes with the opposite sign."""
        index = self.index.unflatten(0, (-1, 2)).flatten(1, 2)
        return Lookup(index, self.rows.unflatten(0, (-1, 2)).flatten(1, 2), self.size)


Contribution = Tensor | Factors | Lookup  # of one parameter: [units, *shape], or factors of it


def dense(contribution: Contribution) -> Tensor:
    """The gradients of all units, [units, *shape]."""
    return contribution if isinstance(contribution, Tensor) else contribution.dense()


def flat(contribution: Contribution) -> Tensor:
    """The same as rows, [units, numbers of the parameter]; a scalar has one."""
    built = dense(contribution)
    return built.reshape(len(built), -1)


def scaled(parts: Mapping[str, Contribution], scale: Mapping[str, Tensor]) -> dict[str, Contribution]:
    """`parts` by parameter, built and multiplied entry by entry where there is a scale: factors have no such form."""
    return {name: dense(part) * scale[name] if name in scale else part for name, part in parts.items()}


def keeps_factors(positions: int, d_out: int, d_in: int, entries: float) -> bool:
    """Whether `entries` kernel entries a unit cost less from factors than from the built gradient."""
    return factor_operations(positions, d_out, d_in, entries) < built_operations(positions, d_out, d_in, entries)


def kernel_entries(units: int, combinations: int | None) -> float:
    """Kernel entries a unit for norms of so many combinations of two: with all, or where pairs are few, with these."""
    if combinations is None or are_dense(units, combinations):
        return units
    return 1 + combinations / units


def are_dense(units: int, combinations: int) -> bool:
    """Whether a product of all units with all costs less than those of the pairs alone."""
    return units**2 <= GRAM_ADVANTAGE * combinations


def factor_operations(positions: int, d_out: int, d_in: int, entries: float) -> float:
    """Multiply-adds a unit for `entries` kernel entries from factors."""
    return entries * positions**2 * (d_out + d_in)


def built_operations(positions: int, d_out: int, d_in: int, entries: float) -> float:
    """Multiply-adds a unit for `entries` kernel entries, the gradient being built first."""
    return (positions + entries) * d_out * d_in


def _squares(part: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.vector_norm(part.flatten(1), dim=1) ** 2
    return squares


@dataclass(frozen=True, eq=False)
class FactorGradients:
    """Gradients of one matrix parameter as factors of all units, metric applied.

    `locate` names a unit's gradient of this parameter, for errors.
    """

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
        """‖Σ_j c_j g_j‖², float64 [n]: by the kernel of all units where pairs are dense in them, else pair by pair."""
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
            doubtful = (result <= CANCELLED_WIDE * terms) & (terms > 0)
        else:
            large = (own[first] > TINY) & (own[second] > TINY)
            doubtful = ~((result > CANCELLED_FACTORS * terms) & large & result.isfinite()) & (terms > 0)
        again = doubtful.nonzero()[:, 0]
        if len(again):
            result[again] = _direct_norms(self.factors, combination.select(again))
        return result

    def _working(self) -> Factors:
        """In float64 where products of several positions may cancel each other; as they are where there is one."""
        return self.factors if self.factors.positions == 1 else self.factors.to(wide_type(self.factors.rows))

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


def _pair_products(factors: Factors, first: Tensor, second: Tensor) -> Tensor:
    """⟨g_first, g_second⟩, float64 [n], of these pairs alone."""
    parts = [
        factors.select(first[chosen]).matched(factors.select(second[chosen]))
        for chosen in torch.arange(len(first)).split(factors.fitting())
    ]
    return torch.cat(parts)


def _kernel_entries(factors: Factors, first: Tensor, second: Tensor) -> Tensor:
    """The same, from the products of a block of units with all."""
    result = torch.empty(len(first), dtype=torch.float64)
    for block in torch.arange(len(factors.rows)).split(factors.fitting(len(factors.rows))):
        start, stop = int(block[0]), int(block[-1]) + 1
        mine = ((first >= start) & (first < stop)).nonzero()[:, 0]
        products = factors.select(slice(start, stop)).products(factors).to("cpu", torch.float64)
        result[mine] = products[first[mine] - start, second[mine]]
    return result


def _direct_norms(factors: Factors, combination: Combination) -> Tensor:
    """‖Σ_j c_j g_j‖², float64 [n], subtracting before anything is rounded."""
    factors = factors.to(wide_type(factors.rows))
    result = torch.zeros(len(combination), dtype=torch.float64)
    for chosen in torch.arange(len(combination)).split(factors.fitting()):
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
