"""`model.state_dict()` is the model's own memory, in which other checkpoints are put while the model itself runs."""

import copy

import pytest
import torch

import tracin_func as ti
from tests.support import calls
from tests.support.cases.reference import RATES, TRAIN, noise, seeded, two_states
from tests.support.cases.runs import pairs
from tests.support.kinds import KINDS


@pytest.mark.parametrize("name", ["plain layers", "a closure"])
def test_a_live_state_dict_may_come_second(name: str) -> None:
    def task(live: bool) -> ti.Task:
        module = seeded(KINDS[name][2])
        states = [two_states(module)[1], module.state_dict() if live else copy.deepcopy(module.state_dict())]
        checkpoints = [ti.Checkpoint(state, rate) for state, rate in zip(states, RATES, strict=True)]
        return ti.Task(module, noise(6, 5), pairs(TRAIN), checkpoints, loss=ti.LogisticLoss())

    compute = calls.how(device="cpu")
    found, right = calls.score(task(live=True), compute), calls.score(task(live=False), compute)
    assert found.self_influence is not None
    assert right.self_influence is not None
    torch.testing.assert_close(found.self_influence.scores, right.self_influence.scores)
    assert calls.verified(task(live=True), compute, right, 20).passed
