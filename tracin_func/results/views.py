"""Scores grouped by pair, item, class and pair of classes, statistics of a column, and irregularities in it.

Without tensors, so that a file can be shown without loading torch. Items of pairs and classes of items are mappings.
For a file `items_of_ids` and `classes_of_ids` read them from the ids.
"""

import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

VIEWS = PAIR, ITEM, CLASS, CLASS_PAIR = "pair", "item", "class", "class-pair"
SORTS = SCORE, ABS, ID = "score", "abs", "id"
ZERO_COLUMN, CONSTANT_RUNS, REPEATED_VALUES = "zero column", "constant runs", "repeated values"
NOT_NUMBERS = "not numbers"

# Exactly equal scores of single pairs: three in succession, or five anywhere, are no coincidence.
RUN, REPEATS = 3, 5
DASH = "–"  # between the classes of a pair, whose order has no meaning

_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)

Items = Mapping[str, tuple[str, str]]
Member = TypeVar("Member")


class Group(NamedTuple):
    """The pairs of one item, class or pair of classes.

    `active` counts those that are not exactly 0; `largest` is the score furthest from 0, with its sign.
    """

    name: str
    pairs: int
    active: int
    mean: float
    sum: float
    mean_abs: float
    largest: float
    largest_pair: str


@dataclass(frozen=True)
class Statistics:
    """Statistics of a column; quartiles by linear interpolation, shares from 0 to 1."""

    count: int
    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float
    mean: float
    zero_share: float
    negative_share: float


@dataclass(frozen=True)
class Histogram:
    """`counts` of scores between `edges`, one more than counts; the last bin includes both edges."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Flag:
    """An irregularity of a column."""

    kind: str  # ZERO_COLUMN, CONSTANT_RUNS, REPEATED_VALUES or NOT_NUMBERS
    pairs: int  # number of its pairs
    groups: int  # number of its runs, or of its different values
    most: int  # number of pairs in the largest of these groups
    value: Any  # in that group
    pair: str  # the first in that group


# Names in ids


def items_of_ids(pairs: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The two items of each pair id `ID1_ID2` with an even number of parts; other pairs are left out."""
    found = {}
    for pair in pairs:
        parts = pair.split("_")
        half, odd = divmod(len(parts), 2)
        if not odd:
            found[pair] = "_".join(parts[:half]), "_".join(parts[half:])
    return found


def items_named(items: Items) -> set[str]:
    """The items of all pairs."""
    return {item for both in items.values() for item in both}


# Views


def groups(values: Mapping[str, float], by: str, items: Items, classes: Mapping[str, str]) -> list[Group]:
    """Scores by pair id, grouped by `item`, `class` or `class-pair`, in the order of the groups' first pairs.

    A pair counts once in each of its groups; a pair whose items, or their classes, are unknown is in no group.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for pair in values:
        for name in members_of(pair, by, items, classes):
            members[name].append(pair)
    return [_group(name, {pair: values[pair] for pair in pairs}) for name, pairs in members.items()]


def members_of(pair: str, by: str, items: Items, classes: Mapping[str, str]) -> list[str]:
    """The groups of a pair; none if its items, or their classes, are unknown."""
    if by == PAIR:
        return [pair]
    both = items.get(pair, ())
    if by == ITEM:
        return list(dict.fromkeys(both))
    if not both or any(item not in classes for item in both):
        return []
    of_both = sorted(classes[item] for item in both)
    return [DASH.join(of_both)] if by == CLASS_PAIR else list(dict.fromkeys(of_both))


def in_order(values: Mapping[Member, float], sort: str) -> list[Member]:
    """Names by descending score (`score`), by descending |score| (`abs`), or by `id`; ties keep their order."""
    if sort == ID:
        return sorted(values, key=str)
    return sorted(values, key=lambda name: abs(values[name]) if sort == ABS else values[name], reverse=True)


def groups_in_order(found: Sequence[Group], sort: str) -> list[Group]:
    """Groups by mean, by mean |score| (`abs`) or by name."""
    if sort == ID:
        return sorted(found, key=lambda group: group.name)
    return sorted(found, key=lambda group: group.mean_abs if sort == ABS else group.mean, reverse=True)


def ends(order: Sequence[Member], top: int, *, both: bool) -> list[Member]:
    """The first `top` of an order, and the last `top` too if `both`."""
    if not both:
        return list(order[:top])
    return list(order) if len(order) <= 2 * top else [*order[:top], *order[-top:]]


def _group(name: str, values: Mapping[str, float]) -> Group:
    count = len(values)
    pair = max(values, key=lambda each: abs(values[each]))
    return Group(
        name=name,
        pairs=count,
        active=sum(value != 0 for value in values.values()),
        mean=sum(value / count for value in values.values()),
        sum=sum(values.values()),
        mean_abs=sum(abs(value) / count for value in values.values()),
        largest=values[pair],
        largest_pair=pair,
    )


# A column


def number(value: Any) -> float | None:
    """A finite number; None for anything else: true, text, null, NaN, infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond float64
        return None


def numbers(column: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a column by pair."""
    found = {pair: number(value) for pair, value in column.items()}
    return {pair: value for pair, value in found.items() if value is not None}


def summary(values: Sequence[float]) -> Statistics:
    """The statistics of at least one score."""
    count = len(values)
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if count > 1 else [values[0]] * 3
    return Statistics(
        count=count,
        minimum=min(values),
        lower_quartile=quartiles[0],
        median=quartiles[1],
        upper_quartile=quartiles[2],
        maximum=max(values),
        mean=sum(value / count for value in values),
        zero_share=sum(value == 0 for value in values) / count,
        negative_share=sum(value < 0 for value in values) / count,
    )


def histogram(values: Sequence[float], bins: int = 10) -> Histogram:
    """Counts in about `bins` bins of one round width; 0 is an edge if it lies inside."""
    low, high = min(values), max(values)
    width = _round_up(high / bins - low / bins)
    first, last = (math.floor(low / width), math.ceil(high / width)) if width else (0, 0)
    if last <= first or last - first > 2 * bins:  # one value, or values hardly distinct in float64
        return Histogram((low, high), (len(values),))
    counts = Counter(min(max(math.floor(value / width), first), last - 1) for value in values)
    edges = tuple(place * width for place in range(first, last + 1))
    return Histogram(edges, tuple(counts[place] for place in range(first, last)))


def flags(column: Mapping[str, Any], items: Items) -> list[Flag]:
    """The irregularities of a column.

    Zeros among other scores are regular: the score of a pair that satisfies the margin is exactly 0. So are equal
    scores of ID1_ID2 and ID2_ID1, which are one pair for most losses. Values may be of any JSON type.
    """
    values = numbers(column)
    found = []
    if values and not any(values.values()):
        found.append(Flag(ZERO_COLUMN, len(values), 1, len(values), 0.0, next(iter(values))))
    runs = [list(run) for _, run in itertools.groupby(values, key=values.__getitem__)]
    found += _repetition(CONSTANT_RUNS, runs, RUN, values, items)
    by_value: dict[float, list[str]] = defaultdict(list)
    for pair, value in values.items():
        by_value[value].append(pair)
    found += _repetition(REPEATED_VALUES, list(by_value.values()), REPEATS, values, items)
    if others := {pair: repr(value) for pair, value in column.items() if pair not in values}:
        words, most = Counter(others.values()).most_common(1)[0]
        pair = next(pair for pair, value in others.items() if value == words)
        found.append(Flag(NOT_NUMBERS, len(others), len(set(others.values())), most, column[pair], pair))
    return found


def _repetition(
    kind: str, equal: Sequence[Sequence[str]], least: int, values: Mapping[str, float], items: Items
) -> list[Flag]:
    """A flag if at least `least` different pairs share one score other than 0."""
    many = [
        pairs
        for pairs in equal
        if values[pairs[0]] != 0 and len(pairs) >= least and len({_unordered(pair, items) for pair in pairs}) >= least
    ]
    if not many:
        return []
    most = max(many, key=len)
    return [Flag(kind, sum(map(len, many)), len(many), len(most), values[most[0]], most[0])]


def _unordered(pair: str, items: Items) -> str | frozenset[str]:
    return frozenset(items[pair]) if pair in items else pair


def _round_up(width: float) -> float:
    """The next larger 1, 2, 2.5 or 5 times a power of ten; 0 for a width that float64 cannot hold."""
    if not 1e-300 < width < 1e300:
        return 0.0
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in _ROUND if step * power >= width * (1 - 1e-9))
