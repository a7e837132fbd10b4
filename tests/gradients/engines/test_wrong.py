"""The comparison that engines pass can fail: every wrong procedure is refused by it, and the right one is not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import tracin_func as ti
from tests.support import wrong
from tests.support.architectures import BY_NAME
from tests.support.jobs import RICH_TRAIN, check, job_of
from tests.support.pairs_alike import nearly_equal
from tests.support.reference import TOLERANCE, Job, Trace, assert_same, reference


def smooth() -> Job:
    return job_of(*BY_NAME["linear on [items, positions, features]"]())


def many_checkpoints() -> Job:
    """Epochs 2, 9 and 10, saved under names that sort otherwise."""
    job = smooth()
    later = {name: 0.5 * tensor for name, tensor in job.checkpoints[1].source.items()}
    names = ("epoch_2", "epoch_9", "epoch_10")
    states = (*(checkpoint.source for checkpoint in job.checkpoints), later)
    checkpoints = [
        ti.Checkpoint(state, 0.1 / 2**t, name) for t, (state, name) in enumerate(zip(states, names, strict=True))
    ]
    return replace(job, checkpoints=checkpoints)


def tied_hinge() -> Job:
    """Scores and margin are whole numbers, so some pairs are exactly at the tie."""
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    job = job_of(module, torch.arange(6.0)[:, None], ti.MarginRankingLoss(1.0))
    return replace(job, checkpoints=job.checkpoints[:1])


def ghm() -> Job:
    return replace(smooth(), loss=ti.GHMRankingLoss(2.0, bins=5, batch_size=6))


def weighted() -> Job:
    return replace(smooth(), train=RICH_TRAIN)


def row(name: str) -> Callable[[], Job]:
    return lambda: job_of(*BY_NAME[name]())


CASES: dict[Callable[[Job], Trace], Callable[[], Job]] = {
    wrong.batch_mean_divided_by_the_batch_size: smooth,
    wrong.rate_left_out: smooth,
    wrong.rate_squared: smooth,
    wrong.first_groups_rate_for_all: smooth,
    wrong.checkpoints_in_lexicographic_order: many_checkpoints,
    wrong.last_state_for_all: many_checkpoints,
    wrong.half_gradient_at_the_tie: tied_hinge,
    wrong.ghm_over_one_pair: ghm,
    wrong.tied_uses_counted_apart: row("siamese: one module under two names"),
    wrong.one_use_of_a_tied_weight_dropped: row("siamese: one module under two names"),
    wrong.gram_in_float32: lambda: nearly_equal(1e-3),
    wrong.train_mode_left_on: row("a scorer left in train() with dropout and batch normalisation"),
    wrong.coupled_scorer_in_one_batch: row("normalisation by the whole batch"),
    wrong.weights_normalised_in_every_batch: smooth,
    wrong.sign_flipped: smooth,
    wrong.pair_weight_left_out: weighted,
    wrong.test_pairs_weighted: ghm,
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("procedure", CASES, ids=lambda procedure: procedure.__name__)
def test_wrong_procedure_is_caught(procedure: Callable[[Job], Trace], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    job = CASES[procedure]().at(dtype)
    right, found = reference(job), procedure(job)
    with pytest.raises(AssertionError, match="differ; worst at"):
        assert_same(found.own, found.cross, right, TOLERANCE[dtype])


@pytest.mark.parametrize("engine", ["loop", "pair", "item", "auto"])
@pytest.mark.parametrize("procedure", CASES, ids=lambda procedure: procedure.__name__)
def test_engines_are_right_on_the_same_jobs(procedure: Callable[[Job], Trace], engine: str) -> None:
    job = CASES[procedure]()
    check(job, reference(job), engine, torch.float64)


@pytest.mark.parametrize("factor", [1 + 1e-7, 1 - 1e-7])
def test_the_comparison_sees_the_eighth_digit(factor: float) -> None:
    right = reference(smooth())
    assert_same(right.own, right.cross, right, 1e-9)
    with pytest.raises(AssertionError):
        assert_same(factor * right.own, None, right, 1e-9)
    with pytest.raises(AssertionError):
        assert_same(None, factor * right.cross, right, 1e-9)


def test_the_comparison_refuses_what_is_not_a_number() -> None:
    right = reference(smooth())
    broken = right.cross.clone()
    broken[0, 0, 0] = float("nan")
    with pytest.raises(AssertionError):
        assert_same(None, broken, right, 1e-9)
    with pytest.raises(AssertionError):
        assert_same(right.own[:, :-1], None, right, 1e-9)
