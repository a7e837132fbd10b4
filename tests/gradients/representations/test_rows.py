"""How many gradients rows take: all once if they are held, else as few as norms of pairs allow."""

import pytest
import torch
from torch import Tensor

from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.rows import Rows

UNITS = 12


class Computed:
    """Rows of known gradients that counts how many of them are computed, and remembers how many at a time."""

    def __init__(self, block: int) -> None:
        torch.manual_seed(0)
        self.gradients = torch.randn(UNITS, 5, dtype=torch.float64)
        self.sizes: list[int] = []
        self.rows = Rows(UNITS, self._fetch, block, lambda: torch.zeros(UNITS), lambda unit, _: str(unit), exact=False)

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(index))
        return self.gradients[index], torch.zeros(len(index))

    def require_right_norms(self, pairs: int) -> None:
        """Those of some pairs, chosen at random."""
        index = torch.combinations(torch.arange(UNITS))
        index = index[torch.randperm(len(index))[:pairs]]
        found = self.rows.squared_norm(Combination(index, torch.tensor([[1.0, -2.0]]).double().expand(pairs, 2)))
        right = (self.gradients[index[:, 0]] - 2 * self.gradients[index[:, 1]]).square().sum(dim=1)
        torch.testing.assert_close(found, right)


# Every two of the four blocks of three take 12 · 5 / 2 = 30 rows.
@pytest.mark.parametrize(("pairs", "most"), [(60, 30), (20, 30), (10, 20)])
def test_norms_take_as_few_rows_as_they_may(pairs: int, most: int) -> None:
    """Every two blocks together, or two rows per pair, whichever is less."""
    computed = Computed(block=3)
    computed.require_right_norms(pairs)
    assert sum(computed.sizes) <= most
    assert max(computed.sizes) <= 3


@pytest.mark.parametrize("block", [UNITS, 2 * UNITS])
def test_rows_that_fit_are_computed_once(block: int) -> None:
    computed = Computed(block)
    computed.require_right_norms(20)
    computed.require_right_norms(60)
    assert computed.sizes == [UNITS]
