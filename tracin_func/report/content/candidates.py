"""How many pairs `tracin-func exclude` would list from the files of a report, by some usual rules."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

import torch

from tracin_func.errors import InputError
from tracin_func.report.content.evidence import Column, Evidence
from tracin_func.results.exclusion_rule import HIGHEST_SELF, LOWEST_INFLUENCE, Rule
from tracin_func.results.exclusions import choose
from tracin_func.results.names import start_of
from tracin_func.results.score_table import ScoreTable, TrainingPairs

MOST_SCORES = 10_000_000  # of a table that is made to count them
DROPPED = "5%"


class Candidates(NamedTuple):
    """A command that lists pairs, the kind of its rule (`drop`, `threshold`, `hard`), and how many it lists."""

    kind: str
    value: str
    line: str
    listed: int
    pairs: int


def candidates(evidence: Evidence) -> list[Candidates]:
    """The lists that hold at least one pair and leave every class some; none where the strongest pairs alone are known.

    Influence chooses pairs where it is known, otherwise self-influence does.
    """
    if evidence.strongest:
        return []
    return list(_of_influence(evidence) if evidence.tests else _of_self(evidence))


def _of_influence(evidence: Evidence) -> Iterator[Candidates]:
    first = evidence.tests[0]
    columns = [each for each in evidence.tests if (each.path, _start(each)) == (first.path, _start(first))]
    known = {_start(each) for each in evidence.tests if each.path == first.path}
    chosen = f" --column {shlex.quote(_start(first))}" if len(known) > 1 else ""
    line = f"tracin-func exclude {shlex.quote(str(first.path))}{chosen}"
    if len(columns) * len(evidence.pairs) > MOST_SCORES:
        return
    table = _table(evidence, columns, of_self=False)
    yield from _counted("drop", DROPPED, f"{line} --drop {DROPPED}", Rule(drop=DROPPED), table)
    lowest = LOWEST_INFLUENCE
    yield from _counted("threshold", lowest, f"{line} --threshold {lowest}", Rule(threshold=lowest), table)


def _of_self(evidence: Evidence) -> Iterator[Candidates]:
    if evidence.own is None:
        return
    line = f"tracin-func exclude {shlex.quote(str(evidence.own.path))} --upper-threshold {HIGHEST_SELF}"
    table = _table(evidence, [evidence.own], of_self=True)
    yield from _counted("hard", HIGHEST_SELF, line, Rule(upper_threshold=HIGHEST_SELF), table)


def _counted(kind: str, value: str, line: str, rule: Rule, table: ScoreTable) -> Iterator[Candidates]:
    try:
        found = len(choose(rule, table))
    except InputError:  # no column is live, or a class would be empty
        return
    if found:
        yield Candidates(kind, value, line, found, len(table.ids))


def _start(column: Column) -> str:
    return start_of(column.name, {}) or column.name


def _table(evidence: Evidence, columns: list[Column], *, of_self: bool) -> ScoreTable:
    pairs = tuple(pair for pair in evidence.pairs if any(pair in each.values for each in columns))
    items = {pair: evidence.items[pair] for pair in pairs if pair in evidence.items}
    scores = [[column.values.get(pair, torch.nan) for column in columns] for pair in pairs]
    return ScoreTable(
        parts=(TrainingPairs(f"`{columns[0].path}`", pairs, items, evidence.classes),),
        ids=pairs,
        items=items,
        tests=tuple(str(each.test or "") for each in columns),
        scores=torch.tensor(scores, dtype=torch.float64).reshape(len(pairs), len(columns)),
        of_self=of_self,
        margins={},
    )
