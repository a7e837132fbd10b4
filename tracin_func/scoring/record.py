"""What is recorded of a run: its pairs, its checkpoints and how well they rank, notices, and the time taken."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tracin_func.errors import InputError
from tracin_func.gradients.compute import Compute
from tracin_func.losses.custom import as_loss
from tracin_func.losses.terms import Terms, recorded_bins
from tracin_func.results.frame import PairRecord
from tracin_func.results.run import Run
from tracin_func.scoring.accuracy import EVALUATED_PAIRS, Evaluating
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.steps import Opened, Traced
from tracin_func.scoring.walk import Walk
from tracin_func.task.method import Method
from tracin_func.task.pair_table import blocks_over
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task


class Recorded:
    """A walk over the checkpoints of a task, and the record of it.

    Args:
        task, method, compute, observer, norms, every: as for `Walk`.
    """

    def __init__(
        self, task: Task, method: Method, compute: Compute, observer: Observer, *, norms: bool, every: bool = False
    ) -> None:
        self.task = task
        self._method, self._observer = method, observer
        own = replace(observer, notice=self.notice, progress=self._advance)
        self.walk = Walk(task, method, compute, own, norms=norms, every=every)
        self._evaluating = Evaluating(self.walk, observer)
        self._notices: list[str] = []
        self._describe: list[dict[str, Any]] = []
        self._seconds = 0.0

    def notice(self, sentence: str) -> None:
        """Report and record a sentence, once."""
        if sentence not in self._notices:
            self._notices.append(sentence)
            self._observer.notice(sentence)

    def visit(
        self, visitor: Callable[[Traced], None], then: Callable[[Opened, Traced], None] = lambda *_: None
    ) -> None:
        """Call `visitor` at every checkpoint; `then` once its gradients are freed and the checkpoint is recorded."""

        def visit(opened: Opened) -> None:
            start = time.perf_counter()
            traced = self.walk.trace(opened)
            visitor(traced)
            self._seconds += time.perf_counter() - start
            traced = replace(traced, gradients=None)  # freed before the next ones are computed
            self._describe.append(opened.describe)
            self._evaluating.add(opened, self.task.train_pairs, traced.train.scores, traced.train.terms)
            then(opened, traced)

        self.walk.visit(visit)

    def visit_again(self, visitor: Callable[[Traced], None]) -> None:
        """Call `visitor` at every checkpoint in a second walk, of which nothing is recorded."""
        self.walk.visit(lambda opened: visitor(self.walk.trace(opened)))

    def run(self) -> Run:
        """How all this was computed."""
        prepared = self.walk.prepared
        for checkpoint, evaluation in zip(self._describe, self._evaluating.found, strict=True):
            checkpoint["evaluation"] = evaluation.figures()
        engine = prepared.describe() | {"seconds": round(self._seconds, 6)}
        method = replace(self._method, projection=prepared.projection)
        loss = as_loss(self.task.loss).describe()
        return Run(tuple(self._describe), loss, engine, self.task.describe, tuple(self._notices), method)

    def _advance(self, share: float) -> None:
        if len(self._describe) < len(self.task.checkpoints):  # the progress of a second walk is not reported
            self._observer.progress(share)


def in_blocks(task: Task, method: Method, compute: Compute, observer: Observer, *, norms: bool) -> Recorded:
    """A walk that serves training pairs that are read in blocks: every item is a unit.

    The model is evaluated on the first pairs.

    Raises:
        InputError: a scorer of whole pairs.
    """
    if task.joint:
        raise InputError(
            "`joint=True`: training pairs in blocks need a scorer of single items. Got a scorer of whole pairs. "
            "Hold the pairs in memory (`train=table.pairs()`) and use `influence` or `self_influence`."
        )
    _, sample = next(blocks_over(task.train, EVALUATED_PAIRS, len(task.items)))
    return Recorded(replace(task, train=sample.pairs()), method, compute, observer, norms=norms, every=True)


def pair_record(task: Task, pairs: Pairs, terms: list[Terms]) -> PairRecord:
    """The loss of pairs and its weights, by their terms at each checkpoint."""
    margin = torch.stack([term.score_margin for term in terms])
    names = task.item_names(pairs)
    ids = [f"{first}_{second}" for first, second in names] if pairs.ids is None else pairs.ids
    swapped = [f"{second}_{first}" for first, second in names] if pairs.ids is None else []
    classes = {task.item_id(place): name for place, name in enumerate(task.item_classes or ())}
    return PairRecord(
        ids=tuple(ids),
        items=tuple(names),
        swapped=dict(zip(ids, swapped, strict=False)),  # none for ids of the user's own
        target=pairs.target.int(),
        count=pairs.counts,
        bin=recorded_bins(as_loss(task.loss), margin, pairs),
        loss=torch.stack([term.loss for term in terms]),
        score_margin=margin,
        weight=torch.stack([term.weight for term in terms]),
        inactive=torch.stack([~term.active for term in terms]),
        classes=classes or None,
    )


def report_zero_columns(test: PairRecord, notice: Callable[[str], None]) -> None:
    """Report how many test pairs have a zero gradient at every checkpoint."""
    zero = int(test.inactive.all(dim=0).sum())
    if zero:
        notice(
            f"warning: {zero} of {len(test.ids)} test pairs have a zero gradient at every checkpoint, so their "
            'influences are all 0. Explain the score margin, which does not saturate: `test_functional="score-margin"`.'
        )
