"""Self-influence and influence in one pass over the checkpoints. Knows no engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError, UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.representations.projected import ProjectedGradients
from tracin_func.losses.ghm import GHMRankingLoss
from tracin_func.losses.registry import as_loss
from tracin_func.losses.terms import Terms
from tracin_func.results.frame import PairRecord
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.run import Choices, Run
from tracin_func.scoring.accuracy import EVALUATED_PAIRS, Evaluation, evaluate
from tracin_func.scoring.influence import inner_products, product_variance
from tracin_func.scoring.self_influence import norm_variance, squared_norms
from tracin_func.scoring.steps import Traced
from tracin_func.scoring.walk import Tracer
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task


@dataclass(frozen=True)
class Scores:
    """What one pass over the checkpoints gave; each is there when it was asked for."""

    self_influence: SelfInfluence | None
    influence: Influence | None


def score(task: Task, compute: Compute, *, self_influence: bool = True, influence: bool = False) -> Scores:
    """Self-influence, influence or both in one pass over the checkpoints.

        influence(p, q) = Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩,   self(p) = Σ_t ‖∇ℓ_p‖²_M,   M_t = diag η_t

    with gradients at θ_t (TracInCP of arXiv 2002.08484, section 3.2). Normalised by cosine, influence is divided by
    √(self(p) self(q)), and 0 where either is.

    Raises:
        UsageError: self-influence normalised by cosine.
        InputError: influence without test pairs, or anything read that does not fit.
        NumericalError: a score or a gradient is NaN or infinite.
    """
    if influence and task.test_pairs is None:
        raise InputError("influence needs `test_pairs`. Expected at least one pair whose loss is to be explained.")
    cosine = compute.normalize == "cosine"
    if cosine and not influence:
        raise UsageError(
            "`normalize` 'cosine' makes every self-influence 1, the cosine of a gradient with itself. "
            "Expected 'none', or influence."
        )
    notices: list[str] = []

    def notice(sentence: str) -> None:
        notices.append(sentence)
        compute.notice(sentence)

    if not influence:
        task = replace(task, test_pairs=None)
    found = _Found(task, compute, norms=self_influence or cosine)
    with Tracer(task, replace(compute, notice=notice), norms=self_influence or cosine) as tracer:
        evaluations = _evaluations(tracer, compute)
        for traced in tracer:
            start = time.perf_counter()
            try:
                found.add(traced)
            except NumericalError as error:  # gradients are checked when they are used
                raise NumericalError(f"{traced.name}: {error}") from None
            found.seconds += traced.seconds + time.perf_counter() - start
            del traced  # its rows, before the next ones are made
    assert tracer.prepared is not None
    engine = tracer.prepared.describe() | {"seconds": round(found.seconds, 6)}
    record = pair_record(task, task.train_pairs, found.train)
    test_record = None if task.test_pairs is None else pair_record(task, task.test_pairs, found.test)
    if test_record is not None:
        tell_zero_columns(test_record, notice)
    loss = as_loss(task.loss).describe()
    for checkpoint, evaluation in zip(found.checkpoints, evaluations, strict=False):
        checkpoint["evaluation"] = evaluation.figures()
    choices = Choices.of(compute, tracer.prepared.projection)
    run = Run(tuple(found.checkpoints), loss, engine, task.describe, tuple(notices), choices)
    projected = tracer.prepared.projection.kind != "none"
    own_variance = torch.stack(found.own_variance) if projected and self_influence else None
    variance = found.influence_variance() if projected and test_record is not None else None
    return Scores(
        SelfInfluence(torch.stack(found.own), record, run, own_variance) if self_influence else None,
        None if test_record is None else Influence(found.influence(), record, test_record, run, variance),
    )


def pair_record(task: Task, pairs: Pairs, terms: list[Terms]) -> PairRecord:
    """What the loss saw of pairs, by their terms at each checkpoint."""
    loss = task.loss
    margin = torch.stack([term.score_margin for term in terms])
    return PairRecord(
        ids=tuple(task.pair_ids(pairs)),
        items=tuple(task.item_names(pairs)),
        swapped=task.swapped_ids(pairs),
        target=pairs.target.int(),
        count=pairs.counts,
        bin=_bins(loss, margin, pairs) if isinstance(loss, GHMRankingLoss) else None,
        loss=torch.stack([term.loss for term in terms]),
        score_margin=margin,
        weight=torch.stack([term.weight for term in terms]),
        inactive=torch.stack([~term.active for term in terms]),
    )


def tell_zero_columns(test: PairRecord, notice: Callable[[str], None]) -> None:
    """Say how many test pairs have no gradient at any checkpoint."""
    zero = int(test.inactive.all(dim=0).sum())
    if zero:
        notice(
            f"{zero} of {len(test.ids)} test pairs have gradient 0 at every checkpoint, so every influence there is 0. "
            "The test functional score-margin does not saturate; a larger margin, or earlier checkpoints, help too."
        )


def _evaluations(tracer: Tracer, compute: Compute) -> list[Evaluation]:
    """How the model does at each checkpoint, told as it is known; nothing where nobody is to be told."""
    found: list[Evaluation] = []
    for evaluated in tracer.evaluations(EVALUATED_PAIRS) if compute.evaluated is not None else ():
        found.append(evaluate(evaluated))
        assert compute.evaluated is not None
        compute.evaluated(found[-1])
    return found


@dataclass
class _Found:
    """What the checkpoints gave so far: terms, ‖∇ℓ‖²_M of training pairs and of test columns, and products."""

    task: Task
    compute: Compute
    norms: bool
    train: list[Terms] = field(default_factory=list)
    test: list[Terms] = field(default_factory=list)
    own: list[Tensor] = field(default_factory=list)
    of_test: list[Tensor] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)
    own_variance: list[Tensor] = field(default_factory=list)  # over projections; of exact gradients nothing
    variance: list[Tensor] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, traced: Traced) -> None:
        """One checkpoint."""
        self.train.append(traced.train.terms)
        self.checkpoints.append(traced.describe)
        gradients, train, test = traced.gradients, traced.train, traced.test
        projected = gradients if isinstance(gradients, ProjectedGradients) else None
        if self.norms:
            self.own.append(squared_norms(gradients, train, self.compute.world))
            self.own_variance.append(norm_variance(projected, train, self.own[-1]))
        if test is None:
            return
        self.test.append(test.terms)
        cosine = self.compute.normalize == "cosine"
        shares = None if cosine else self._shares
        self.products.append(inner_products(gradients, train, test, shares, self.compute.world))
        self.variance.append(product_variance(projected, train, test, self.products[-1], shares))
        if cosine:
            self.of_test.append(squared_norms(gradients, test, self.compute.world))

    def influence(self) -> Tensor:
        """[checkpoints, train_pairs, test_columns], normalised and averaged as asked."""
        products, shares = torch.stack(self.products), self._shares
        if self.compute.normalize != "cosine":
            return products
        scale = self._lengths()
        cosines = torch.where(scale > 0, products / scale, 0.0)
        return cosines if shares is None else cosines @ shares[:, None]

    def influence_variance(self) -> Tensor:
        """Of `influence`, of checkpoints that are projected one by one; of cosines without what the lengths add, and
        of their mean as if all erred alike."""
        variance, shares = torch.stack(self.variance), self._shares
        if self.compute.normalize != "cosine":
            return variance
        scale = self._lengths()
        errors = torch.where(scale > 0, variance.sqrt() / scale, 0.0)
        return (errors if shares is None else errors @ shares[:, None]) ** 2

    def _lengths(self) -> Tensor:
        return torch.outer(torch.stack(self.own).sum(dim=0).sqrt(), torch.stack(self.of_test).sum(dim=0).sqrt())

    @property
    def _shares(self) -> Tensor | None:
        tests = self.task.test_pairs
        return None if self.compute.aggregate is None or tests is None else tests.shares


def _bins(loss: GHMRankingLoss, score_margin: Tensor, pairs: Pairs) -> Tensor:
    return torch.stack([loss.bin_of_margin(row, pairs) for row in score_margin])
