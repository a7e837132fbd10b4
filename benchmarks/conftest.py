"""What the benchmarks share: the embedded example as a task, and the devices there are."""

from dataclasses import replace

import pytest
import torch

import tracin_func as ti
from tracin_func import Pairs, Task


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--large`: also what takes minutes by itself."""
    parser.addoption("--large", action="store_true", help="run the benchmarks of long tables and of many items, too")


def pytest_xdist_auto_num_workers() -> int:
    """What is measured has the machine for itself."""
    return 0


@pytest.fixture
def large(request: pytest.FixtureRequest) -> None:
    """A benchmark of minutes: skipped unless it is asked for; its smoke run is not."""
    config = request.config
    if not config.getoption("--large") and not config.getoption("benchmark_disable"):
        pytest.skip("takes minutes: give --large")


@pytest.fixture(params=["cpu", "cuda", "mps"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each kind of device; one that is not there is skipped with the reason."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[request.param]:
        pytest.skip(f"no {request.param} device on this machine")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def embedded_task() -> Task:
    """The embedded example: 54 items, 566 drawn training pairs and 120 drawn test pairs, one row per drawn pair."""
    task = ti.sources.demo(num_test="all")
    assert task.test is not None
    return replace(task, train=as_draws(task.train_pairs), test=as_draws(task.test))


def as_draws(pairs: Pairs) -> Pairs:
    """A pair that was drawn k times as k pairs."""
    rows = torch.arange(len(pairs)).repeat_interleave(pairs.counts.long())
    return replace(pairs.select(rows), count=None, ids=tuple(f"draw {row}" for row in range(len(rows))))
