"""Pairs whose label looks inverted.

A pair with an inverted label pulls the model the wrong way: it is an opponent of most test pairs, and the model ranks
it against its label. Three quarters of the live test columns have to be negative, at least 3 of them. A score margin
below 0 at the last checkpoint confirms it; where margins are unknown, as in JSON files, the sum over the live columns
has to be an outlier instead: below the median by 3 × 1.4826 times the median absolute deviation. Self-influence has no
sign: a pair has to be above a threshold and misranked, and margins are required.
"""

import torch
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.results.exclusion_rule import Rule
from tracin_func.results.exclusions import Excluded, Exclusions, listed
from tracin_func.results.names import counted
from tracin_func.results.score_table import ScoreTable

NEGATIVE_SHARE, LEAST_COLUMNS = 0.75, 3
_OUTLIER = 3 * 1.4826  # a normal deviation is 1.4826 times the median absolute deviation


def suggested_flips(table: ScoreTable, rule: Rule) -> Exclusions:
    """The pairs whose label looks inverted, the clearest first.

    Args:
        table: the scores.
        rule: of which the upper threshold (of self-influence) and the limit count.

    Raises:
        UsageError: a threshold does not fit the scores.
        InputError: the scores do not suffice.
    """
    if rule.upper_threshold is not None and not table.of_self:
        raise UsageError("`upper_threshold` has no effect on flips by influence. Leave it out.")
    limits = rule.limits(table) if table.of_self else (None, None)
    found = _of_self(table, limits[1]) if table.of_self else _of_influence(table)
    return listed(table, found[: rule.max_exclusions], "pair", "flip", limits)


def _of_influence(table: ScoreTable) -> list[Excluded]:
    scores, sums, columns = table.live_scores, table.sums, len(table.live)
    if columns < LEAST_COLUMNS:
        raise InputError(
            f"{table.words}: {counted(columns, 'live test column')}, too few to judge labels by. Expected at least "
            f"{LEAST_COLUMNS} whose scores differ. Score more test pairs with `num_test`."
        )
    negative = (scores < 0).sum(dim=1)
    often = negative >= NEGATIVE_SHARE * (~scores.isnan()).sum(dim=1).clamp(min=1)
    if table.margins:
        wrong, words = _misranked(table), "the model ranks it against its label"
    else:
        middle = sums.median()
        limit = float(middle - _OUTLIER * (sums - middle).abs().median())
        wrong, words = sums < limit, f"sum below {limit:.6g}"
    return [
        Excluded(
            table.ids[row],
            int(negative[row]),
            float(torch.nan_to_num(scores[row], nan=torch.inf).min()),
            float(sums[row]),
            f"label looks inverted: influence negative on {int(negative[row])} of "
            f"{counted(columns, 'live test pair')}, sum {float(sums[row]):.6g}; {words}",
        )
        for row in sums.argsort(stable=True).tolist()
        if often[row] and wrong[row]
    ]


def _of_self(table: ScoreTable, upper: float | None) -> list[Excluded]:
    if not table.margins:
        raise InputError(
            f"{table.words}: self-influence is high for hard pairs too, and JSON files do not hold whether the model "
            'ranks a pair against its label. Score with `format="parquet"`, or give a file of influence.'
        )
    assert upper is not None
    scores, misranked = table.sums, _misranked(table)
    return [
        Excluded(
            table.ids[row],
            1,
            float(scores[row]),
            float(scores[row]),
            f"label looks inverted: self-influence {float(scores[row]):.6g}, above {upper:.6g}; the model ranks it "
            "against its label",
        )
        for row in scores.argsort(descending=True, stable=True).tolist()
        if scores[row] > upper and misranked[row]
    ]


def _misranked(table: ScoreTable) -> Tensor:
    """Whether the model ranks each pair against its label; False where that is unknown."""
    return torch.tensor([table.margins.get(pair, 0.0) < 0 for pair in table.ids])
