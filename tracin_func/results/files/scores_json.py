"""Columns of scores merged into a JSON file that others write too: `{pair_id: {column: value}}`.

The one mechanism for it. What is not ours - pairs, columns, values of any JSON type, numbers to the last
digit as they were written, the order of the keys - survives. A reader, or a kill at any moment, finds either
the old file or the new one. All names beside the file come from the file a symbolic link leads to:

    X.json                     the scores
    X.json.provenance.json     {"format": 1, "columns": {column: where its scores come from}}
    .X.json.lock               held while merging; it stays, because removing a lock file lets two processes
                               hold two different ones
    .X.json.N.tmp              only while writing; one left by a kill is removed by the next merge

The key a row is written under:

- its own, where the file has it;
- the swapped one, where the file has that and no row of ours is called so; where the file has both and we
  have one, both are written;
- its own, appended, where the file has neither, or where the swapped key is another row of ours.

The value replaced is the one under our column. Where that is an object with a member named like the column's
beginning, as `{"tracin_influence": x}` under `tracin_influence_TE1_TE2`, that member is, and its neighbours
stay. Any other object or array under our column is not a score, and is refused.

Scores and provenance are replaced in the order that `origins` explains. Values of an earlier run that stay in a
column keep their origin in `other_origins`.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tracin_func.errors import InputError, UsageError
from tracin_func.files import dumps, kind, locked, read_object, real_path, replace, require_writable
from tracin_func.results.files.format import REMEDY, Column, Contents, Format, Json, Sheet
from tracin_func.results.files.origins import (
    claims,
    embedded_conflict_in,
    origins,
    own_conflict_in,
    provenance_document,
    provenance_path,
    read_provenance,
)

Table = dict[str, dict[str, Json]]

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class MergeReport:
    """What a merge did: the real files, how many pairs were new, known, and known as ID2_ID1 only."""

    path: Path
    provenance_path: Path
    pairs_added: int
    pairs_updated: int
    pairs_swapped: int


def merge_columns(
    path: str | Path,
    rows: Mapping[str, Mapping[str, float]],
    *,
    swapped: Mapping[str, str] = _NOTHING,
    provenance: Mapping[str, Any] | None = None,
    lock_timeout: float = 60.0,
) -> MergeReport:
    """Merge scores into the file at `path`, and record beside it where they come from.

    Two rows ID1_ID2 and ID2_ID1 never overwrite each other, provided that all rows of a run come in one call.

    Args:
        path: the result file; a symbolic link is followed. It and its folder are made when missing.
        rows: scores by column by pair id; finite.
        swapped: ID2_ID1 of a row ID1_ID2. Leave a row out and only its own key is looked for.
        provenance: what is recorded for each column of `rows`, see `tracin_func.provenance`; without it, a
            column's former provenance is withdrawn.
        lock_timeout: seconds to wait for another process that is merging into the file.

    Raises:
        InputError: the file, or its provenance, is not what it should be; nothing was changed.
        OutputError: it could not be written; what was there before is unharmed.
    """
    assert all(math.isfinite(score) for row in rows.values() for score in row.values())
    path = real_path(path)
    _require_writable(path)
    with locked(path, lock_timeout):
        table, notes = _read_table(path), read_provenance(path)
        before = {column for values in table.values() for column in values}
        report, kept = _place(path, table, rows, swapped)
        claim = json.loads(json.dumps(provenance or None))  # as it will be read again, for comparisons
        during, after = dict(notes), dict(notes)
        for column in dict.fromkeys(column for row in rows.values() for column in row):
            possible = origins(notes.get(column)) if column in before else []
            during[column], after[column] = claims(possible, claim, column in kept)
        stages = [provenance_document(stage) for stage in (notes, during, after)]
        texts = [_text(report.provenance_path, stage) for stage in stages]
        writes = [(report.provenance_path, texts[1])] if stages[1] != stages[0] else []
        writes += [(path, _text(path, table))]
        writes += [(report.provenance_path, texts[2])] if stages[2] != stages[1] else []
        replace(path, writes)
    return report


def check_mergeable(path: str | Path, columns: Collection[str] = ()) -> None:
    """Raise now what `merge_columns` would raise after hours of computing; nothing on disk is changed.

    Args:
        path: the result file, which need not exist.
        columns: the columns that will be written; a value among them that is no score is found now.

    Raises:
        InputError: the file, or its provenance, is not what it should be.
        OutputError: it, or its folder, cannot be written or made.
    """
    path = real_path(path)
    _require_writable(path)
    read_provenance(path)
    table = _read_table(path)
    for pair, values in table.items():
        for column in columns:
            _slot(path, pair, values, column)
    _text(path, table)


def conflict(path: str | Path, embedded: bool) -> str | None:
    """Why results, of the `embedded` example or of the user's own, should not go into this file.

    Embedded results do not go where a column is of other or unknown origin, the user's own not where one is, in part,
    of an embedded run. An origin is embedded when its `source` is "embedded", or an object whose `kind` is.

    Returns:
        The message, or None where the file is missing or holds no such column.

    Raises:
        InputError: the file, or its provenance, is not what it should be.
    """
    path = real_path(path)
    columns = list(dict.fromkeys(column for values in _read_table(path).values() for column in values))
    return (embedded_conflict_in if embedded else own_conflict_in)(path, read_provenance(path), columns)


# Rows into the table


def _place(
    path: Path, table: Table, rows: Mapping[str, Mapping[str, float]], swapped: Mapping[str, str]
) -> tuple[MergeReport, set[str]]:
    """Put the scores into `table`; also which of our columns still hold values that are not ours."""
    owner: dict[str, str] = {}
    added = updated = renamed = 0
    for pair in rows:
        other = swapped.get(pair, pair)
        keys = [key for key in dict.fromkeys([pair, other]) if key in table and (key == pair or key not in rows)]
        added, updated = added + (not keys), updated + bool(keys)
        renamed += keys == [other] and other != pair
        for key in keys or [pair]:
            if owner.setdefault(key, pair) != pair:
                raise InputError(
                    f"Pairs `{owner[key]}` and `{pair}` both belong to the key `{key}` of `{path}`. "
                    "Expected one pair a key. Fix: give the items ids that join without ambiguity."
                )
    # A row is appended only after every row has found its key among those the file had.
    for key, pair in [*owner.items()]:
        values = table.setdefault(key, {})
        for column, score in rows[pair].items():
            holder, name = _slot(path, key, values, column)
            holder[name] = float(score)
    ours = {column for row in rows.values() for column in row}
    kept = {
        column
        for key, values in table.items()
        for column in values
        if column in ours and (key not in owner or column not in rows[owner[key]])
    }
    return MergeReport(path, provenance_path(path), added, updated, renamed), kept


def _slot(path: Path, pair: str, values: dict[str, Json], column: str) -> tuple[dict[str, Json], str]:
    """The object and the key under which the score of `column` stands, or will stand."""
    holder, name = values, column
    while isinstance(found := holder.get(name), dict | list):
        members = found if isinstance(found, dict) else {}
        names = [key for key in members if key == column or column.startswith(f"{key}_")]
        if not names:
            raise InputError(
                f"`{path}`: `{column}` of pair `{pair}` is {kind(found)} without a score in it. Expected a "
                "number to replace. Fix: rename that column in the file, or write to another folder with "
                "--metadata-dir."
            )
        holder, name = members, max(names, key=len)
    return holder, name


# The two files


def _require_writable(path: Path) -> None:
    require_writable(path)
    require_writable(provenance_path(path))


def _read_table(path: Path) -> Table:
    remedy = "Fix: correct or move the file, or write to another folder with --metadata-dir."
    return {pair: _object_of_columns(path, pair, values, remedy) for pair, values in read_object(path).items()}


def _object_of_columns(path: Path, pair: str, values: Json, remedy: str) -> dict[str, Json]:
    if not isinstance(values, dict):
        raise InputError(
            f"`{path}`: the value of `{pair}` is {kind(values)}. Expected an object of columns, as in "
            f'{{"ID1_ID2": {{"tracin_self_influence": 0.5}}}}. {remedy}'
        )
    return values


def _text(path: Path, document: Json) -> str:
    try:
        return dumps(document)
    except RecursionError as error:
        raise InputError(
            f"`{path}` is nested too deeply to be written again. Expected pairs of columns. Fix: correct or move "
            "the file, or write to another folder with --metadata-dir."
        ) from error


# The format


def _write(path: Path, sheet: Sheet) -> Path:
    if sheet.rows is None:
        raise UsageError(
            f"`path` should name a table, such as .parquet: scores of streamed pairs are not merged. Got {path}."
        )
    return merge_columns(path, sheet.rows(), swapped=sheet.swapped, provenance=sheet.record).path


def _read(path: Path) -> Contents:
    document = read_object(path, number=None, remedy=REMEDY)
    columns: dict[str, Column] = {}
    for pair, values in document.items():
        for name, value in _object_of_columns(path, pair, values, REMEDY).items():
            columns.setdefault(name, {})[pair] = _unwrapped(name, value)
    return Contents(list(document), columns)


def _unwrapped(column: str, value: Json) -> Json:
    """The score in `{"tracin_influence": x}` under `tracin_influence_TE1_TE2`, as an older script nested it."""
    while isinstance(value, dict):
        names = [name for name in value if name == column or column.startswith(f"{name}_")]
        if not names:
            return value
        value = value[max(names, key=len)]
    return value


JSON = Format("json", "JSON", _write, _read, check_mergeable, conflict)
