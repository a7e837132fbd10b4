"""Marks of excluded pairs in a JSON result file: 'excluded', 'notes' and 'tracin_info' beside the scores of a pair.

    {"ID1_ID2": {..., "excluded": true, "notes": "influence below -5 ...", "tracin_info": {"exclusion": {...}}}}

A pair that is no longer excluded loses its marks. Values of others stay: text in 'notes' is kept before the new note,
members of 'tracin_info' beside 'exclusion', and what 'excluded' held is restored with the marks' removal.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError
from tracin_func.files import Number, dumps, kind, locked, real_path, replace, require_writable
from tracin_func.results.files.scores_json import read_table
from tracin_func.results.names import EXCLUDED, MARKS, NOTES, TRACIN_INFO

Json = Any
_OWN, _NOTE, _BEFORE = "exclusion", "note", "before"
_BETWEEN = "; "  # a foreign note and the own


def mark_excluded(writes: Sequence[tuple[Path, Mapping[str, Mapping[str, Json]]]]) -> list[Path]:
    """Mark the excluded pairs of JSON result files, and no others; scores and other values are unchanged.

    Args:
        writes: each file, with the facts (`reason` and numbers) by id of its excluded pairs.

    Returns:
        The real paths of the files.

    Raises:
        InputError: a file, or one of these fields in it, does not have the right form; nothing was changed.
        OutputError: a file could not be written; it is unchanged.
    """
    for path, excluded in writes:  # all are checked before the first is written
        require_writable(real_path(path), "output_file")
        _marked(path, excluded)
    return [_write(real_path(path), excluded) for path, excluded in writes]


def _write(path: Path, excluded: Mapping[str, Mapping[str, Json]]) -> Path:
    with locked(path, 60.0):
        replace(path, [(path, dumps(_marked(path, excluded)))], "output_file")
    return path


def _marked(path: Path, excluded: Mapping[str, Mapping[str, Json]]) -> Json:
    table = read_table(path)
    for pair, values in table.items():
        _require_form(path, pair, values)
        _remove(values)
        if pair in excluded:
            _add(values, excluded[pair])
    return table


def _require_form(path: Path, pair: str, values: Mapping[str, Json]) -> None:
    for name, form, words in ((NOTES, str, "text"), (TRACIN_INFO, dict, "an object")):
        found = values.get(name)
        if found is not None and (not isinstance(found, form) or isinstance(found, Number)):
            raise InputError(
                f"`{path}`: '{name}' of pair {pair!r} is {kind(found)}. Expected {words}. Rename this field in the "
                "file, or write a list with `output_file` instead."
            )


def _add(values: dict[str, Json], facts: Mapping[str, Json]) -> None:
    note, before = str(facts["reason"]), values.get(NOTES)
    own = {name: value for name, value in facts.items() if name != "reason"} | {_NOTE: note}
    if EXCLUDED in values:
        own[_BEFORE] = values[EXCLUDED]
    values[EXCLUDED] = True
    values[NOTES] = f"{before}{_BETWEEN}{note}" if before else note
    values[TRACIN_INFO] = (values.get(TRACIN_INFO) or {}) | {_OWN: own}


def _remove(values: dict[str, Json]) -> None:
    """Take out what an earlier list added."""
    info = values.get(TRACIN_INFO) or {}
    own = info.get(_OWN)
    if not isinstance(own, dict):
        return
    note, notes = str(own.get(_NOTE)), values.get(NOTES) or ""
    left = {
        EXCLUDED: own.get(_BEFORE),
        NOTES: None if notes == note else notes.removesuffix(f"{_BETWEEN}{note}"),
        TRACIN_INFO: {name: value for name, value in info.items() if name != _OWN} or None,
    }
    for name in MARKS:
        values.pop(name, None)
        if left[name] is not None:
            values[name] = left[name]
