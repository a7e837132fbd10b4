"""Removal curve: does a model retrained without the pairs that a method ranks first do better?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tracin_func.evaluation.flips import Draw
from tracin_func.evaluation.measures import CONFIDENCE, Interval, highest, interval
from tracin_func.evaluation.methods.method import Scoring
from tracin_func.evaluation.outcomes import Outcomes, Training
from tracin_func.task.pairs import Pairs
from tracin_func.training.retrain import Retrained

ORACLE = "oracle"  # the planted flips first, then pairs at random


class Dropped(NamedTuple):
    """Held-out pair accuracy after retraining without the first `k` pairs, and its gain over dropping nothing.

    `helps`: the gain is above 0 at 95%, corrected for all rankings and sizes that were tried (Bonferroni).
    """

    method: str
    k: int
    accuracy: Interval
    gain: Interval
    helps: bool


@dataclass(frozen=True)
class Removal:
    """Result of this part.

    Args:
        nothing: held-out pair accuracy with nothing dropped.
        rows: one per method and number of dropped pairs.
        planted: number of flipped pairs among the training pairs; 0: labels are as they are.
        judged: number of held-out pairs of the accuracy; they share no item with the queries.
        seeds: of the repetitions.
        ahead: largest gain of a ranking with gradients minus that of one without, over the same repetitions.
    """

    nothing: Interval
    rows: tuple[Dropped, ...]
    planted: int
    judged: int
    seeds: tuple[int, ...]
    ahead: Interval | None = None

    def describe(self) -> dict[str, Any]:
        """For programs."""
        rows = [
            row._asdict() | {name: getattr(row, name)._asdict() for name in ("accuracy", "gain")} for row in self.rows
        ]
        own: dict[str, Any] = {"planted": self.planted, "judged": self.judged, "seeds": self.seeds}
        own["ahead"] = None if self.ahead is None else self.ahead._asdict()
        return own | {"nothing": self.nothing._asdict(), "rows": rows}


def remove(
    outcomes: Outcomes,
    draws: Sequence[Draw],
    methods: Mapping[str, Scoring],
    judged: Pairs,
    shares: Sequence[float],
    advance: Callable[[float], None],
) -> Removal:
    """Retrain each draw without the first pairs of every ranking, with the seed of its own training."""
    total, planted = len(draws[0].pairs), int(draws[0].flipped.sum())
    sizes = sorted({min(max(1, round(share * total)), total - 1) for share in shares})
    rankings = [rankings_of(draw) for draw in draws]
    cases = [(name, k) for name in rankings[0] for k in sizes]
    jobs = [
        Training(without(draw.pairs, highest(own[name], k)), draw.seed)
        for draw, own in zip(draws, rankings, strict=True)
        for name, k in cases
    ]
    trained = outcomes(jobs, advance)
    found = _accuracies(trained, judged).reshape(len(draws), len(cases))
    nothing = _accuracies([draw.trained for draw in draws], judged)
    gains, sure = found - nothing[:, None], 1 - (1 - CONFIDENCE) / len(cases)
    rows = [
        Dropped(name, k, interval(found[:, column]), interval(own), interval(own, sure).low > 0)
        for column, ((name, k), own) in enumerate(zip(cases, gains.T, strict=True))
    ]
    best = {
        kind: max(own, key=lambda column: float(gains[:, column].mean()))
        for kind in (False, True)
        if (
            own := [
                place for place, (name, _) in enumerate(cases) if name in methods and methods[name].is_baseline is kind
            ]
        )
    }
    ahead = interval(gains[:, best[False]] - gains[:, best[True]]) if len(best) == 2 else None
    return Removal(interval(nothing), tuple(rows), planted, len(judged), tuple(draw.seed for draw in draws), ahead)


def rankings_of(draw: Draw) -> Mapping[str, Tensor]:
    """The rankings of a draw, with the oracle where flips were planted."""
    if not bool(draw.flipped.any()):
        return draw.rankings
    chance = torch.rand(len(draw.flipped), generator=torch.Generator().manual_seed(draw.seed), dtype=torch.float64)
    return {**draw.rankings, ORACLE: draw.flipped.double() + chance / 2}


def without(pairs: Pairs, rows: Tensor) -> Pairs:
    """The pairs that are not at `rows`."""
    kept = torch.ones(len(pairs), dtype=torch.bool)
    kept[rows] = False
    return pairs.select(kept)


def _accuracies(trained: Sequence[Retrained], judged: Pairs) -> Tensor:
    """Pair accuracy of each model, repeats counted, float64; a tie is wrong."""
    return torch.stack([((each.margins(judged) > 0) * judged.shares).sum() for each in trained])
