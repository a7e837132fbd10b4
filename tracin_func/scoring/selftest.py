"""Self-test: every engine on every device with a small net, in about a second."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from tracin_func.gradients.compute import Compute
from tracin_func.losses.margin import MarginRankingLoss
from tracin_func.results.verification import TOLERANCE
from tracin_func.scoring.observer import LOG, Observer
from tracin_func.scoring.score import Scores, score
from tracin_func.task.checkpoints import Checkpoint
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task

ITEMS, TESTS, SIDE = 6, 3, 8


@dataclass(frozen=True)
class Outcome:
    """One engine on one device: the largest deviation of its scores, or the fault that prevented them.

    `notices` are those of the run, such as how far gradients on MPS are from the CPU's.
    """

    engine: str
    device: str
    deviation: float | None
    seconds: float
    fault: str | None = None
    notices: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.fault is None and self.deviation is not None and self.deviation <= TOLERANCE

    def describe(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {"passed": self.passed}


def selftest(engines: Iterable[str], devices: Iterable[str]) -> Iterator[Outcome]:
    """Self-influence and influence in float32 by each engine on each device, against plain autograd in float64.

    Deviations are those of `verify`, of all scores. The random numbers do not depend on those of the caller.
    """
    task = _task()
    engines = list(engines)
    for device in devices:
        for engine in engines:
            yield _outcome(task, engine, device)


def _outcome(task: Task, engine: str, device: str) -> Outcome:
    notices: list[str] = []
    deviation = fault = None
    start = time.perf_counter()
    try:
        found = _scores(task, Compute(engine, device, batch_size=4), Observer(notices.append))
        assert found.influence is not None
        assert found.verification is not None
        used = str(found.influence.run.engine["device"])
        if torch.device(used).type != torch.device(device).type:
            fault = f"continued on {used}: gradients on {device} deviate too far"
        elif found.verification.worst is not None:
            deviation = found.verification.worst.deviation
            deviation = deviation if math.isfinite(deviation) else math.nan  # of a score that is NaN
    except Exception as error:  # the other engines and devices are still to be tried
        fault = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return Outcome(engine, device, deviation, time.perf_counter() - start, fault, tuple(notices))


def _task() -> Task:
    """A convolution, norms and linear layers; all pairs of a few random items, all active, at two states."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # modules draw weights, which checkpoints replace
        scorer = nn.Sequential(
            *(nn.Conv2d(1, 6, 3, stride=2), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(54, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 1)),
        )
    checkpoints = []
    for rate in (0.1, 0.01):
        state = {
            name: torch.randn(tensor.shape, generator=generator) / max(tensor[0].numel(), 1) ** 0.5
            for name, tensor in scorer.state_dict().items()
        }
        checkpoints.append(Checkpoint(state, rate))
    first, second = torch.triu_indices(ITEMS, ITEMS, offset=1)
    pairs = Pairs(first, second, torch.where((first + second) % 2 == 0, 1, -1))
    items = torch.randn(ITEMS, 1, SIDE, SIDE, generator=generator)
    test = pairs.select(torch.arange(TESTS))
    return Task(scorer, items, pairs, checkpoints, test, MarginRankingLoss(100.0))


def _scores(task: Task, compute: Compute, observer: Observer = LOG) -> Scores:
    return score(task, compute=compute, observer=observer, influence=True, verify=len(task.train) * TESTS)
