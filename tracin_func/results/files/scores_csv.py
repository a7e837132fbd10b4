"""Long tables as CSV: a header, UTF-8, \\n; a float is the shortest text that reads back as the same float."""

import codecs
import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tracin_func.errors import InputError
from tracin_func.results.files.format import REMEDY, Json
from tracin_func.results.files.table import NAME_COLUMNS, table_format

_PIECE = 10_000  # rows that are held as texts


def _write(stream: BinaryIO, blocks: Iterator[Any], metadata: Mapping[str, str]) -> None:
    writer = csv.writer(codecs.getwriter("utf-8")(stream), lineterminator="\n")
    for number, block in enumerate(blocks):
        if not number:
            writer.writerow(block.column_names)
        writer.writerows(zip(*(_cells(column.to_pylist()) for column in block.columns), strict=True))


def _cells(column: list[Any]) -> Iterator[Any]:
    return (str(value).lower() if isinstance(value, bool) else value for value in column)


def _read(path: Path) -> dict[str, list[Json]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            return _columns(path, filter(None, csv.reader(stream, strict=True)))  # without empty lines
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}. {REMEDY}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"`{path}` is not CSV in UTF-8: {error}. {REMEDY}") from error


def _columns(path: Path, rows: Iterator[list[str]]) -> dict[str, list[Json]]:
    """The columns of a header and rows; numbers where a cell can be read as one, except in names."""
    names = next(rows, [])
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"`{path}` has two columns '{twice}'. Rename or remove one of them.")
    columns: dict[str, list[Json]] = {name: [] for name in names}
    line = 2
    while piece := list(itertools.islice(rows, _PIECE)):
        if odd := next((row for row, cells in enumerate(piece, line) if len(cells) != len(names)), None):
            raise InputError(f"`{path}`: row {odd} should have {len(names)} cells, as the header has. {REMEDY}")
        for name, cells in zip(names, zip(*piece, strict=True), strict=True):
            columns[name] += cells if name in NAME_COLUMNS else _numbers(cells)
        line += len(piece)
    return columns


def _numbers(cells: Sequence[str]) -> list[Json]:
    """Numbers, and texts that are none as they are."""
    try:
        return list(map(float, cells))
    except ValueError:
        return list(map(_number, cells))


def _number(text: str) -> Json:
    try:
        return float(text)
    except ValueError:
        return text


CSV = table_format("csv", "CSV", _write, _read)
