"""Evaluation of scores on retrained models: do they deserve trust on this task?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.evaluation.datamodelling import (
    Datamodelling,
    foresee,
    item_masks,
    left_out_item_masks,
    left_out_masks,
    pair_masks,
)
from tracin_func.evaluation.flips import Flips, drawn, find_flips
from tracin_func.evaluation.held_out import halves, held_out_pairs, sampled
from tracin_func.evaluation.methods.method import Scoring
from tracin_func.evaluation.methods.registry import chosen
from tracin_func.evaluation.outcomes import Outcomes, Training, outcomes_folder
from tracin_func.evaluation.plan import FLIPS, HALVES, ITEM_HALVES, LEFT_OUT, PARTS, REMOVAL, Plan, Sizes, planned
from tracin_func.evaluation.removal import Removal, remove
from tracin_func.evaluation.runs import run_of
from tracin_func.evaluation.workers import cores
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task
from tracin_func.training.retrain import Recipe, Retrained, recipe_of, require_retrainable

RETRAINING_SEEDS = 1000  # of subsets begin here, apart from the seeds of runs
Begun = Callable[[Plan], Callable[[float], None]]


@dataclass(frozen=True)
class Setup:
    """What is evaluated, and how.

    Args:
        parts: of `PARTS`.
        flip_share: share of the training pairs whose labels are flipped; 0: labels as they are, and no part "flips".
        drop: shares of the training pairs that the removal drops.
        queries: held-out pairs, at most, whose score margins are foreseen.
        seed: of flips, masks, runs and splits.
        sizes: how much is retrained at most.

    Raises:
        UsageError: a share out of range, an unknown part.
    """

    parts: tuple[str, ...] = (FLIPS, REMOVAL, HALVES)
    flip_share: float = 0.1
    drop: tuple[float, ...] = (0.05, 0.1, 0.2)
    queries: int = 40
    seed: int = 0
    sizes: Sizes = Sizes()

    def __post_init__(self) -> None:
        if unknown := [part for part in self.parts if part not in PARTS]:
            raise UsageError(f"`parts` should be among {', '.join(PARTS)}. Got {unknown[0]!r}.")
        if not 0 <= self.flip_share < 0.5:
            raise UsageError(f"`flip_share` should be from 0 to below 50%. Got {self.flip_share:.0%}.")
        if FLIPS in self.parts and not self.flip_share:
            raise UsageError("`flip_share` is 0, so that there are no flips to find. Leave flips out of `parts`.")
        if wrong := [share for share in self.drop if not 0 < share < 1]:
            raise UsageError(f"`drop` should be shares between 0% and 100%. Got {wrong[0]:.0%}.")
        if self.queries < 1:
            raise UsageError(f"`queries` should be at least 1. Got {self.queries}.")


@dataclass(frozen=True)
class EvaluationReport:
    """Results of an evaluation; a part that was not asked for, or did not fit, is None.

    Args:
        flips, removal: these parts.
        datamodelling: over halves of pairs and of items, then pairs and items left out, as far as they were asked for.
        methods: what is compared.
        plan: what was retrained, and what was left out.
        recipe: of every retraining.
        accuracy: held-out pair accuracy of the first run.
        computed, cached: retrainings that were done, and those that were known.
        seconds: of the whole evaluation.
    """

    flips: Flips | None
    removal: Removal | None
    datamodelling: tuple[Datamodelling, ...]
    methods: Mapping[str, Scoring] = field(repr=False)
    plan: Plan
    recipe: Recipe
    accuracy: float
    computed: int
    cached: int
    seconds: float

    def describe(self) -> dict[str, Any]:
        """For programs."""
        return {
            "methods": {name: each.help for name, each in self.methods.items()},
            "recipe": self.recipe.describe(),
            "held_out_accuracy": self.accuracy,
            "retrainings": {"computed": self.computed, "cached": self.cached, "seconds": self.seconds},
            "left_out": list(self.plan.left_out),
            "flips": None if self.flips is None else self.flips.describe(),
            "removal": None if self.removal is None else self.removal.describe(),
            "datamodelling": [each.describe() for each in self.datamodelling],
        }


def evaluate(
    task: Task,
    *,
    methods: Sequence[str] | None = None,
    setup: Setup = Setup(),
    recipe: Recipe | None = None,
    budget: float | None = None,
    processes: int | None = None,
    folder: Path | None = None,
    begun: Begun = lambda plan: lambda amount: None,
) -> EvaluationReport:
    """Retrain the scorer of a task on flipped, thinned and halved pairs, and compare what scores say about it.

    Args:
        task: with held-out pairs (`held_out`, else `test`). Its checkpoints give the recipe; they are not scored.
        methods: names of `SCORINGS`; baselines are always compared too.
        setup: what is evaluated.
        recipe: of the retrainings; that of the task's training when None.
        budget: minutes that retrainings may take; None for no limit.
        processes: at most; one per core when None.
        folder: where outcomes are kept; the cache of this package when None.
        begun: receives the plan after the first training, and returns what is called with 1 for each retraining.

    Raises:
        UsageError: an argument wrong in itself. InputError: no held-out pairs, or a scorer that cannot be retrained.
        NumericalError: a score became NaN or infinite in a retraining.
    """
    began = monotonic()
    require_retrainable(task)
    scored, held_out = chosen(methods), held_out_pairs(task)
    recipe = recipe or recipe_of(task)
    outcomes = Outcomes(task, recipe, folder or outcomes_folder(), processes)
    pairs = task.train_pairs
    (first,) = outcomes([Training(pairs, setup.seed, states=True)])
    training = outcomes.seconds[0] * int(pairs.counts.sum()) / (processes or cores())
    cases = (len(scored) + bool(setup.flip_share)) * len(setup.drop)
    plan = planned(setup.parts, setup.sizes, cases, training, None if budget is None else budget * 60)
    advance = begun(plan)
    flips, removal = _on_flips(outcomes, task, held_out, scored, setup, plan, advance)
    found = _on_subsets(outcomes, task, sampled(held_out, setup.queries, setup.seed), scored, setup, plan, advance)
    return EvaluationReport(
        flips=flips,
        removal=removal,
        datamodelling=tuple(found),
        methods=scored,
        plan=plan,
        recipe=recipe,
        accuracy=_accuracy(first, held_out),
        computed=outcomes.computed,
        cached=outcomes.found,
        seconds=monotonic() - began,
    )


def _on_flips(
    outcomes: Outcomes,
    task: Task,
    held_out: Pairs,
    methods: Mapping[str, Scoring],
    setup: Setup,
    plan: Plan,
    advance: Callable[[float], None],
) -> tuple[Flips | None, Removal | None]:
    """The parts on planted flips, which share their models and rankings."""
    count = {part: plan.sizes[part].draws for part in (FLIPS, REMOVAL) if part in plan.sizes}
    if not count:
        return None, None
    queries, judged = halves(held_out, setup.seed)
    seeds = range(setup.seed, setup.seed + max(count.values()))
    draws = drawn(
        outcomes, task, sampled(queries, setup.queries, setup.seed), methods, setup.flip_share, seeds, advance
    )
    flips = find_flips(draws[: count[FLIPS]], methods) if FLIPS in count else None
    removal = (
        remove(outcomes, draws[: count[REMOVAL]], methods, judged, setup.drop, advance) if REMOVAL in count else None
    )
    return flips, removal


def _on_subsets(
    outcomes: Outcomes,
    task: Task,
    queries: Pairs,
    methods: Mapping[str, Scoring],
    setup: Setup,
    plan: Plan,
    advance: Callable[[float], None],
) -> list[Datamodelling]:
    """The parts on models trained on some of the pairs."""
    pairs, own = task.train_pairs, [part for part in (HALVES, ITEM_HALVES, LEFT_OUT) if part in plan.sizes]
    if not own:
        return []
    run_seeds = range(setup.seed, setup.seed + plan.runs)
    trained = outcomes([Training(pairs, seed, states=True) for seed in run_seeds], advance)
    runs = [run_of(task, pairs, each, queries) for each in trained]
    effects: dict[str, list[Tensor]] = {
        name: [each.effects(run) for run in runs] for name, each in methods.items() if each.effects is not None
    }
    found = []
    for part in own:
        sizes = plan.sizes[part]
        kinds: Mapping[str, Callable[[], Tensor]] = {
            HALVES: {"random halves of the pairs": partial(pair_masks, pairs, sizes.masks, setup.seed)},
            ITEM_HALVES: {"random halves of the items": partial(item_masks, pairs, sizes.masks, setup.seed)},
            LEFT_OUT: {
                "all pairs but one": partial(left_out_masks, pairs, sizes.left_out, setup.seed),
                "all items but one": partial(left_out_item_masks, pairs, sizes.left_out, setup.seed),
            },
        }[part]
        seeds = range(RETRAINING_SEEDS, RETRAINING_SEEDS + sizes.seeds)
        for what, masks in kinds.items():
            found.append(foresee(what, outcomes, pairs, queries, masks(), seeds, effects, run_seeds, advance))
    return found


def _accuracy(trained: Retrained, pairs: Pairs) -> float:
    return float(((trained.margins(pairs) > 0) * pairs.shares).sum())
