"""What of an evaluation fits a budget of time."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tracin_func.errors import UsageError
from tracin_func.results.names import counted

PARTS = FLIPS, REMOVAL, HALVES, ITEM_HALVES, LEFT_OUT = "flips", "removal", "datamodelling", "items", "left-out"
_KEPT = {HALVES: 0.5, ITEM_HALVES: 0.25}  # share of the pairs in a subset
_LEAST_MASKS, _LEAST_DRAWS, _LEAST_LEFT = 10, 2, 5
_OF_RUNS = 0.25  # share of the budget, at most, for the models whose scores are judged


@dataclass(frozen=True)
class Sizes:
    """How much is retrained.

    Args:
        runs: trainings on all pairs, whose scores are judged.
        draws: sets of planted flips, and repetitions of the removal.
        masks: random halves of the pairs, and of the items.
        seeds: retrainings of each half; masks come before seeds.
        left_out: single pairs, and single items, that are left out.

    Raises:
        UsageError: a number below 1.
    """

    runs: int = 3
    draws: int = 20
    masks: int = 80
    seeds: int = 3
    left_out: int = 20

    def __post_init__(self) -> None:
        for name in ("runs", "draws", "masks", "seeds", "left_out"):
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` of an evaluation should be at least 1. Got {getattr(self, name)}.")


@dataclass(frozen=True)
class Plan:
    """What is retrained.

    Args:
        sizes: by part, of the parts that fit.
        runs: trainings on all pairs.
        trainings: how many retrainings that is.
        seconds: how long they take, without those that are cached.
        left_out: sentences on what does not fit.
    """

    sizes: dict[str, Sizes] = field(default_factory=dict)
    runs: int = 1
    trainings: int = 0
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()


def planned(parts: Sequence[str], wanted: Sizes, cases: int, training: float, budget: float | None) -> Plan:
    """The largest sizes within the budget, which the parts share equally; what one does not use is left to the next.

    Args:
        parts: in order.
        wanted: sizes that are not exceeded.
        cases: retrainings per repetition of the removal.
        training: seconds of one training on all pairs, divided by the number of processes.
        budget: seconds; None for no limit.

    Raises:
        UsageError: a part is unknown, or there is none.
    """
    if not parts or any(part not in PARTS for part in parts):
        raise UsageError(f"`parts` should be among {', '.join(PARTS)}. Got {', '.join(parts) or 'none'}.")
    left, runs = budget, 0
    if any(part in (HALVES, ITEM_HALVES, LEFT_OUT) for part in parts):
        runs = wanted.runs if left is None else _fitting(wanted.runs, left * _OF_RUNS, training) or 1
        left = None if left is None else left - runs * training
    plan = Plan({}, runs, runs, runs * training)
    sentences = [f"{counted(runs, 'run')} of {wanted.runs}"] if 0 < runs < wanted.runs else []
    for position, part in enumerate(parts):
        share = None if left is None else max(left, 0.0) / (len(parts) - position)
        sizes, trainings, seconds = _of_part(part, wanted, cases, training, share)
        if sizes is None:
            sentences.append(f"{part}: left out")
            continue
        left = None if left is None else left - seconds
        sizes = replace(sizes, runs=runs or 1)
        plan = replace(
            plan,
            sizes={**plan.sizes, part: sizes},
            trainings=plan.trainings + trainings,
            seconds=plan.seconds + seconds,
        )
        if words := _reduced(part, sizes, wanted):
            sentences.append(f"{part}: {words}")
    return replace(plan, left_out=tuple(sentences))


def _of_part(
    part: str, wanted: Sizes, cases: int, training: float, share: float | None
) -> tuple[Sizes | None, int, float]:
    """Sizes of a part within its share, None if it does not fit; its retrainings; its seconds."""
    if part in (FLIPS, REMOVAL):
        each = 1 if part == FLIPS else cases
        draws = _fitting(wanted.draws, share, each * training)
        fits = draws >= min(_LEAST_DRAWS, wanted.draws)
        return (replace(wanted, draws=draws) if fits else None), draws * each, draws * each * training
    kinds = 2 if part == LEFT_OUT else 1  # pairs and items
    unit = training * _KEPT.get(part, 1.0) * kinds
    most, least = (wanted.left_out, _LEAST_LEFT) if part == LEFT_OUT else (wanted.masks, _LEAST_MASKS)
    total = _fitting(most * wanted.seeds, share, unit)
    masks = min(most, total)
    if masks < min(least, most):
        return None, 0, 0.0
    seeds = max(1, total // masks)
    name = "left_out" if part == LEFT_OUT else "masks"
    count = masks * seeds
    return replace(wanted, **{name: masks}, seeds=seeds), count * kinds, count * unit


def _fitting(wanted: int, share: float | None, unit: float) -> int:
    return wanted if share is None or unit <= 0 else min(wanted, int(share // unit))


def _reduced(part: str, sizes: Sizes, wanted: Sizes) -> str:
    """What of the wanted sizes is left out, in words."""
    names = {FLIPS: ("draws",), REMOVAL: ("draws",), LEFT_OUT: ("left_out", "seeds")}.get(part, ("masks", "seeds"))
    shown = {"draws": "repetitions", "left_out": "left-out pairs and items"}
    less = [
        f"{getattr(sizes, name)} of {getattr(wanted, name)} {shown.get(name, name)}"
        for name in names
        if getattr(sizes, name) < getattr(wanted, name)
    ]
    return ", ".join(less)
