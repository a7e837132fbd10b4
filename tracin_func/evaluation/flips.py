"""Planted label flips: models are trained WITH them, and a good ranking puts them first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tracin_func.evaluation.measures import Interval, auc, interval, precision
from tracin_func.evaluation.methods.method import Scoring
from tracin_func.evaluation.outcomes import Outcomes, Training
from tracin_func.evaluation.runs import run_of
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task
from tracin_func.training.retrain import Retrained


@dataclass(frozen=True, eq=False)
class Draw:
    """Training pairs with planted flips, a model trained on them, and how each method ranks the pairs.

    Args:
        pairs: with the flipped targets.
        flipped: bool [pairs].
        seed: of the flips and of the training.
        trained: its outcome.
        rankings: float64 [pairs] by method; high: dropped first.
    """

    pairs: Pairs
    flipped: Tensor
    seed: int
    trained: Retrained
    rankings: Mapping[str, Tensor]


class Found(NamedTuple):
    """How well a method ranks planted flips: AUC, and precision among as many pairs as were planted."""

    method: str
    auc: Interval
    precision: Interval


@dataclass(frozen=True)
class Flips:
    """Result of this part.

    Args:
        rows: one per method.
        planted: number of flipped pairs.
        pairs: number of training pairs.
        seeds: of the draws; each has its own flips and its own training.
        ahead: AUC of the best method with gradients minus that of the best without, over the same draws.
    """

    rows: tuple[Found, ...]
    planted: int
    pairs: int
    seeds: tuple[int, ...]
    ahead: Interval | None

    def describe(self) -> dict[str, Any]:
        """For programs."""
        rows = [
            row._asdict() | {name: getattr(row, name)._asdict() for name in ("auc", "precision")} for row in self.rows
        ]
        ahead = None if self.ahead is None else self.ahead._asdict()
        return {"planted": self.planted, "pairs": self.pairs, "seeds": self.seeds, "methods": rows, "ahead": ahead}


def with_flips(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Tensor]:
    """The pairs with `share` of the targets turned, at least one unless it is 0, and which, bool [pairs]."""
    count = max(1, round(share * len(pairs))) if share else 0
    flipped = torch.zeros(len(pairs), dtype=torch.bool)
    flipped[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))[:count]] = True
    target = torch.where(flipped, -pairs.target, pairs.target)
    return Pairs(pairs.first, pairs.second, target, pairs.weight, pairs.margin, pairs.count, pairs.ids), flipped


def drawn(
    outcomes: Outcomes,
    task: Task,
    queries: Pairs,
    methods: Mapping[str, Scoring],
    share: float,
    seeds: Sequence[int],
    advance: Callable[[float], None],
) -> list[Draw]:
    """One draw per seed: flips are planted, the scorer is trained with them, and every method ranks the pairs."""
    planted = [with_flips(task.train_pairs, share, seed) for seed in seeds]
    jobs = [Training(pairs, seed, states=True) for (pairs, _), seed in zip(planted, seeds, strict=True)]
    found = []
    for (pairs, flipped), seed, trained in zip(planted, seeds, outcomes(jobs, advance), strict=True):
        run = run_of(task, pairs, trained, queries)
        rankings = {name: each.ranked(run) for name, each in methods.items()}
        found.append(Draw(pairs, flipped, seed, trained, rankings))
    return found


def find_flips(draws: Sequence[Draw], methods: Mapping[str, Scoring]) -> Flips:
    """AUC and precision of every method over the draws."""
    planted = int(draws[0].flipped.sum())
    areas, shares = (
        {name: torch.tensor([figure(draw, name) for draw in draws], dtype=torch.float64) for name in methods}
        for figure in (_auc, _precision)
    )
    rows = [Found(name, interval(areas[name]), interval(shares[name])) for name in methods]
    best = {
        kind: max(
            (n for n, each in methods.items() if each.is_baseline is kind),
            key=lambda n: float(areas[n].mean()),
            default=None,
        )
        for kind in (False, True)
    }
    both = best[False], best[True]
    ahead = None if both[0] is None or both[1] is None else interval(areas[both[0]] - areas[both[1]])
    return Flips(tuple(rows), planted, len(draws[0].pairs), tuple(draw.seed for draw in draws), ahead)


def _auc(draw: Draw, name: str) -> float:
    return auc(draw.rankings[name], draw.flipped)


def _precision(draw: Draw, name: str) -> float:
    return precision(draw.rankings[name], draw.flipped, int(draw.flipped.sum()))
