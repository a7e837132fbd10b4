"""The measured batch size: of a scorer that sleeps, so that its speed is known."""

import math
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support.jobs import job_of
from tracin_func.files import CACHE_VARIABLE
from tracin_func.gradients import remembered
from tracin_func.gradients.batches import Work
from tracin_func.gradients.engines.registry import ENGINES
from tracin_func.gradients.model import Scorer
from tracin_func.gradients.protocol import Engine, Gradients, Need, Plan, Units
from tracin_func.gradients.representations import chunks
from tracin_func.gradients.representations.chunks import BATCHES, Measurement
from tracin_func.gradients.representations.keep import keep
from tracin_func.losses.custom import as_loss
from tracin_func.scoring.units import UnitMaker

BEST, GUESS, LARGEST = 16, 4, 64
GHOST = ENGINES["ghost"].engine
SIZES: list[int] = []  # of the batches so far; not on the module, whose attributes are restored after every forward


class Sleeping(nn.Module):
    """A batch takes 8 ms, and from 17 items on 4 ms more per item: per item, batches of 16 are the fastest.

    The batch of 16 with the number `slow` takes 200 ms more, as if another process had the processor.
    """

    def __init__(self, slow: int = 0) -> None:
        super().__init__()
        self.layer, self.slow = nn.Linear(3, 1), slow

    def forward(self, items: Tensor) -> Tensor:
        scores: Tensor = self.layer(items)[:, 0]
        if len(items) > 1:  # not the check of one unit
            SIZES.append(len(items))
            time.sleep(0.008 + 0.004 * max(0, len(items) - BEST))
            if len(items) == BEST and SIZES.count(BEST) == self.slow:
                time.sleep(0.2)
        return scores


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing remembered in this process."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_here", {})
    SIZES.clear()
    return tmp_path / "cache"


def measured(
    module: nn.Module, work: int, need: Need = Need(), largest: int = LARGEST, trial: float = math.inf
) -> Plan:
    job = job_of(module, torch.randn(10, 3))
    scorer = Scorer(module)
    task = ti.Task(module, job.items, ti.Pairs([0, 1], [8, 9], [1, 1]), job.checkpoints)
    units = UnitMaker(task, scorer, as_loss(task.loss), ti.Method(), torch.device("cpu"), None, every=True).items()
    state = scorer.state("only", module.state_dict(), torch.device("cpu"), None)

    def run(engine: Engine, some: Units, plan: Plan, asked: Need) -> Gradients:
        return keep(Work(engine, some, state, dict.fromkeys(state.parameters, 1.0), plan), asked)

    plan = Plan(GUESS, units.count, GUESS, "not measured", largest=largest, trial=trial)
    return Measurement(GHOST, units, state, need, plan, run, work).fastest()


@pytest.mark.parametrize("need", [Need(), Need(norms=False, right=torch.arange(3))], ids=["held", "streamed"])
def test_the_fastest_size_is_taken_whatever_the_guess(need: Need) -> None:
    plan = measured(Sleeping(), 10**6, need)
    assert plan.chunk == BEST
    assert plan.chunk_bytes == BEST
    assert plan.reason.startswith("measured: 4 ")
    assert " 16 " in plan.reason


@pytest.mark.parametrize("slow", [2, 3])
def test_a_busy_machine_does_not_fool_it(slow: int) -> None:
    """A size is timed in several batches, of which one may be slow."""
    assert measured(Sleeping(slow), 10**6).chunk == BEST


def test_it_is_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured(Sleeping(), 10**6)
    monkeypatch.setattr(remembered, "_here", {})  # as in another process
    SIZES.clear()
    assert measured(Sleeping(), 10**6) == first
    assert SIZES == []
    assert measured(Sleeping(), 10**6, largest=8).chunk == 8  # where less memory is free


def test_measuring_may_take_a_tenth_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of the guess and of its double has to fit."""
    monkeypatch.setattr(chunks, "LITTLE", 0.0)
    enough = 10 * BATCHES * 3 * GUESS
    assert measured(Sleeping(), enough - 1).reason == "short run, not measured"
    assert SIZES == []
    assert measured(Sleeping(), enough).chunk >= GUESS
    assert 0 < sum(SIZES) <= enough / 10


def test_a_short_run_is_measured_if_that_takes_little_time() -> None:
    """Of 100 units and 0.3 s at least, where the trial was fast; the next run takes what was found."""
    assert measured(Sleeping(), 99, trial=0.001).reason == "short run, not measured"
    assert measured(Sleeping(), 200, trial=0.1).reason == "short run, not measured"
    assert SIZES == []
    assert measured(Sleeping(), 100, trial=0.001).reason == "short run, not measured"  # of 0.2 s
    assert SIZES == [GUESS] * BATCHES
    assert measured(Sleeping(), 400, trial=0.001).chunk == BEST
    assert 0.001 * sum(SIZES) < chunks.LITTLE
    assert measured(Sleeping(), 10).chunk == BEST
