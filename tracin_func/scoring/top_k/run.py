"""The strongest training pairs of each test pair, from a table of pairs of any length.

Every checkpoint gives the gradients of all items once; the pairs are then read in blocks and never held.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.projected import ProjectedGradients
from tracin_func.losses.custom import as_loss
from tracin_func.losses.terms import Terms
from tracin_func.results.top import Strongest, TopInfluences
from tracin_func.scoring.observer import LOG, Observer, reporting_progress
from tracin_func.scoring.record import Recorded, in_blocks, pair_record, report_zero_columns
from tracin_func.scoring.steps import Traced, require_test
from tracin_func.scoring.top_k.select import Columns, strongest
from tracin_func.task.method import Method
from tracin_func.task.task import Task

TOGETHER = 16  # test pairs whose variances are computed in one pass over the rows
Share = Callable[[float], None]


def top_influences(
    task: Task,
    *,
    k: int = 100,
    method: Method = Method(),
    compute: Compute = Compute(),
    observer: Observer = LOG,
    progress: bool | Share = False,
    path: str | Path | None = None,
) -> TopInfluences:
    """The k strongest proponents and opponents of each test pair among the training pairs, which are read in blocks.

        influence(p, q) = Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩,   ∇ℓ_p = u_p g_a + v_p g_b

    Memory is that of the gradients of all items at one checkpoint, and of one number per item, test pair and
    checkpoint. A loss with weights (GHM) reads the training pairs twice. Where gradients are projected, a second pass
    over the checkpoints computes the standard errors of these pairs.

    Args:
        task: with test pairs, whose loss is explained; its training pairs may be a `PairTable`.
        k: the number of pairs of each sign.
        method, compute, observer, progress: as for `self_influence`.
        path: a `.parquet` or `.csv` file in which the result is saved as well.

    Raises:
        UsageError: `k` below 1, influence normalised by cosine, or weights for test pairs.
        InputError: no test pairs, a scorer of whole pairs, a store with gradients of pairs, or anything read that does
            not fit.
        NumericalError: a score or a gradient is NaN or infinite.
    """
    with reporting_progress(observer, progress, len(task.checkpoints) + 1) as reporting:
        found = query(task, k, method, compute, reporting, reporting.progress)
    if path is not None:
        found.save(path)
    return found


def query(task: Task, k: int, method: Method, compute: Compute, observer: Observer, of_pairs: Share) -> TopInfluences:
    """`top_influences`; `observer.progress` is that of the checkpoints, `of_pairs` that of the pass over the pairs."""
    tests = require_test(task)
    _require_additive(method, k)
    shares = None if method.aggregate is None else tests.shares
    recorded = in_blocks(task, method, compute, observer, norms=False)
    columns: list[Columns] = []
    test: list[Terms] = []

    def visit(traced: Traced) -> None:
        assert traced.test is not None
        test.append(traced.test.terms)
        columns.append(_columns(traced, shares))

    with recorded.walk:
        recorded.visit(visit)
        record = pair_record(task, tests, test)
        report_zero_columns(record, recorded.notice)
        answer, errors = strongest(task.train, as_loss(task.loss), columns, k, progress=of_pairs), None
        if recorded.walk.prepared.projection.kind != "none":
            errors = _standard_errors(recorded, answer, columns, shares)
    return TopInfluences(answer, record, recorded.run(), task.all_item_ids, task.train.ids, errors)


def _require_additive(method: Method, k: int) -> None:
    """Refuse a method that needs more of a training pair than two derivatives per checkpoint."""
    if k < 1:
        raise UsageError(f"`k` should be at least 1. Got {k}.")
    if method.normalize != "none":
        raise UsageError(
            f'`normalize="{method.normalize}"` needs the norm of every training pair\'s gradient, and pairs are read '
            "in blocks here. Leave it out."
        )
    if method.weight_test_pairs:
        raise UsageError(
            "`weight_test_pairs` needs the weights of all training pairs before they are read in blocks. Leave it out."
        )


def _columns(traced: Traced, shares: Tensor | None) -> Columns:
    """Scores of the items, and their dot products with the test pairs (with `shares`, with the mean of these)."""
    assert traced.test is not None
    values, test = traced.values.detach().cpu(), traced.test
    products = torch.zeros(len(values), len(test.combination) if shares is None else 1, dtype=torch.float64)
    active = test.terms.active.nonzero()[:, 0]
    if traced.gradients is not None and len(active):
        found = traced.gradients.columns(test.combination.select(active))
        if shares is None:
            products[:, active] = found
        else:
            products[:, 0] = found @ shares[active]
    return Columns(traced.name, values, products)


def _standard_errors(
    recorded: Recorded, answer: Strongest, columns: Sequence[Columns], shares: Tensor | None
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Of the winners of each test pair, from a second pass over the checkpoints, whose variances add up."""
    sides = [side for both in zip(answer.proponents, answer.opponents, strict=True) for side in both]
    sizes = [len(side) for side in sides]
    variance = torch.zeros(sum(sizes), dtype=torch.float64)
    if len(variance):
        index = torch.cat([torch.stack([side.first, side.second], dim=1) for side in sides])
        derivatives = torch.cat([side.derivatives for side in sides])
        each = iter(zip(derivatives.unbind(dim=1), columns, strict=True))

        def visit(traced: Traced) -> None:
            coefficient, column = next(each)
            if isinstance(traced.gradients, ProjectedGradients):
                left = Combination(index, coefficient)
                variance.add_(_variance(traced, traced.gradients, left, column.products, sizes, shares))

        recorded.visit_again(visit)
    errors = variance.sqrt().split(sizes)
    return tuple(zip(errors[::2], errors[1::2], strict=True))


def _variance(
    traced: Traced,
    gradients: ProjectedGradients,
    left: Combination,
    products: Tensor,
    sizes: Sequence[int],
    shares: Tensor | None,
) -> Tensor:
    """Of the dot products at one checkpoint of winners `left` [n], each with its own test pair; [n].

    One pass over the rows of all items serves the winners of `TOGETHER` test pairs.
    """
    assert traced.test is not None
    right, (found_first, found_second) = traced.test.combination, (products[left.index[:, side]] for side in range(2))
    found = left.coefficient[:, :1] * found_first + left.coefficient[:, 1:] * found_second
    own = torch.arange(products.shape[1]).repeat_interleave(torch.tensor(sizes).view(-1, 2).sum(dim=1))
    result = torch.zeros(len(left), dtype=torch.float64)
    for tests in torch.arange(products.shape[1]).split(TOGETHER):
        rows = ((own >= tests[0]) & (own <= tests[-1])).nonzero()[:, 0]
        if len(rows):
            of_tests = right if shares is not None else right.select(tests)
            every = gradients.product_variance(left.select(rows), of_tests, found[rows[:, None], tests], shares)
            result[rows] = every[torch.arange(len(rows)), own[rows] - tests[0]]
    return result
