"""The exact kernel against one plain forward + backward, workload by workload."""

from dataclasses import replace

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils import _pytree as pytree

from benchmarks.measure import (
    ENGINE_BATCH_SIZES,
    Timed,
    alternate,
    best,
    engine,
    facts,
    floor,
    peak_memory,
    plain_pass,
    ratio,
)
from benchmarks.workloads import WORKLOADS
from tracin_func import Compute, Task
from tracin_func.scoring.score import Scores

LONG = ("conv 200 × 129×126", "conv 54 × 1025×126", "lab, six checkpoints", "lab at 1025×188")  # no floor, no `item`
LARGE, FEW = 10_000, 54  # numbers of an item, and items, from and up to which all of them are tried
EQUAL = 1e-3  # of the largest score: one ReLU of millions that rounding decides otherwise changes an item by 1e-4
ASKED = {
    "self": {"self_influence": True},
    "influence": {"self_influence": False, "influence": True},
    "both": {"self_influence": True, "influence": True},
}
ROWS = [(name, "both" if "lab" in name else "self") for name in WORKLOADS] + [
    (name, "influence") for name in ("conv 54 × 129×126", "transformer, chosen and rejected")
]


@pytest.mark.parametrize(("name", "asked"), ROWS, ids=[f"{name}: {asked}" for name, asked in ROWS])
def test_against_the_yardstick(benchmark: BenchmarkFixture, device: torch.device, name: str, asked: str) -> None:
    """Plain pass, floor and the engines `ghost` and `item`, each at its best batch size, alternated.

    The floor's is the plain pass's; `item` is left out where only influence is asked.
    """
    full, tiny, rounds = WORKLOADS[name]
    enabled = benchmark.enabled
    task = full() if enabled else tiny()
    with_test = asked != "self"
    first = _part(task)  # where batch sizes are tried
    times = 2 if enabled else 1
    runs: dict[str, Timed] = {}
    kept, sizes = {}, {}
    large = "1025" in name  # larger batches are slower, and a pass takes seconds: no search, no warming up
    every = plain_pass(task, device, with_test)
    tried = {size: run for size, run in plain_pass(first, device, with_test).items() if size in every}
    sizes["plain pass"] = min(tried) if large else _best_batch(first, "plain pass", device, tried, times)
    for plain, make in {"plain pass": plain_pass, **({} if name in LONG else {"floor": floor})}.items():
        runs[plain] = make(task, device, with_test)[sizes["plain pass"]]
    for candidate in ("ghost",) if name in LONG or asked == "influence" else ("ghost", "item"):
        if enabled:
            sizes[candidate] = 1 if large else _best_batch(first, candidate, device, _engines(first, candidate, device))
        else:
            sizes[candidate] = 4
        compute = Compute(engine=candidate, device=device, batch_size=sizes[candidate])
        runs[candidate], kept[candidate] = engine(task, compute, **ASKED[asked])
    seconds = alternate(runs, rounds if enabled else 1, warm_up=not large)
    for scores in kept.values():
        assert_equal_scores(kept["ghost"][0], scores[0], EQUAL)
    benchmark.group = f"{name}: {asked}"
    with peak_memory(device) as peak:
        benchmark.pedantic(runs["ghost"], rounds=1)
    figures = {engine_: ratio(seconds[engine_], seconds["plain pass"]) for engine_ in runs}
    benchmark.extra_info |= {
        **facts(task, device),
        "rounds": len(seconds["ghost"]),
        "batch_sizes": sizes,
        "seconds": {run: sorted(values)[len(values) // 2] for run, values in seconds.items()},
        "ratios": {run: [figure.median, figure.low, figure.high] for run, figure in figures.items()},
        "peak_bytes_above_earlier_runs": peak["bytes"],
    }
    print(f"\n{name}, {asked}: plain pass {benchmark.extra_info['seconds']['plain pass']:.3f} s on {device}")
    for run in list(runs)[1:]:
        print(f"  {run:6} {figures[run]} of the plain pass")


@pytest.mark.parametrize("slow", ["pair", "loop"])
def test_slow_engines(benchmark: BenchmarkFixture, device: torch.device, slow: str) -> None:
    """Seconds of all 1,431 pairs of 54 items, EXTRAPOLATED from 16 pairs; 8 pairs show that time is linear."""
    full, tiny, _ = WORKLOADS["conv 54 × 129×126"]
    task = full() if benchmark.enabled else tiny()
    compute = Compute(engine=slow, device=device, batch_size=8)
    runs, kept = {}, {}
    for pairs in (8, 16):
        part = replace(task, train=task.train_pairs.select(torch.arange(pairs)))
        runs[str(pairs)], kept[pairs] = engine(part, compute, self_influence=True)
    ghost = Compute(engine="ghost", device=device, batch_size=8)
    runs["ghost"], of_ghost = engine(task, ghost, self_influence=True)
    seconds = alternate(runs, 5 if benchmark.enabled else 1)
    found, exact = kept[16][0].self_influence, of_ghost[0].self_influence
    assert found is not None
    assert exact is not None
    torch.testing.assert_close(found.scores[:15], exact.scores[:15], rtol=1e-3, atol=0)
    linear = ratio(seconds["16"], seconds["8"])
    against = ratio(seconds["16"], seconds["ghost"])
    every = len(task.train_pairs) / 16
    benchmark.group = "engines pair and loop, extrapolated"
    benchmark.pedantic(runs["8"], rounds=1)
    benchmark.extra_info |= {**facts(task, device), "extrapolated": True, "linearity": str(linear), "engine": slow}
    if benchmark.enabled:
        assert 1.6 < linear.median < 2.4, f"16 pairs take {linear} of 8: time is not linear, and cannot be extrapolated"
    print(f"\n{slow}: {against.median * every:.0f} times ghost on {device}, extrapolated; 16 pairs take {linear} of 8")


def _part(task: Task) -> Task:
    """The first checkpoint, and the pairs of the first of many large items, whose best batch size is that of all."""
    task, pairs = replace(task, checkpoints=task.checkpoints[:1]), task.train_pairs
    numbers = sum(leaf.numel() for leaf in pytree.tree_leaves(task.items.take(torch.arange(1))))
    if numbers < LARGE or len(task.items) <= FEW:
        return task
    return replace(task, train=pairs.select((pairs.first < FEW) & (pairs.second < FEW)))


def assert_equal_scores(left: Scores, right: Scores, tolerance: float) -> None:
    """Equal to `tolerance` of the largest."""
    for one, other in ((left.self_influence, right.self_influence), (left.influence, right.influence)):
        if one is not None and other is not None:
            largest = float(other.scores.abs().max())
            torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=tolerance * largest)


def _engines(task: Task, name: str, device: torch.device) -> dict[int, Timed]:
    """Self-influence by the engine, by batch size: those that the items fill."""
    least = 64 if len(task.items) > 1000 else 1  # thousands of small items in small batches take minutes
    sizes = [size for size in ENGINE_BATCH_SIZES if least <= size <= len(task.items)]
    of_size = {size: Compute(engine=name, device=device, batch_size=size) for size in sizes}
    return {size: engine(task, compute, self_influence=True)[0] for size, compute in of_size.items()}


_found: dict[tuple[object, ...], int] = {}


def _best_batch(task: Task, name: str, device: torch.device, candidates: dict[int, Timed], times: int = 2) -> int:
    """The best size, looked for once for a model and its items."""
    what = facts(task, device)
    key = (name, str(device), what["parameters"], str(what["item_shapes"]))
    if _found.get(key) not in candidates:  # "all items" may be more of them here
        _found[key] = best(candidates, times)
    return _found[key]
