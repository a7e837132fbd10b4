"""Gradients that do not fit are computed as often as the forecast says, and scores are the same."""

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.graphs import GRAPHS
from tests.support.jobs import check, job_of
from tests.support.reference import Job, Trace, reference
from tracin_func.gradients.engines.ghost.engine import GhostEngine
from tracin_func.gradients.engines.registry import ENGINES, Registered
from tracin_func.gradients.engines.vmap import VmappedEngine
from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Differentiate, Engine, Plan, Planner, Sketch, Units, whole
from tracin_func.gradients.representations.rows import for_norms
from tracin_func.task.items import Batch

WIDE = 20
ROW = 8 * (4 * WIDE + WIDE + WIDE + 1)  # bytes of a gradient
ENGINES_COUNTED = {"item": VmappedEngine(), "ghost": GhostEngine()}


@dataclass
class Counting:
    """Another engine, with the number of units that each checkpoint differentiates."""

    engine: Engine
    name: str = "counting"
    counts: list[int] = field(default_factory=list)

    @property
    def factored(self) -> bool:
        return self.engine.factored

    def tried(self, units: Units, state: State) -> Planner:
        return self.engine.tried(units, state)

    def values(self, units: Units, state: State, plan: Plan) -> Tensor:
        return self.engine.values(units, state, plan)

    def differentiate(self, units: Units, state: State, plan: Plan, sketch: Sketch = whole) -> Differentiate:
        own = self.engine.differentiate(units, state, plan, sketch)
        self.counts.append(0)

        def differentiate(batch: Batch, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
            self.counts[-1] += len(index)
            return own(batch, index)

        return differentiate


def active_below(s_a: Tensor, s_b: Tensor, y: Tensor) -> Tensor:
    """A hinge, with most pairs inactive, taken for a loss of both scores."""
    return torch.relu(-0.5 - y * (s_a - s_b))


def unlike_the_difference(s_a: Tensor, s_b: Tensor, y: Tensor) -> Tensor:
    """A loss of both scores, which only gradients of items serve."""
    return (s_a - y).square() + 0.5 * (s_b + y).square()


@functools.cache
def job_on(graph: str, **changes: Any) -> Job:
    """Twenty-four items and the pairs of a graph; five of them are test pairs too."""
    torch.manual_seed(0)
    index = GRAPHS[graph]()
    pairs = ti.Pairs(index[:, 0], index[:, 1], torch.where(torch.arange(len(index)) % 3 > 0, 1, -1))
    module = nn.Sequential(nn.Linear(4, WIDE), nn.Tanh(), nn.Linear(WIDE, 1))
    job = job_of(module, torch.randn(24, 4), train=pairs, test=pairs.select(torch.arange(5)), **changes)
    return job.at(torch.float64)


@functools.cache
def right_on(graph: str) -> Trace:
    return reference(job_on(graph, loss=unlike_the_difference))


def task_of(job: Job) -> ti.Task:
    return ti.Task(job.module, job.items, job.train, job.checkpoints, job.test, job.loss)


@pytest.fixture(params=ENGINES_COUNTED)
def counting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Counting:
    engine = Counting(ENGINES_COUNTED[request.param])
    monkeypatch.setitem(ENGINES, "counting", Registered(engine, "items", {}))
    return engine


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("rows", [pytest.param(2, marks=pytest.mark.thorough), 7, 30])
def test_scores_are_right_and_the_forecast_counts_what_is_differentiated(
    graph: str, rows: int, counting: Counting
) -> None:
    """With memory for so many gradients; two are needed at least. Both kinds of scores, then self-influence alone."""
    job = job_on(graph, loss=unlike_the_difference)
    how = {"batch_size": 3, "memory_budget": 2 * rows * ROW}
    check(job, right_on(graph), "counting", torch.float64, **how)
    settings = calls.how(engine="counting", device="cpu", **how)
    both = calls.foreseen(task_of(job), settings, influence=True)
    counting.counts.clear()
    found = calls.score(task_of(job), settings, influence=True).influence
    assert found is not None
    assert counting.counts == [both.differentiations] * 2
    alone = calls.foreseen(task_of(job), settings)
    counting.counts.clear()
    found_alone = calls.score(replace(task_of(job), test=None), settings).self_influence
    assert found_alone is not None
    assert counting.counts == [alone.differentiations] * 2
    assert alone.units == len(torch.cat([job.train.first, job.train.second]).unique())
    assert alone.units <= alone.differentiations <= both.differentiations
    record = found_alone.run.engine["differentiations"]
    assert (record["units"], record["total"]) == (alone.units, alone.differentiations)
    if rows == 30:
        assert alone.differentiations == alone.units


def test_inactive_pairs_are_no_reason_to_differentiate(counting: Counting) -> None:
    job = job_on("random", loss=active_below)
    settings = calls.how(engine="counting", device="cpu", batch_size=3, memory_budget=8 * ROW)
    expected = calls.foreseen(task_of(job), settings)
    counting.counts.clear()
    assert calls.score(replace(task_of(job), test=None), settings).self_influence is not None
    assert max(counting.counts) < expected.differentiations


def test_pairs_are_differentiated_where_that_is_cheaper() -> None:
    """Test pairs cost a pass over all items; score differences, of which none is kept, are then less work."""
    job = job_on("path", loss=ti.LogisticLoss())
    task, noticed = task_of(job), list[str]()
    enough = calls.how(engine="item", device="cpu", batch_size=3)
    assert calls.foreseen(task, enough, influence=True).over == "items"
    little = calls.how(engine="item", device="cpu", batch_size=3, memory_budget=20 * ROW, notice=noticed.append)
    expected = calls.foreseen(task, little, influence=True)
    assert (expected.over, expected.units, expected.differentiations) == ("score differences", 28, 28)
    assert any("Score differences of pairs are differentiated instead" in notice for notice in noticed)
    check(job, reference(job), "item", torch.float64, batch_size=3, memory_budget=20 * ROW)
    assert calls.foreseen(task, little).over == "items", "self-influence alone takes each item once"


def test_what_is_differentiated_often_is_reported() -> None:
    noticed: list[str] = []
    task = task_of(job_on("complete", loss=unlike_the_difference))
    settings = calls.how(engine="item", device="cpu", batch_size=3, memory_budget=4 * ROW, notice=noticed.append)
    expected = calls.foreseen(task, settings)
    mean = expected.differentiations / expected.units
    assert mean > 2
    assert [notice for notice in noticed if "gradients fit" in notice] == [
        f"note: not all gradients fit in half of the memory budget, so each of {expected.units} items is "
        f"differentiated {mean:.1f} times on average at every checkpoint. "
        "More memory (`memory_budget`) or a `projection` avoids this."
    ]


@pytest.mark.parametrize("test_pairs", [1, 40])
def test_influence_takes_a_pass_per_block_of_test_pairs(test_pairs: int, counting: Counting) -> None:
    job = job_on("random", loss=unlike_the_difference)
    job = replace(job, test=job.train.select(torch.arange(test_pairs)))
    settings = calls.how(engine="counting", device="cpu", batch_size=3, memory_budget=16 * ROW)
    expected = calls.foreseen(task_of(job), settings, self_influence=False, influence=True)
    counting.counts.clear()
    assert calls.score(task_of(job), settings, self_influence=False, influence=True).influence is not None
    assert counting.counts == [expected.differentiations] * 2
    assert (expected.differentiations == expected.units) == (test_pairs == 1)


def test_a_table_is_read_in_larger_blocks_where_gradients_do_not_fit(counting: Counting) -> None:
    """Of 66,000 pairs all are scored in one order; a block of what fits would take two."""
    job = job_on("random", loss=unlike_the_difference)
    rows = torch.arange(66_000) % len(job.train)
    pairs, noticed = job.train.select(rows), list[str]()
    settings = calls.how(engine="counting", device="cpu", batch_size=3, memory_budget=16 * ROW, notice=noticed.append)
    expected = calls.foreseen(replace(task_of(job), test=None), settings, every=True)
    counting.counts.clear()
    table = ti.PairTable(first=pairs.first, second=pairs.second, target=pairs.target)
    found = calls.query_self(task_of(job), settings, table).scores
    assert counting.counts == [for_norms(torch.stack([pairs.first, pairs.second], dim=1), 24, 4)] * 2
    assert counting.counts[0] <= expected.differentiations
    torch.testing.assert_close(found[: len(job.train)], right_on("random").own.sum(dim=0))
    assert any("differentiated up to" in notice and "for each 262,144 pairs" in notice for notice in noticed)
