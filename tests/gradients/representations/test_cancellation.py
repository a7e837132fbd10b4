"""Nearly equal items: the difference of their gradients is small beside either of them."""

import copy

import pytest
import torch
from torch import Tensor

import tracin_func as ti
from tests.support import calls
from tests.support.pairs_alike import ITEMS, TRAIN, nearly_equal
from tests.support.reference import Job, assert_same, reference
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.products import (
    COLUMN_RUN,
    DIRECT,
    GRAM_ADVANTAGE,
    direct_norms,
    inner,
    pair_norms,
)


def item_rows(job: Job) -> Tensor:
    """Gradients of the scores, float32 [items, params], by autograd."""
    module = copy.deepcopy(job.module)
    rows = []
    for item in job.items:
        gradients = torch.autograd.grad(module(item[None])[0, 0], list(module.parameters()))
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def plain_gram(rows: Tensor) -> Tensor:
    """u² K_aa + 2uv K_ab + v² K_bb with u = −y, v = y, K = G Gᵀ in float32: what must not be done."""
    gram = rows @ rows.T
    first, second = TRAIN.first, TRAIN.second
    return (gram[first, first] - 2 * gram[first, second] + gram[second, second]).double()


@pytest.mark.parametrize("engine", ["loop", "pair", "item", "auto"])
@pytest.mark.parametrize("gap", [1e-2, 1e-3])
def test_nearly_equal_items_in_float32(engine: str, gap: float) -> None:
    job = nearly_equal(gap)
    right = reference(job).own[0]
    norm = item_rows(job).norm(dim=1)[TRAIN.first].double()
    assert 0.2 * gap < float((right.sqrt() / norm).median()) < 5 * gap
    found = calls.self_influence(job.module, job.items, TRAIN, job.checkpoints, loss=job.loss, engine=engine)
    assert float(((found.scores - right) / right).abs().max()) < 0.01
    assert bool((found.scores > 0).all())


@pytest.mark.parametrize("engine", ["loop", "pair", "item", "ghost"])
def test_nearly_equal_items_in_float64(engine: str) -> None:
    """A float64 Gram matrix would leave 4 digits."""
    job = nearly_equal(1e-6).at(torch.float64)
    task = ti.Task(job.module, job.items, job.train, job.checkpoints, job.test, job.loss)
    found = calls.score(task, calls.how(engine=engine), self_influence=True, influence=True)
    assert found.self_influence is not None
    assert found.influence is not None
    assert_same(found.self_influence.per_checkpoint, found.influence.per_checkpoint, reference(job), 1e-7)


def test_a_plain_float32_gram_fails_the_same_test() -> None:
    job = nearly_equal(1e-3)
    right = reference(job).own[0]
    assert float(((plain_gram(item_rows(job)) - right) / right).abs().max()) > 0.05


def test_the_gram_branch_is_mended_where_it_cancels() -> None:
    """The same on rows themselves, with so many pairs that a Gram matrix is formed."""
    rows = item_rows(nearly_equal(1e-3))
    index = torch.combinations(torch.arange(ITEMS)).repeat(3, 1)
    unit = torch.ones(len(index), 1)
    combination = Combination(index, torch.cat([unit, -unit], dim=1).double())
    assert GRAM_ADVANTAGE * len(index) >= ITEMS * ITEMS, "otherwise no Gram matrix is formed"
    found = pair_norms(rows, rows, combination)
    wide = rows.double()
    right = (wide[index[:, 0]] - wide[index[:, 1]]).square().sum(dim=1)
    assert float(((found - right) / right).abs().max()) < 1e-4
    gram = inner(rows, rows, torch.float32)
    norms = rows.double().square().sum(dim=1)
    naive = norms[index[:, 0]] + norms[index[:, 1]] - 2 * gram[index[:, 0], index[:, 1]]
    assert float(((naive - right) / right).abs().max()) > 1e-3


def test_gram_squares_that_float32_hardly_holds() -> None:
    rows = item_rows(nearly_equal(1.0)) * 1e-21
    index = torch.combinations(torch.arange(ITEMS)).repeat(3, 1)
    found = pair_norms(rows, rows, Combination(index, torch.tensor([[1.0, -1.0]]).double().expand(len(index), 2)))
    wide = rows.double()
    right = (wide[index[:, 0]] - wide[index[:, 1]]).square().sum(dim=1)
    assert float(((found - right) / right).abs().max()) < 1e-5


def test_every_column_and_combination_counts_once() -> None:
    """Rows of several runs of columns, and combinations of several runs of these."""
    torch.manual_seed(0)
    rows = torch.randn(5, 2 * COLUMN_RUN + 3).double()
    index = torch.combinations(torch.arange(5)).repeat(DIRECT // 5, 1)
    assert len(index) > 2 * DIRECT - 10
    combination = Combination(index, torch.tensor([[1.0, -2.0]]).double().expand(len(index), 2))
    right = (rows[index[:, 0]] - 2 * rows[index[:, 1]]).square().sum(dim=1)
    torch.testing.assert_close(pair_norms(rows, rows, combination), right, rtol=1e-10, atol=0)
    torch.testing.assert_close(direct_norms(rows, rows, combination), right, rtol=1e-10, atol=0)
    torch.testing.assert_close(inner(rows, rows, torch.float64), rows @ rows.T, rtol=1e-10, atol=1e-6)


def test_equal_items_give_exactly_zero() -> None:
    job = nearly_equal(0.0)
    for engine in ("pair", "item", "loop"):
        found = calls.influence(job.module, job.items, TRAIN, TRAIN, job.checkpoints, loss=job.loss, engine=engine)
        assert float(found.scores.abs().max()) < 1e-10
        own = calls.self_influence(job.module, job.items, TRAIN, job.checkpoints, loss=job.loss, engine=engine)
        assert float(own.scores.max()) < 1e-10
        assert float(own.scores.min()) >= 0
