"""Self-influence and influence in one pass over the checkpoints. Knows no engine."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tracin_func.gradients.compute import Compute
from tracin_func.gradients.processes import World
from tracin_func.gradients.representations.projected import ProjectedGradients
from tracin_func.losses.terms import Terms
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.top import StreamedSelfInfluence
from tracin_func.results.verification import Verification
from tracin_func.scoring.influence import inner_products, norm_variance, product_variance, squared_norms
from tracin_func.scoring.observer import LOG, Observer, reporting_progress
from tracin_func.scoring.record import Recorded, pair_record, report_zero_columns
from tracin_func.scoring.self_influence import query_self, require_no_cosine
from tracin_func.scoring.steps import Opened, Traced, require_test
from tracin_func.scoring.verify import Seen, Verifying
from tracin_func.task.method import Method
from tracin_func.task.pair_table import PairTable
from tracin_func.task.task import Task

Progress = bool | Callable[[float], None]


def self_influence(
    task: Task,
    *,
    method: Method = Method(),
    compute: Compute = Compute(),
    observer: Observer = LOG,
    progress: Progress = False,
) -> SelfInfluence | StreamedSelfInfluence:
    """How hard each training pair is: self(p) = Σ_t ‖∇ℓ_p‖²_M, M_t = diag η_t (arXiv 2002.08484, section 3.2).

    Args:
        task: scorer, items, training pairs, checkpoints and loss.
        method: all settings that change a score.
        compute: device, precision, engine and sizes; they change no score beyond rounding.
        observer: receives notices and evaluations.
        progress: True for a progress bar, or a callback that receives the share done, from 0 to 1.

    Returns:
        Scores [pairs], at least 0. Training pairs in a `PairTable` are read in blocks at every checkpoint and are never
        held: the result is then a `StreamedSelfInfluence`, which has the sum over checkpoints alone, one number per
        pair. Give `train=table.pairs()` to hold them, for scores and losses per checkpoint.

    Raises:
        UsageError: an argument wrong in itself. InputError: checkpoints, items, pairs and scorer do not fit.
        NumericalError: a score or a gradient is NaN or infinite.
    """
    streamed = isinstance(task.train, PairTable)
    with reporting_progress(observer, progress, len(task.checkpoints) + streamed) as reporting:
        if streamed:
            return query_self(task, method, compute, reporting, reporting.progress)
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
        with_self: compute self-influence of the training pairs in the same pass, as `.self_influence`.
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
    """The results of one pass over the checkpoints; None for those that were not asked for."""

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
    """Self-influence, influence or both in one pass over the checkpoints; `verify` scores are recomputed.

        influence(p, q) = Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩,   self(p) = Σ_t ‖∇ℓ_p‖²_M,   M_t = diag η_t

    with gradients at θ_t (TracInCP of arXiv 2002.08484, section 3.2). Normalised by cosine, influence is divided by
    √(self(p) self(q)), and is 0 where either is.

    Raises:
        UsageError: self-influence normalised by cosine.
        InputError: influence without test pairs, or anything read that does not fit.
        NumericalError: a score or a gradient is NaN or infinite.
    """
    if influence:
        require_test(task)
    cosine = method.normalize == "cosine"
    if not influence:
        require_no_cosine(method)
    task = task if influence else replace(task, test=None)
    norms = self_influence or cosine
    recorded = Recorded(task, method, compute, observer, norms=norms)
    verifying = None if verify is None else Verifying(task, method, compute, verify)
    found = _Found(method, None if method.aggregate is None or task.test is None else task.test.shares, compute.world)

    def check(opened: Opened, traced: Traced) -> None:
        if verifying is not None:
            tables = [Seen.of(table.terms) for table in (traced.train, traced.test) if table is not None]
            verifying.add(opened.loaded, opened.describe["learning_rate"], tables)

    with recorded.walk:
        recorded.visit(lambda traced: found.add(traced, norms=norms), check)
    train, test = pair_record(task, task.train_pairs, found.train), None
    if task.test is not None:
        test = pair_record(task, task.test, found.test)
        report_zero_columns(test, recorded.notice)
    run, own, both = recorded.run(), None, None
    projected = run.method.projection.kind != "none"
    if self_influence:
        own = SelfInfluence(torch.stack(found.own), train, run, torch.stack(found.own_variance) if projected else None)
    if test is not None:
        both = Influence(found.influence(), train, test, run, found.influence_variance() if projected else None)
    return Scores(own, both, None if verifying is None else verifying.compare(own, both))


@dataclass
class _Found:
    """Scores of the checkpoints so far: terms, ‖∇ℓ‖²_M of training pairs and of test columns, and products."""

    method: Method
    shares: Tensor | None  # of the test pairs in their mean, where that is asked for
    world: World
    train: list[Terms] = field(default_factory=list)
    test: list[Terms] = field(default_factory=list)
    own: list[Tensor] = field(default_factory=list)
    of_test: list[Tensor] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)
    own_variance: list[Tensor] = field(default_factory=list)  # over projections; 0 for exact gradients
    variance: list[Tensor] = field(default_factory=list)

    @property
    def cosine(self) -> bool:
        return self.method.normalize == "cosine"

    def add(self, traced: Traced, *, norms: bool) -> None:
        """Add one checkpoint."""
        self.train.append(traced.train.terms)
        gradients, train, test = traced.gradients, traced.train, traced.test
        projected = gradients if isinstance(gradients, ProjectedGradients) else None
        if norms:
            self.own.append(squared_norms(gradients, train, self.world))
            self.own_variance.append(norm_variance(projected, train, self.own[-1]))
        if test is None:
            return
        self.test.append(test.terms)
        shares = None if self.cosine else self.shares
        self.products.append(inner_products(gradients, train, test, shares, self.world))
        self.variance.append(product_variance(projected, train, test, self.products[-1], shares))
        if self.cosine:
            self.of_test.append(squared_norms(gradients, test, self.world))

    def influence(self) -> Tensor:
        """[checkpoints, train_pairs, test_columns], normalised and averaged as asked."""
        return self._normalised(torch.stack(self.products))

    def influence_variance(self) -> Tensor:
        """The variance of `influence`, whose checkpoints are projected independently.

        That of cosines leaves out the error of the norms; that of their mean takes all errors as equal.
        """
        variance = torch.stack(self.variance)
        return self._normalised(variance.sqrt()) ** 2 if self.cosine else variance

    def _normalised(self, values: Tensor) -> Tensor:
        if not self.cosine:
            return values
        scale = torch.outer(torch.stack(self.own).sum(dim=0).sqrt(), torch.stack(self.of_test).sum(dim=0).sqrt())
        cosines = torch.where(scale > 0, values / scale, 0.0)
        return cosines if self.shares is None else cosines @ self.shares[:, None]
