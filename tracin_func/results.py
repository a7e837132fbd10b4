"""Scores with everything needed to read them: ids, losses, activity, checkpoints and how they were computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.provenance import provenance
from tracin_func.sinks.merge import MergeReport, merge_columns

SELF_COLUMN = "tracin_self_influence"
INFLUENCE_COLUMNS = {"loss": "tracin_influence", "score-margin": "tracin_score_margin_influence"}  # by test functional


@dataclass(frozen=True)
class PairRecord:
    """What the loss saw of one table of pairs: `ids` [pairs], the rest [checkpoints, pairs].

    `loss` is without weights, `score_margin` is y (s_a − s_b) (above 0: ranked right), `weight` the loss's own
    times the pair's, `inactive` True where the gradient is exactly 0. `count` [pairs] is how often a pair was
    drawn. `swapped` maps an id ID1_ID2 to ID2_ID1, under which a file may know the pair; empty for ids of one's own.
    """

    ids: tuple[str, ...]
    swapped: Mapping[str, str]
    count: Tensor
    loss: Tensor
    score_margin: Tensor
    weight: Tensor
    inactive: Tensor


@dataclass(frozen=True)
class Run:
    """How scores came about: checkpoints with their rates, loss, engine, source, and what the user was told.

    `test_functional` and `weight_test_pairs` say what of test pairs was explained; self-influence has none.
    """

    checkpoints: tuple[Mapping[str, Any], ...]
    loss: Mapping[str, Any]
    engine: Mapping[str, Any]
    source: Mapping[str, Any]
    notices: tuple[str, ...]
    test_functional: str = "loss"
    weight_test_pairs: bool = False

    @property
    def names(self) -> list[str]:
        """The checkpoints' names."""
        return [str(checkpoint["name"]) for checkpoint in self.checkpoints]


@dataclass(frozen=True)
class SelfInfluence:
    """self(p) = Σ_t ‖∇ℓ_p‖²_M, M = diag η_t: large for pairs the model finds hard.

    Unit: loss change of p per visit of p by SGD at rate η_t, first order, sign turned: at least 0.

    Args:
        per_checkpoint: float64 [checkpoints, pairs].
        pairs: what the loss saw of them.
        run: how they were computed.
    """

    per_checkpoint: Tensor
    pairs: PairRecord
    run: Run

    @property
    def scores(self) -> Tensor:
        """Sum over checkpoints, float64 [pairs]."""
        return self.per_checkpoint.sum(dim=0)

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

    def to_table(self) -> dict[str, list[Any]]:
        """One column a property, one row a pair: ready for a data frame."""
        return {"pair": list(self.ids), SELF_COLUMN: self.scores.tolist(), **_summary(self.pairs)}

    def save(self, path: str | Path, *, command: Sequence[str] | None = None, column: str = SELF_COLUMN) -> MergeReport:
        """Merge the scores into the JSON file `path`, with provenance beside it; see `sinks.merge`."""
        _require_distinct(self.ids)
        rows = {name: {column: value} for name, value in zip(self.ids, self.scores.tolist(), strict=True)}
        record = _provenance("self", self.run, self.pairs, command)
        return merge_columns(path, rows, swapped=self.pairs.swapped, provenance=record)


@dataclass(frozen=True)
class Influence:
    """influence(p, q) = Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩: positive where training on p lowered the loss of q.

    Unit: loss change of q per visit of p by SGD at rate η_t, first order, sign turned. The true change is about
    score × visits of p between checkpoints / batch size. With the test functional `score-margin` ℓ_q is
    −y (s_a − s_b): positive where training on p raised q's score margin.

    Args:
        per_checkpoint: float64 [checkpoints, train_pairs, test_pairs].
        train: what the loss saw of the training pairs.
        test: of the test pairs.
        run: how they were computed.
    """

    per_checkpoint: Tensor
    train: PairRecord
    test: PairRecord
    run: Run

    @property
    def scores(self) -> Tensor:
        """Sum over checkpoints, float64 [train_pairs, test_pairs]."""
        return self.per_checkpoint.sum(dim=0)

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
        """Names of the test pairs."""
        return self.test.ids

    @property
    def column(self) -> str:
        """What a file or table calls these scores; that of another test functional has another name."""
        return INFLUENCE_COLUMNS[self.run.test_functional]

    @property
    def zero_columns(self) -> list[int]:
        """Test pairs whose gradient is exactly 0 at every checkpoint: no training pair can show an influence."""
        return self.test.inactive.all(dim=0).nonzero()[:, 0].tolist()

    def top(self, k: int = 10, *, test: int = 0) -> list[tuple[str, float]]:
        """The k strongest proponents of one test pair (positive scores first), ties in the order of pairs."""
        return _top(self.scores[:, test], self.ids, k)

    def bottom(self, k: int = 10, *, test: int = 0) -> list[tuple[str, float]]:
        """The k strongest opponents of one test pair (most negative first), ties in the order of pairs."""
        return [(name, -value) for name, value in _top(-self.scores[:, test], self.ids, k)]

    def to_table(self) -> dict[str, list[Any]]:
        """One row a training and test pair, training pair by training pair: ready for a data frame."""
        train, test = len(self.ids), len(self.test_ids)
        repeated = {
            name: [value for value in column for _ in range(test)] for name, column in _summary(self.train).items()
        }
        return {
            "pair": [name for name in self.ids for _ in range(test)],
            "test_pair": list(self.test_ids) * train,
            self.column: self.scores.flatten().tolist(),
            **repeated,
        }

    def save(self, path: str | Path, *, command: Sequence[str] | None = None, column: str | None = None) -> MergeReport:
        """Merge the scores into the JSON file `path`, `{column}_{test_id}` a test pair; see `sinks.merge`."""
        _require_distinct(self.ids)
        _require_distinct(self.test_ids)
        columns = [f"{column or self.column}_{name}" for name in self.test_ids]
        rows = {
            name: dict(zip(columns, values, strict=True))
            for name, values in zip(self.ids, self.scores.tolist(), strict=True)
        }
        record = _provenance("influence", self.run, self.train, command)
        return merge_columns(path, rows, swapped=self.train.swapped, provenance=record)


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


def _summary(pairs: PairRecord) -> dict[str, list[Any]]:
    last = -1
    return {
        "loss": pairs.loss[last].tolist(),
        "score_margin": pairs.score_margin[last].tolist(),
        "active_share": (~pairs.inactive).double().mean(dim=0).tolist(),
        "count": pairs.count.tolist(),
        "weight": pairs.weight[last].tolist(),
    }


def _provenance(score: str, run: Run, pairs: PairRecord, command: Sequence[str] | None) -> dict[str, Any]:
    counts = {"rows": len(pairs.ids), "drawn": int(pairs.count.sum()), "inactive": int(pairs.inactive.sum())}
    return provenance(
        command=command,
        source=run.source,
        checkpoints=run.checkpoints,
        loss=run.loss,
        pairs=counts,
        engine=run.engine,
        score=score,
        notices=run.notices,
        test_functional=run.test_functional,
        weight_test_pairs=run.weight_test_pairs,
    )
