"""How many pairs a model ranks right at each checkpoint: is this the run that was trained?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.processes import ALONE
from tracin_func.losses.terms import Terms
from tracin_func.scoring.steps import Evaluated
from tracin_func.scoring.walk import Tracer
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task

EVALUATED_PAIRS = 2000  # of each table at most; a share of so many is known to about a point
BY_SCORE = ("misranked", "lowest-margin", "active")  # ways to select test pairs by the model's scores
SELECTIONS = ("random", *BY_SCORE)
GAP = 0.10  # between a share of pairs ranked right and the one the checkpoint recorded
# What trainers call the shares of pairs ranked right.
TRAIN_NAMES = ("train_accuracy", "train_acc", "training_accuracy")
TEST_NAMES = ("test_accuracy", "test_acc", "val_accuracy", "val_acc", "validation_accuracy", "accuracy")


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint: how many pairs it ranks right and at what loss, repeats counted, and how many are inactive.

    Args:
        name: of the checkpoint.
        learning_rate, learning_rate_from, recorded: what it says of itself.
        train_pairs: how many were looked at.
        train_right, test_right: share of pairs ranked right, y (s_a − s_b) > 0; None without test pairs.
        train_loss, test_loss: mean loss, without weights.
        inactive: share of distinct training pairs whose gradient is exactly 0.
        inactive_as_trained: the same under `Task.trained_loss`; None where that is the loss.
    """

    name: str
    learning_rate: Any
    learning_rate_from: str
    recorded: Mapping[str, Any]
    train_pairs: int
    train_right: float
    test_right: float | None
    train_loss: float
    test_loss: float | None
    inactive: float
    inactive_as_trained: float | None

    def figures(self) -> dict[str, Any]:
        """What was measured, for provenance."""
        said = ("name", "learning_rate", "learning_rate_from", "recorded")
        return {name: value for name, value in asdict(self).items() if name not in said}


def evaluate(evaluated: Evaluated) -> Evaluation:
    """The numbers of a forward pass."""
    train, test, describe = evaluated.train, evaluated.test, evaluated.describe
    shares = evaluated.pairs[0].shares
    of_test = None if test is None else evaluated.pairs[1].shares
    return Evaluation(
        evaluated.name,
        describe["learning_rate"],
        describe["learning_rate_from"],
        describe["recorded"],
        len(shares),
        _mean(train.score_margin > 0, shares),
        None if test is None or of_test is None else _mean(test.score_margin > 0, of_test),
        _mean(train.loss, shares),
        None if test is None or of_test is None else _mean(test.loss, of_test),
        _inactive(train),
        None if evaluated.as_trained is None else _inactive(evaluated.as_trained),
    )


def select_test_pairs(task: Task, compute: Compute, how: str, count: int | None, seed: int) -> Pairs:
    """`count` of the held-out pairs (all such when None) by the model's scores, in their order.

    `misranked`: ranked wrong at the last checkpoint, at random; `lowest-margin`: those with the smallest
    y (s_a − s_b) there; `active`: whose loss has a gradient at some checkpoint, at random.

    Raises:
        InputError: there are fewer than `count` of this kind, or none.
    """
    pairs = task.held_out if task.held_out is not None else task.test_pairs
    assert pairs is not None
    alone = replace(compute, store=None, shard=None, world=ALONE)  # scores are enough
    tests = [_terms_of_test(evaluated) for evaluated in Tracer(task, alone).evaluations(len(pairs))]
    margin, active = tests[-1].score_margin, torch.stack([terms.active for terms in tests]).any(dim=0)
    if how == "lowest-margin":
        rows = torch.sort(margin, stable=True).indices[:count]
    else:
        rows = (margin <= 0 if how == "misranked" else active).nonzero()[:, 0]
    if not len(rows) or (count is not None and len(rows) < count):
        raise InputError(
            f"{count or 'some'} test pairs were to be {how}, and {len(rows)} of {len(pairs)} are. "
            "Ask for fewer (--num-test), or select them otherwise (--test-select)."
        )
    if count is not None and how != "lowest-margin":
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]]
    return pairs.select(rows.sort().values)


def gaps_of(evaluation: Evaluation) -> list[str]:
    """Where the share ranked right is far from the recorded one."""
    sides = (("training", evaluation.train_right, TRAIN_NAMES), ("test", evaluation.test_right, TEST_NAMES))
    found = []
    for role, share, names in sides:
        recorded = recorded_share(evaluation.recorded, names)
        if share is not None and recorded is not None and abs(share - recorded) > GAP:
            found.append(
                f"{evaluation.name} ranks {share:.0%} of the {role} pairs right, and it recorded {recorded:.0%}"
            )
    return found


def recorded_share(recorded: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """A share that a checkpoint recorded under one of these names, as a fraction or in percent."""
    for name in names:
        value = recorded.get(name)
        if isinstance(value, int | float) and 0 <= value <= 100:
            return value if value <= 1 else value / 100
    return None


def _terms_of_test(evaluated: Evaluated) -> Terms:
    assert evaluated.test is not None
    return evaluated.test


def _inactive(terms: Terms) -> float:
    return float((~terms.active).double().mean())


def _mean(values: Tensor, shares: Tensor) -> float:
    return float((values.double() * shares).sum())
