"""The pair accuracy of a model at each checkpoint: is this the run that was trained?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.processes import ALONE
from tracin_func.losses.custom import as_loss
from tracin_func.losses.terms import Terms, loss_terms, weigh_by
from tracin_func.scoring.combinations import PairScores
from tracin_func.scoring.observer import LOG, Observer
from tracin_func.scoring.steps import Opened
from tracin_func.scoring.walk import Walk
from tracin_func.task.loss import PairLoss
from tracin_func.task.method import Method
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task

EVALUATED_PAIRS = 2000  # of each table at most; their pair accuracy is known to about a point
BY_SCORE = ("misranked", "lowest-margin", "active")  # ways to select test pairs by the model's scores
GAP = 0.10  # between a pair accuracy and the one that the checkpoint recorded
# Names of pair accuracies in checkpoints.
TRAIN_NAMES = ("train_accuracy", "train_acc", "training_accuracy")
TEST_NAMES = ("test_accuracy", "test_acc", "val_accuracy", "val_acc", "validation_accuracy", "accuracy")
_DESCRIBED = ("name", "learning_rate", "learning_rate_from", "recorded")  # fields that `Opened.describe` has


@dataclass(frozen=True)
class Evaluation:
    """Pair accuracy and mean loss at one checkpoint, repeats counted, and the share of inactive pairs.

    Args:
        name: of the checkpoint.
        learning_rate, learning_rate_from, recorded: its learning rate, where that comes from, and its plain values.
        train_pairs: the number of training pairs that were evaluated.
        train_right, test_right: pair accuracy, the share with y (s_a − s_b) > 0; None without test pairs.
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
        """The measured values, for provenance."""
        return {name: value for name, value in asdict(self).items() if name not in _DESCRIBED}


class Evaluating:
    """A visitor that evaluates the model at each checkpoint, reports it at once and keeps it in `found`.

    Args:
        walk: the walk that it visits.
        observer: receives each evaluation.
        sample: the largest number of pairs of each table, chosen at random once; all when None.
    """

    def __init__(self, walk: Walk, observer: Observer, sample: int | None = EVALUATED_PAIRS) -> None:
        task = walk.task
        held_out = task.test if task.held_out is None else task.held_out
        self._walk, self._observer = walk, observer
        self._held_out = None if held_out is None else _some(held_out, sample)
        self._train = task.train_pairs if sample is None else _some(task.train_pairs, sample)
        self.found: list[Evaluation] = []

    def __call__(self, opened: Opened) -> None:
        """Evaluate by forward passes alone."""
        scores = self._walk.scores(opened, self._train)
        self.add(opened, self._train, scores, _terms(as_loss(self._walk.task.loss), scores, self._train))

    def add(self, opened: Opened, train: Pairs, scores: PairScores, own: Terms) -> None:
        """Evaluate by the scores and terms of the pairs `train`, and a forward pass over held-out pairs."""
        task, loss = self._walk.task, as_loss(self._walk.task.loss)
        test_right, test_loss = None, None
        if (held_out := self._held_out) is not None:
            test = loss_terms(loss, None, *self._walk.scores(opened, held_out), held_out)
            test_right, test_loss = _mean(test.score_margin > 0, held_out), _mean(test.loss, held_out)
        as_trained = None
        if task.trained_loss is not None:
            as_trained = _inactive(_terms(as_loss(task.trained_loss), scores, train))
        evaluation = Evaluation(
            **{name: opened.describe[name] for name in _DESCRIBED},
            train_pairs=len(train),
            train_right=_mean(own.score_margin > 0, train),
            test_right=test_right,
            train_loss=_mean(own.loss, train),
            test_loss=test_loss,
            inactive=_inactive(own),
            inactive_as_trained=as_trained,
        )
        self.found.append(evaluation)
        self._observer.evaluated(evaluation)


def accuracy(
    task: Task, *, method: Method = Method(), compute: Compute = Compute(), observer: Observer = LOG
) -> list[Evaluation]:
    """Pair accuracy and mean loss of the model at each checkpoint, on all training pairs and on all held-out pairs.

    Held-out pairs are `task.held_out`, else `task.test`. Nothing is differentiated.

    Raises:
        As `self_influence`, for errors that are found without gradients.
    """
    with Walk(task, method, replace(compute, store=None, shard=None, world=ALONE), observer) as walk:
        evaluating = Evaluating(walk, observer, sample=None)
        walk.visit(evaluating)
    return evaluating.found


def select_test_pairs(
    task: Task, method: Method, compute: Compute, how: str, count: int | None, seed: int, observer: Observer = LOG
) -> Pairs:
    """`count` of the held-out pairs (all such when None) by the model's scores, in their order.

    `misranked`: ranked wrong at the last checkpoint, at random; `lowest-margin`: those with the smallest
    y (s_a − s_b) there; `active`: with a gradient of the loss at some checkpoint, at random.

    Raises:
        InputError: fewer than `count` are of this kind, or none.
    """
    pairs = task.held_out if task.held_out is not None else task.test
    assert pairs is not None
    loss, tests = as_loss(task.loss), list[Terms]()
    alone = replace(compute, store=None, shard=None, world=ALONE)  # scores are enough
    with Walk(replace(task, test=None), method, alone, observer) as walk:
        walk.visit(lambda opened: tests.append(loss_terms(loss, None, *walk.scores(opened, pairs), pairs)))
    margin, active = tests[-1].score_margin, torch.stack([terms.active for terms in tests]).any(dim=0)
    if how == "lowest-margin":
        rows = torch.sort(margin, stable=True).indices[:count]
    else:
        rows = (margin <= 0 if how == "misranked" else active).nonzero()[:, 0]
    if not len(rows) or (count is not None and len(rows) < count):
        raise InputError(
            f'`test_select="{how}"` finds {len(rows)} of {len(pairs)} test pairs. Expected {count or "at least 1"}. '
            "Lower `num_test`, or select test pairs in another way."
        )
    if count is not None and how != "lowest-margin":
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]]
    return pairs.select(rows.sort().values)


def gaps_of(evaluation: Evaluation) -> list[str]:
    """Sentences about pair accuracies that are far from the recorded ones."""
    sides = (("training", evaluation.train_right, TRAIN_NAMES), ("test", evaluation.test_right, TEST_NAMES))
    found = []
    for role, share, names in sides:
        recorded = recorded_share(evaluation.recorded, names)
        if share is not None and recorded is not None and abs(share - recorded) > GAP:
            found.append(f"{evaluation.name} has {role} pair accuracy {share:.0%}, and it recorded {recorded:.0%}")
    return found


def recorded_share(recorded: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """A pair accuracy that a checkpoint recorded under one of these names, as a fraction or in percent."""
    for name in names:
        value = recorded.get(name)
        if isinstance(value, int | float) and 0 <= value <= 100:
            return value if value <= 1 else value / 100
    return None


def _some(pairs: Pairs, count: int | None) -> Pairs:
    if count is None or len(pairs) <= count:
        return pairs
    chosen = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:count]
    return pairs.select(chosen.sort().values)


def _terms(loss: PairLoss, scores: PairScores, pairs: Pairs) -> Terms:
    return loss_terms(loss, weigh_by(loss, *scores, pairs), *scores, pairs)


def _inactive(terms: Terms) -> float:
    return float((~terms.active).double().mean())


def _mean(values: Tensor, pairs: Pairs) -> float:
    return float((values.double() * pairs.shares).sum())
