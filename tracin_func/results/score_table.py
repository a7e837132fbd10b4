"""Scores of pairs by test column, from one result or several, and which test columns are live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.results.names import counted

Items = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class TrainingPairs:
    """The training pairs of one result.

    Args:
        words: the result in messages, such as a file in backticks.
        ids: of the pairs.
        items: the two items of each pair; pairs whose items are unknown are left out.
        classes: class by item, as far as known.
    """

    words: str
    ids: tuple[str, ...]
    items: Items
    classes: Mapping[str, str]


@dataclass(frozen=True)
class ScoreTable:
    """Scores of the training pairs of one result, or of several together.

    Args:
        parts: the training pairs of each result.
        ids: of all pairs, each once.
        items: the two items of each pair, as far as known.
        tests: names of the test columns; one empty name for self-influence.
        scores: float64 [pairs, tests]; NaN where a pair has no score.
        of_self: whether they are self-influence, where high scores mark hard pairs.
        margins: score margin of each pair at the last checkpoint, as far as known.
    """

    parts: tuple[TrainingPairs, ...]
    ids: tuple[str, ...]
    items: Items
    tests: tuple[str, ...]
    scores: Tensor
    of_self: bool
    margins: Mapping[str, float]

    @cached_property
    def live(self) -> list[int]:
        """The test columns whose scores differ: one that is all zero or constant belongs to a saturated test pair."""
        low = torch.nan_to_num(self.scores, nan=torch.inf).amin(dim=0)
        high = torch.nan_to_num(self.scores, nan=-torch.inf).amax(dim=0)
        return (low < high).nonzero()[:, 0].tolist()

    @cached_property
    def live_scores(self) -> Tensor:
        """Scores in the live columns, [pairs, live columns]; at least one.

        Raises:
            InputError: no column is live.
        """
        if not self.live:
            step = "" if self.of_self else ' Score with `test_functional="score-margin"`, which does not saturate.'
            raise InputError(
                f"{self.words}: {counted(len(self.tests), 'column')} without two different scores, so that no pair can "
                f"be chosen. Expected a column whose scores differ.{step}"
            )
        return self.scores[:, self.live]

    @cached_property
    def sums(self) -> Tensor:
        """The sum of each pair over the live columns, [pairs]: what it did to these test pairs together."""
        return self.live_scores.nansum(dim=1)

    @cached_property
    def item_ids(self) -> set[str]:
        """The items of all pairs, as far as known."""
        return {item for both in self.items.values() for item in both}

    @cached_property
    def classes(self) -> dict[str, str]:
        """Class by item."""
        return {item: name for part in self.parts for item, name in part.classes.items()}

    @property
    def words(self) -> str:
        """The results in messages."""
        return ", ".join(part.words for part in self.parts)

    def mirror(self, pair: str) -> str | None:
        """The other pair of the same two items in the other order, if it has scores too."""
        return self._mirrors.get(pair)

    @cached_property
    def _mirrors(self) -> dict[str, str]:
        by_items = {both: pair for pair, both in self.items.items()}
        others = {pair: by_items.get((second, first)) for pair, (first, second) in self.items.items()}
        return {pair: other for pair, other in others.items() if other not in (None, pair)}


def joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Several tables as one: pairs and columns of one name are one.

    Raises:
        InputError: self-influence and influence together, or two scores of one pair in one column.
    """
    first, *others = tables
    if not others:
        return first
    if odd := [each for each in others if each.of_self != first.of_self]:
        kinds = {True: "self-influence", False: "influence"}
        raise InputError(
            f"{first.words} holds {kinds[first.of_self]} and {odd[0].words} {kinds[odd[0].of_self]}. Expected scores "
            "of one kind. Choose them with `column`, or take the files one by one."
        )
    ids = tuple(dict.fromkeys(pair for each in tables for pair in each.ids))
    tests = tuple(dict.fromkeys(test for each in tables for test in each.tests))
    row_of, column_of = ({name: place for place, name in enumerate(names)} for names in (ids, tests))
    scores = torch.full((len(ids), len(tests)), torch.nan, dtype=torch.float64)
    for each in tables:
        rows = torch.tensor([row_of[pair] for pair in each.ids])[:, None]
        columns = torch.tensor([column_of[test] for test in each.tests])[None]
        there = scores[rows, columns]
        clash = ~(there.isnan() | each.scores.isnan() | (there == each.scores))
        if clash.any():
            row, column = clash.nonzero()[0].tolist()
            raise InputError(
                f"{each.words} has another score of pair {each.ids[row]!r}"
                f"{f' on test pair {each.tests[column]!r}' if each.tests[column] else ''} than a file before it. "
                "Expected files of different pairs, or of different test pairs. Take them one by one."
            )
        scores[rows, columns] = torch.where(each.scores.isnan(), there, each.scores)
    return ScoreTable(
        parts=tuple(part for each in tables for part in each.parts),
        ids=ids,
        items={pair: both for each in tables for pair, both in each.items.items()},
        tests=tests,
        scores=scores,
        of_self=first.of_self,
        margins={pair: margin for each in tables for pair, margin in each.margins.items()},
    )
