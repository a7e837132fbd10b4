"""Self-influence and influence in one pass over the checkpoints. Knows no engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.representations.projected import ProjectedGradients
from tracin_func.losses.custom import as_loss
from tracin_func.losses.terms import Terms, recorded_bins
from tracin_func.results.frame import PairRecord
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.run import Run
from tracin_func.results.verification import Verification
from tracin_func.scoring.accuracy import Evaluating
from tracin_func.scoring.influence import inner_products, product_variance
from tracin_func.scoring.observer import LOG, Observer, reporting_progress
from tracin_func.scoring.plan import Prepared
from tracin_func.scoring.self_influence import norm_variance, squared_norms
from tracin_func.scoring.steps import Opened, Traced
from tracin_func.scoring.verify import Seen, Verifying
from tracin_func.scoring.walk import Walk
from tracin_func.task.method import Method
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task

Progress = bool | Callable[[float], None]


def self_influence(
    task: Task,
    *,
    method: Method = Method(),
    compute: Compute = Compute(),
    observer: Observer = LOG,
    progress: Progress = False,
) -> SelfInfluence:
    """How hard each training pair is: self(p) = Σ_t ‖∇ℓ_p‖²_M, M_t = diag η_t (arXiv 2002.08484, section 3.2).

    Args:
        task: scorer, items, training pairs, checkpoints and loss.
        method: what changes a score.
        compute: device, precision, engine and sizes; they change no score beyond rounding.
        observer: receives notices and evaluations.
        progress: True for a progress bar; or a callback that receives the share that is done, from 0 to 1.

    Returns:
        Scores [pairs], at least 0, and what is needed to read them.

    Raises:
        UsageError: an argument wrong in itself. InputError: checkpoints, items, pairs and scorer do not fit.
        NumericalError: a score or a gradient is NaN or infinite.
    """
    with reporting_progress(observer, progress, len(task.checkpoints)) as reporting:
        result = score(task, method, compute, reporting, self_influence=True).self_influence
    assert result is not None
    return result


def influence(
    task: Task,
    *,
    with_self: bool = False,
    method: Method = Method(),
    compute: Compute = Compute(),
    observer: Observer = LOG,
    progress: Progress = False,
) -> Influence:
    """What each training pair did to each test pair: Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩ (arXiv 2002.08484, section 3.2).

    Args:
        task: with test pairs, whose loss is explained.
        with_self: self-influence of the training pairs as well, from the same pass, as `.self_influence`.
        method, compute, observer, progress: as for `self_influence`.

    Returns:
        Scores [train_pairs, test_pairs]; positive: training on p lowered the loss of q (proponent).

    Raises:
        As `self_influence`.
    """
    with reporting_progress(observer, progress, len(task.checkpoints)) as reporting:
        found = score(task, method, compute, reporting, self_influence=with_self, influence=True)
    assert found.influence is not None
    return replace(found.influence, self_influence=found.self_influence)


@dataclass(frozen=True)
class Scores:
    """What one pass over the checkpoints gave; each is there when it was asked for."""

    self_influence: SelfInfluence | None
    influence: Influence | None
    verification: Verification | None = None


def score(
    task: Task,
    method: Method = Method(),
    compute: Compute = Compute(),
    observer: Observer = LOG,
    *,
    self_influence: bool = True,
    influence: bool = False,
    verify: int | None = None,
) -> Scores:
    """Self-influence, influence or both in one pass over the checkpoints, and `verify` of the scores again.

        influence(p, q) = Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩,   self(p) = Σ_t ‖∇ℓ_p‖²_M,   M_t = diag η_t

    with gradients at θ_t (TracInCP of arXiv 2002.08484, section 3.2). Normalised by cosine, influence is divided by
    √(self(p) self(q)), and 0 where either is.

    Raises:
        UsageError: self-influence normalised by cosine.
        InputError: influence without test pairs, or anything read that does not fit.
        NumericalError: a score or a gradient is NaN or infinite.
    """
    if influence and task.test is None:
        raise InputError(
            "influence needs `test` pairs in the task. Expected at least one, whose loss is to be explained."
        )
    cosine = method.normalize == "cosine"
    if cosine and not influence:
        raise UsageError(
            "`normalize` 'cosine' makes every self-influence 1, the cosine of a gradient with itself. "
            "Expected 'none', or influence."
        )
    if not influence:
        task = replace(task, test=None)
    found = _Found(task, method, compute, observer, norms=self_influence or cosine)
    verifying = None if verify is None else Verifying(task, method, compute, verify)
    observer = replace(observer, notice=found.notice)
    with Walk(task, method, compute, observer, norms=self_influence or cosine) as walk:
        evaluating = Evaluating(walk, observer)

        def visit(opened: Opened) -> None:
            start = time.perf_counter()
            traced = walk.trace(opened)
            found.add(opened, traced)
            found.seconds += time.perf_counter() - start
            train, test = traced.train, traced.test
            del traced  # its rows, before the next ones are made
            evaluating.add(opened, task.train_pairs, train.scores, train.terms)
            if verifying is not None:
                tables = [Seen.of(table.terms) for table in (train, test) if table is not None]
                verifying.add(opened.loaded, opened.describe["learning_rate"], tables)

        walk.visit(visit)
    for checkpoint, evaluation in zip(found.checkpoints, evaluating.found, strict=True):
        checkpoint["evaluation"] = evaluation.figures()
    assert walk.prepared is not None
    scores = found.scores(walk.prepared, self_influence=self_influence)
    if verifying is None:
        return scores
    return replace(scores, verification=verifying.compare(scores.self_influence, scores.influence))


def pair_record(task: Task, pairs: Pairs, terms: list[Terms]) -> PairRecord:
    """What the loss saw of pairs, by their terms at each checkpoint."""
    margin = torch.stack([term.score_margin for term in terms])
    classes = {task.item_id(place): name for place, name in enumerate(task.item_classes or ())}
    return PairRecord(
        ids=tuple(task.pair_ids(pairs)),
        items=tuple(task.item_names(pairs)),
        swapped=task.swapped_ids(pairs),
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
    """Say how many test pairs have no gradient at any checkpoint."""
    zero = int(test.inactive.all(dim=0).sum())
    if zero:
        notice(
            f"{zero} of {len(test.ids)} test pairs have gradient 0 at every checkpoint, so every influence there is 0. "
            "The test functional score-margin does not saturate; a larger margin, or earlier checkpoints, help too."
        )


@dataclass
class _Found:
    """What the checkpoints gave so far: terms, ‖∇ℓ‖²_M of training pairs and of test columns, and products."""

    task: Task
    method: Method
    compute: Compute
    observer: Observer
    norms: bool
    train: list[Terms] = field(default_factory=list)
    test: list[Terms] = field(default_factory=list)
    own: list[Tensor] = field(default_factory=list)
    of_test: list[Tensor] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)
    own_variance: list[Tensor] = field(default_factory=list)  # over projections; of exact gradients nothing
    variance: list[Tensor] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def notice(self, sentence: str) -> None:
        """Report a sentence, and keep it for provenance."""
        self.notices.append(sentence)
        self.observer.notice(sentence)

    def add(self, opened: Opened, traced: Traced) -> None:
        """One checkpoint."""
        self.train.append(traced.train.terms)
        self.checkpoints.append(opened.describe)
        gradients, train, test = traced.gradients, traced.train, traced.test
        projected = gradients if isinstance(gradients, ProjectedGradients) else None
        if self.norms:
            self.own.append(squared_norms(gradients, train, self.compute.world))
            self.own_variance.append(norm_variance(projected, train, self.own[-1]))
        if test is None:
            return
        self.test.append(test.terms)
        cosine = self.method.normalize == "cosine"
        shares = None if cosine else self._shares
        self.products.append(inner_products(gradients, train, test, shares, self.compute.world))
        self.variance.append(product_variance(projected, train, test, self.products[-1], shares))
        if cosine:
            self.of_test.append(squared_norms(gradients, test, self.compute.world))

    def scores(self, prepared: Prepared, *, self_influence: bool) -> Scores:
        """What was asked for, with what is needed to read it."""
        task, projected = self.task, prepared.projection.kind != "none"
        train, test = pair_record(task, task.train_pairs, self.train), None
        if task.test is not None:
            test = pair_record(task, task.test, self.test)
            report_zero_columns(test, self.notice)
        run = Run(
            tuple(self.checkpoints),
            as_loss(task.loss).describe(),
            prepared.describe() | {"seconds": round(self.seconds, 6)},
            task.describe,
            tuple(self.notices),
            replace(self.method, projection=prepared.projection),
        )
        own = None
        if self_influence:
            variance = torch.stack(self.own_variance) if projected else None
            own = SelfInfluence(torch.stack(self.own), train, run, variance)
        if test is None:
            return Scores(own, None)
        variance = self.influence_variance() if projected else None
        return Scores(own, Influence(self.influence(), train, test, run, variance))

    def influence(self) -> Tensor:
        """[checkpoints, train_pairs, test_columns], normalised and averaged as asked."""
        products, shares = torch.stack(self.products), self._shares
        if self.method.normalize != "cosine":
            return products
        scale = self._lengths()
        cosines = torch.where(scale > 0, products / scale, 0.0)
        return cosines if shares is None else cosines @ shares[:, None]

    def influence_variance(self) -> Tensor:
        """Of `influence`, of checkpoints that are projected one by one; of cosines without what the lengths add, and
        of their mean as if all erred alike."""
        variance, shares = torch.stack(self.variance), self._shares
        if self.method.normalize != "cosine":
            return variance
        scale = self._lengths()
        errors = torch.where(scale > 0, variance.sqrt() / scale, 0.0)
        return (errors if shares is None else errors @ shares[:, None]) ** 2

    def _lengths(self) -> Tensor:
        return torch.outer(torch.stack(self.own).sum(dim=0).sqrt(), torch.stack(self.of_test).sum(dim=0).sqrt())

    @property
    def _shares(self) -> Tensor | None:
        tests = self.task.test
        return None if self.method.aggregate is None or tests is None else tests.shares
