"""Verification: a few scores are recomputed the slow and obvious way.

One autograd call per pair, of its whole weighted loss, on the user's module with the checkpoint loaded, in float64 on
the CPU: no engine, no substitution, no gradients of items, no Gram matrix, no projection. The expected score is

    r(p, q) = Σ_t Σ_θ η_t,θ P_t,θ ∂θ ℓ_p(θ_t) ∂θ ℓ_q(θ_t)

with P = 1, or from Adam's second moments where the run was preconditioned; here P multiplies the gradients, which
checks the engines' way as well. A deviation is |x − r| / Σ_t ‖∇ℓ_p‖ ‖∇ℓ_q‖, norms by the same η P: relative to the
largest possible score, as a sum of terms that cancel cannot be right to its own last digits.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.model import Scorer
from tracin_func.losses.custom import as_loss
from tracin_func.losses.terms import Terms, functional_terms
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.verification import Entry, Verification
from tracin_func.scoring.observer import LOG, Observer
from tracin_func.scoring.plain import PlainModel
from tracin_func.task.checkpoints import LearningRate, LoadedCheckpoint, load
from tracin_func.task.learning_rates import root_rates
from tracin_func.task.method import Method
from tracin_func.task.optimizer_state import adam_preconditioner
from tracin_func.task.task import Task

ROUNDING = 1e-5  # of float32 scores, relative to their size
SMALLEST = 1e-30  # norms of gradients below which float32 keeps too few digits
TOGETHER = 16  # entries whose training gradients are held together


def verify(
    task: Task,
    result: SelfInfluence | Influence,
    *,
    n: int = 20,
    seed: int = 0,
    compute: Compute = Compute(),
    observer: Observer = LOG,
) -> Verification:
    """Recompute n random scores by at most 2n gradients per checkpoint; each checkpoint is read once.

    See `Verifying` for what is compared. The user's model is unchanged.

    Args:
        task: the task that was scored, with the same checkpoints.
        result: its scores; self-influence beside influence is compared for the same training pairs, at no cost.
        n: number of scores; all where there are fewer.
        seed: of the choice of scores.
        compute: as in the run; weights are rounded to its `dtype`.
        observer: `progress` receives the share of each checkpoint.

    Raises:
        UsageError: n is less than 1, or the scores are those of another task.
        InputError: the scorer cannot be run on the CPU, or the scores were loaded from a file, which holds no weights.
    """
    if not isinstance(result, SelfInfluence | Influence):
        raise UsageError(
            f"`result` is a {type(result).__name__}. Expected the result of `ti.self_influence` or `ti.influence`."
        )
    influence = result if isinstance(result, Influence) else None
    own = result.self_influence if isinstance(result, Influence) else result
    records = [result.pairs] if isinstance(result, SelfInfluence) else [result.train, result.test]
    task = task if influence is not None else replace(task, test=None)
    of_result = *(len(record.ids) for record in records), len(result.run.checkpoints)
    of_task = len(task.train_pairs), *([len(task.test or ())] if influence else []), len(task.checkpoints)
    if of_result != of_task:
        raise UsageError(
            f"`result` has {of_result} training pairs, test pairs and checkpoints. Expected those of `task`: {of_task}."
            " Give the task that was scored."
        )
    verifying = Verifying(task, result.run.method, compute, n, seed, observer)
    for t, (described, checkpoint) in enumerate(zip(result.run.checkpoints, task.checkpoints, strict=True)):
        seen = [Seen(each.weight[t], each.inactive[t], each.score_margin[t]) for each in records]
        verifying.add(load(checkpoint, t + 1), described["learning_rate"], seen)
    return verifying.compare(own, influence)


@dataclass(frozen=True, eq=False)
class Seen:
    """Weights, activity and score margins of the pairs of one table at a checkpoint, as in the run, each [pairs]."""

    weight: Tensor
    inactive: Tensor
    score_margin: Tensor

    @classmethod
    def of(cls, terms: Terms) -> "Seen":
        return cls(terms.weight, ~terms.active, terms.score_margin)


def _draw(train: int, columns: int, n: int, seed: int) -> list[tuple[int, int | None]]:
    """Distinct entries (p, test column), or (p, None) without test columns."""
    total = train * max(columns, 1)
    chosen = random.Random(seed).sample(range(total), min(n, total))
    return [divmod(entry, columns) if columns else (entry, None) for entry in chosen]


class Verifying:
    """Sums over checkpoints for each drawn score: dot products of gradients, their scale, and whether it is open.

    An entry is a training pair p for self-influence, and (p, q) for influence; where there are both, self(p) is
    compared as well, at no cost. A column that is the mean of all test pairs takes the gradients of all. Learning rates
    and weights are those of the record: a GHM weight is a constant of the score and is not recomputed. Weights of the
    model are rounded as in the run (`compute.dtype`) before they become float64, so that only the arithmetic is
    measured; that of half precision exceeds the tolerance. A module that does not run in float64, or has other scores
    there, is verified in its own dtype.

    Not decided here: whether a pair whose score margin is within rounding of a kink of its loss is active. Float32 may
    decide a hinge otherwise than float64, and neither is wrong, but the whole gradient depends on it. The record alone
    is NOT trusted: where float64 contradicts it, the loss is computed at scores moved by 1e-5 of their size. If these
    disagree as well, the entry is left out and counted; otherwise it is compared and fails. A ReLU inside the scorer
    may flip likewise, at one position of many, which stays below the tolerance.
    """

    def __init__(
        self, task: Task, method: Method, compute: Compute, n: int, seed: int = 0, observer: Observer = LOG
    ) -> None:
        if n < 1:
            raise UsageError(f"`n` should be at least 1. Got {n}.")
        scorer = Scorer(task.scorer, joint=task.joint, params=method.params)
        first = int(task.train_pairs.first[0]), int(task.train_pairs.second[0])
        self._task, self._method, self._names = task, method, scorer.canonical()
        self._every = scorer.parameters()
        tried = first if task.joint else first[:1]
        self._plain = PlainModel(scorer.module, task.items, scorer.trainable, tried, compute.dtype)
        self._loss = as_loss(task.loss)
        self._tables = [pairs for pairs in (task.train_pairs, task.test) if pairs is not None]
        self._functionals = ("loss", method.test_functional)
        self._observer, self._seed, self._checkpoint = observer, seed, -1
        tests = len(task.test or ())
        self._drawn = _draw(len(task.train_pairs), min(tests, 1) if method.aggregate else tests, n, seed)
        self._seen: Sequence[Seen] = ()
        self._own: dict[int, _Sum] = defaultdict(_Sum)  # by training pair, and
        self._of_test: dict[int, _Sum] = defaultdict(_Sum)  # by test pair
        self._cross: dict[tuple[int, int], _Sum] = defaultdict(_Sum)  # by both

    def add(self, loaded: LoadedCheckpoint, rate: LearningRate, seen: Sequence[Seen]) -> None:
        """Add one checkpoint by plain autograd; `seen` is by table."""
        one = torch.ones((), dtype=torch.float64)
        scaled = self._method.preconditioner == "adam"
        found = adam_preconditioner(loaded, self._every, self._names) if scaled else {}
        roots = {name: root * found.get(name, one).sqrt() for name, root in root_rates(rate, self._names).items()}
        self._seen, self._checkpoint = seen, self._checkpoint + 1
        with self._plain.borrowed():
            self._plain.load(loaded.weights)
            for start in range(0, len(self._drawn), TOGETHER):
                entries = self._drawn[start : start + TOGETHER]
                self._add(entries, roots)
                self._observer.progress(len(entries) / len(self._drawn))

    def _add(self, entries: list[tuple[int, int | None]], roots: dict[str, Tensor]) -> None:
        """Add one checkpoint for some entries, whose test pairs are differentiated one at a time."""
        t = self._checkpoint
        train = {p: self._gradient(0, p, roots) for p in dict.fromkeys(p for p, _ in entries)}
        rows: dict[int, list[int]] = defaultdict(list)  # by test pair, the training pairs of its entries
        for p, column in entries:
            for q in () if column is None else self._tests_of(column):
                rows[q].append(p)
        for p, (_, norm, doubt) in train.items():
            self._own[p].add_once(t, norm**2, (norm + SMALLEST) ** 2, doubt)
        for q, pairs in rows.items():
            of_q, size, unsure = self._gradient(1, q, roots)
            self._of_test[q].add_once(t, size**2, (size + SMALLEST) ** 2, unsure)
            for p in pairs:
                gradient, norm, doubt = train[p]
                scale = (norm + SMALLEST) * (size + SMALLEST)
                self._cross[p, q].add_once(t, float(gradient @ of_q), scale, doubt or unsure)

    def _gradient(self, table: int, row: int, roots: dict[str, Tensor]) -> tuple[Tensor, float, bool]:
        """√(η P) ∇ℓ of a pair, its norm, and whether rounding decides if it is active."""
        weight = self._seen[table].weight[row]

        def value() -> Tensor:
            pairs, (first, second) = self._tables[table], self._scores_of(table, row)
            target = pairs.target[row].to(first)
            if self._functionals[table] == "score-margin":
                return -target * (first - second)
            margin = None if pairs.margin is None else pairs.margin[row].to(first)
            return weight.to(first) * self._loss(first, second, target, margin)

        parts = self._plain.gradient(value)
        gradient = torch.cat([(roots[name] * part).flatten() for name, part in parts.items()])
        norm = float(torch.linalg.vector_norm(gradient))
        inactive = bool(self._seen[table].inactive[row])
        return gradient, norm, (norm == 0) != inactive and self._at_kink(table, row)

    def _scores_of(self, table: int, row: int) -> tuple[Tensor, Tensor]:
        """s_a and s_b of a pair, each item scored alone; Δ and 0 of a pairwise scorer."""
        pairs = self._tables[table]
        first, second = int(pairs.first[row]), int(pairs.second[row])
        if self._task.joint:
            difference = self._plain.score(first, second)
            return difference, torch.zeros_like(difference)
        return self._plain.score(first), self._plain.score(second)

    def _tests_of(self, column: int) -> range:
        """The test pairs of a column: one, or all of them."""
        if self._method.aggregate is None:
            return range(column, column + 1)
        return range(len(self._tables[1]))

    def _at_kink(self, table: int, row: int) -> bool:
        """Whether scores moved by their rounding make the pair active and inactive."""
        pairs = self._tables[table].select(torch.tensor([row] * 3))
        with torch.no_grad():
            first, second = (score.double() for score in self._scores_of(table, row))
        size = first.abs() + second.abs() + self._seen[table].score_margin.abs().max()
        moved = first + size * ROUNDING * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        terms = functional_terms(self._functionals[table], self._loss, None, moved, second.expand(3), pairs)
        return bool(terms.active.any()) and not bool(terms.active.all())

    def compare(self, own: SelfInfluence | None, influence: Influence | None) -> Verification:
        """The drawn scores beside those of the run."""
        found = []
        if influence is not None:
            values, errors = influence.scores, influence.standard_error
            for p, column in self._drawn:
                assert column is not None
                total, error = self._influence(p, column), 0.0 if errors is None else float(errors[p, column])
                names = influence.ids[p], influence.test_ids[column]
                found.append(total.entry(*names, float(values[p, column]), error))
        if own is not None:
            values, errors = own.scores, own.standard_error
            for p in dict.fromkeys(p for p, _ in self._drawn):
                error = 0.0 if errors is None else float(errors[p])
                found.append(self._own[p].entry(own.ids[p], None, float(values[p]), error))
        return Verification(tuple(found), self._seed)

    def _influence(self, p: int, column: int) -> "_Sum":
        """The expected entry of a column: a dot product, or the mean of several; for a cosine divided by both norms."""
        tests = self._tests_of(column)
        shares = [1.0] if len(tests) == 1 else self._tables[1].shares.tolist()
        total = _Sum()
        for q, share in zip(tests, shares, strict=True):
            cross, norms = self._cross[p, q], 1.0
            if self._method.normalize == "cosine":
                norms = (self._own[p].expected * self._of_test[q].expected) ** 0.5
            by = share / norms if norms else 0.0
            total.expected += by * cross.expected
            total.scale += by * cross.scale if norms else SMALLEST
            total.undecided = total.undecided or cross.undecided
        return total


@dataclass
class _Sum:
    """Of one score, over checkpoints."""

    expected: float = 0.0
    scale: float = 0.0
    undecided: bool = False
    last: int = -1

    def add_once(self, checkpoint: int, expected: float, scale: float, undecided: bool) -> None:
        """Add a checkpoint, the first time it is given."""
        if checkpoint > self.last:
            self.expected += expected
            self.scale += scale
            self.undecided = self.undecided or undecided
            self.last = checkpoint

    def entry(self, pair: str, test_pair: str | None, found: float, error: float) -> Entry:
        return Entry(pair, test_pair, found, self.expected, self.scale, self.undecided, error)
