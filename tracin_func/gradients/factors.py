"""Gradients as sums of outer products D_iᵀ A_i = Σ_τ D_iτᵀ A_iτ, and their dot products without building them.

    ⟨D_iᵀ A_i, D_jᵀ A_j⟩ = Σ_τσ (D_iτ·D_jσ)(A_iτ·A_jσ)

A combination u g_a + v g_b is two such sums that subtract before anything is rounded,

    u (D_a − D_b)ᵀ A_a + D_bᵀ (u (A_a − A_b) + (u + v) A_b).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from einops import einsum, rearrange
from torch import Tensor

OPPOSED = 1e-7  # below this share of their bound, rounding in float32 shows in built differences
FACTOR_RUN = 1 << 21  # elements of factors or kernel entries computed at a time


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
        return self.rows.shape[1]

    def dense(self) -> Tensor:
        """The gradients themselves, [units, d_out, d_in]; T·d_in·d_out multiply-adds per unit."""
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
            # A product of two numbers in float64, since float32 may underflow or overflow.
            of_rows: Tensor = torch.linalg.vecdot(self.rows[:, 0], other.rows[:, 0])
            of_columns: Tensor = torch.linalg.vecdot(self.columns[:, 0], other.columns[:, 0])
            return of_rows.to("cpu", torch.float64) * of_columns.to("cpu", torch.float64)
        rows = torch.bmm(self.rows, other.rows.transpose(1, 2))
        columns = torch.bmm(self.columns, other.columns.transpose(1, 2))
        return einsum(rows, columns, "units t s, units t s -> units").to("cpu", torch.float64)

    def to(self, dtype: torch.dtype) -> "Factors":
        return replace(self, rows=self.rows.to(dtype), columns=self.columns.to(dtype))

    def fitting(self, partners: int = 1) -> int:
        """Number of units, each with `partners` others, to compute together."""
        own = self.positions * (self.rows.shape[-1] + self.columns.shape[-1])
        return max(1, FACTOR_RUN // max(own, partners * self.positions**2))

    def select(self, index: Tensor | slice) -> "Factors":
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
        result = self.rows.new_zeros(len(self.index), self.size, self.rows.shape[-1])
        return result.scatter_add_(1, self.index[..., None].expand_as(self.rows), self.rows)

    def to(self, dtype: torch.dtype) -> "Lookup":
        return replace(self, rows=self.rows.to(dtype))

    def select(self, index: Tensor | slice) -> "Lookup":
        return replace(self, index=self.index[index], rows=self.rows[index])

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
    """The same as rows, [units, elements of the parameter]; a scalar has one."""
    built = dense(contribution)
    return built.reshape(len(built), -1)


def grouped(part: Contribution, size: int) -> Contribution:
    """The sums over every `size` neighbouring units, [units / size]."""
    if isinstance(part, Tensor):
        summed: Tensor = part.unflatten(0, (-1, size)).sum(dim=1)
        return summed
    rows = part.rows.unflatten(0, (-1, size)).flatten(1, 2)
    if isinstance(part, Lookup):
        return replace(part, index=part.index.unflatten(0, (-1, size)).flatten(1, 2), rows=rows)
    return replace(part, rows=rows, columns=part.columns.unflatten(0, (-1, size)).flatten(1, 2))


def joined(left: Contribution, right: Contribution) -> Contribution:
    """The sum of two, of the same units."""
    if isinstance(left, Factors) and isinstance(right, Factors):
        return left.join(right)
    if isinstance(left, Lookup) and isinstance(right, Lookup):
        return left.join(right)
    built = dense(left)
    return built + dense(right).reshape(built.shape)  # factors of a filter are those of a matrix


def scaled(parts: Mapping[str, Contribution], scale: Mapping[str, Tensor]) -> dict[str, Contribution]:
    """`parts` by parameter, built and multiplied entry by entry if there is a scale: factors have no such form."""
    return {name: dense(part) * scale[name] if name in scale else part for name, part in parts.items()}


def _squares(part: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.vector_norm(part.flatten(1), dim=1) ** 2
    return squares
