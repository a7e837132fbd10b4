"""Linear datamodelling score: do scores foresee what a model retrained on a part of the pairs does?

predicted(S, q) = Σ_{p in S} count_p · effect(p, q)     against     the score margin of q after training on S
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tracin_func.evaluation.measures import (
    Interval,
    datamodelling_difference,
    datamodelling_intervals,
    datamodelling_score,
    noise_ceiling,
)
from tracin_func.evaluation.outcomes import Outcomes, Training
from tracin_func.task.pairs import Pairs


class Foreseen(NamedTuple):
    """The datamodelling score of a method: of each run, of the mean of all runs, and its lead over the first method."""

    method: str
    runs: tuple[float, ...]
    mean: Interval
    lead: Interval | None


@dataclass(frozen=True)
class Datamodelling:
    """Result of this part.

    Args:
        what: what subsets are made of, such as "random halves of the pairs".
        rows: one per method with effects.
        masks: number of subsets.
        seeds: of the retrainings on each subset.
        run_seeds: of the trainings on all pairs, whose scores are judged.
        queries: number of held-out pairs.
        kept: mean share of the training pairs in a subset.
        ceiling: the score that exact expected margins would have; NaN with one seed.
    """

    what: str
    rows: tuple[Foreseen, ...]
    masks: int
    seeds: tuple[int, ...]
    run_seeds: tuple[int, ...]
    queries: int
    kept: float
    ceiling: float

    def describe(self) -> dict[str, Any]:
        """For programs."""
        rows = [
            row._asdict() | {"mean": row.mean._asdict(), "lead": None if row.lead is None else row.lead._asdict()}
            for row in self.rows
        ]
        names = ("what", "masks", "seeds", "run_seeds", "queries", "kept", "ceiling")
        return {name: getattr(self, name) for name in names} | {"methods": rows}


def pair_masks(pairs: Pairs, count: int, seed: int) -> Tensor:
    """Random halves of the pairs, bool [count, pairs]; the first ones do not depend on `count`."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, len(pairs), dtype=torch.bool)
    for mask in masks:
        mask[torch.randperm(len(pairs), generator=generator)[: len(pairs) // 2]] = True
    return masks


def item_masks(pairs: Pairs, count: int, seed: int) -> Tensor:
    """The pairs among random halves of the items, bool [count, pairs]; about a quarter of the pairs each."""
    items, generator = _items(pairs), torch.Generator().manual_seed(seed)
    masks: list[Tensor] = []
    while len(masks) < count:
        kept = torch.zeros(int(items.max()) + 1, dtype=torch.bool)
        kept[items[torch.randperm(len(items), generator=generator)[: (len(items) + 1) // 2]]] = True
        mask = kept[pairs.first.long()] & kept[pairs.second.long()]
        if bool(mask.any()):
            masks.append(mask)
    return torch.stack(masks)


def left_out_masks(pairs: Pairs, count: int, seed: int) -> Tensor:
    """All pairs but one, for `count` random ones, bool [count, pairs]."""
    rows = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))[:count]
    return torch.arange(len(pairs)) != rows[:, None]


def left_out_item_masks(pairs: Pairs, count: int, seed: int) -> Tensor:
    """All pairs but those of one item, for `count` random items, bool [count, pairs]."""
    items = _items(pairs)
    left = items[torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))[:count], None]
    kept: Tensor = (pairs.first != left) & (pairs.second != left)
    return kept


def _items(pairs: Pairs) -> Tensor:
    found: Tensor = torch.unique(torch.cat([pairs.first, pairs.second]).long())
    return found


def foresee(
    what: str,
    outcomes: Outcomes,
    pairs: Pairs,
    queries: Pairs,
    masks: Tensor,
    seeds: Sequence[int],
    effects: Mapping[str, Sequence[Tensor]],
    run_seeds: Sequence[int],
    advance: Callable[[float], None],
) -> Datamodelling:
    """Retrain on every mask with every seed, and compare with the sums of effects.

    Args:
        what: what the subsets are, in words.
        outcomes: of retrainings.
        pairs: all training pairs.
        queries: held-out pairs.
        masks: subsets, bool [masks, pairs].
        seeds: of the retrainings.
        effects: by method, of each run, float64 [pairs, queries].
        run_seeds: of the runs.
        advance: called with 1 for each retraining.
    """
    jobs = [Training(pairs.select(mask), seed) for mask in masks for seed in seeds]
    margins = torch.stack([each.margins(queries) for each in outcomes(jobs, advance)])
    margins = margins.reshape(len(masks), len(seeds), len(queries))
    wanted = margins.mean(dim=1)
    weights = masks.double() * pairs.counts.double()
    singles = {name: [weights @ each for each in own] for name, own in effects.items()}
    means = {name: torch.stack(own).mean(dim=0) for name, own in singles.items()}
    intervals = datamodelling_intervals(list(means.values()), wanted)
    first = next(iter(means))
    rows = [
        Foreseen(
            name,
            tuple(datamodelling_score(each, wanted) for each in singles[name]),
            found,
            None if name == first else datamodelling_difference(means[name], means[first], wanted),
        )
        for name, found in zip(means, intervals, strict=True)
    ]
    kept = float(weights.sum() / (pairs.counts.sum() * len(masks)))
    return Datamodelling(
        what, tuple(rows), len(masks), tuple(seeds), tuple(run_seeds), len(queries), kept, noise_ceiling(margins)
    )
