"""How many flipped training pairs rank highest: by self-influence with and without GHM weights, and by plain loss.

22 of the 441 training pairs of the embedded example get the wrong target and are scored at its checkpoints, which
were trained on the correct ones. Run: python benchmarks/mislabelled.py
"""

from dataclasses import replace

import torch

import tracin_func as ti
from tracin_func import MarginRankingLoss, Pairs, SelfInfluence, self_influence

FLIPPED, DRAWS = 22, 5


def flipped(pairs: Pairs, rows: torch.Tensor) -> Pairs:
    """`pairs` with the targets of `rows` turned."""
    target = pairs.target.clone()
    target[rows] *= -1
    return Pairs(pairs.first, pairs.second, target, count=pairs.count)


def on_top(values: torch.Tensor, rows: torch.Tensor) -> int:
    """How many of `rows` are among the `FLIPPED` largest."""
    return int(torch.isin(values.topk(FLIPPED).indices, rows).sum())


def main() -> None:
    """Print one line per set of flipped pairs."""
    task = ti.sources.demo()
    print(f"of {FLIPPED} flipped pairs, on top by: self (standard) | self (ghm) | plain loss")
    for seed in range(DRAWS):
        rows = torch.randperm(len(task.train_pairs), generator=torch.Generator().manual_seed(seed))[:FLIPPED]
        job = replace(task, train=flipped(task.train_pairs, rows))
        plain = self_influence(replace(job, loss=MarginRankingLoss(10.0)))
        weighted = self_influence(job)
        assert isinstance(plain, SelfInfluence)
        found = (plain.scores, weighted.scores, plain.pairs.loss.mean(dim=0))
        print(f"draw {seed}: " + " | ".join(str(on_top(values, rows)) for values in found))


if __name__ == "__main__":
    main()
