"""Pairs that are explained without being in any split, in the direction that is known or else the model's own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tracin_func.errors import InputError, UsageError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.processes import ALONE
from tracin_func.scoring.combinations import PairScores
from tracin_func.scoring.observer import LOG, Observer
from tracin_func.scoring.walk import Walk
from tracin_func.task.method import Method
from tracin_func.task.pairs import Pairs
from tracin_func.task.queries import Asked, Query, placed
from tracin_func.task.task import Task

BY_MODEL = "model"  # where a target comes from that was not given
_LISTED = 3  # pairs in a notice


def with_queries(
    task: Task,
    queries: Iterable[Asked],
    *,
    method: Method = Method(),
    compute: Compute = Compute(),
    observer: Observer = LOG,
) -> Task:
    """The task with these test pairs in place of its own, to explain pairs that are in no split.

    Without a target the model's own ranking is explained: the sign of s_a − s_b at the last checkpoint. A notice
    reports it with the scores, and provenance records it under 'queries'.

    Args:
        task: whose items are compared; its own test pairs remain those on which the model is evaluated.
        queries: two items by id and, if it is known, the target: "a,b", ("a", "b") or ("a", "b", -1). If no id is a
            whole number, items may be named by position: (0, 5).
        method, compute, observer: as for `influence`.

    Raises:
        UsageError: no query, or one that is malformed or given twice.
        InputError: an item is not found, or the model scores both items of a pair alike.

    Example:
        >>> ti.influence(ti.with_queries(task, [("a", "d"), ("b", "e", 1)])).test_ids
        ('a_d', 'b_e')
    """
    if isinstance(queries, str):
        raise UsageError(f"`queries` should be a list of queries. Got the text {queries!r}.")
    return directed(task, placed(queries, task.all_item_ids), method, compute, observer)


def is_own_ranking(source: Mapping[str, Any], test: int) -> bool:
    """Whether the target of a test pair is that of the model, by what provenance records of the source."""
    queries = source.get("queries")
    known = queries[test : test + 1] if isinstance(queries, list) else []
    return any(isinstance(each, dict) and each.get("target_from") == BY_MODEL for each in known)


def directed(
    task: Task,
    queries: Sequence[Query],
    method: Method = Method(),
    compute: Compute = Compute(),
    observer: Observer = LOG,
) -> Task:
    """The task with these queries as test pairs; see `with_queries`."""
    if not queries:
        raise UsageError("`queries` is empty. Give at least one.")
    first, second, given = zip(*queries, strict=True)
    targets = [target or 1 for target in given]
    described: list[dict[str, Any]] = [{"target_from": "query"} for _ in queries]
    own = [row for row, target in enumerate(given) if target is None]
    if own:
        pairs = Pairs([first[row] for row in own], [second[row] for row in own], [1] * len(own))
        name, scores = _last_scores(task, pairs, method, compute)
        for row, both in zip(own, scores, strict=True):
            targets[row] = _direction(task, queries[row], name, *both)
            described[row] = {"target_from": BY_MODEL, "scores": None if task.joint else list(both)}
        words = [_ranking(task, queries[row], *both) for row, both in zip(own, scores, strict=True)]
        more = f"; and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
        observer.notice(
            f"note: `query` without target: the ranking at {name} is explained: {'; '.join(words[:_LISTED])}{more}."
        )
    test = Pairs(first, second, targets)
    for row, pair in enumerate(task.pair_ids(test)):
        described[row] = {"pair": pair, "target": targets[row], **described[row]}
    held_out = task.test if task.held_out is None else task.held_out
    return replace(task, test=test, held_out=held_out, describe={**task.describe, "queries": described})


def _last_scores(task: Task, pairs: Pairs, method: Method, compute: Compute) -> tuple[str, list[tuple[float, float]]]:
    """The name of the last checkpoint, and s_a and s_b of each pair there; Δ and 0 of a pairwise scorer."""
    last = replace(task, train=pairs, test=None, held_out=None, checkpoints=task.checkpoints[-1:])
    plain = Method(params=method.params, checkpoint_weights="uniform")  # a forward pass needs no learning rate
    alone = replace(compute, store=None, shard=None, world=ALONE)
    found: list[tuple[str, PairScores]] = []
    with Walk(last, plain, alone, Observer(notice=lambda sentence: None)) as walk:
        walk.visit(lambda opened: found.append((opened.loaded.name, walk.scores(opened, pairs, apart=True))))
    ((name, (first, second)),) = found
    return name, list(zip(first.tolist(), second.tolist(), strict=True))


def _direction(task: Task, query: Query, name: str, first: float, second: float) -> int:
    """+1 if the first item scores higher, -1 if the second does."""
    if first == second:
        ids = f"{task.item_id(query.first)},{task.item_id(query.second)}"
        raise InputError(
            f"`query`: {name} scores both items of {ids} alike, so there is no ranking to explain. Give the target, "
            f"such as {ids},1."
        )
    return 1 if first > second else -1


def _ranking(task: Task, query: Query, first: float, second: float) -> str:
    """Which item scores higher, in words."""
    both = (task.item_id(query.first), first), (task.item_id(query.second), second)
    (higher, high), (lower, low) = both if first > second else both[::-1]
    if task.joint:
        return f"{higher} above {lower} (score difference {high - low:.4g})"
    return f"{higher} ({high:.4g}) above {lower} ({low:.4g})"
