"""What changes a score by choice: which parameters, which weights of checkpoints, cosines, means over test pairs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.jobs import job_of
from tests.support.reference import Job, reference
from tracin_func.gradients.engines.registry import engine_names

ENGINES = [name for name in engine_names() if name != "auto"]
COUNTED = ti.Pairs(first=[5, 1, 2], second=[0, 5, 4], target=[1, 1, -1], count=[3, 1, 2])
APART = ti.Pairs(first=[0, 2, 4], second=[1, 3, 5], target=[1, -1, 1])  # no item twice: score differences are the units


def mlp() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 1)).double()


def job(**changes: Any) -> Job:
    torch.manual_seed(4)
    return job_of(mlp(), torch.randn(6, 4, dtype=torch.float64), **changes)


def influence(of: Job, engine: str, **choices: Any) -> ti.Influence:
    task = ti.Task(of.module, of.items, of.train, of.checkpoints, of.test, of.loss)
    result = calls.score(task, calls.how(engine=engine, device="cpu", **choices), self_influence=False, influence=True)
    assert result.influence is not None
    return result.influence


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("train", [None, APART], ids=["items", "differences"])
def test_cosines_are_of_the_gradients_at_all_checkpoints(engine: str, train: ti.Pairs | None) -> None:
    of = job() if train is None else job(train=train, test=ti.Pairs([0], [5], [1]))
    right = reference(of)
    lengths = (right.train_norm**2).sum(0).sqrt(), (right.test_norm**2).sum(0).sqrt()
    found = influence(of, engine, normalize="cosine")
    close(found.per_checkpoint, right.cross / torch.outer(*lengths))
    assert float(found.scores.abs().max()) <= 1 + 1e-12
    assert found.column == "tracin_cosine_influence"
    itself = influence(replace(of, test=of.train), engine, normalize="cosine")
    close(itself.scores.diagonal(), torch.ones(len(of.train), dtype=torch.float64))


def test_a_pair_without_gradient_has_cosine_0() -> None:
    of = job(loss=ti.MarginRankingLoss(-50.0))  # satisfied everywhere
    found = influence(of, "item", normalize="cosine")
    assert torch.equal(found.scores, torch.zeros_like(found.scores))


def test_cosine_self_influence_is_refused() -> None:
    of = job()
    task = ti.Task(of.module, of.items, of.train, of.checkpoints, of.test)
    with pytest.raises(ti.UsageError, match="makes every self-influence 1"):
        calls.score(task, calls.how(normalize="cosine"))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_mean_column_is_the_mean_of_the_columns_by_draws(engine: str) -> None:
    of = job(test=COUNTED, loss=ti.MarginRankingLoss(0.3))
    share = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64) / 6
    found = influence(of, engine, aggregate="mean")
    assert found.test_ids == ("mean",)
    close(found.per_checkpoint[..., 0], reference(of).cross @ share)
    cosines = influence(of, engine, normalize="cosine")
    mean = influence(of, engine, normalize="cosine", aggregate="mean")
    close(mean.scores[:, 0], cosines.scores @ share)


def test_the_mean_of_pairs_without_gradient_is_a_zero_column() -> None:
    found = influence(job(loss=ti.MarginRankingLoss(-50.0)), "item", aggregate="mean")
    assert found.zero_columns == [0]
    assert found.scores.shape == (8, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_uniform_weights_leave_learning_rates_out(engine: str) -> None:
    of = job()
    ones = [replace(checkpoint, learning_rate=1.0) for checkpoint in of.checkpoints]
    found = influence(of, engine, checkpoint_weights="uniform")
    close(found.per_checkpoint, reference(replace(of, checkpoints=ones)).cross)
    assert [checkpoint["learning_rate_from"] for checkpoint in found.run.checkpoints] == ["uniform"] * 2
    unrated = [ti.Checkpoint(checkpoint.source) for checkpoint in of.checkpoints]
    close(influence(replace(of, checkpoints=unrated), engine, checkpoint_weights="uniform").scores, found.scores)


@pytest.mark.parametrize("engine", ENGINES)
def test_only_parameters_of_a_name_are_differentiated(engine: str) -> None:
    of = job()
    found = influence(of, engine, params=r"^3\.")
    for name, parameter in of.module.named_parameters():
        parameter.requires_grad_(name.startswith("3."))
    close(found.per_checkpoint, reference(of).cross)
    with pytest.raises(
        ti.UsageError, match="not found in any name of a trainable parameter. Available: 3.weight, 3.bias"
    ):
        influence(of, engine, params="^0")
    with pytest.raises(ti.UsageError, match="should be a regular expression"):
        influence(of, engine, params="(")


def test_a_weight_that_is_not_differentiated_is_needed_all_the_same() -> None:
    of = job()
    states = [{k: v for k, v in checkpoint.source.items() if k != "0.weight"} for checkpoint in of.checkpoints]
    bare = replace(of, checkpoints=[ti.Checkpoint(state, 0.1) for state in states])
    with pytest.raises(ti.InputError, match="missing 0.weight"):
        influence(bare, "item", params=r"^3\.")


def test_choices_of_no_name_are_refused() -> None:
    for name, allowed in (("normalize", "none, cosine"), ("aggregate", "mean"), ("checkpoint_weights", "lr, uniform")):
        with pytest.raises(ti.UsageError, match=f"`{name}` should be one of {allowed}. Got 'x'."):
            calls.how(**{name: "x"})


def test_influence_by_parameters_adds_up() -> None:
    of = job()
    parts = [influence(of, "ghost", params=rf"^{part}\.").scores for part in (0, 2, 3)]
    close(torch.stack(parts).sum(0), influence(of, "ghost").scores)
