"""Two-sided projection of matrices, from their factors: S = R_outᵀ (Dᵀ A) R_in = (D R_out)ᵀ (A R_in).

The form of LoGra (arXiv 2405.13954), with sides that are independent of each other and columns that are orthogonal:
R = √(d/k) U with U uniform on the d × k matrices with UᵀU = 1, so that the error vanishes as k comes near d. For X and
Y [d_out, d_in] and with E[P_ab P_cd] = α δ_ab δ_cd + β (δ_ac δ_bd + δ_ad δ_bc), P = R Rᵀ,

    E⟨S_X, S_Y⟩² = α_o α_i ⟨X, Y⟩² + α_o β_i (‖XᵀY‖² + tr (XᵀY)²) + β_o α_i (‖XYᵀ‖² + tr (XYᵀ)²)
                   + β_o β_i (‖X‖²‖Y‖² + ⟨X, Y⟩² + ⟨XᵀX, YᵀY⟩ + ⟨XXᵀ, YYᵀ⟩)

    A = (k²(d+1) − 2k) / (d (d+2)(d−1)),   B = (k/d − A)/(d+1),   α = A d²/k²,   β = B d²/k²   (α = 1, β = 0 at k = d)

Every matrix has two independent halves: their mean is the product of two rows, their difference gives the error. The
bias of a layer is one more input column, of ones. A matrix used at T positions costs 2k (T(d_out + d_in) + ...)
multiply-adds per unit, with the k of the side that is projected first. No gradient is built if that costs more.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.gradients.factors import Contribution, Factors, Lookup, dense, flat
from tracin_func.gradients.projection.layout import Block, Shapes, blocks, row_width, widest_side
from tracin_func.gradients.projection.random import generator, orthonormal
from tracin_func.gradients.projection.sparse import SparseProjector


@dataclass(frozen=True, eq=False)
class Sides:
    """R_out [d_out, 2, k_out] and R_in [d_in, 2, k_in] of both halves; None: that side is not projected."""

    out: Tensor | None
    into: Tensor | None


class KroneckerProjector:
    """Rows [units, at most `width`] from gradients by parameter, a block for each matrix; see `DenseProjector`.

    `side` is the size of the sides of every matrix; the largest that `width` allows when None.
    """

    gathered = False

    def __init__(self, shapes: Shapes, width: int, seed: int, checkpoint: str, side: int | None = None) -> None:
        self._shapes = shapes
        self._seed = seed
        self._checkpoint = checkpoint
        row = blocks(shapes, side or widest_side(shapes, width))
        self.width = row_width(row)
        self._blocks = {block.weight: block for block in row} | {b.bias: b for b in row if b.bias is not None}
        self.halves = tuple(block.halves for block in row if not block.exact)
        self._sides: dict[str, Sides] = {}
        long = [b for b in row if b.d_out == 1 and not b.exact]
        self._vectors = {
            b.weight: [SparseProjector(shapes, b.k_in, seed, f"{checkpoint}\0{half}") for half in range(2)]
            for b in long
        }

    def place(self, name: str) -> slice:
        block = self._blocks[name]
        if not block.exact or block.bias is None:
            return slice(block.offset, block.offset + block.width)
        middle = block.offset + block.d_out * (block.d_in - 1)
        return slice(middle, middle + block.d_out) if name == block.bias else slice(block.offset, middle)

    def sketch(self, name: str, part: Contribution) -> Tensor:
        block = self._blocks[name]
        if block.exact:
            return flat(part)
        if block.weight in self._vectors:
            halves = torch.stack([each.sketch(name, part) for each in self._vectors[block.weight]], dim=1)
        elif name == block.bias:
            halves = _of_bias(dense(part), self._random(block, _example(part)))
        else:
            sides = self._random(block, _example(part))
            halves = _of_matrix(part, sides.out, sides.into if sides.into is None else sides.into[: _columns(part)])
        return halves.mul_(2**-0.5).flatten(1)

    def form(self, name: str) -> tuple[str, float]:
        block = self._blocks[name]
        size = self._shapes[name].numel()
        if block.exact:
            return "kept as it is", float(size)
        words = f"{block.d_out} × {block.d_in} → two halves of {block.k_out} × {block.k_in}"
        return words, float(2 * block.k_in * (size + block.d_out * block.k_out))

    def _random(self, block: Block, example: Tensor) -> Sides:
        if block.weight not in self._sides:
            out = self._side(block, "out", block.d_out, block.k_out, example)
            self._sides[block.weight] = Sides(out, self._side(block, "in", block.d_in, block.k_in, example))
        return self._sides[block.weight]

    def _side(self, block: Block, side: str, size: int, columns: int, example: Tensor) -> Tensor | None:
        if columns < size:
            names = self._seed, "kronecker", block.weight, side, self._checkpoint
            halves = [orthonormal(size, columns, generator(*names, half)) for half in range(2)]
        elif side == "in" and block.bias is not None:  # for the column of the bias
            halves = [torch.eye(size)] * 2
        else:
            return None
        return torch.stack(halves, dim=1).to(example)


def _of_matrix(part: Contribution, out: Tensor | None, into: Tensor | None) -> Tensor:
    """R_outᵀ G R_in of both halves, [units, 2, k_out, k_in], in the order with the fewest multiply-adds."""
    if isinstance(part, Lookup) and out is not None:
        return _then_into(torch.bmm(out[part.index].flatten(2).transpose(1, 2), part.rows), out, into)
    if isinstance(part, Factors):
        way = _cheapest(part, out, into)
        if way == "out" and out is not None:
            return _then_into(torch.bmm((part.rows @ out.flatten(1)).transpose(1, 2), part.columns), out, into)
        if way == "into" and into is not None:
            return _then_out(torch.bmm(part.rows.transpose(1, 2), part.columns @ into.flatten(1)), out, into)
    built = dense(part).flatten(2)
    if into is not None:
        return _then_out(built @ into.flatten(1), out, into)
    assert out is not None  # else the block is exact
    return _then_into(out.flatten(1).T @ built, out, into)


def _then_into(projected: Tensor, out: Tensor, into: Tensor | None) -> Tensor:
    """Project the input side after the output side, `projected` [units, 2 · k_out, d_in]."""
    halves = projected.unflatten(1, out.shape[1:])
    return halves if into is None else torch.matmul(halves, into.transpose(0, 1))


def _then_out(projected: Tensor, out: Tensor | None, into: Tensor) -> Tensor:
    """Project the output side after the input side, `projected` [units, d_out, 2 · k_in]."""
    halves = projected.unflatten(2, into.shape[1:]).transpose(1, 2)
    return halves.contiguous() if out is None else torch.matmul(out.permute(1, 2, 0), halves)


def _cheapest(part: Factors, out: Tensor | None, into: Tensor | None) -> str:
    """Whether to project the output or input side of factors before multiplying them, or their product: `built`."""
    positions, d_out, d_in = part.positions, part.rows.shape[-1], part.columns.shape[-1]
    k_out = d_out if out is None else out.shape[-1]
    k_in = d_in if into is None else into.shape[-1]
    ways = {"built": positions * d_out * d_in + 2 * d_out * k_in * (d_in + k_out)}
    if out is not None:
        ways["out"] = 2 * k_out * (positions * (d_out + d_in) + d_in * k_in)
    if into is not None:
        ways["into"] = 2 * k_in * (positions * (d_in + d_out) + d_out * k_out)
    return min(ways, key=lambda way: ways[way])


def _of_bias(gradient: Tensor, sides: Sides) -> Tensor:
    """The projection of a bias [units, d_out], the last input column: R_outᵀ b ⊗ the last row of R_in."""
    assert sides.into is not None
    rows = gradient[:, None].expand(-1, 2, -1)
    if sides.out is not None:
        rows = torch.einsum("ud,dhk->uhk", gradient, sides.out)
    return rows[..., None] * sides.into[-1][:, None, :]


def _columns(part: Contribution) -> int:
    """d_in of a matrix, its bias not counted."""
    if isinstance(part, Factors):
        return part.columns.shape[-1]
    return part.rows.shape[-1] if isinstance(part, Lookup) else part[0, 0].numel()


def _example(part: Contribution) -> Tensor:
    return part if isinstance(part, Tensor) else part.rows
