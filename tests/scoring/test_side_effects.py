"""Nothing of the caller's changes: not by a run, not by one that raises, not by Ctrl-C."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.caller import untouched
from tests.support.cases.reference import TEST, TRAIN, noise, seeded, two_states
from tests.support.cases.runs import pairs
from tests.support.kinds import KINDS

ITEMS = noise(6, 5)
MODULES = [
    "plain layers",
    "a closure",
    "a `.data` alias",
    "adapters that fold themselves",
    "a buffer that forward updates",
]
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")


def prepared(name: str, folder: Path) -> ti.Task:
    """A task of checkpoints on disk; the module has modes, gradients and weights of its own."""
    module = seeded(KINDS[name][2])
    for number, submodule in enumerate(module.modules()):
        submodule.training = number % 2 == 0
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    checkpoints = []
    for number, state in enumerate(two_states(module)[1:], start=1):
        torch.save({"model_state_dict": state, "best": 0.5}, folder / f"model_epoch_{number}.pt")
        checkpoints.append(ti.Checkpoint(folder / f"model_epoch_{number}.pt", 0.1))
    return ti.Task(module, ITEMS, pairs(TRAIN), checkpoints, pairs(TEST), ti.LogisticLoss())


def streamed() -> ti.PairTable:
    return ti.PairTable(first=TRAIN.first, second=TRAIN.second, target=TRAIN.target)


def scored(task: ti.Task, **compute: Any) -> calls.Scores:
    return calls.score(task, calls.how(device="cpu", **compute), self_influence=True, influence=True)


CALLS: dict[str, Callable[[ti.Task, Path], Any]] = {
    "score": lambda task, _: scored(task, evaluated=lambda found: None),
    "score by the loop": lambda task, _: scored(task, engine="loop"),
    "score projected": lambda task, _: scored(task, projection=ti.Projection("sjlt", dim=8)),
    "self_influence": lambda task, _: calls.self_influence(task.scorer, ITEMS, task.train_pairs, task.checkpoints),
    "influence": lambda task, _: calls.influence(task.scorer, ITEMS, task.train_pairs, pairs(TEST), task.checkpoints),
    "query": lambda task, _: calls.query(task, calls.how(), streamed(), 2),
    "query_self": lambda task, _: calls.query_self(task, calls.how(), streamed()),
    "verify": lambda task, _: calls.verified(task, calls.how(), scored(task), 3),
    "fill_store": lambda task, folder: calls.filled(task, calls.how(store=folder / "store")),
    "outlook": lambda task, _: calls.foreseen(task, calls.how()),
    "select_test_pairs": lambda task, _: calls.selected(task, calls.how(), "lowest-margin", 2, 0),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", MODULES)
def test_a_call_leaves_all_as_it_was(name: str, call: str, tmp_path: Path) -> None:
    task = prepared(name, tmp_path)
    with untouched(task.scorer):
        CALLS[call](task, tmp_path)


class Failing(nn.Module):
    """Raises at one forward, after keeping something on itself; where `closed`, it reads a weight by a closure."""

    def __init__(self, error: BaseException, at: int, *, closed: bool) -> None:
        super().__init__()
        self.layer, calls = nn.Linear(5, 4), [0]
        weight = self.layer.weight
        self.project = (lambda x: x @ weight.T) if closed else None
        self.error, self.at = error, at
        self.counted = lambda: calls  # shared with a copy, and not put back

    def forward(self, items: Tensor) -> Tensor:
        calls = self.counted()
        calls[0] += 1
        self.kept = items
        if calls[0] == self.at:
            raise self.error
        hidden = self.layer(items) if self.project is None else self.project(items) + self.layer.bias
        return hidden.tanh().sum(dim=1)


@pytest.mark.parametrize("closed", [False, True], ids=["copied", "the caller's own"])
@pytest.mark.parametrize("at", [1, 3, 9, 20])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=["an error", "Ctrl-C"])
def test_a_run_that_is_ended_leaves_all_as_it_was(error: BaseException, at: int, closed: bool) -> None:
    module = Failing(error, at, closed=closed)
    states = two_states(module)
    task = ti.Task(module, ITEMS, pairs(TRAIN), [ti.Checkpoint(each, 0.1) for each in states], pairs(TEST))
    with untouched(module):
        try:
            scores = scored(task, engine="loop")
            calls.verified(task, calls.how(), scores, 5)
        except (KeyboardInterrupt, ti.InputError, ValueError):
            pass
    assert module.counted()[0] >= at
