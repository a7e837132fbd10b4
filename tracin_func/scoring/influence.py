"""Influence: inner products of the gradients of training and test pairs."""

import torch
from torch import Tensor

from tracin_func.gradients.processes import ALONE, World
from tracin_func.gradients.protocol import Gradients
from tracin_func.gradients.representations.projected import ProjectedGradients
from tracin_func.scoring.combinations import TracedPairs, own_chunks


def inner_products(
    gradients: Gradients | None,
    train: TracedPairs,
    test: TracedPairs,
    shares: Tensor | None = None,
    world: World = ALONE,
) -> Tensor:
    """⟨∇ℓ_p, M ∇ℓ_q⟩, float64 [train_pairs, test_pairs]: a column of unit products per test pair, then a gather and
    two multiply-adds per pair.

    With `shares` [test_pairs], ⟨∇ℓ_p, M Σ_q share_q ∇ℓ_q⟩, [train_pairs, 1]: one product per training pair.
    """
    left = train.combination
    result = torch.zeros(len(left), len(test.combination) if shares is None else 1, dtype=torch.float64)
    columns = test.terms.active.nonzero()[:, 0]
    if gradients is None or not len(columns):
        return result
    products = gradients.columns(test.combination.select(columns))
    if shares is not None:
        products, columns = products @ shares[columns, None], torch.arange(1)
    rows = train.terms.active.nonzero()[:, 0]
    for chunk in own_chunks(rows, world):
        part = left.select(chunk)
        block = sum(part.coefficient[:, j, None] * products[part.index[:, j]] for j in range(part.index.shape[1]))
        result[chunk[:, None], columns] = block
    return world.sum(result)


def product_variance(
    gradients: ProjectedGradients | None,
    train: TracedPairs,
    test: TracedPairs,
    found: Tensor,
    shares: Tensor | None = None,
) -> Tensor:
    """The variance, over projections, of `found` = ⟨∇ℓ_p, M ∇ℓ_q⟩ as returned by `inner_products`."""
    result = torch.zeros_like(found)
    if gradients is None:
        return result
    rows, columns = (table.terms.active.nonzero()[:, 0] for table in (train, test))
    if len(rows) and len(columns):
        left, right = train.combination.select(rows), test.combination.select(columns)
        kept = columns if shares is None else torch.arange(1)
        own = None if shares is None else shares[columns]
        result[rows[:, None], kept] = gradients.product_variance(left, right, found[rows[:, None], kept], own)
    return result
