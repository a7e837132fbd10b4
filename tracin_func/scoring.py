"""From gradients and loss terms to scores: algebra on pairs. Knows no engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.profiler import record_function

from tracin_func.compute import Compute
from tracin_func.errors import InputError, NumericalError
from tracin_func.gradients import Gradients
from tracin_func.losses import as_loss
from tracin_func.pairs import Pairs
from tracin_func.results import Influence, PairRecord, Run, SelfInfluence
from tracin_func.task import Task
from tracin_func.terms import Terms
from tracin_func.trace import PairTable, Tracer

PAIR_RUN = 1 << 18  # pairs scored at a time


@dataclass(frozen=True)
class Scores:
    """What one pass over the checkpoints gave; each is there when it was asked for."""

    self_influence: SelfInfluence | None
    influence: Influence | None


def score(task: Task, compute: Compute, *, self_influence: bool = True, influence: bool = False) -> Scores:
    """Self-influence, influence or both in one pass over the checkpoints.

        influence(p, q) = Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩,   self(p) = Σ_t ‖∇ℓ_p‖²_M,   M_t = diag η_t

    with gradients at θ_t (TracInCP of arXiv 2002.08484, section 3.2).

    Raises:
        InputError: influence without test pairs, or anything read that does not fit.
        NumericalError: a score or a gradient is NaN or infinite.
    """
    if influence and task.test_pairs is None:
        raise InputError("influence needs `test_pairs`. Expected at least one pair whose loss is to be explained.")
    notices: list[str] = []

    def notice(sentence: str) -> None:
        notices.append(sentence)
        compute.notice(sentence)

    if not influence:
        task = replace(task, test_pairs=None)
    tracer = Tracer(task, replace(compute, notice=notice), norms=self_influence)
    train: list[Terms] = []
    test: list[Terms] = []
    own: list[Tensor] = []
    products: list[Tensor] = []
    checkpoints = []
    seconds = 0.0
    for traced in tracer:
        start = time.perf_counter()
        train.append(traced.train.terms)
        try:
            if self_influence:
                own.append(squared_norms(traced.gradients, traced.train))
            if influence and traced.test is not None:
                test.append(traced.test.terms)
                products.append(inner_products(traced.gradients, traced.train, traced.test))
        except NumericalError as error:  # gradients are checked when they are used
            raise NumericalError(f"{traced.name}: {error}") from None
        seconds += traced.seconds + time.perf_counter() - start
        checkpoints.append(traced.describe)
        del traced  # its rows, before the next ones are made
    assert tracer.prepared is not None
    engine = tracer.prepared.describe() | {"seconds": round(seconds, 6)}
    record = _record(task, task.train_pairs, train)
    test_record = None if task.test_pairs is None else _record(task, task.test_pairs, test)
    if test_record is not None:
        _tell_zero_columns(test_record, notice)
    loss = as_loss(task.loss).describe()
    about_tests = compute.test_functional, compute.weight_test_pairs
    run = Run(tuple(checkpoints), loss, engine, task.describe, tuple(notices), *about_tests)
    return Scores(
        SelfInfluence(torch.stack(own), record, run) if self_influence else None,
        None if test_record is None else Influence(torch.stack(products), record, test_record, run),
    )


def squared_norms(gradients: Gradients | None, pairs: PairTable) -> Tensor:
    """‖∇ℓ_p‖²_M, float64 [pairs]; inactive pairs are skipped and exactly 0."""
    result = torch.zeros(len(pairs.combination), dtype=torch.float64)
    rows = pairs.terms.active.nonzero()[:, 0]
    if gradients is not None and len(rows):
        with record_function("norms of pairs"):
            result[rows] = gradients.squared_norm(pairs.combination.select(rows))
    return result


def inner_products(gradients: Gradients | None, train: PairTable, test: PairTable) -> Tensor:
    """⟨∇ℓ_p, M ∇ℓ_q⟩, float64 [train_pairs, test_pairs]: one column of unit products a test pair, then a gather
    and two multiply-adds a pair."""
    left = train.combination
    result = torch.zeros(len(left), len(test.combination), dtype=torch.float64)
    columns = test.terms.active.nonzero()[:, 0]
    if gradients is None or not len(columns):
        return result
    products = gradients.columns(test.combination.select(columns))
    rows = train.terms.active.nonzero()[:, 0]
    for chunk in rows.split(PAIR_RUN):
        part = left.select(chunk)
        block = sum(part.coefficient[:, j, None] * products[part.index[:, j]] for j in range(part.index.shape[1]))
        result[chunk[:, None], columns] = block
    return result


def _tell_zero_columns(test: PairRecord, notice: Callable[[str], None]) -> None:
    zero = int(test.inactive.all(dim=0).sum())
    if zero:
        notice(
            f"{zero} of {len(test.ids)} test pairs have gradient 0 at every checkpoint, so every influence there is 0. "
            "The test functional score-margin does not saturate; a larger margin, or earlier checkpoints, help too."
        )


def _record(task: Task, pairs: Pairs, terms: list[Terms]) -> PairRecord:
    return PairRecord(
        ids=tuple(task.pair_ids(pairs)),
        swapped=task.swapped_ids(pairs),
        count=pairs.counts,
        loss=torch.stack([term.loss for term in terms]),
        score_margin=torch.stack([term.score_margin for term in terms]),
        weight=torch.stack([term.weight for term in terms]),
        inactive=torch.stack([~term.active for term in terms]),
    )
