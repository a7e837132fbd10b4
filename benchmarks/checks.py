"""What the checks of a run cost, as a share of one forward and backward: python benchmarks/checks.py [THREADS]."""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import best, plain_pass
from benchmarks.workloads import conv
from tracin_func import Compute
from tracin_func.gradients.engines.ghost import engine
from tracin_func.scoring import plan, walk
from tracin_func.scoring.score import score

ITEMS, SHAPE, ROUNDS, CHECKPOINTS = 54, (129, 126), 7, 3
ONCE, EACH = "once per run", "per checkpoint"


class StridedRanker(nn.Module):
    """Four blocks of strided convolution, BatchNorm, ReLU and pooling, the mean over space, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((1, 32, 5, (2, 4), True), (32, 64, 3, 2, True), (64, 128, 3, 2, True), (128, 256, 3, 1, False))
        layers: list[nn.Module] = []
        for inputs, outputs, size, stride, pooled in shapes:
            layers += [nn.Conv2d(inputs, outputs, size, stride, size // 2), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2, ceil_mode=True)] if pooled else []
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(256, 128), nn.Linear(128, 1))

    def forward(self, items: Tensor) -> Tensor:
        """Scores [items] of spectrograms [items, 1, height, width]."""
        return self.head(F.relu(self.blocks(items).mean(dim=(2, 3))))[:, 0]


def timed(function: Callable[..., Any], seconds: list[float], running: list[str]) -> Callable[..., Any]:
    """`function`, which adds the seconds it takes to `seconds`, unless one of `running` calls it."""

    @wraps(function)
    def run(*args: Any, **more: Any) -> Any:
        if running:
            return function(*args, **more)
        running.append(function.__name__)
        start = time.perf_counter()
        try:
            return function(*args, **more)
        finally:
            seconds.append(time.perf_counter() - start)
            running.clear()

    return run


def main() -> None:
    """Print a line per model: medians over rounds, checks and plain pass in turn."""
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
    checks = {ONCE: ((walk, "probed"), (plan, "choose")), EACH: ((walk, "change_of"), (engine, "require_complete"))}
    for name, model in (("ConvRanker", None), ("StridedRanker", StridedRanker())):
        task = conv(ITEMS, SHAPE, CHECKPOINTS, model)
        plain = plain_pass(task, torch.device("cpu"))
        size = best(plain)
        shares = defaultdict(list)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            plain[size]()
            whole = (time.perf_counter() - start) / CHECKPOINTS
            seconds: dict[str, list[float]] = {ONCE: [], EACH: []}
            running: list[str] = []
            kept = [(module, word, getattr(module, word)) for each in checks.values() for module, word in each]
            for when, each in checks.items():
                for module, word in each:
                    setattr(module, word, timed(getattr(module, word), seconds[when], running))
            score(task, compute=Compute(device="cpu"))
            for module, word, function in kept:
                setattr(module, word, function)
            shares[ONCE].append(sum(seconds[ONCE]) / whole)
            shares[EACH].append(sum(seconds[EACH]) / CHECKPOINTS / whole)
        figures = ", ".join(f"{when} {statistics.median(found):.2f}" for when, found in shares.items())
        print(f"{name}, {ITEMS} items of {SHAPE}: {figures} of a forward and backward in batches of {size}")


if __name__ == "__main__":
    main()
