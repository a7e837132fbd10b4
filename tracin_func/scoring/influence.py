"""Norms and inner products of the gradients of pairs."""

import torch
from torch import Tensor
from torch.profiler import record_function

from tracin_func.gradients.processes import ALONE, World
from tracin_func.gradients.protocol import Gradients
from tracin_func.gradients.representations.projected import ProjectedGradients
from tracin_func.scoring.combinations import TracedPairs, own_chunks


def squared_norms(gradients: Gradients | None, pairs: TracedPairs, world: World = ALONE) -> Tensor:
    """‖∇ℓ_p‖²_M, float64 [pairs]; inactive pairs are skipped and exactly 0. Each process takes its blocks of pairs."""
    result = torch.zeros(len(pairs.combination), dtype=torch.float64)
    rows = pairs.terms.active.nonzero()[:, 0]
    if gradients is not None and len(rows):
        with record_function("norms of pairs"):
            for chunk in own_chunks(rows, world):
                result[chunk] = gradients.squared_norm(pairs.combination.select(chunk))
    return world.sum(result)


def norm_variance(gradients: ProjectedGradients | None, pairs: TracedPairs, found: Tensor) -> Tensor:
    """The variance, over projections, of `found` = ‖∇ℓ_p‖²_M [pairs]; 0 where gradients are exact or inactive."""
    result = torch.zeros_like(found)
    rows = pairs.terms.active.nonzero()[:, 0]
    if gradients is not None and len(rows):
        result[rows] = gradients.norm_variance(pairs.combination.select(rows), found[rows])
    return result


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
