"""Every method of the registry gives a number per pair, and random scores show nothing."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import tracin_func as ti
from tracin_func.evaluation.methods.registry import SCORINGS
from tracin_func.evaluation.runs import run_of
from tracin_func.training.retrain import Recipe, retrain

ITEMS = torch.randn(14, 3, generator=torch.Generator().manual_seed(0))
PAIRS = ti.Pairs(list(range(5)), list(range(5, 10)), [1, -1, 1, 1, -1])
QUERIES = ti.Pairs([10, 11], [12, 13], [1, -1])


@pytest.fixture(scope="module")
def run() -> ti.Task:
    """A run trained with Adam and GHM on the pairs."""
    scorer = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    loss = ti.GHMRankingLoss(2.0, batch_size=4)
    task = ti.Task(scorer, ITEMS, PAIRS, [ti.Checkpoint(scorer, 0.1)], loss=loss)
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=0.01, checkpoints=2)
    return run_of(task, PAIRS, retrain(task, PAIRS, 0, recipe, states=True), QUERIES)


@pytest.mark.parametrize("name", SCORINGS)
def test_each_gives_finite_numbers_of_the_right_shape(name: str, run: ti.Task) -> None:
    method = SCORINGS[name]
    assert method.ranked(run).shape == (5,)
    assert method.ranked(run).isfinite().all()
    if method.effects is not None:
        effects = method.effects(run)
        assert effects.shape == (5, 2)
        if method.ranking is None:
            assert torch.equal(method.ranked(run), -effects.sum(dim=1))


def test_methods_are_the_scores_of_the_package(run: ti.Task) -> None:
    margin = ti.influence(run, method=ti.Method(test_functional="score-margin")).scores
    adam = ti.influence(run, method=ti.Method(test_functional="score-margin", preconditioner="adam")).scores
    assert torch.equal(SCORINGS["tracin"].effects(run), margin)  # type: ignore[misc]
    assert torch.equal(SCORINGS["tracin-adam"].effects(run), adam)  # type: ignore[misc]
    assert torch.equal(SCORINGS["self"].ranked(run), ti.self_influence(run).scores)
    plain = ti.self_influence(replace(run, loss=ti.MarginRankingLoss(2.0)))
    assert torch.equal(SCORINGS["self-standard"].ranked(run), plain.scores)
    assert SCORINGS["loss"].ranked(run).tolist() == pytest.approx(plain.pairs.loss.mean(dim=0).tolist(), abs=1e-5)
    assert SCORINGS["loss-last"].ranked(run).tolist() == pytest.approx(plain.pairs.loss[-1].tolist(), abs=1e-5)


def test_random_scores_differ_from_draw_to_draw_and_repeat(run: ti.Task) -> None:
    other = replace(run, train=ti.Pairs(PAIRS.first, PAIRS.second, -PAIRS.target))
    first, again, flipped = (SCORINGS["random"].ranked(each) for each in (run, run, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, flipped)
