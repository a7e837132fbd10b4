"""Long tables as CSV: a header, UTF-8, \\n; a float is the shortest text that reads back as the same float."""

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tracin_func.errors import InputError
from tracin_func.results.files.format import REMEDY, Json
from tracin_func.results.files.table import NAME_COLUMNS, Row, table_format


def _write(stream: BinaryIO, blocks: Iterator[Any], metadata: Mapping[str, str]) -> None:
    writer = csv.writer(codecs.getwriter("utf-8")(stream), lineterminator="\n")
    for number, block in enumerate(blocks):
        if not number:
            writer.writerow(block.column_names)
        writer.writerows(zip(*(_cells(column.to_pylist()) for column in block.columns), strict=True))


def _cells(column: list[Any]) -> Iterator[Any]:
    return (str(value).lower() if isinstance(value, bool) else value for value in column)


def _read(path: Path) -> tuple[list[str], Sequence[Row]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = list(reader.fieldnames or [])
            rows = [{name: _cell(name, value) for name, value in row.items()} for row in reader]
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}. {REMEDY}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"`{path}` is not CSV in UTF-8: {error}. {REMEDY}") from error
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"`{path}` has two columns '{twice}'. Rename or remove one of them.")
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(f"`{path}`: row {line} should have {len(names)} cells, as the header has. {REMEDY}")
    return names, rows


def _cell(name: str | None, text: Any) -> Json:
    """A cell of a CSV file: an id, or elsewhere a number if it can be read as one."""
    if name in NAME_COLUMNS or not isinstance(text, str):
        return text
    try:
        return float(text)
    except ValueError:
        return text


CSV = table_format("csv", "CSV", _write, _read)
