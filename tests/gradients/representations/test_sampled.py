"""Norms for sparse pairs of rows: the same as directly, without reading whole rows per pair."""

import pytest
import torch
from torch import Tensor

from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.products import GRAM_ADVANTAGE, direct_norms, pair_norms
from tracin_func.gradients.representations.sampled import sampled_norms, samples

UNITS, PARAMS, PAIRS = 200, 2500, 300


def sparse(opposite: bool = False) -> tuple[Tensor, Combination]:
    """Rows with much in common, and pairs of them; some occur twice, some in both orders, some with themselves."""
    generator = torch.Generator().manual_seed(0)
    rows = 0.1 * torch.randn(UNITS, PARAMS, generator=generator) + torch.randn(PARAMS, generator=generator)
    index = torch.randint(UNITS, (PAIRS, 2), generator=generator)
    index[:10], index[10:20], index[20:25, 0] = index[30:40], index[40:50].flip(1), index[20:25, 1]
    coefficient = torch.randn(PAIRS, 2, generator=generator, dtype=torch.float64)
    if opposite:
        coefficient[:, 1] = -coefficient[:, 0]
    assert UNITS**2 > GRAM_ADVANTAGE * PAIRS
    assert samples(rows, rows, PAIRS)
    return rows, Combination(index, coefficient)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("opposite", [True, False])
def test_sparse_pairs_in_float32(opposite: bool, same: bool) -> None:
    rows, combination = sparse(opposite)
    right = rows if same else rows.flip(0) + 0.01
    exact = direct_norms(rows.double(), right.double(), combination)
    found = pair_norms(rows, right, combination)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)


def test_sparse_pairs_in_float64_are_as_exact_as_directly() -> None:
    rows, combination = sparse()
    found, terms = sampled_norms(rows.double(), rows.double(), combination, torch.float64)
    exact = direct_norms(rows.double(), rows.double(), combination)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12 * float(terms.max()))
    assert bool((terms > 0).all())


@pytest.mark.parametrize("gap", [1e-4, 1e-6])
def test_sparse_pairs_of_nearly_equal_rows(gap: float) -> None:
    """What cancels is recomputed, and stays right to a few digits of the difference in float32."""
    rows, combination = sparse(opposite=True)
    rows[1::2] = rows[::2] + gap * torch.randn(UNITS // 2, PARAMS, generator=torch.Generator().manual_seed(1))
    first = torch.arange(0, UNITS, 2)
    alike = Combination(torch.stack([first, first + 1], 1), combination.coefficient[: len(first)])
    every = Combination(
        torch.cat([alike.index, combination.index]), torch.cat([alike.coefficient, combination.coefficient])
    )
    exact = direct_norms(rows.double(), rows.double(), every)
    found = pair_norms(rows, rows, every)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=0)
    assert bool((found >= 0).all())


def test_few_pairs_of_many_rows_are_computed_directly() -> None:
    rows, combination = sparse()
    few = combination.select(slice(0, 50))
    assert not samples(rows, rows, len(few))
    assert torch.equal(pair_norms(rows, rows, few), direct_norms(rows, rows, few))


def test_tiny_and_huge_rows_do_not_lose_digits() -> None:
    rows, combination = sparse()
    for scale in (1e-23, 1e18):
        exact = direct_norms((rows * scale).double(), (rows * scale).double(), combination)
        torch.testing.assert_close(pair_norms(rows * scale, rows * scale, combination), exact, rtol=1e-5, atol=0)
