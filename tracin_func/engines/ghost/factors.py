"""Inner products of gradients that are outer products D_iᵀ A_i, without forming them.

    ⟨D_iᵀ A_i, D_jᵀ A_j⟩ = (D_i·D_j)(A_i·A_j)

A combination u g_a + v g_b is two outer products that subtract before anything is rounded,

    u (D_a − D_b)ᵀ A_a + D_bᵀ (u (A_a − A_b) + (u + v) A_b).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.errors import NumericalError
from tracin_func.gradients import Combination
from tracin_func.gram import wide_type

CANCELLED = 1e-6  # below this share of its terms, rounding in float64 shows in a norm beyond 1e-10
RUN = 4096  # combinations at a time


@dataclass(frozen=True, eq=False)
class FactorGradients:
    """Gradients of one matrix parameter: `rows` D [units, d_out] and `columns` A [units, d_in], metric applied.

    `locate` names a unit's gradient of this parameter, for errors.
    """

    rows: Tensor
    columns: Tensor
    locate: Callable[[int], str]

    def products(self, right: Combination) -> Tensor:
        """⟨g_i, right_j⟩, float64 [units, right]; N·n·2(d_in + d_out) multiply-adds."""
        rows, columns = self._wide()
        result = torch.zeros(len(rows), len(right), dtype=torch.float64)
        for chosen in torch.arange(len(right)).split(RUN):
            for theirs_rows, theirs_columns in _outer(rows, columns, right.select(chosen)):
                result[:, chosen] += ((rows @ theirs_rows.T) * (columns @ theirs_columns.T)).to("cpu", torch.float64)
        return result

    def squared_norm(self, combination: Combination) -> Tensor:
        """‖Σ_j c_j g_j‖², float64 [n]: by the Gram matrices of both factors, again directly where it cancels."""
        rows, columns = self._wide()
        gram = ((rows @ rows.T) * (columns @ columns.T)).to("cpu", torch.float64)
        index, c = combination.index.cpu(), combination.coefficient.to("cpu", torch.float64)
        if index.shape[1] == 1:
            return c[:, 0] ** 2 * gram[index[:, 0], index[:, 0]]
        first, second = index[:, 0], index[:, 1]
        terms = c[:, 0] ** 2 * gram[first, first] + c[:, 1] ** 2 * gram[second, second]
        result = terms + 2 * c[:, 0] * c[:, 1] * gram[first, second]
        doubtful = ((result <= CANCELLED * terms) & (terms > 0)).nonzero()[:, 0]
        for chosen in doubtful.split(RUN):
            pairs = _outer(rows, columns, combination.select(chosen))
            products = [(a[0] * b[0]).sum(dim=1) * (a[1] * b[1]).sum(dim=1) for a in pairs for b in pairs]
            result[chosen] = torch.stack(products).sum(dim=0).clamp(min=0).to("cpu", torch.float64)
        return result

    def _wide(self) -> tuple[Tensor, Tensor]:
        finite = self.rows.isfinite().all(dim=1) & self.columns.isfinite().all(dim=1)
        if not self.rows.is_meta and not bool(finite.all()):
            raise NumericalError(f"the gradient of {self.locate(int((~finite).nonzero()[0]))} is NaN or infinite.")
        return self.rows.to(wide_type(self.rows)), self.columns.to(wide_type(self.columns))


def _outer(rows: Tensor, columns: Tensor, combination: Combination) -> list[tuple[Tensor, Tensor]]:
    """Each combination as a sum of outer products: pairs of rows [n, d_out] and columns [n, d_in]."""
    index = combination.index.to(rows.device)
    c = combination.coefficient.to(rows.device, rows.dtype)
    if index.shape[1] == 1:
        return [(c * rows[index[:, 0]], columns[index[:, 0]])]
    u, v = c[:, :1], c[:, 1:]
    d_a, d_b, a_a, a_b = rows[index[:, 0]], rows[index[:, 1]], columns[index[:, 0]], columns[index[:, 1]]
    return [(u * (d_a - d_b), a_a), (d_b, u * (a_a - a_b) + (u + v) * a_b)]
