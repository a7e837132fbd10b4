"""Scores of a group of pairs as one row: how many, their mean, and how far they spread."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tracin_func.results.views import Items, members_of, summary


class Spread(NamedTuple):
    """The scores of a group; `wrong` is the share of pairs that the last checkpoint orders wrong, if known."""

    name: str
    pairs: int
    mean: float
    lower_quartile: float
    median: float
    upper_quartile: float
    minimum: float
    maximum: float
    zero_share: float
    wrong: float | None = None

    @classmethod
    def of(cls, name: str, values: Sequence[float], wrong: Sequence[bool] = ()) -> "Spread":
        """The row of at least one score."""
        found = summary(values)
        return cls(
            name,
            *(found.count, found.mean, found.lower_quartile, found.median, found.upper_quartile),
            *(found.minimum, found.maximum, found.zero_share),
            sum(wrong) / len(wrong) if wrong else None,
        )


def spreads(
    values: Mapping[str, float], by: str, items: Items, classes: Mapping[str, str], wrong: Mapping[str, bool]
) -> list[Spread]:
    """Scores by `item`, `class` or `class-pair`, largest mean first; a pair counts once in each of its groups."""
    members: dict[str, list[str]] = {}
    for pair in values:
        for name in members_of(pair, by, items, classes):
            members.setdefault(name, []).append(pair)
    found = [
        Spread.of(name, [values[pair] for pair in pairs], [wrong[pair] for pair in pairs if pair in wrong])
        for name, pairs in members.items()
    ]
    return sorted(found, key=lambda each: each.mean, reverse=True)
