"""Stores of many items: time grows with the items, memory does not."""

import time
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import facts, peak_memory
from benchmarks.workloads import mlp
from tracin_func import Compute, Method, Projection
from tracin_func.scoring.fill import fill_store

DEVICE = torch.device("cpu")
SIZES = (10_000, 30_000, 100_000)
TINY = (40, 120)
CHECKPOINTS = 3
BUDGET = 1 << 30
LINEAR = 1.5  # times an item's seconds among the smallest, at most


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", ["sjlt", "kronecker"])
def test_items_by_the_thousand(benchmark: BenchmarkFixture, tmp_path: Path, kind: str) -> None:
    """Gradients of a table's rows, three checkpoints, 512 dimensions, into a store."""
    seconds, peaks = {}, {}
    for items in SIZES if benchmark.enabled else TINY:
        task = mlp(items, CHECKPOINTS)
        folder = tmp_path / str(items)
        compute = Compute(device="cpu", memory_budget=BUDGET, store=folder)
        method = Method(projection=Projection(kind, 512))
        with peak_memory(DEVICE) as peak:
            start = time.perf_counter()
            filled = fill_store(task, compute, method=method)
            seconds[items] = time.perf_counter() - start
        peaks[items] = peak["bytes"]
        assert sum(each.made for each in filled) == sum(each.blocks for each in filled) > 0
        again = time.perf_counter()
        assert not sum(each.made for each in fill_store(task, compute, method=method))
        size = sum(path.stat().st_size for path in folder.rglob("*.bin"))
        each_takes = 1e6 * seconds[items] / items / CHECKPOINTS
        print(
            f"\n{kind}, {items:,} items: {seconds[items]:.1f} s, {each_takes:.0f} µs an item and checkpoint, "
            f"{peaks[items] / 1e6:.0f} MB above the items, {size / 1e6:.0f} MB on disk; opened and verified again in "
            f"{time.perf_counter() - again:.1f} s"
        )
    first, *_, last = seconds
    if benchmark.enabled:
        assert seconds[last] / last < LINEAR * seconds[first] / first
        assert max(peaks.values()) < BUDGET
    benchmark.extra_info |= {**facts(task, DEVICE), "seconds": seconds, "peak_bytes": peaks}
    benchmark.group = "stores"
    benchmark.pedantic(lambda: fill_store(task, compute, method=method), rounds=1)
