"""What result files call their columns of scores, and how a column is read by its name."""

from collections.abc import Sequence

SELF_COLUMN = "tracin_self_influence"
INFLUENCE_COLUMNS = {  # by test functional and normalisation: what has another meaning has another name
    ("loss", "none"): "tracin_influence",
    ("score-margin", "none"): "tracin_score_margin_influence",
    ("loss", "cosine"): "tracin_cosine_influence",
    ("score-margin", "cosine"): "tracin_score_margin_cosine_influence",
}
STANDARD_ERROR = "standard_error"  # of an estimate: a column of its own, in JSON with the name of the scores after it
MEAN = "mean"  # what stands for the test pair where one column is of all of them
# What stands before a test pair or a checkpoint in the name of a column.
STARTS = tuple(f"{name}_" for name in (SELF_COLUMN, *INFLUENCE_COLUMNS.values()))


def meaning_of(column: str) -> str | None:
    """What the scores of a column are by its name: `self`, a test functional, or None where it does not tell."""
    if column.startswith(SELF_COLUMN):
        return "self"
    return next((name for (name, _), start in INFLUENCE_COLUMNS.items() if column.startswith(start)), None)


def common_start(columns: Sequence[str]) -> str:
    """What all names begin with, to the last `_` of it; empty for fewer than two names."""
    if len(columns) < 2:
        return ""
    first, last = min(columns), max(columns)
    same = next((place for place, sign in enumerate(first) if last[place : place + 1] != sign), len(first))
    start = first[:same]
    known = next((name for name in STARTS if start.startswith(name)), None)
    return known or start[: start.rfind("_") + 1]


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 pair`, `441 pairs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
