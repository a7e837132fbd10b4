"""Columns of scores merged into a JSON file that other programs write too: `{pair_id: {column: value}}`.

Everything else survives: pairs, columns, values of any JSON type, all digits of numbers, the order of keys. A reader,
or a kill at any moment, finds the old file or the new one. Names beside the file follow a symbolic link:

    X.json                     the scores
    X.json.provenance.json     {"format": 1, "columns": {column: origin of its scores}}
    .X.json.lock               held while merging; it is not removed, since two processes could then hold two
                               different ones
    .X.json.N.tmp              only while writing; one left by a kill is removed by the next merge

A row is written under this key:

- its own, if the file has it;
- the swapped one, if the file has that and no other row has this name; both, if the file has both and the run one;
- its own, appended, if the file has neither, or if the swapped key is another row.

The value under the column is replaced. If it is an object with a member named like the start of the column, as
`{"tracin_influence": x}` under `tracin_influence_TE1_TE2`, that member is replaced. Any other object or array is not a
score, and is refused.

Scores and provenance are replaced in the order that `origins` explains. Values of an earlier run that remain in a
column keep their origin in `other_origins`.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError, UsageError
from tracin_func.files import dumps, kind, locked, read_object, real_path, replace, require_writable
from tracin_func.results.files.format import REMEDY, Column, Contents, Format, Json, Sheet
from tracin_func.results.files.origins import (
    claims,
    origins,
    provenance_document,
    provenance_path,
    read_provenance,
)
from tracin_func.results.names import MARKS

Table = dict[str, dict[str, Json]]


def merge_columns(
    path: str | Path,
    rows: Mapping[str, Mapping[str, float]],
    *,
    swapped: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    lock_timeout: float = 60.0,
) -> Path:
    """Merge scores into the file at `path`, with provenance beside it.

    Two rows ID1_ID2 and ID2_ID1 never overwrite each other if all rows of a run come in one call.

    Args:
        path: the result file; a symbolic link is followed. It and its folder are created if missing.
        rows: finite scores by column by pair id.
        swapped: ID2_ID1 of a row ID1_ID2; of other rows only their own key is looked up.
        provenance: record of each column of `rows`, see `Run.provenance`; None removes the old record.
        lock_timeout: seconds to wait for another process that is merging into the file.

    Returns:
        The real path of the file.

    Raises:
        InputError: the file, or its provenance, does not have the right form; nothing was changed.
        OutputError: it could not be written; the files are unchanged.
    """
    assert all(math.isfinite(score) for row in rows.values() for score in row.values())
    path = real_path(path)
    beside = provenance_path(path)
    require_writable(path)
    require_writable(beside)
    with locked(path, lock_timeout):
        table, notes = read_table(path), read_provenance(path)
        before = {column for values in table.values() for column in values}
        kept = _place(path, table, rows, swapped or {})
        claim = json.loads(json.dumps(provenance or None))  # as it will be read, for comparisons
        during, after = dict(notes), dict(notes)
        for column in dict.fromkeys(column for row in rows.values() for column in row):
            possible = origins(notes.get(column)) if column in before else []
            during[column], after[column] = claims(possible, claim, column in kept)
        stages = [provenance_document(stage) for stage in (notes, during, after)]
        texts = [_text(beside, stage) for stage in stages]
        writes = [(beside, texts[1])] if stages[1] != stages[0] else []
        writes += [(path, _text(path, table))]
        writes += [(beside, texts[2])] if stages[2] != stages[1] else []
        replace(path, writes)
    return path


# Rows into the table


def _place(path: Path, table: Table, rows: Mapping[str, Mapping[str, float]], swapped: Mapping[str, str]) -> set[str]:
    """Put the scores into `table`; returns the written columns in which other values remain."""
    owner: dict[str, str] = {}
    for pair in rows:
        other = swapped.get(pair, pair)
        keys = [key for key in dict.fromkeys([pair, other]) if key in table and (key == pair or key not in rows)]
        for key in keys or [pair]:
            if owner.setdefault(key, pair) != pair:
                raise InputError(
                    f"Pairs {owner[key]!r} and {pair!r} both belong to the key {key!r} of `{path}`. Give the items ids "
                    "whose pairs have different names."
                )
    # A row is appended only after every row is matched with the keys of the file.
    for key, pair in [*owner.items()]:
        values = table.setdefault(key, {})
        for column, score in rows[pair].items():
            holder, name = _slot(path, key, values, column)
            holder[name] = float(score)
    written = {column for row in rows.values() for column in row}
    return {
        column
        for key, values in table.items()
        for column in values
        if column in written and (key not in owner or column not in rows[owner[key]])
    }


def _slot(path: Path, pair: str, values: dict[str, Json], column: str) -> tuple[dict[str, Json], str]:
    """The object and the key that hold the score of `column`, or will."""
    holder, name = values, column
    while isinstance(found := holder.get(name), dict | list):
        members = found if isinstance(found, dict) else {}
        names = [key for key in members if key == column or column.startswith(f"{key}_")]
        if not names:
            raise InputError(
                f"`{path}`: '{column}' of pair {pair!r} is {kind(found)} without a score. It should be a number. "
                "Rename this column in the file, or set `metadata_dir` to another folder."
            )
        holder, name = members, max(names, key=len)
    return holder, name


# The two files


def read_table(path: Path) -> Table:
    """The columns of each pair, numbers as they were written.

    Raises:
        InputError: the file does not have this form.
    """
    remedy = "Correct or move the file, or set `metadata_dir` to another folder."
    return {pair: _object_of_columns(path, pair, values, remedy) for pair, values in read_object(path).items()}


def _object_of_columns(path: Path, pair: str, values: Json, remedy: str) -> dict[str, Json]:
    if not isinstance(values, dict):
        raise InputError(
            f"`{path}`: the value of {pair!r} is {kind(values)}. It should be an object of columns, as in "
            f'{{"ID1_ID2": {{"tracin_self_influence": 0.5}}}}. {remedy}'
        )
    return values


def _text(path: Path, document: Json) -> str:
    try:
        return dumps(document)
    except RecursionError as error:
        raise InputError(
            f"`{path}` is nested too deeply to be written. Correct or move the file, or set `metadata_dir` to another "
            "folder."
        ) from error


# The format


def _write(path: Path, sheet: Sheet) -> Path:
    if sheet.rows is None:
        raise UsageError(
            f"`path` should end in .csv or .parquet: scores of streamed pairs are not merged into JSON. Got {path}."
        )
    return merge_columns(path, sheet.rows(), swapped=sheet.swapped, provenance=sheet.record)


def _columns(path: Path, written: Collection[str]) -> Collection[str]:
    table = read_table(path)
    for pair, values in table.items():
        for column in written:
            _slot(path, pair, values, column)
    _text(path, table)
    return dict.fromkeys(column for values in table.values() for column in values if column not in MARKS)


def _read(path: Path) -> Contents:
    document = read_object(path, number=None, remedy=REMEDY)
    columns: dict[str, Column] = {}
    for pair, values in document.items():
        for name, value in _object_of_columns(path, pair, values, REMEDY).items():
            columns.setdefault(name, {})[pair] = _unwrapped(name, value)
    return Contents(list(document), columns)


def _unwrapped(column: str, value: Json) -> Json:
    """The score in `{"tracin_influence": x}` under `tracin_influence_TE1_TE2`, the form of an older script."""
    while isinstance(value, dict):
        names = [name for name in value if name == column or column.startswith(f"{name}_")]
        if not names:
            return value
        value = value[max(names, key=len)]
    return value


JSON = Format("json", "JSON", _write, _read, _columns)
