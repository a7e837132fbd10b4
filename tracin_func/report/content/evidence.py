"""What a report is made of: scores, losses and provenance, of result files or of a run that has just ended."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError
from tracin_func.results.files.read import ResultFile, read_result
from tracin_func.results.frame import PairRecord
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.results.load import load_each
from tracin_func.results.names import MEAN, meaning_of
from tracin_func.results.partial import holds
from tracin_func.results.top import TopInfluences
from tracin_func.results.views import Flag, Items, flags, items_named, items_of_ids, number, numbers
from tracin_func.scoring.queries import is_own_ranking
from tracin_func.sources.registry import classes_of_ids

Values = dict[str, float]
Result = SelfInfluence | Influence | TopInfluences
# What is known about pairs besides their scores, by the name it has in tables.
KNOWN_FACTS = ("loss", "score_margin", "active_share", "count", "target", "left_out_margin", "standard_error")


@dataclass(frozen=True)
class Column:
    """Scores of training pairs.

    Args:
        name: that of the column.
        meaning: `self`, or the test functional: `loss` or `score-margin`.
        values: score by pair id.
        test: id of the test pair; None for self-influence.
        path: the file that holds them.
        flags: irregularities.
    """

    name: str
    meaning: str
    values: Values
    test: str | None
    path: Path
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything that is known, whatever it was read from.

    Args:
        files: the files it was read from, or was written to.
        pairs: ids of training pairs, in order.
        items: the two items of each pair, training and test.
        classes: class by item, as far as known.
        own: self-influence; None if unknown.
        tests: influence on each test pair.
        steps: self-influence by checkpoint.
        facts: value by pair by name, see `KNOWN_FACTS`; losses of a run are means over its checkpoints.
        test_facts: the same of test pairs, at the last checkpoint.
        queries: test pairs that were asked for, and whether it is the model's own ranking that is explained.
        records: provenance, without repeats.
        inactive: pair-checkpoints without gradient, and pairs without any; None if unknown.
        strongest: whether influence is known of the strongest pairs only.
    """

    files: tuple[Path, ...]
    pairs: tuple[str, ...]
    items: Items
    classes: Mapping[str, str]
    own: Column | None = None
    tests: tuple[Column, ...] = ()
    steps: tuple[tuple[str, Values], ...] = ()
    facts: Mapping[str, Values] = field(default_factory=dict)
    test_facts: Mapping[str, Values] = field(default_factory=dict)
    queries: Mapping[str, bool] = field(default_factory=dict)
    records: tuple[Mapping[str, Any], ...] = ()
    inactive: tuple[float, int] | None = None
    strongest: bool = False

    @property
    def record(self) -> Mapping[str, Any]:
        """The provenance of the first scores that have any."""
        return self.records[0] if self.records else {}

    @property
    def origin(self) -> Mapping[str, Any]:
        """What provenance says about the source."""
        found = self.record.get("source")
        return found if isinstance(found, dict) else {}


def from_files(paths: Sequence[Path]) -> Evidence:
    """The scores of files; scores of one name that several files hold have to agree.

    Raises:
        InputError: a file is no result file, or two hold different scores of one name for the same pair.
    """
    gathered = _Gathered()
    for path in paths:
        file = read_result(path)
        for result in load_each(file):
            gathered.add(result, path, file)
    return gathered.evidence(paths)


def from_results(results: Iterable[tuple[Result, Path]]) -> Evidence:
    """The scores of a run with their losses, and the file that holds each."""
    gathered, found = _Gathered(), list(results)
    for result, path in found:
        gathered.add(result, path)
    return gathered.evidence([path for _, path in found])


class _Gathered:
    """Scores by name, as they are read."""

    def __init__(self) -> None:
        self._pairs: dict[str, None] = {}
        self._items: dict[str, tuple[str, str]] = {}
        self._classes: dict[str, str] = {}
        self._columns: dict[tuple[str, str | None], Column] = {}
        self._steps: dict[str, Values] = {}
        self._facts: dict[str, Values] = {}
        self._test_facts: dict[str, Values] = {}
        self._queries: dict[str, bool] = {}
        self._others: dict[str, dict[str, Any]] = {}
        self._records: list[Mapping[str, Any]] = []
        self._inactive: tuple[float, int] | None = None
        self._strongest = False

    def add(self, result: Result, path: Path, file: ResultFile | None = None) -> None:
        if result.provenance and result.provenance not in self._records:
            self._records.append(result.provenance)
        if file is not None:
            self._facts |= {name: numbers(values) for name, values in file.facts.items() if name in KNOWN_FACTS}
            self._items |= file.items
            for name, column in file.columns.items():
                others = {pair: value for pair, value in column.items() if number(value) is None}
                self._others[name] = self._others.get(name, {}) | others
        if isinstance(result, TopInfluences):
            self._add_strongest(result, path)
            return
        pairs = result.pairs if isinstance(result, SelfInfluence) else result.train
        self._add_pairs(pairs)
        if isinstance(result, SelfInfluence):
            self._add_column(result.column, "self", None, _values(pairs.ids, result.scores.tolist()), path)
            if (errors := result.standard_error) is not None:
                self._facts["standard_error"] = _values(pairs.ids, errors.tolist())
            if holds(result, "per_checkpoint"):
                for name, scores in zip(result.run.names, result.per_checkpoint.tolist(), strict=True):
                    self._steps[name] = _values(pairs.ids, scores)
            return
        self._add_tests(result, path)

    def _add_pairs(self, pairs: PairRecord) -> None:
        self._pairs |= dict.fromkeys(pairs.ids)
        if holds(pairs, "items"):
            self._items |= dict(zip(pairs.ids, pairs.items, strict=True))
        self._classes |= pairs.classes or {}
        if not holds(pairs, "loss"):
            return
        inactive = pairs.inactive
        known = {
            "loss": pairs.loss.double().mean(dim=0),
            "score_margin": pairs.score_margin[-1],
            "active_share": (~inactive).double().mean(dim=0),
            "count": pairs.count,
            "target": pairs.target,
        }
        self._facts |= {name: _values(pairs.ids, each.tolist()) for name, each in known.items()}
        self._inactive = float(inactive.double().mean()), int(inactive.all(dim=0).sum())

    def _add_tests(self, result: Influence, path: Path) -> None:
        meaning = result.run.method.test_functional if holds(result.run, "method") else meaning_of(result.column)
        for test, scores in zip(result.test_ids, result.scores.T.tolist(), strict=True):
            name = f"{result.column}_{test}"
            self._add_column(name, str(meaning), test, _values(result.ids, scores), path)
        self._items |= items_of_ids(test for test in result.test_ids if test != MEAN)
        self._queries |= _queries(result)
        if holds(result.test, "items"):
            self._items |= dict(zip(result.test.ids, result.test.items, strict=True))
            self._classes |= result.test.classes or {}
        if holds(result.test, "loss"):
            for place, test in enumerate(result.test.ids):
                facts = {"loss": float(result.test.loss[-1, place]), "target": float(result.test.target[place])}
                self._test_facts[test] = facts | {"score_margin": float(result.test.score_margin[-1, place])}

    def _add_strongest(self, result: TopInfluences, path: Path) -> None:
        meaning, self._strongest = result.run.method.test_functional, True
        for place, test in enumerate(result.test_ids):
            found = [*result.proponents(place), *result.opponents(place)]
            self._pairs |= dict.fromkeys(each.pair for each in found)
            self._items |= items_of_ids([test, *(each.pair for each in found)])
            values = {each.pair: each.score for each in found}
            self._add_column(f"{result.run.method.test_functional}_{test}", meaning, test, values, path)

    def _add_column(self, name: str, meaning: str, test: str | None, values: Values, path: Path) -> None:
        key = name, test
        before = self._columns.get(key)
        known = {} if before is None else before.values
        differing = next((pair for pair in values if known.get(pair, values[pair]) != values[pair]), None)
        if differing is not None:
            raise InputError(
                f"`{self._columns[key].path}` and `{path}` hold different scores '{name}', such as those of "
                f"{differing}: {known[differing]:.6g} and {values[differing]:.6g}. Report them one by one."
            )
        self._columns[key] = Column(name, meaning, known | values, test, path if before is None else before.path)

    def evidence(self, paths: Sequence[Path]) -> Evidence:
        items = items_of_ids(self._pairs) | self._items
        columns = [
            replace(each, flags=tuple(flags({**each.values, **self._others.get(each.name, {})}, items)))
            for each in self._columns.values()
        ]
        return Evidence(
            files=tuple(paths),
            pairs=tuple(self._pairs),
            items=items,
            classes=classes_of_ids(sorted(items_named(items))) | self._classes,
            own=next((each for each in columns if each.meaning == "self"), None),
            tests=tuple(each for each in columns if each.meaning != "self"),
            steps=tuple(self._steps.items()),
            facts={name: values for name, values in self._facts.items() if values},
            test_facts=self._test_facts,
            queries=self._queries,
            records=tuple(self._records),
            inactive=self._inactive,
            strongest=self._strongest,
        )


def _values(pairs: Sequence[str], scores: Sequence[float]) -> Values:
    """The finite scores by pair."""
    found = zip(pairs, map(number, scores), strict=True)
    return {pair: value for pair, value in found if value is not None}


def _queries(result: Influence) -> dict[str, bool]:
    """Test pairs that were asked for, and whether their target is the model's own."""
    source = result.provenance.get("source") if result.provenance else None
    listed = source.get("queries") if isinstance(source, dict) else None
    if not isinstance(source, dict) or not isinstance(listed, list):
        return {}
    return {test: is_own_ranking(source, place) for place, test in enumerate(result.test_ids[: len(listed)])}
