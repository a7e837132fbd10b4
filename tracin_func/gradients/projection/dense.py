"""Dense projections: every coordinate times k independent numbers, ±1/√k (Rademacher) or normal with deviation 1/√k.

    Var⟨Πx, Πy⟩ = (‖x‖²‖y‖² + ⟨x, y⟩² − c Σ_i x_i² y_i²) / k,   c = 2 for Rademacher, 0 for Gaussian

(Achlioptas, JCSS 2003). P·k multiply-adds per unit, and P·k numbers to draw for all units that are projected together:
the slow and simple way, which the others are measured against.
"""

import torch
from torch import Tensor

from tracin_func.gradients.factors import Contribution, flat
from tracin_func.gradients.projection.layout import Shapes
from tracin_func.gradients.projection.random import generator, signs

DRAWN_TOGETHER = 1 << 22  # numbers drawn at a time; they stay in cache until they are used


class DenseProjector:
    """Rows [units, k] from gradients by parameter, all of which add up in the same k numbers.

    Args:
        kind: `rademacher` or `gaussian`.
        shapes: of the parameters by name.
        width: k.
        seed, checkpoint: what is drawn depends on these and on a parameter's name.
    """

    gathered = True  # what is drawn should serve many units
    halves = None

    def __init__(self, kind: str, shapes: Shapes, width: int, seed: int, checkpoint: str) -> None:
        self._kind = kind
        self._shapes = shapes
        self._seed = seed
        self._checkpoint = checkpoint
        self.width = width

    def place(self, name: str) -> slice:
        return slice(0, self.width)

    def sketch(self, name: str, part: Contribution) -> Tensor:
        rows = flat(part)
        result = rows.new_zeros(len(rows), self.width)
        step = max(1, DRAWN_TOGETHER // self.width)
        for block, columns in enumerate(rows.split(step, dim=1)):
            draw = generator(self._seed, self._kind, name, self._checkpoint, block)
            shape = columns.shape[1], self.width
            if self._kind == "rademacher":
                matrix = signs(shape, draw, rows.dtype)
            else:
                matrix = torch.randn(shape, generator=draw)
            result.addmm_(columns, matrix.to(rows), alpha=self.width**-0.5)
        return result

    def form(self, name: str) -> tuple[str, float]:
        size = self._shapes[name].numel()
        return f"{size:,} → {self.width}, all parameters into the same", float(size * self.width)
