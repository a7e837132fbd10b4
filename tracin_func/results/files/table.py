"""Formats that are long tables for other tools: a file holds one run and is replaced whole, with provenance beside it.

A row is one score of a pair, test pair and checkpoint. Nothing is rounded and nothing is merged. A reader, or a kill at
any moment, finds the old table or the new one, and a provenance that does not contradict it (see `origins`).
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tracin_func.errors import InputError
from tracin_func.files import dumps, locked, real_path, replace, require_writable
from tracin_func.results.files.format import REMEDY, Column, Contents, Format, Json, Parts, Sheet
from tracin_func.results.files.origins import (
    claims,
    origins,
    provenance_document,
    provenance_path,
    read_provenance,
)
from tracin_func.results.names import OWN_NAME, STANDARD_ERROR

Table = Mapping[str, Sequence[Json]]  # columns by name
Write = Callable[[BinaryIO, Iterator[Any], Mapping[str, str]], None]
Read = Callable[[Path], Table]

# Columns of names, and columns about pairs that are not scores.
NAME_COLUMNS = ("pair", OWN_NAME, "first", "second", "test_pair", "test_first", "test_second", "checkpoint", "split")
SCORE_MARGIN = "score_margin"
FACTS = (
    *("target", "loss", SCORE_MARGIN, "active_share", "count", "weight", "ghm_bin", "ghm_weight", "inactive"),
    *("left_out_margin", STANDARD_ERROR),
)
SCORE_PREFIX = "tracin_"  # start of the names of columns of scores


def table_format(name: str, label: str, write: Write, read: Read) -> Format:
    """A format of long tables.

    `write(stream, blocks, metadata)` writes `pyarrow.Table` blocks, at least one, all of one schema; `metadata` has the
    sentences about sign and unit, and the provenance document. `read` returns the columns.
    """
    return Format(name, label, partial(_replace, write), partial(_contents, read), _columns)


def _columns(path: Path, _: Collection[str]) -> Collection[str]:
    """The columns of scores by the provenance; one of unknown name if there is none."""
    return (read_provenance(path) or ["a column"]) if path.exists() else []


def _replace(write: Write, path: Path, sheet: Sheet, lock_timeout: float = 60.0) -> Path:
    """Replace the table at `path` and its provenance beside it; a symbolic link is followed.

    Raises:
        InputError, OutputError: see `Format.check`; the files are unchanged.
    """
    path = real_path(path)
    require_writable(path)
    require_writable(provenance_path(path))
    records = {} if sheet.record is None else {sheet.column: json.loads(json.dumps(dict(sheet.record)))}
    document = dumps(provenance_document(records))
    words = {name: str(sheet.record[name]) for name in ("sign", "unit") if sheet.record and name in sheet.record}
    with locked(path, lock_timeout):
        notes, there, beside = read_provenance(path), path.exists(), provenance_path(path)
        possible = {name: origins(notes.get(name)) if there else [] for name in records}
        during = notes | {name: claims(possible[name], record, mixed=False)[0] for name, record in records.items()}
        replace(
            path,
            [
                (beside, dumps(provenance_document(during))),
                (path, lambda stream: write(stream, iter(sheet.blocks()), {**words, "provenance": document})),
                (beside, document),
            ],
        )
    return path


def _contents(read: Read, path: Path) -> Contents:
    table = read(path)
    both = "first" in table and "second" in table
    if "pair" not in table and not both:
        raise InputError(
            f"`{path}` has the columns {', '.join(table) or '(none)'}. It should have 'pair', or 'first' and 'second', "
            f"and columns of scores. {REMEDY}"
        )
    scores = [name for name in table if name.startswith(SCORE_PREFIX)]
    scores = scores or [name for name in table if name not in (*NAME_COLUMNS, *FACTS)]
    items = list(zip(map(str, table["first"]), map(str, table["second"]), strict=True)) if both else []
    pairs = list(map(str, table["pair"])) if "pair" in table else list(map("_".join, items))
    columns, parts = _by_column(path, table, pairs, scores)
    return Contents(
        pairs=list(dict.fromkeys(pairs)),
        columns=columns,
        facts={name: dict(zip(pairs, table[name], strict=True)) for name in table if name in FACTS},
        items=dict(zip(pairs, items, strict=True)) if both else {},
        names=dict(zip(pairs, map(str, table[OWN_NAME]), strict=True)) if OWN_NAME in table else {},
        parts=parts,
    )


def _by_column(
    path: Path, table: Table, pairs: Sequence[str], scores: Sequence[str]
) -> tuple[dict[str, Column], dict[str, Parts]]:
    """The columns that a JSON file would have, such as `tracin_influence_TE1_TE2`, and the parts of their names."""
    about = list(zip(*(table.get(name, [None] * len(pairs)) for name in ("test_pair", "checkpoint")), strict=True))
    columns: dict[str, Column] = {}
    parts: dict[str, Parts] = {}
    by_name: dict[tuple[str, Any], Column] = {}
    for row in dict.fromkeys(about):
        test, checkpoint = (None if each in (None, "") else str(each) for each in row)
        what = "".join(f"_{each}" for each in (test, checkpoint) if each is not None)
        if STANDARD_ERROR in table:
            by_name[STANDARD_ERROR, row] = columns.setdefault(f"{STANDARD_ERROR}_{scores[-1]}{what}", {})
        for name in scores:
            parts[f"{name}{what}"] = name, test, checkpoint
            by_name[name, row] = columns.setdefault(f"{name}{what}", {})
    for name in scores:
        for line, (pair, row, value) in enumerate(zip(pairs, about, table[name], strict=True), start=2):
            column = by_name[name, row]
            if pair in column:
                what = next(each for each, found in columns.items() if found is column)
                raise InputError(
                    f"`{path}` has '{what}' of pair {pair!r} a second time (row {line}). Remove one of the rows."
                )
            column[pair] = value
    for pair, row, value in zip(pairs, about, table.get(STANDARD_ERROR, ()), strict=False):
        by_name[STANDARD_ERROR, row][pair] = value
    return columns, parts
