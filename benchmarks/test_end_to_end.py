"""Public functions, everything in them, against one plain forward + backward."""

import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import tracin_func as ti
from benchmarks.measure import Timed, alternate, best, facts, plain_pass, ratio, synchronise
from benchmarks.workloads import END_TO_END
from tracin_func import Compute, Task

ASKED: dict[str, Callable[..., object]] = {"self": ti.self_influence, "influence": ti.influence}


@pytest.mark.parametrize("name", END_TO_END)
def test_end_to_end(benchmark: BenchmarkFixture, device: torch.device, name: str) -> None:
    """Probes, plan, checks and scores with default settings; the first call, which fills the cache, is apart."""
    full, tiny, asked, rounds = END_TO_END[name]
    task = full() if benchmark.enabled else tiny()
    plain = plain_pass(task, device, with_test=asked != "self")
    size = best(plain, 2) if benchmark.enabled else min(plain)
    ours = call(task, device, asked)
    first = ours()
    seconds = alternate({"plain pass": plain[size], asked: ours}, rounds if benchmark.enabled else 1, warm_up=False)
    benchmark.group = f"end to end: {name}"
    benchmark.pedantic(ours, rounds=1)
    figure = ratio(seconds[asked], seconds["plain pass"])
    benchmark.extra_info |= {**facts(task, device), "seconds": seconds, "ratio": str(figure), "first call": first}
    print(f"\n{name}, {asked}: {figure} of the plain pass ({min(seconds['plain pass']):.3f} s, batches of {size})")


def call(task: Task, device: torch.device, asked: str) -> Timed:
    """One call of the public function."""

    def once() -> float:
        start = time.perf_counter()
        ASKED[asked](task, compute=Compute(device=device))
        synchronise(device)
        return time.perf_counter() - start

    return once
