"""What more pairs of the same items cost, and the memory of a thousand items."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import alternate, engine, facts, ratio
from benchmarks.workloads import conv
from tracin_func import Compute, Pairs

MEMORY = Path(__file__).with_name("memory.py")


@pytest.mark.benchmark(group="200 items, 1,327 and 39,800 pairs")
def test_more_pairs_of_the_same_items(benchmark: BenchmarkFixture, device: torch.device, tmp_path: Path) -> None:
    """Engine and scoring seconds of both, alternated; writing the larger result is timed beside them."""
    task = conv(200, (129, 126)) if benchmark.enabled else conv(12, (33, 30))
    unordered = task.train_pairs
    every = Pairs(
        torch.cat([unordered.first, unordered.second]),
        torch.cat([unordered.second, unordered.first]),
        torch.cat([unordered.target, -unordered.target]),
    )
    few = every.select(torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[: len(every) // 30 + 1])
    compute = Compute(engine="ghost", device=device, batch_size=8)
    runs, kept = {}, {}
    for name, pairs in (("few", few), ("all", every)):
        runs[name], kept[name] = engine(replace(task, train=pairs), compute, self_influence=True, influence=True)
    seconds = alternate(runs, 9 if benchmark.enabled else 1)
    result = kept["all"][0].influence
    assert result is not None
    assert result.scores.shape == (len(every), 5)
    start = time.perf_counter()
    result.save(tmp_path / "influence.json")
    writing = time.perf_counter() - start
    benchmark.pedantic(runs["few"], rounds=1)
    grown = ratio(seconds["all"], seconds["few"])
    sizes = {"engine": "ghost", "batch_size": 8, "pairs": [len(few), len(every)]}
    benchmark.extra_info |= {**facts(task, device), **sizes, "ratio": str(grown), "writing_seconds": writing}
    print(f"\n{len(few):,} -> {len(every):,} pairs on {device}: {grown} of the time; JSON {writing:.2f} s beside it")


@pytest.mark.benchmark(group="peak memory of 1,000 items of 1025×188")
@pytest.mark.parametrize(("name", "budget"), [("ghost", 10**9), ("item", 10**9)])
def test_memory_stays_in_the_budget(benchmark: BenchmarkFixture, name: str, budget: int) -> None:
    """A process of its own; what it took above the model and torch against the budget, and against the plan."""
    found = _peak(benchmark, "spectrograms", name, budget, 1000 if benchmark.enabled else 12)
    assert found["peak"] <= budget


@pytest.mark.benchmark(group="peak memory of 300 images and 2,000 pairs, ResNet-18")
def test_gradients_that_do_not_fit(benchmark: BenchmarkFixture, large: None) -> None:
    """11.7 million parameters: 14 GB of gradients, in 2 GB."""
    found = _peak(benchmark, "images", "auto", 2 * 10**9, 300 if benchmark.enabled else 3)
    assert found["peak"] <= 2 * 10**9 + found["model"]
    assert found["differentiated"] < 3.5


def _peak(benchmark: BenchmarkFixture, work: str, name: str, budget: int, items: int) -> dict[str, float]:
    """What `memory.py` prints."""
    command = [sys.executable, str(MEMORY), work, name, str(budget), str(items)]

    def run() -> dict[str, float]:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    found = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= {**found, "engine": name, "budget": budget, "items": items, "device": "cpu"}
    print(
        f"\n{work}, {name}: peak {found['peak'] / 1e9:.2f} GB of {budget / 1e9:.1f} GB, planned "
        f"{found['planned'] / 1e9:.2f} GB; each item {found['differentiated']:.1f} times, {found['ratio']:.1f} of the "
        "plain pass"
    )
    return found
