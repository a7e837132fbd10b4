"""Seconds of each engine on the embedded example, and the ratio of `pair` to `item` in one process."""

import statistics
import time
from dataclasses import replace
from typing import Literal

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from tracin_func import Compute, Method, Pairs, Task
from tracin_func.gradients.batches import Work
from tracin_func.gradients.budget import available_bytes
from tracin_func.gradients.engines.vmap import VmappedEngine
from tracin_func.gradients.model import Scorer, State
from tracin_func.gradients.protocol import Combination, Gradients, Need, Plan, Units
from tracin_func.gradients.representations.keep import keep, plan_for
from tracin_func.losses.custom import as_loss
from tracin_func.scoring.score import score
from tracin_func.scoring.units import UnitMaker
from tracin_func.task.checkpoints import load

ROUNDS = 5


def describe(benchmark: BenchmarkFixture, device: torch.device, **facts: object) -> None:
    """Save what a figure was measured on."""
    benchmark.extra_info |= {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **facts,
    }


@pytest.mark.benchmark(group="self and influence, end to end on one checkpoint")
@pytest.mark.parametrize("engine", ["ghost", "item", "pair", "loop"])
def test_engine(benchmark: BenchmarkFixture, embedded_task: Task, device: torch.device, engine: str) -> None:
    """Both scores of 566 training and 5 test pairs; `loop` on the first 40 training pairs (see extra_info)."""
    assert embedded_task.test is not None
    train = embedded_task.train_pairs.select(torch.arange(40 if engine == "loop" or not benchmark.enabled else 566))
    test = embedded_task.test.select(torch.arange(5))
    task = replace(embedded_task, train=train, test=test, checkpoints=embedded_task.checkpoints[:1])
    compute = Compute(engine=engine, device=device, batch_size=16)

    def run() -> object:
        return score(task, compute=compute, self_influence=True, influence=True)

    result = benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    assert result.influence is not None
    assert result.influence.scores.shape == (len(train), 5)
    describe(benchmark, device, engine=engine, train_pairs=len(train), items=54, batch_size=16)


@pytest.mark.benchmark(group="gradient seconds of pair against item")
def test_pair_against_item(benchmark: BenchmarkFixture, embedded_task: Task, device: torch.device) -> None:
    """Gradients of 566 pairs by `pair` and of 54 items by `item`, alternated, each at its best batch size.

    No pair is skipped as inactive: the work is that of a loss that is active everywhere.
    """
    count = 566 if benchmark.enabled else 100
    task = replace(embedded_task, train=embedded_task.train_pairs.select(torch.arange(count)))
    scorer = Scorer(task.scorer)
    make = UnitMaker(task, scorer, as_loss(task.loss), Method(), device, None)
    loaded = load(task.checkpoints[0], 1)
    state = scorer.state(loaded.name, loaded.weights, device, None)
    rows = torch.arange(len(task.train_pairs) + len(make.tables[1]))
    pairs = make.pairs(torch.ones(len(rows)), rows[: len(task.train_pairs)])
    items = make.items()
    assert (items.count, pairs.count) == (54, count)
    seconds: dict[str, list[float]] = {"item": [], "pair": []}
    with scorer.session():
        size: int | Literal["auto"] = "auto" if benchmark.enabled else 16
        plans = {name: plan(units, state, device, size) for name, units in (("item", items), ("pair", pairs))}
        work = {"item": prepare(items, state, plans["item"]), "pair": prepare(pairs, state, plans["pair"])}
        by_item, _ = timed(work["item"])
        by_pair, _ = timed(work["pair"])
        assert_same_norms(task.train_pairs, by_item, by_pair)
        for _ in range(ROUNDS if benchmark.enabled else 1):
            for name, run in work.items():
                seconds[name].append(timed(run)[1])
        benchmark.pedantic(work["item"], rounds=1)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = statistics.median(p / i for p, i in zip(seconds["pair"], seconds["item"], strict=True))
    describe(
        benchmark,
        device,
        ratio=round(ratio, 1),
        **{f"{name}_seconds": round(value, 3) for name, value in median.items()},
        **{f"{name}_batch_size": plan.chunk for name, plan in plans.items()},
    )
    sizes = f"batch sizes {plans['pair'].chunk} and {plans['item'].chunk}"
    print(f"\n{sizes}: pair {median['pair']:.3f} s, item {median['item']:.3f} s on {device}: ratio {ratio:.1f}")


def plan(units: Units, state: State, device: torch.device, size: int | Literal["auto"]) -> Plan:
    """With auto, the batch size that is fastest for `units`, measured as a long run measures it."""
    need = Need(batch_size=size, budget=available_bytes(device), visits=100)
    return plan_for(VmappedEngine(), VmappedEngine().tried(units, state), units, state, need)


def prepare(units: Units, state: State, plan: Plan):  # type: ignore[no-untyped-def]
    """A call that computes all gradients of `units`."""
    rates = dict.fromkeys(state.parameters, 1.0)
    return lambda: keep(Work(VmappedEngine(), units, state, rates, plan))


def timed(run) -> tuple[Gradients, float]:  # type: ignore[no-untyped-def]
    """Its result, and its seconds; reading a number waits for the device."""
    start = time.perf_counter()
    gradients = run()
    gradients.values.sum().item()
    return gradients, time.perf_counter() - start


def assert_same_norms(pairs: Pairs, by_item: Gradients, by_pair: Gradients) -> None:
    """Both give the same ‖∇ℓ_p‖² where the hinge is active."""
    own = by_pair.squared_norm(Combination(torch.arange(len(pairs))[:, None], torch.ones(len(pairs), 1)))
    index = torch.stack([pairs.first, pairs.second], dim=1)
    slopes = torch.stack([-pairs.target, pairs.target], dim=1).double()
    expected = by_item.squared_norm(Combination(index, slopes))
    active = own > 0
    assert bool(active.any())
    torch.testing.assert_close(own[active], expected[active], rtol=1e-4, atol=0)
