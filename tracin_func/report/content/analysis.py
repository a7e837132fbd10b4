"""The numbers of a report, without any word of a language: what `evidence` says about pairs, items and classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tracin_func.report.content.advice import Advice, advise
from tracin_func.report.content.evidence import Column, Evidence, Values
from tracin_func.report.content.spread import Spread, spreads
from tracin_func.results.names import MEAN
from tracin_func.results.views import (
    CLASS,
    CLASS_PAIR,
    DASH,
    ITEM,
    SCORE,
    ZERO_COLUMN,
    Flag,
    Histogram,
    Statistics,
    histogram,
    in_order,
    number,
    summary,
)

BINS = 30
MOST_CLASSES = 24  # of a heat map, and of class differences, that can be read
TEST_SECTIONS = 20  # test pairs that are shown in full
ITEM_ROWS = 15  # of a table of items
LINES = 5  # pairs whose scores are shown by checkpoint


class PairRow(NamedTuple):
    """A pair with its score; `facts` is what else is known, `loss_rank` among them (1: largest loss)."""

    pair: str
    items: tuple[str, str] | None
    score: float
    facts: Mapping[str, float]


class Cell(NamedTuple):
    """The mean of the pairs of two classes."""

    mean: float
    pairs: int


@dataclass(frozen=True)
class Heat:
    """Mean score by pair of classes in either order; `cells[row][column]`, column at most row; None: no pair."""

    names: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]


@dataclass(frozen=True)
class Distribution:
    """A column as a whole."""

    statistics: Statistics
    histogram: Histogram


@dataclass(frozen=True)
class OwnAnalysis:
    """Self-influence.

    Args:
        column: its name.
        distribution: over pairs.
        hardest, easiest: the ends.
        class_pairs: by pair of classes, largest mean first.
        heat: the same as a map; None for too many classes.
        differences: by difference of the numbers in the names of both classes, smallest first.
        unit: of these differences: `°` of angles, otherwise empty.
        steps: by checkpoint.
        lines: scores of the hardest pairs at each checkpoint.
    """

    column: str
    distribution: Distribution
    hardest: tuple[PairRow, ...]
    easiest: tuple[PairRow, ...]
    class_pairs: tuple[Spread, ...]
    heat: Heat | None
    differences: tuple[Spread, ...]
    unit: str
    steps: tuple[Spread, ...]
    lines: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class TestAnalysis:
    """Influence on one test pair.

    Args:
        zero: whether every score is 0.
        facts: its own loss and margin.
        asked: whether it is a query.
        own_ranking: whether the model's own ranking of it is explained.
    """

    __test__ = False  # no test of pytest

    name: str
    items: tuple[str, str] | None
    meaning: str
    distribution: Distribution
    proponents: tuple[PairRow, ...]
    opponents: tuple[PairRow, ...]
    heat: Heat | None
    facts: Mapping[str, float]
    zero: bool
    asked: bool
    own_ranking: bool


class Checkpoint(NamedTuple):
    """A checkpoint: shares of pairs in the right order, computed and as its training recorded them."""

    name: str
    learning_rate: float | None
    train: float | None
    train_recorded: float | None
    test: float | None
    test_recorded: float | None
    inactive: float | None


class Oddity(NamedTuple):
    """An irregularity of a column; `ours`: its provenance says that tracin-func computed it."""

    column: str
    flag: Flag
    ours: bool


@dataclass(frozen=True)
class Analysis:
    """Everything that a report shows."""

    evidence: Evidence
    items: int
    classes: tuple[str, ...]
    checkpoints: tuple[Checkpoint, ...]
    oddities: tuple[Oddity, ...]
    own: OwnAnalysis | None
    tests: tuple[TestAnalysis, ...]
    by_item: tuple[Spread, ...]
    by_class: tuple[Spread, ...]
    rolled: str
    advice: tuple[Advice, ...]

    @property
    def shown_items(self) -> list[str]:
        """The items of all pairs that are shown one by one, each once."""
        rows = [*self.own.hardest, *self.own.easiest] if self.own else []
        both = [row.items for row in rows]
        for test in self.tests:
            both += [test.items, *(row.items for row in (*test.proponents, *test.opponents))]
        return list(dict.fromkeys(item for pair in both if pair for item in pair))


def analyse(evidence: Evidence, *, top: int = 10, sides: int = 3) -> Analysis:
    """The numbers of a report.

    Args:
        evidence: the scores.
        top: hardest pairs that are shown, and items.
        sides: proponents and opponents of each test pair that are shown.
    """
    items, classes = evidence.items, evidence.classes
    known = {item for pair in evidence.pairs for item in items.get(pair, ())}
    rolled = _rolled(evidence)
    wrong = _wrong(evidence)
    views = {by: spreads(rolled, by, items, classes, wrong) for by in (ITEM, CLASS, CLASS_PAIR)}
    meaning = "self" if evidence.own else "influence" if evidence.tests else ""
    return Analysis(
        evidence=evidence,
        items=len(known),
        classes=_ordered({classes[item] for item in known if item in classes}),
        checkpoints=tuple(_checkpoints(evidence.record)),
        oddities=tuple(_oddities(evidence)),
        own=_own(evidence, evidence.own, top, views[CLASS_PAIR]) if evidence.own else None,
        tests=tuple(_test(evidence, column, sides) for column in evidence.tests if column.values),
        by_item=tuple(views[ITEM]),
        by_class=tuple(views[CLASS]),
        rolled=meaning,
        advice=tuple(advise(meaning, list(rolled.values()), views)),
    )


def _rolled(evidence: Evidence) -> Values:
    """What items and classes are ranked by: self-influence, otherwise the sum of influences on all test pairs."""
    if evidence.own:
        return evidence.own.values
    columns = [column.values for column in evidence.tests if not _is_zero(column)]
    return {
        pair: sum(column[pair] for column in columns)
        for pair in evidence.pairs
        if columns and all(pair in column for column in columns)
    }


def _wrong(evidence: Evidence) -> dict[str, bool]:
    """Whether the last checkpoint orders a pair wrong, where that is known."""
    return {pair: margin <= 0 for pair, margin in evidence.facts.get("score_margin", {}).items()}


def _own(evidence: Evidence, column: Column, top: int, class_pairs: list[Spread]) -> OwnAnalysis:
    order = in_order(column.values, SCORE)
    rows = _rows(evidence, column.values, order[:top])
    differences, unit = _differences(evidence, column.values)
    steps = [(name, values) for name, values in evidence.steps if values]
    lines = [
        (row.pair, tuple(values[row.pair] for _, values in steps))
        for row in rows[:LINES]
        if len(steps) > 1 and all(row.pair in values for _, values in steps)
    ]
    return OwnAnalysis(
        column=column.name,
        distribution=_distribution(column.values),
        hardest=tuple(rows),
        easiest=tuple(_rows(evidence, column.values, order[top:][::-1][: 2 * max(1, top // 5)])),
        class_pairs=tuple(class_pairs),
        heat=_heat(evidence, class_pairs),
        differences=tuple(differences),
        unit=unit,
        steps=tuple(Spread.of(name, list(values.values())) for name, values in steps) if len(steps) > 1 else (),
        lines=tuple(lines),
    )


def _test(evidence: Evidence, column: Column, sides: int) -> TestAnalysis:
    order = in_order(column.values, SCORE)
    values = column.values
    test = str(column.test)
    return TestAnalysis(
        name=test,
        items=None if test == MEAN else evidence.items.get(test),
        meaning=column.meaning,
        distribution=_distribution(values),
        proponents=tuple(_rows(evidence, values, [pair for pair in order[:sides] if values[pair] > 0])),
        opponents=tuple(_rows(evidence, values, [pair for pair in order[::-1][:sides] if values[pair] < 0])),
        heat=_heat(evidence, spreads(values, CLASS_PAIR, evidence.items, evidence.classes, {})),
        facts=evidence.test_facts.get(test, {}),
        zero=_is_zero(column),
        asked=test in evidence.queries,
        own_ranking=evidence.queries.get(test, False),
    )


def _is_zero(column: Column) -> bool:
    return any(flag.kind == ZERO_COLUMN for flag in column.flags)


def _distribution(values: Values) -> Distribution:
    every = list(values.values())
    return Distribution(summary(every), histogram(every, BINS))


def _rows(evidence: Evidence, values: Values, pairs: Sequence[str]) -> list[PairRow]:
    facts = dict(evidence.facts)
    if loss := facts.get("loss"):
        facts["loss_rank"] = {pair: float(rank) for rank, pair in enumerate(in_order(loss, SCORE), start=1)}
    return [
        PairRow(
            pair,
            evidence.items.get(pair),
            values[pair],
            {name: known[pair] for name, known in facts.items() if pair in known},
        )
        for pair in pairs
    ]


def _heat(evidence: Evidence, found: Sequence[Spread]) -> Heat | None:
    """None where classes are unknown, or too many for a map."""
    cells = {frozenset(each.name.split(DASH)): Cell(each.mean, each.pairs) for each in found}
    names = _ordered({name for both in cells for name in both})
    if not 1 < len(names) <= MOST_CLASSES:
        return None
    rows = [[cells.get(frozenset((row, column))) for column in names[: place + 1]] for place, row in enumerate(names)]
    return Heat(names, tuple(map(tuple, rows)))


def _differences(evidence: Evidence, values: Values) -> tuple[list[Spread], str]:
    """Scores by how far the numbers in the names of both classes are apart, such as angles; and the unit."""
    numbers = {name: _number(name) for name in set(evidence.classes.values())}
    found: dict[float, list[float]] = {}
    for pair, value in values.items():
        both = [numbers.get(evidence.classes.get(item, "")) for item in evidence.items.get(pair, ())]
        if len(both) == 2 and both[0] is not None and both[1] is not None:
            found.setdefault(abs(both[0] - both[1]), []).append(value)
    if not 1 < len(found) <= MOST_CLASSES:
        return [], ""
    unit = "°" if all(name.startswith("deg") for name in numbers) else ""
    return [Spread.of(f"{key:g}", found[key]) for key in sorted(found)], unit


def _number(name: str) -> float | None:
    """The only number in the name of a class."""
    found = re.findall(r"\d+(?:\.\d+)?", name)
    return float(found[0]) if len(found) == 1 else None


def _ordered(names: set[str]) -> tuple[str, ...]:
    """Names by the numbers in them, then by letters."""
    return tuple(sorted(names, key=lambda name: (_number(name) is None, _number(name) or 0.0, name)))


def _checkpoints(record: Mapping[str, Any]) -> list[Checkpoint]:
    found = record.get("checkpoints")
    rows = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return [_checkpoint(row, _dict(row.get("evaluation")), _dict(row.get("recorded"))) for row in rows]


def _checkpoint(row: Mapping[str, Any], found: Mapping[str, Any], recorded: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(
        name=str(row.get("name")),
        learning_rate=number(row.get("learning_rate")),
        train=number(found.get("train_right")),
        train_recorded=number(recorded.get("train_accuracy")),
        test=number(found.get("test_right")),
        test_recorded=number(recorded.get("test_accuracy")),
        inactive=number(found.get("inactive")),
    )


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _oddities(evidence: Evidence) -> list[Oddity]:
    columns = [*([evidence.own] if evidence.own else []), *evidence.tests]
    return [Oddity(column.name, flag, bool(evidence.records)) for column in columns for flag in column.flags]
