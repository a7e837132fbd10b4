"""Pairs as the loss saw them, and scores of pairs as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tracin_func.results.names import STANDARD_ERROR
from tracin_func.results.run import Run


@dataclass(frozen=True)
class PairRecord:
    """What the loss saw of one table of pairs: `ids` [pairs], the rest [checkpoints, pairs].

    `loss` is without weights, `score_margin` is y (s_a − s_b) (above 0: ranked right), `weight` the loss's own
    times the pair's, `inactive` True where the gradient is exactly 0, `bin` the GHM bin (−1 for none), None with
    another loss. `target` [pairs] is +1 or −1, `count` [pairs] how often a pair was drawn, `items` the names of its
    two items. `swapped` maps an id ID1_ID2 to ID2_ID1, under which a file may know the pair; empty for ids of one's
    own.
    """

    ids: tuple[str, ...]
    items: tuple[tuple[str, str], ...]
    swapped: Mapping[str, str]
    target: Tensor
    count: Tensor
    bin: Tensor | None
    loss: Tensor
    score_margin: Tensor
    weight: Tensor
    inactive: Tensor


def long_table(
    pairs: PairRecord,
    run: Run,
    column: str,
    estimated: tuple[Tensor, Tensor | None],
    tests: Sequence[str] | None,
    by_checkpoint: bool,
) -> dict[str, list[Any]]:
    """A long table of scores and their variances [checkpoints, pairs, tests]: a row a pair, test column and, where
    asked for, checkpoint; what the loss saw is of that checkpoint, else of the last."""
    per_checkpoint, variance = estimated
    of_tests = per_checkpoint.shape[2]
    parts: list[dict[str, list[Any]]] = []
    for position in range(len(run.names)) if by_checkpoint else (-1,):
        scores = per_checkpoint[position] if by_checkpoint else per_checkpoint.sum(dim=0)
        bins = {} if pairs.bin is None else {"ghm_bin": pairs.bin[position].tolist()}
        of_pairs = {
            "pair": list(pairs.ids),
            "first": [first for first, _ in pairs.items],
            "second": [second for _, second in pairs.items],
            "target": pairs.target.tolist(),
            "loss": pairs.loss[position].tolist(),
            "score_margin": pairs.score_margin[position].tolist(),
            "active_share": (~pairs.inactive).double().mean(dim=0).tolist(),
            "count": pairs.count.tolist(),
            "weight": pairs.weight[position].tolist(),
            **bins,
        }
        table = {name: [value for value in values for _ in range(of_tests)] for name, values in of_pairs.items()}
        table[column] = scores.flatten().tolist()
        if variance is not None:
            of_scores = variance[position] if by_checkpoint else variance.sum(dim=0)
            table[STANDARD_ERROR] = of_scores.sqrt().flatten().tolist()
        if tests is not None:
            table["test_pair"] = list(tests) * len(pairs.ids)
        if by_checkpoint:
            table["checkpoint"] = [run.names[position]] * len(table[column])
        parts.append(table)
    order = [
        name
        for name in ("pair", "first", "second", "test_pair", "checkpoint", column, STANDARD_ERROR)
        if name in parts[0]
    ]
    return {
        name: [value for part in parts for value in part[name]]
        for name in (*order, *(name for name in parts[0] if name not in order))
    }


def rows_by_pair(ids: Sequence[str], scores: Mapping[str, tuple[Tensor, Tensor | None]]) -> dict[str, dict[str, float]]:
    """Scores, and their standard errors where there are some, by column as scores by pair."""
    columns = {name: values for name, (values, _) in scores.items()}
    columns |= {f"{STANDARD_ERROR}_{name}": error for name, (_, error) in scores.items() if error is not None}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return {name: dict(zip(columns, values, strict=True)) for name, values in zip(ids, rows, strict=True)}
