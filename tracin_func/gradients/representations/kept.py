"""What a few questions need of gradients, taken while these are at hand: no row is kept."""

import torch
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.gradients.protocol import Combination


class Streamed:
    """Norms of single units, and products of all units with a few.

    Args:
        values: the objectives, [units].
        norms: ‖g_i‖², float64 [units].
        right: positions of the few, ascending [right].
        products: ⟨g_i, g_r⟩, float64 [units, right].
        fault: what is wrong with a gradient, told when gradients are used; None where all are finite.
    """

    def __init__(self, values: Tensor, norms: Tensor, right: Tensor, products: Tensor, fault: str | None) -> None:
        self.values = values
        self._norms = norms
        self._right = right
        self._products = products
        self._fault = fault

    def columns(self, right: Combination) -> Tensor:
        """⟨g_i, right_j⟩, float64 [units, right]; `right` combines no other units than the few."""
        self._require_finite()
        index, coefficient = torch.searchsorted(self._right, right.index.cpu()), right.coefficient.to(torch.float64)
        assert bool((self._right[index] == right.index).all())
        result = torch.zeros(len(self._products), len(right), dtype=torch.float64)
        for j in range(index.shape[1]):
            result += self._products[:, index[:, j]] * coefficient[:, j]
        return result

    def squared_norm(self, combination: Combination) -> Tensor:
        """‖c g_i‖², float64 [n]."""
        self._require_finite()
        assert combination.index.shape[1] == 1
        return combination.coefficient[:, 0].to(torch.float64) ** 2 * self._norms[combination.index[:, 0]]

    def _require_finite(self) -> None:
        if self._fault is not None:
            raise NumericalError(self._fault)
