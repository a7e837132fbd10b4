"""Peak memory of self-influence in a process of its own: python benchmarks/memory.py ENGINE BUDGET ITEMS."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import peak_memory
from tracin_func import Checkpoint, Compute, MarginRankingLoss, Pairs, Task
from tracin_func.scoring.score import score
from tracin_func.sources.demo.ranker import AngleRanker


class Spectrograms(torch.utils.data.Dataset[torch.Tensor]):
    """Items made when they are asked for, as a reader of files does."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> torch.Tensor:
        return torch.randn(1, 1025, 188, generator=torch.Generator().manual_seed(position))


def main() -> None:
    """Print peak and planned bytes as JSON."""
    name, budget, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.manual_seed(0)
    model = AngleRanker().eval()
    first = torch.arange(count).repeat(10)
    second = (first + torch.randint(1, count, (len(first),))) % count
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    pairs = Pairs(first, second, torch.ones(len(first)))
    task = Task(model, Spectrograms(count), pairs, [Checkpoint(state, 1.0)], loss=MarginRankingLoss(1e4))
    model(torch.zeros(2, 1, 1025, 188)).sum().backward()  # the libraries' own memory is not ours
    with peak_memory(torch.device("cpu")) as peak:
        found = score(task, compute=Compute(engine=name, memory_budget=budget)).self_influence
    assert found is not None
    print(json.dumps({"peak": peak["bytes"], "planned": found.run.engine["expected_bytes"]}))


if __name__ == "__main__":
    main()
