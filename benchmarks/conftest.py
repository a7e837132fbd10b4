"""What the benchmarks share: the embedded default as a task, and the devices there are."""

import numpy as np
import pytest
import torch

from tracin_func import Pairs, Task
from tracin_func.cli.settings import Settings
from tracin_func.sources.demo.ranker import AngleRanker
from tracin_func.sources.demo.source import embedded
from tracin_func.sources.recordings.drawing import draw_sequence, split_items
from tracin_func.sources.recordings.frontend import FrontEnd
from tracin_func.sources.recordings.tree import find_clips, load_items
from tracin_func.task.checkpoints import Checkpoint, find_checkpoints, load


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
    """The embedded default with its 54 items, 566 drawn training pairs and 120 drawn test pairs, a row a draw."""
    demo = embedded("500hz", "plastic")
    clips = find_clips(demo.data_root, material="plastic", frequency="500hz")
    degrees = torch.tensor([clip.degree for clip in clips])
    rng = np.random.RandomState(42)
    tables = []
    for positions in split_items(len(clips), 42):
        first, second, target = zip(*draw_sequence(positions, degrees, rng), strict=True)
        tables.append(Pairs(first, second, target, ids=[f"draw {row}" for row in range(len(first))]))
    paths = find_checkpoints(demo.checkpoint_dir)
    loss = Settings({}, load(Checkpoint(paths[0]), 1).args).loss()
    checkpoints = [Checkpoint(path) for path in paths]
    return Task(AngleRanker(), load_items(clips, FrontEnd()), tables[0], checkpoints, tables[1], loss)
