"""Verification agrees on every row of the tables of architectures, and of kinds of modules."""

from typing import Any

import pytest
import torch
from torch import nn

import tracin_func as ti
from tests.support import calls
from tests.support.architectures import ARCHITECTURES, Architecture
from tests.support.cases.reference import RATES, TEST, TRAIN, noise, seeded, two_states
from tests.support.cases.runs import pairs
from tests.support.kinds import KINDS

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")


def verified(module: nn.Module, items: Any) -> bool:
    checkpoints = [ti.Checkpoint(state, rate) for state, rate in zip(two_states(module), RATES, strict=True)]
    task = ti.Task(module, items, pairs(TRAIN), checkpoints, pairs(TEST), ti.LogisticLoss())
    compute = calls.how(device="cpu")
    return calls.verified(task, compute, calls.score(task, compute, self_influence=True, influence=True), 20).passed


@pytest.mark.parametrize("architecture", [row for row in ARCHITECTURES if not row.constant], ids=lambda row: row.name)
def test_every_architecture(architecture: Architecture) -> None:
    assert verified(*architecture())


@pytest.mark.parametrize("name", KINDS)
def test_every_kind(name: str) -> None:
    assert verified(seeded(KINDS[name][2]), noise(6, 5))


def test_what_is_off_does_not_pass() -> None:
    """The same call sees a score that is wrong in its third digit."""
    module = seeded(KINDS["plain layers"][2])
    checkpoints = [ti.Checkpoint(state, rate) for state, rate in zip(two_states(module), RATES, strict=True)]
    task = ti.Task(module, noise(6, 5), pairs(TRAIN), checkpoints, pairs(TEST), ti.LogisticLoss())
    found = calls.score(task, calls.how(device="cpu"), self_influence=True, influence=True)
    assert found.influence is not None
    assert found.influence.per_checkpoint is not None
    found.influence.per_checkpoint.mul_(torch.tensor(1.01))
    assert not calls.verified(task, calls.how(device="cpu"), found, 20).passed
