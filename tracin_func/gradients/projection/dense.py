"""Dense projections: every coordinate times k independent values, ±1/√k (Rademacher) or normal with deviation 1/√k.

    Var⟨Πx, Πy⟩ = (‖x‖²‖y‖² + ⟨x, y⟩² − c Σ_i x_i² y_i²) / k,   c = 2 for Rademacher, 0 for Gaussian

(Achlioptas, JCSS 2003). P·k multiply-adds per unit, and P·k values drawn for all units that are projected together:
the slow and simple way, the reference for the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.gradients.factors import Contribution, flat
from tracin_func.gradients.projection.layout import Shapes
from tracin_func.gradients.projection.random import generator, signs

DRAWN_TOGETHER = 1 << 22  # values drawn at a time; they stay in cache until they are used


@dataclass(frozen=True)
class DenseProjector:
    """Rows [units, k] from gradients by parameter, all of which add up in the same k dimensions.

    Args:
        kind: `rademacher` or `gaussian`.
        shapes: of the parameters by name.
        width: k.
        seed, checkpoint: random values depend on these and on a parameter's name.
    """

    kind: str
    shapes: Shapes
    width: int
    seed: int
    checkpoint: str
    gathered = True  # drawn values should serve many units
    halves = None

    def place(self, name: str) -> slice:
        return slice(0, self.width)

    def sketch(self, name: str, part: Contribution) -> Tensor:
        rows = flat(part)
        result = rows.new_zeros(len(rows), self.width)
        step = max(1, DRAWN_TOGETHER // self.width)
        for block, columns in enumerate(rows.split(step, dim=1)):
            draw = generator(self.seed, self.kind, name, self.checkpoint, block)
            shape = columns.shape[1], self.width
            by_signs = self.kind == "rademacher"
            matrix = signs(shape, draw, rows.dtype) if by_signs else torch.randn(shape, generator=draw)
            result.addmm_(columns, matrix.to(rows), alpha=self.width**-0.5)
        return result

    def form(self, name: str) -> tuple[str, float]:
        size = self.shapes[name].numel()
        return f"{size:,} → {self.width}, all parameters into the same", float(size * self.width)
