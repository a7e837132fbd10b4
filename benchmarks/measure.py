"""How the benchmarks measure: alternation in one process, ratios with an interval, and what to compare with."""

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tracin_func import Compute, Task
from tracin_func.scoring.score import Scores, score

BATCH_SIZES = (8, 16, 32, 64)
ENGINE_BATCH_SIZES = (4, 8, 16, 32, 64, 512, 2048)
CLEARLY_WORSE = 1.15  # than the best smaller batch

Timed = Callable[[], float]  # runs once, and says how many seconds that took


@dataclass(frozen=True)
class Ratio:
    """Median of the ratios of rounds, and its 90% interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def alternate(runs: dict[str, Timed], rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds of each run, one after the other in every round, after a round of warming up if asked."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + warm_up):
        for name, run in runs.items():
            seconds[name].append(run())
    return {name: taken[int(warm_up) :] for name, taken in seconds.items()}


def ratio(left: list[float], right: list[float]) -> Ratio:
    """left / right, round by round; the interval by order statistics: P(x_k ≤ median ≤ x_{n+1−k}) ≥ 90%."""
    ratios = sorted(a / b for a, b in zip(left, right, strict=True))
    n, k, tail = len(ratios), 0, 0.0
    while k < n // 2 and tail + math.comb(n, k) / 2**n <= 0.05:
        tail += math.comb(n, k) / 2**n
        k += 1
    edge = max(k - 1, 0)
    return Ratio(statistics.median(ratios), ratios[edge], ratios[n - 1 - edge])


def best(candidates: dict[int, Timed], times: int = 3) -> int:
    """The batch size of least time, each run several times, growing until one is clearly worse."""
    seconds: dict[int, float] = {}
    for size, run in sorted(candidates.items()):
        seconds[size] = min(run() for _ in range(times))
        if seconds[size] > CLEARLY_WORSE * min(seconds.values()):
            break
    return min(seconds, key=lambda size: seconds[size])


def plain_pass(task: Task, device: torch.device, with_test: bool = False) -> dict[int, Timed]:
    """Plain batched forward + backward over all items with ALL weight gradients at each checkpoint, by batch size.

    Items of test pairs are among them where these are scored.
    """
    model, items = _on(task, device, with_test)
    parameters = list(model.parameters())

    def run(size: int) -> None:
        for _ in task.checkpoints:
            for batch in _batches(items, size):
                torch.autograd.grad(model(batch).sum(), parameters)

    return _timed(run, _count(items), device)


def floor(task: Task, device: torch.device, with_test: bool = False) -> dict[int, Timed]:
    """Forward + backward to the output of the first layer and no weight gradient: what nothing can beat."""
    model, items = _on(task, device, with_test)
    first = next(module for module in model.modules() if module is not model and list(module.parameters(False)))

    def run(size: int) -> None:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        starts: list[Tensor] = []

        def begin(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            starts.append(output.detach().requires_grad_())
            return starts[-1]

        hook = first.register_forward_hook(begin)
        try:
            for _ in task.checkpoints:
                for batch in _batches(items, size):
                    score_sum = model(batch).sum()
                    torch.autograd.grad(score_sum, starts.pop())
        finally:
            hook.remove()
            for parameter in model.parameters():
                parameter.requires_grad_(True)

    return _timed(run, _count(items), device)


def engine(
    task: Task, compute: Compute, *, self_influence: bool = True, influence: bool = False
) -> tuple[Timed, list[Scores]]:
    """Seconds of gradients and scores, without probes and file output; the last scores are kept in the list."""
    kept: list[Scores] = []

    def run() -> float:
        kept[:] = [score(task, compute=compute, self_influence=self_influence, influence=influence)]
        return seconds_of(kept[0])

    return run, kept


def facts(task: Task, device: torch.device) -> dict[str, object]:
    """What every benchmark records: on what it ran, and of what sizes."""
    one = pytree.tree_leaves(task.items.take(torch.arange(1)))
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "items": len(task.items),
        "item_shapes": [list(leaf.shape[1:]) for leaf in one],
        "pairs": len(task.train_pairs),
        "checkpoints": len(task.checkpoints),
        "parameters": sum(tensor.numel() for tensor in task.scorer.parameters()),
    }


def seconds_of(scores: Scores) -> float:
    """What a run reports of gradients and scores."""
    result = scores.self_influence or scores.influence
    assert result is not None
    seconds: float = result.run.engine["seconds"]
    return seconds


@contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, int]]:
    """Bytes above what was there at the start, at most, sampled every few milliseconds on a CPU."""
    found = {"bytes": 0}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found["bytes"] = torch.cuda.max_memory_allocated(device) - before
        return
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.005):
            found["bytes"] = max(found["bytes"], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _timed(run: Callable[[int], None], items: int, device: torch.device) -> dict[int, Timed]:
    def timed(size: int) -> Timed:
        def once() -> float:
            synchronise(device)
            start = time.perf_counter()
            run(size)
            synchronise(device)
            return time.perf_counter() - start

        return once

    return {size: timed(size) for size in sorted({*(size for size in BATCH_SIZES if size < items), items})}


def _on(task: Task, device: torch.device, with_test: bool) -> tuple[nn.Module, object]:
    """The model and the items that pairs compare, on the device."""
    tables = [task.train_pairs, *([task.test] if with_test and task.test is not None else [])]
    used = torch.cat([column for pairs in tables for column in (pairs.first, pairs.second)]).unique()
    batch = pytree.tree_map(lambda leaf: leaf.to(device), task.items.take(used))
    return task.scorer.to(device).eval(), batch


def _batches(items: object, size: int) -> Iterator[object]:
    for start in range(0, _count(items), size):
        yield pytree.tree_map(lambda leaf, start=start: leaf[start : start + size], items)


def _count(items: object) -> int:
    return len(pytree.tree_leaves(items)[0])
