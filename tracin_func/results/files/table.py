"""Long tables of scores for other tools: `X.csv` or `X.parquet`, replaced whole, with provenance beside them.

Column by column of one kind: ids, whole numbers, floats, truth values; None is an empty cell. Nothing is rounded:

    CSV      a header, UTF-8, \\n; a float is the shortest text that reads back as the same float; true and false
    Parquet  int64, float64, bool; ids dictionary-encoded; sign, unit and provenance in the metadata of the schema

Unlike the JSON files these hold one run only: nothing is merged. A reader, or a kill at any moment, finds the old
table or the new one, and a provenance that does not contradict it (see `origins`).
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from tracin_func.errors import UsageError
from tracin_func.files import dumps, locked, pyarrow_module, real_path, replace, require_writable
from tracin_func.results.files.origins import (
    claims,
    embedded_conflict_in,
    origins,
    own_conflict_in,
    provenance_document,
    provenance_path,
    read_provenance,
)

Column = Sequence[str | float | bool | None]

ROW_GROUP = 1 << 20  # rows that a reader of Parquet takes at a time

_NO_TEXT: Mapping[str, str] = MappingProxyType({})
_NO_RECORDS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


def require_format(name: str) -> None:
    """Raise before hours of computing what `write_table` would raise after them.

    Raises:
        UsageError: no such format, or its package is not installed.
    """
    if name not in FORMATS:
        raise UsageError(f"--format should be one of {', '.join(FORMATS)}. Got {name!r}.")
    if name == "parquet":
        pyarrow_module("pyarrow.parquet")


def is_table(path: str | Path) -> bool:
    """Whether a file of this name is a table, not a JSON file."""
    return Path(path).suffix.removeprefix(".") in _WRITERS


def check_table(path: str | Path) -> None:
    """Raise now what stands in the way of a table at `path`, which need not exist; nothing on disk is changed.

    Raises:
        UsageError: its ending names no format of a table, or the package for it is not installed.
        InputError: the provenance beside it is not what it should be.
        OutputError: it, or its folder, cannot be written or made.
    """
    _writer(path)
    path = real_path(path)
    require_writable(path)
    require_writable(provenance_path(path))
    read_provenance(path)


def table_conflict(path: str | Path, *, embedded: bool) -> str | None:
    """Why results, of the `embedded` data or of the user's own, should not take the place of the table at `path`.

    As `embedded_conflict` and `own_conflict` of merged files; None where there is no table. A table of unknown origin
    is in the way of embedded results only.

    Raises:
        InputError: the provenance beside it is not what it should be.
    """
    path = real_path(path)
    notes = read_provenance(path)
    if not path.exists():
        return None
    conflict_in = embedded_conflict_in if embedded else own_conflict_in
    return conflict_in(path, notes, list(notes) or ["a column"])


def write_table(
    path: str | Path,
    columns: Mapping[str, Column],
    *,
    metadata: Mapping[str, str] = _NO_TEXT,
    provenance: Mapping[str, Mapping[str, Any]] = _NO_RECORDS,
    lock_timeout: float = 60.0,
) -> Path:
    """Write a table in the place of what is at `path`, and `{"format": 1, "columns": provenance}` beside it.

    Args:
        path: ends in `.csv` or `.parquet`; a symbolic link is followed. It and its folder are made when missing.
        columns: [rows] each, by heading: str, int, float or bool, and None for an empty cell.
        metadata: what a reader should know at once (`sign`, `unit`); of Parquet only, CSV has no place for it. The
            records of `provenance` are added to it.
        provenance: the record of each column of scores, see `tracin_func.provenance`.
        lock_timeout: seconds to wait for another process that is writing this table.

    Returns:
        The real path of the table.

    Raises:
        UsageError, InputError: see `check_table`.
        OutputError: it could not be written; what was there before is unharmed.
        TypeError: a column mixes kinds. ValueError: columns differ in length.
    """
    check_table(path)
    write, prepared = _writer(path), _prepared(columns)
    return replace_table(
        path,
        lambda stream, texts: write(stream, prepared, texts),
        metadata=metadata,
        provenance=provenance,
        lock_timeout=lock_timeout,
    )


def replace_table(
    path: str | Path,
    write: Callable[[BinaryIO, Mapping[str, str]], None],
    *,
    metadata: Mapping[str, str],
    provenance: Mapping[str, Mapping[str, Any]],
    lock_timeout: float = 60.0,
) -> Path:
    """Put what `write` writes in the place of what is at `path`, and its provenance beside it; see `write_table`.

    Args:
        write: (stream, metadata with the records of `provenance`), called once.
    """
    path = real_path(path)
    records = json.loads(json.dumps({name: dict(record) for name, record in provenance.items()}))
    document = dumps(provenance_document(records))
    texts = {**metadata, "provenance": document}
    with locked(path, lock_timeout):
        notes = read_provenance(path)
        there = path.exists()
        possible = {name: origins(notes.get(name)) if there else [] for name in records}
        during = notes | {name: claims(possible[name], record, mixed=False)[0] for name, record in records.items()}
        beside = provenance_path(path)
        replace(
            path,
            [
                (beside, dumps(provenance_document(during))),
                (path, lambda stream: write(stream, texts)),
                (beside, document),
            ],
        )
    return path


# Columns


def _prepared(columns: Mapping[str, Column]) -> dict[str, list[Any]]:
    """The columns as lists of plain Python values, of one kind each."""
    prepared = {name: _plain(name, column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in prepared.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"`columns` should have one length. Got {lengths}.")
    return prepared


def _plain(name: str, column: Column) -> list[Any]:
    values: list[Any] = (
        column.tolist() if hasattr(column, "tolist") else list(column)
    )  # of an array: no scalars of numpy's own
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {str}:
        return [value if value is None else encodable(value) for value in values]
    if kinds <= {int, float} and float in kinds:
        return [value if value is None else float(value) for value in values]
    if kinds in ({int}, {bool}):
        return values
    found = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"column {name!r} should hold str, int, float or bool, one kind alone. Got {found}.")


def encodable(text: str) -> str:
    """A lone surrogate, as a file name may hold, has no UTF-8: its escape stands for it."""
    return text if text.isascii() else text.encode("utf-8", errors="backslashreplace").decode("utf-8")


# Formats


def _write_csv(stream: BinaryIO, columns: Mapping[str, list[Any]], metadata: Mapping[str, str]) -> None:
    writer = csv.writer(codecs.getwriter("utf-8")(stream), lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_cells(column) for column in columns.values()), strict=True))


def _cells(column: list[Any]) -> Iterator[Any]:
    """As csv writes them: a float by repr, which reads back to the last bit; None as nothing."""
    return (str(value).lower() if isinstance(value, bool) else value for value in column)


def _write_parquet(stream: BinaryIO, columns: Mapping[str, list[Any]], metadata: Mapping[str, str]) -> None:
    arrow = pyarrow_module("pyarrow")
    arrays = {name: _array(arrow, column) for name, column in columns.items()}
    table = arrow.table(arrays).replace_schema_metadata(dict(metadata))
    pyarrow_module("pyarrow.parquet").write_table(table, stream, row_group_size=ROW_GROUP, compression="zstd")


def _array(arrow: Any, column: list[Any]) -> Any:
    """The column with its type said, as one of nothing but None has none; ids once each, and their places."""
    kind = next((type(value) for value in column if value is not None), str)
    if kind is str:
        return arrow.array(column, arrow.string()).dictionary_encode()
    return arrow.array(column, {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64()}[kind])


_Write = Callable[[BinaryIO, Mapping[str, list[Any]], Mapping[str, str]], None]
_WRITERS: dict[str, _Write] = {"csv": _write_csv, "parquet": _write_parquet}
FORMATS = ("json", *_WRITERS)  # json: merged, see `merge`


def _writer(path: str | Path) -> _Write:
    """What writes a table of this ending; not of that of the file a link leads to.

    Raises:
        UsageError: there is none, or its package is not installed.
    """
    name = Path(path).suffix.removeprefix(".")
    if name not in _WRITERS:
        raise UsageError(f"`path` should end in {' or '.join(f'.{name}' for name in _WRITERS)}. Got {path}.")
    require_format(name)
    return _WRITERS[name]
