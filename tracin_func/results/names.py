"""The names of columns of scores in result files, and their meaning."""

from collections.abc import Mapping, Sequence
from typing import Any

SELF_COLUMN = "tracin_self_influence"
INFLUENCE_COLUMNS = {  # by test functional and normalisation: scores of another meaning have another name
    ("loss", "none"): "tracin_influence",
    ("score-margin", "none"): "tracin_score_margin_influence",
    ("loss", "cosine"): "tracin_cosine_influence",
    ("score-margin", "cosine"): "tracin_score_margin_cosine_influence",
}
STANDARD_ERROR = "standard_error"  # a column of its own, in JSON followed by the name of the scores
OWN_NAME = "id"  # column of the user's own pair ids in a table whose 'pair' is a row number
FEW = 3  # names in a sentence; more are counted
SCORE_NAME = "score_name"  # in provenance: a name of the scores that was asked for
MEAN = "mean"  # in place of the test pair, if one column covers all of them
MARKS = EXCLUDED, NOTES, TRACIN_INFO = "excluded", "notes", "tracin_info"  # fields of a pair that are no scores
# Starts of the names of columns, before a test pair or a checkpoint.
STARTS = tuple(f"{name}_" for name in (SELF_COLUMN, *INFLUENCE_COLUMNS.values()))


def meaning_of(column: str) -> str | None:
    """The meaning of a column by its name: `self`, a test functional, or None if unknown."""
    if column.startswith(SELF_COLUMN):
        return "self"
    return next((name for (name, _), start in INFLUENCE_COLUMNS.items() if column.startswith(start)), None)


def start_of(column: str, origin: Mapping[str, Any]) -> str | None:
    """The name of the scores with which the name of a column begins, ours or a recorded one; None if unknown."""
    options = origin.get("options")
    named = options.get(SCORE_NAME) if isinstance(options, dict) else None  # of a command line, in older files
    starts = [SELF_COLUMN, *INFLUENCE_COLUMNS.values(), str(origin.get(SCORE_NAME, named))]
    return max((each for each in starts if column == each or column.startswith(f"{each}_")), key=len, default=None)


def common_start(columns: Sequence[str]) -> str:
    """The common start of all names, up to its last `_`; empty for fewer than two names."""
    if len(columns) < 2:
        return ""
    first, last = min(columns), max(columns)
    same = next((place for place, sign in enumerate(first) if last[place : place + 1] != sign), len(first))
    start = first[:same]
    known = next((name for name in STARTS if start.startswith(name)), None)
    return known or start[: start.rfind("_") + 1]


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 pair`, `1,441 pairs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    left = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {left} more" if left > 0 else "")
