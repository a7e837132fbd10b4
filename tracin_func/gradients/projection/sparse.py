"""Sparse projection (SJLT): every coordinate is added to, or subtracted from, one of k dimensions.

Coordinates come in blocks of k, and a random rotation maps a block to the k dimensions: within a block no two share a
dimension, and two of different blocks do with probability 1/k. With independent signs

    Var⟨Πx, Πy⟩ = (‖x‖²‖y‖² + ⟨x, y⟩² − Σ_b (‖x_b‖²‖y_b‖² + ⟨x_b, y_b⟩²)) / k

over the blocks b, which is no more than that of independent places (Kane and Nelson, JACM 2014, with one non-zero per
column; Charikar, Chen and Farach-Colton 2002). One pass over the gradient, P multiply-adds per unit: a rotated block is
two runs of neighbours, so that nothing is scattered.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tracin_func.gradients.factors import Contribution, flat
from tracin_func.gradients.projection.layout import Shapes
from tracin_func.gradients.projection.random import generator, signs


@dataclass(frozen=True)
class SparseProjector:
    """Rows [units, k] from gradients by parameter; see `DenseProjector` for the arguments."""

    shapes: Shapes
    width: int
    seed: int
    checkpoint: str
    _drawn: dict[str, tuple[Tensor, list[int]]] = field(
        default_factory=dict
    )  # by parameter: signs, rotations of blocks
    gathered = False
    halves = None

    def place(self, name: str) -> slice:
        return slice(0, self.width)

    def sketch(self, name: str, part: Contribution) -> Tensor:
        rows = flat(part)
        sign, rotations = self._random(name, rows)
        result = rows.new_zeros(len(rows), self.width)
        for block, rotation in enumerate(rotations):
            start = block * self.width
            size = min(self.width, rows.shape[1] - start)
            turn = min(size, self.width - rotation)  # coordinates before the end of the row
            for low, high, at in ((0, turn, rotation), (turn, size, 0)):
                if low < high:
                    run = slice(start + low, start + high)
                    result[:, at : at + high - low].addcmul_(rows[:, run], sign[run])
        return result

    def form(self, name: str) -> tuple[str, float]:
        size = self.shapes[name].numel()
        return f"{size:,} → {self.width}, all parameters into the same", float(size)

    def _random(self, name: str, rows: Tensor) -> tuple[Tensor, list[int]]:
        if name not in self._drawn:
            size = rows.shape[1]
            draw = generator(self.seed, "sjlt", name, self.checkpoint)
            sign = signs((size,), draw, rows.dtype)
            blocks = -(-size // self.width)
            rotations = torch.randint(self.width, (blocks,), generator=draw).tolist()
            self._drawn[name] = sign.to(rows.device), rotations
        return self._drawn[name]
