"""Scores with everything needed to read them: ids, losses, activity, checkpoints and how they were computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.results.files.scores_json import merge_columns
from tracin_func.results.files.table import is_table, write_table
from tracin_func.results.frame import PairRecord, long_table, rows_by_pair
from tracin_func.results.names import INFLUENCE_COLUMNS, MEAN, SELF_COLUMN
from tracin_func.results.run import Run


@dataclass(frozen=True)
class SelfInfluence:
    """self(p) = Σ_t ‖∇ℓ_p‖²_M, M = diag η_t: large for pairs the model finds hard.

    Unit: loss change of p per visit of p by SGD at rate η_t, first order, sign turned: at least 0. With the
    preconditioner `adam`, by Adam's step, its moments held fixed: M = diag(η_t / (√v̂ + ε)).

    Args:
        per_checkpoint: float64 [checkpoints, pairs].
        pairs: what the loss saw of them.
        run: how they were computed.
        variance: of `per_checkpoint` over random projections, of the same shape; None where gradients are exact.
    """

    per_checkpoint: Tensor
    pairs: PairRecord
    run: Run
    variance: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """Sum over checkpoints, float64 [pairs]."""
        return self.per_checkpoint.sum(dim=0)

    @property
    def standard_error(self) -> Tensor | None:
        """Of `scores`, estimated from the projections; None where gradients are exact."""
        return _standard_error(self.variance)

    @property
    def inactive(self) -> Tensor:
        """Where a pair's gradient was exactly 0, bool [checkpoints, pairs]."""
        return self.pairs.inactive

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the pairs."""
        return self.pairs.ids

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """The k hardest pairs and their scores, ties in the order of pairs."""
        return _top(self.scores, self.ids, k)

    def to_table(self, column: str = SELF_COLUMN, *, per_checkpoint: bool = False) -> dict[str, list[Any]]:
        """One column a property, one row a pair (and checkpoint): ready for a data frame."""
        variance = None if self.variance is None else self.variance[..., None]
        return long_table(
            self.pairs, self.run, column, (self.per_checkpoint[..., None], variance), None, per_checkpoint
        )

    def save(
        self,
        path: str | Path,
        *,
        column: str = SELF_COLUMN,
        per_checkpoint: bool = False,
        command: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the scores to `path`, with provenance beside it: `.json`, merged into what is there (`sinks.merge`);
        `.csv` or `.parquet`, a new table (`sinks.table_file`).

        Args:
            path: the file.
            column: what the scores are called.
            per_checkpoint: a column (in tables a row) for each checkpoint, named after it, instead of the sum.
            command, options: what is recorded of how the run was started.
        """
        _require_distinct(self.ids)
        record = self.run.provenance("self", _counts(self.pairs), command, options)
        if is_table(path):
            return _write(path, self.to_table(column, per_checkpoint=per_checkpoint), column, record)
        scores = {column: (self.scores, self.standard_error)}
        if per_checkpoint:
            scores = {
                f"{column}_{name}": (self.per_checkpoint[t], _root_of(self.variance, t))
                for t, name in enumerate(self.run.names)
            }
        return merge_columns(path, rows_by_pair(self.ids, scores), swapped=self.pairs.swapped, provenance=record).path


@dataclass(frozen=True)
class Influence:
    """influence(p, q) = Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩: positive where training on p lowered the loss of q.

    Unit: loss change of q per visit of p by SGD at rate η_t (by Adam's step with the preconditioner `adam`), first
    order, sign turned. The true change is about score × visits of p between checkpoints / batch size. With the test
    functional `score-margin` ℓ_q is −y (s_a − s_b): positive where training on p raised q's score margin. Aggregated,
    there is one test column, that of the mean functional of all test pairs.

    Args:
        per_checkpoint: float64 [checkpoints, train_pairs, test_pairs].
        train: what the loss saw of the training pairs.
        test: of the test pairs.
        run: how they were computed.
        variance: of `per_checkpoint` over random projections, of the same shape; None where gradients are exact.
        self_influence: of the training pairs, from the same pass, where it was asked for.
    """

    per_checkpoint: Tensor
    train: PairRecord
    test: PairRecord
    run: Run
    variance: Tensor | None = None
    self_influence: SelfInfluence | None = None

    @property
    def scores(self) -> Tensor:
        """Sum over checkpoints, float64 [train_pairs, test_pairs]."""
        return self.per_checkpoint.sum(dim=0)

    @property
    def standard_error(self) -> Tensor | None:
        """Of `scores`, estimated from the projections; None where gradients are exact."""
        return _standard_error(self.variance)

    @property
    def inactive(self) -> Tensor:
        """Where a training pair's gradient was exactly 0, bool [checkpoints, train_pairs]."""
        return self.train.inactive

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the training pairs."""
        return self.train.ids

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Names of the test columns: the test pairs, or `mean`."""
        return self.test.ids if self.run.method.aggregate is None else (MEAN,)

    @property
    def column(self) -> str:
        """What a file or table calls these scores; what has another meaning has another name."""
        return INFLUENCE_COLUMNS[self.run.method.test_functional, self.run.method.normalize]

    @property
    def zero_columns(self) -> list[int]:
        """Test columns whose gradient is exactly 0 at every checkpoint: no training pair can show an influence."""
        zero = self.test.inactive.all(dim=0)
        return (zero if self.run.method.aggregate is None else zero.all()[None]).nonzero()[:, 0].tolist()

    def top(self, k: int = 10, *, test: int = 0) -> list[tuple[str, float]]:
        """The k strongest proponents of one test pair (positive scores first), ties in the order of pairs."""
        return _top(self.scores[:, test], self.ids, k)

    def bottom(self, k: int = 10, *, test: int = 0) -> list[tuple[str, float]]:
        """The k strongest opponents of one test pair (most negative first), ties in the order of pairs."""
        return [(name, -value) for name, value in _top(-self.scores[:, test], self.ids, k)]

    def to_table(self, column: str | None = None, *, per_checkpoint: bool = False) -> dict[str, list[Any]]:
        """One row a training and test pair (and checkpoint), training pair by training pair: ready for a data frame."""
        scores = self.per_checkpoint, self.variance
        return long_table(self.train, self.run, column or self.column, scores, self.test_ids, per_checkpoint)

    def save(
        self,
        path: str | Path,
        *,
        column: str | None = None,
        per_checkpoint: bool = False,
        command: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the scores to `path`, in JSON a column `{column}_{test_id}` a test pair; see `SelfInfluence.save`."""
        _require_distinct(self.ids)
        _require_distinct(self.test_ids)
        column = column or self.column
        record = self.run.provenance("influence", _counts(self.train), command, options)
        if is_table(path):
            return _write(path, self.to_table(column, per_checkpoint=per_checkpoint), column, record)
        error = self.standard_error
        scores = {
            f"{column}_{test}": (self.scores[:, j], None if error is None else error[:, j])
            for j, test in enumerate(self.test_ids)
        }
        if per_checkpoint:
            scores = {
                f"{column}_{test}_{name}": (self.per_checkpoint[t, :, j], _root_of(self.variance, t, j))
                for j, test in enumerate(self.test_ids)
                for t, name in enumerate(self.run.names)
            }
        return merge_columns(path, rows_by_pair(self.ids, scores), swapped=self.train.swapped, provenance=record).path


def _standard_error(variance: Tensor | None) -> Tensor | None:
    """Checkpoints are projected independently of each other, so that variances add up."""
    return None if variance is None else variance.sum(dim=0).sqrt()


def _require_distinct(ids: tuple[str, ...]) -> None:
    if len(set(ids)) < len(ids):
        double = next(name for name in ids if ids.count(name) > 1)
        raise InputError(
            f"two pairs are called {double!r}, and a file keeps one value a pair. Merge repeats with `count`, or give "
            "`Pairs` ids of your own."
        )


def _top(scores: Tensor, ids: tuple[str, ...], k: int) -> list[tuple[str, float]]:
    order = torch.sort(scores, descending=True, stable=True).indices[:k].tolist()
    return [(ids[position], float(scores[position])) for position in order]


def _write(path: str | Path, table: Mapping[str, list[Any]], column: str, record: Mapping[str, Any]) -> Path:
    words = {name: record[name] for name in ("sign", "unit")}
    return write_table(path, table, metadata=words, provenance={column: record})


def _root_of(variance: Tensor | None, checkpoint: int, test: int | None = None) -> Tensor | None:
    """The standard error of one column."""
    if variance is None:
        return None
    return (variance[checkpoint] if test is None else variance[checkpoint, :, test]).sqrt()


def _counts(pairs: PairRecord) -> dict[str, int]:
    return {"rows": len(pairs.ids), "drawn": int(pairs.count.sum()), "inactive": int(pairs.inactive.sum())}
