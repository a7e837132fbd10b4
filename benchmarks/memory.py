"""Peak memory of self-influence in a process of its own: python benchmarks/memory.py WORK ENGINE BUDGET ITEMS."""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import best, peak_memory, plain_pass
from benchmarks.resnet import ResNetRanker
from tracin_func import Checkpoint, Compute, MarginRankingLoss, Pairs, Task
from tracin_func.scoring.score import score
from tracin_func.sources.demo.ranker import AngleRanker

CPU = torch.device("cpu")


class Drawn(torch.utils.data.Dataset[torch.Tensor]):
    """Items made when they are asked for, as a reader of files does."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.count, self.shape = count, shape

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> torch.Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(position))


# name -> (the model, the shape of an item, pairs per item)
WORKS: dict[str, tuple[type[nn.Module], tuple[int, ...], float]] = {
    "spectrograms": (AngleRanker, (1, 1025, 188), 10),
    "images": (ResNetRanker, (3, 64, 64), 20 / 3),
}


def main() -> None:
    """Print peak and planned bytes, differentiations per item and the ratio to a plain pass, as JSON."""
    work, name, budget, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    of, shape, per_item = WORKS[work]
    torch.manual_seed(0)
    model = of().eval()
    first = torch.arange(round(count * per_item)) % count
    second = (first + torch.randint(1, count, (len(first),))) % count
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    pairs = Pairs(first, second, torch.ones(len(first)), ids=[f"draw {row}" for row in range(len(first))])
    task = Task(model, Drawn(count, shape), pairs, [Checkpoint(state, 1.0)], loss=MarginRankingLoss(1e4))
    # The libraries' own memory is not ours.
    torch.autograd.grad(model(torch.zeros(2, *shape)).sum(), list(model.parameters()))
    with peak_memory(CPU) as peak:
        start = time.perf_counter()
        found = score(task, compute=Compute(engine=name, memory_budget=budget)).self_influence
        seconds = time.perf_counter() - start
    assert found is not None
    plain = plain_pass(task, CPU)  # after the peak, whose freed memory it would hide
    run, size = found.run.engine, best(plain, 1)
    record = {
        "peak": peak["bytes"],
        "planned": run["expected_bytes"],
        "model": sum(tensor.nbytes for tensor in state.values()),
        "differentiated": run["differentiations"]["mean"],
        "batch_size": run["batch_size"],
        "seconds": seconds,
        "ratio": seconds / min(plain[size]() for _ in range(2)),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
