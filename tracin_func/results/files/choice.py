"""The columns of a result file that a name means, and what their scores are."""

import difflib

from tracin_func.errors import InputError
from tracin_func.files import one_form
from tracin_func.results.files.read import ResultFile
from tracin_func.results.names import SELF_COLUMN, common_start, few, meaning_of, start_of

ALL = "all"

READING = {
    "self": "higher: harder for the model",
    "loss": "positive: training on the pair lowered the loss of the test pair",
    "score-margin": "positive: training on the pair raised the score margin of the test pair",
}


def columns_named(result: ResultFile, wanted: str | None) -> list[str]:
    """Those of a name, of a part that only one name has, of a kind, or all; by default self-influence, else all."""
    names = list(result.columns)
    if wanted is None:
        return [SELF_COLUMN] if SELF_COLUMN in names else names
    if wanted in names:
        return [wanted]
    if wanted == ALL:
        return names
    if of_kind := [name for name in names if start_of(name, result.origin(name) or {}) == wanted]:
        return of_kind
    part = one_form(wanted).casefold()
    fitting = [name for name in names if part in one_form(name).casefold()]
    if len(fitting) == 1:
        return fitting
    if fitting:
        raise InputError(
            f"{_asked(wanted)} is part of {len(fitting)} names in `{result.path}`: {few(fitting)}. Give a longer part."
        )
    start = common_start(names)
    short = [name.removeprefix(start) for name in names]
    near = difflib.get_close_matches(wanted.removeprefix(start), short, n=3, cutoff=0.4) or short
    raise InputError(
        f"{_asked(wanted)} not found in `{result.path}`. Expected a name, a part of one, or {ALL}. Nearest: "
        f"{few([name for name in names if name.removeprefix(start) in near])}."
    )


def _asked(wanted: str) -> str:
    return f'`column="{wanted}"`'


def meaning(result: ResultFile, column: str) -> str | None:
    """What a column is, by its provenance or else by its name."""
    origin = result.origin(column) or {}
    by_score = {"self": "self", "influence": str(origin.get("test_functional", "loss"))}
    found = by_score.get(str(origin.get("score")), meaning_of(column))
    return found if found in READING else None
