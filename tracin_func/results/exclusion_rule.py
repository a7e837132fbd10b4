"""Which pairs a list of exclusions holds: thresholds, shares and limits, checked as they are given."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from tracin_func.errors import UsageError
from tracin_func.results.score_table import ScoreTable

MODES = RANKING_PAIR, FULL_PAIR = "ranking_pair", "full_pair"
LOWEST_INFLUENCE, HIGHEST_SELF = "-5", "95%"  # thresholds, if none is given

Threshold = float | str


@dataclass(frozen=True)
class Rule:
    """Which pairs are excluded.

    A pair is chosen if its scores in at least `min_occurrences` live columns are below `threshold` or above
    `upper_threshold`; with `drop`, if it is among the most harmful pairs instead.

    Args:
        threshold: of influence: a number, or the quantile `"5%"` of all live scores. Default -5, if no other is given.
        upper_threshold: the same for scores above it. Default for self-influence `"95%"`, for influence none.
        drop: the share `"5%"` of the pairs, the most harmful ones: those with the lowest sum of influence over the live
            columns, if it is below 0; or with the highest self-influence.
        max_exclusions: largest number of ids, the most harmful first; None for no limit.
        min_occurrences: number of live columns in which the score has to be beyond a threshold.
        mode: `"ranking_pair"` lists the pairs, `"full_pair"` their items, with which all other pairs of these go too.
        with_mirrors: also list (b, a) for (a, b), if it has scores.
    """

    threshold: Threshold | None = None
    upper_threshold: Threshold | None = None
    drop: str | None = None
    max_exclusions: int | None = None
    min_occurrences: int = 1
    mode: str = RANKING_PAIR
    with_mirrors: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "upper_threshold"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, parsed(value, name))
        if self.drop is not None and not 0 < share_of(self.drop, "drop") <= 1:
            raise UsageError(f"`drop` should be above 0% and at most 100%. Got {self.drop!r}.")
        if self.drop is not None and (self.threshold, self.upper_threshold, self.min_occurrences) != (None, None, 1):
            raise UsageError(
                "`drop` cannot be combined with `threshold`, `upper_threshold` or `min_occurrences`. Leave one side "
                "out."
            )
        for name in ("max_exclusions", "min_occurrences"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"`{name}` should be at least 1. Got {value}.")
        if self.mode not in MODES:
            raise UsageError(f"`mode` should be {' or '.join(map(repr, MODES))}. Got {self.mode!r}.")

    def limits(self, table: ScoreTable) -> tuple[float | None, float | None]:
        """The lower and the upper threshold as numbers, None where there is none.

        Raises:
            UsageError: a lower threshold of self-influence.
        """
        lower, upper = self.threshold, self.upper_threshold
        if self.drop is not None:
            return None, None
        if table.of_self and lower is not None:
            raise UsageError(
                "`threshold` excludes low scores, and pairs of low self-influence are the easy ones. Set "
                "`upper_threshold`, which excludes the hard pairs above it."
            )
        if lower is None and upper is None:
            lower, upper = (None, HIGHEST_SELF) if table.of_self else (LOWEST_INFLUENCE, None)
        return _number(lower, table), _number(upper, table)


def parsed(value: Threshold, name: str) -> Threshold:
    """A threshold: a finite number, or a quantile such as `5%` as it is.

    Raises:
        UsageError: neither.
    """
    if isinstance(value, str) and value.strip().endswith("%"):
        if not 0 < share_of(value, name) < 1:
            raise UsageError(f"`{name}` should be a quantile above 0% and below 100%. Got {value!r}.")
        return value.strip()
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"`{name}` should be a number, or a quantile such as 5%. Got {value!r}.")
    return number


def share_of(value: object, name: str) -> float:
    """The share of a percentage such as `5%`.

    Raises:
        UsageError: not a percentage.
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*", str(value))
    if found is None:
        raise UsageError(f"`{name}` should be a percentage such as 5%. Got {value!r}.")
    return float(found[1]) / 100


def occurrences(table: ScoreTable, lower: float | None, upper: float | None) -> Tensor:
    """The number of live columns in which each pair is below `lower` or above `upper`, [pairs]."""
    scores = table.live_scores
    below = scores < (-torch.inf if lower is None else lower)
    return (below | (scores > (torch.inf if upper is None else upper))).sum(dim=1)


def _number(value: Threshold | None, table: ScoreTable) -> float | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.endswith("%"):
        return float(value)
    # torch.quantile takes at most 2^24 numbers.
    scores, place = table.live_scores, share_of(value, "threshold")
    known = scores[~scores.isnan()].sort().values
    exact = place * (len(known) - 1)
    low = math.floor(exact)
    high = min(low + 1, len(known) - 1)
    return float(known[low] + (exact - low) * (known[high] - known[low]))
