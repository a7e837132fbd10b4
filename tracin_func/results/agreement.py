"""How far two columns of scores put the same pairs in the same order. Without tensors, see `views`.

Ranks are compared, never sizes: gradients of two models, losses or margins have no common unit.
"""

import itertools
import math
import operator
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tracin_func.results.views import Items, members_of

OVERVIEW = "5%"  # the top whose overlap the overview of several columns has
TOPS = (10, 0.01, 0.05, 0.1)  # pairs at the top whose overlap is counted: a number, or a share of all


class Overlap(NamedTuple):
    """Pairs that are among the `top` first of both orders; `chance` is their expected number in independent orders.

    Pairs that are tied at the border count in part, so that equal columns share all.
    """

    asked: str
    top: int
    shared: float
    chance: float


class Move(NamedTuple):
    """A pair with its ranks and scores in both columns; `change` is positive where the second ranks it higher."""

    pair: str
    first_rank: float
    second_rank: float
    change: float
    first_score: float
    second_score: float


class Shift(NamedTuple):
    """The pairs of an item, class or pair of classes: mean ranks, mean change, and rank correlation within the group.

    `correlation` is None where it is undefined.
    """

    name: str
    pairs: int
    first_rank: float
    second_rank: float
    change: float
    correlation: float | None


@dataclass(frozen=True)
class Agreement:
    """The agreement of two columns of scores over their common pairs.

    Args:
        name: what is scored: a test pair, `sum` of several, or empty for self-influence.
        columns: the names of both columns.
        pairs: ids of the common pairs, in the order of the first column.
        scores: of each common pair in both columns.
        ranks: the same as ranks from 1, the highest score; tied pairs have the mean of their ranks.
        only: the number of pairs that only one of the columns has.
        swapped: common pairs that are ID1_ID2 in one and ID2_ID1 in the other.
        signed: whether scores are of both signs, so that the lowest are of interest too.
        correlation: Spearman's rank correlation, from -1 to 1; None where it is undefined.
        undefined: why it is undefined, or None.
        highest: overlap of the highest scores (hardest pairs, or proponents).
        lowest: overlap of the lowest scores (opponents); empty unless signed.
    """

    name: str
    columns: tuple[str, str]
    pairs: tuple[str, ...]
    scores: tuple[tuple[float, ...], tuple[float, ...]]
    ranks: tuple[tuple[float, ...], tuple[float, ...]]
    only: tuple[int, int]
    swapped: int
    signed: bool
    correlation: float | None
    undefined: str | None
    highest: tuple[Overlap, ...]
    lowest: tuple[Overlap, ...]

    @property
    def identical(self) -> bool:
        """Whether both columns have the same pairs with equal scores."""
        return self.only == (0, 0) and self.scores[0] == self.scores[1]

    def moves(self) -> list[Move]:
        """The common pairs whose rank differs, by the size of the change, the largest first."""
        found = [
            Move(pair, first, second, first - second, *scores)
            for pair, first, second, scores in zip(self.pairs, *self.ranks, zip(*self.scores, strict=True), strict=True)
        ]
        moved = [move for move in found if move.change]
        return sorted(moved, key=lambda move: (-abs(move.change), move.first_rank))

    def by(self, view: str, items: Items, classes: Mapping[str, str]) -> list[Shift]:
        """The common pairs by `item`, `class` or `class-pair`, the largest mean change first.

        A pair counts in each of its groups; a pair whose items, or their classes, are unknown is in no group.
        """
        members: dict[str, list[int]] = defaultdict(list)
        for place, pair in enumerate(self.pairs):
            for name in members_of(pair, view, items, classes):
                members[name].append(place)
        found = [self._shift(name, places) for name, places in members.items()]
        return sorted(found, key=lambda shift: -abs(shift.change))

    def _shift(self, name: str, places: Sequence[int]) -> Shift:
        first, second = ([ranks[place] for place in places] for ranks in self.ranks)
        before, after = (math.fsum(ranks) / len(places) for ranks in (first, second))
        return Shift(name, len(places), before, after, before - after, correlation_of(first, second))


def agreement(
    name: str,
    columns: tuple[str, str],
    first: Mapping[str, float],
    second: Mapping[str, float],
    items: Items,
    *,
    signed: bool,
) -> Agreement:
    """The agreement of two columns, score by pair id.

    A pair ID1_ID2 without counterpart is the same as a pair ID2_ID1 without counterpart, as in merged files.

    Args:
        name, columns, signed: see `Agreement`.
        first: the first column.
        second: the second column.
        items: the two items of each pair, where they are known.
    """
    named = {pair: pair for pair in first if pair in second}
    mirrored = {items[pair][::-1]: pair for pair in second if pair not in first and pair in items}
    for pair in first:
        if pair not in second and pair in items and items[pair] in mirrored:
            named[pair] = mirrored.pop(items[pair])
    pairs = tuple(pair for pair in first if pair in named)
    scores = tuple(first[pair] for pair in pairs), tuple(second[named[pair]] for pair in pairs)
    ranks, undefined = (tuple(ranked(scores[0])), tuple(ranked(scores[1]))), _undefined(*scores)
    return Agreement(
        name=name,
        columns=columns,
        pairs=pairs,
        scores=scores,
        ranks=ranks,
        only=(len(first) - len(pairs), len(second) - len(pairs)),
        swapped=sum(pair != other for pair, other in named.items()),
        signed=signed,
        correlation=None if undefined else _correlation(*ranks),
        undefined=undefined,
        highest=_overlaps(*scores),
        lowest=_overlaps(*([-score for score in side] for side in scores)) if signed else (),
    )


def ranked(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1, the largest first; tied values have the mean of their ranks."""
    ranks = [0.0] * len(values)
    order, start = sorted(range(len(values)), key=values.__getitem__, reverse=True), 0
    for _, tied in itertools.groupby(order, key=values.__getitem__):
        places = list(tied)
        for place in places:
            ranks[place] = start + (len(places) + 1) / 2
        start += len(places)
    return ranks


def correlation_of(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation: that of the ranks, where tied values have the mean of their ranks.

        ρ = Σ (r − r̄)(s − s̄) / √(Σ (r − r̄)² Σ (s − s̄)²)

    None for fewer than two values, or where all of one side are equal.
    """
    return None if _undefined(first, second) is not None else _correlation(ranked(first), ranked(second))


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """The correlation of ranks, not all equal."""
    middle = (len(first) + 1) / 2
    r, s = ([rank - middle for rank in ranks] for ranks in (first, second))
    product = math.fsum(a * b for a, b in zip(r, s, strict=True))
    scale = math.sqrt(math.fsum(a * a for a in r) * math.fsum(b * b for b in s))
    return max(-1.0, min(1.0, product / scale))


def _undefined(first: Sequence[float], second: Sequence[float]) -> str | None:
    """Why the rank correlation is undefined."""
    if len(first) < 2:
        return f"{len(first) or 'no'} common pair{'' if len(first) else 's'}"
    constant = [where for where, values in (("first", first), ("second", second)) if len(set(values)) == 1]
    if not constant:
        return None
    value = (first if constant[0] == "first" else second)[0]
    return f"all {len(first)} scores of the {' and of the '.join(constant)} are equal ({value:.6g})"


def _overlaps(first: Sequence[float], second: Sequence[float]) -> tuple[Overlap, ...]:
    """The overlaps at the top, the smallest top first; tops that are the same number of pairs are given once."""
    count, found = len(first), dict[int, Overlap]()
    orders = sorted(first, reverse=True), sorted(second, reverse=True)
    for asked in TOPS:
        top = asked if isinstance(asked, int) else round(asked * count)
        if 0 < top < count and top not in found:
            among = [_among(*each, top) for each in zip((first, second), orders, strict=True)]
            words = str(asked) if isinstance(asked, int) else f"{asked:.0%}"
            found[top] = Overlap(words, top, math.fsum(map(min, *among)), top * top / count)
    return tuple(found[top] for top in sorted(found))


def _among(values: Sequence[float], order: Sequence[float], top: int) -> list[float]:
    """1 for values among the `top` largest; those tied at the border have equal parts of the places left there."""
    border = order[top - 1]
    above = bisect_left(order, -border, key=operator.neg)
    part = (top - above) / (bisect_right(order, -border, key=operator.neg) - above)
    return [1.0 if value > border else part if value == border else 0.0 for value in values]
