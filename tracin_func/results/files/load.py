"""Result files read to be looked at, whoever wrote them: JSON objects of pairs, and long tables in CSV or Parquet.

Every value of a column is kept, also one that is no number: what is odd about a file is for the reader to see. In a
long table a row is one score, or one score a test pair and checkpoint; it becomes the column a JSON file would have,
`tracin_influence_TE1_TE2`.
"""

import csv
import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError
from tracin_func.files import Json, kind, read_object
from tracin_func.results.files.origins import OTHER_ORIGINS, provenance_path
from tracin_func.results.names import STANDARD_ERROR
from tracin_func.results.views import number

SUFFIXES = (".json", ".csv", ".parquet")

# Columns of a long table that say of what a row is, and those that say more of the pair than its scores.
NAMES = ("pair", "first", "second", "test_pair", "test_first", "test_second", "checkpoint", "split")
FACTS = (
    *("target", "loss", "score_margin", "active_share", "count", "weight", "ghm_bin", "ghm_weight", "inactive"),
    STANDARD_ERROR,
)
SCORES = "tracin_"  # how columns of scores begin

_REMEDY = "Fix: name a result file of tracin-func or of the same form."
_RECORD = ".provenance.json"

Column = dict[str, Json]
Row = Mapping[str, Json]


@dataclass(frozen=True)
class ResultFile:
    """What a result file holds.

    Args:
        path: as it was named.
        format: `JSON`, `CSV` or `Parquet`.
        pairs: ids, in the order of the file.
        columns: value by pair id of each column of scores, in the order of the file.
        others: names of columns without a single number, and of columns that are no scores.
        items: the two items of each pair, where the file has them in columns of their own.
        origins: provenance by column, where it is recorded.
        fault: why the record of origins cannot be read; None where it can, or where there is none.
    """

    path: Path
    format: str
    pairs: tuple[str, ...]
    columns: dict[str, Column]
    others: tuple[str, ...]
    items: dict[str, tuple[str, str]]
    origins: dict[str, dict[str, Any]]
    fault: str | None

    def origin(self, column: str) -> dict[str, Any] | None:
        """Where a column comes from; in a long table the record may be of all its test pairs together."""
        names = [name for name in self.origins if column == name or column.startswith(f"{name}_")]
        return self.origins[max(names, key=len)] if names else None


def read_result(path: Path) -> ResultFile:
    """The file at `path`; its name says in which format it is.

    Raises:
        InputError: there is no such file, it cannot be read, or it is no result file.
    """
    _require_file(path)
    items: dict[str, tuple[str, str]] = {}
    if path.suffix.lower() in (".csv", ".parquet"):
        read = {".csv": _csv_rows, ".parquet": _parquet_rows}[path.suffix.lower()]
        names, rows = read(path)
        pairs, columns, items = _of_long_table(path, names, rows)
        others = [name for name in names if name in FACTS]
    else:
        pairs, columns = _of_object(path, read_object(path, number=None, remedy=_REMEDY))
        others = []
    scores = {
        name: column
        for name, column in columns.items()
        if not name.startswith(STANDARD_ERROR) and any(number(value) is not None for value in column.values())
    }
    others += [name for name in columns if name not in scores]
    if not scores:
        raise InputError(f"`{path}` holds no scores: no column with a number among {len(pairs)} pairs. {_REMEDY}")
    origins, fault = _read_origins(path)
    form = {".csv": "CSV", ".parquet": "Parquet"}.get(path.suffix.lower(), "JSON")
    return ResultFile(path, form, tuple(pairs), scores, tuple(others), items, origins, fault)


def other_origins(origin: Mapping[str, Any]) -> int:
    """How many other runs wrote values that are still in a column."""
    others = origin.get(OTHER_ORIGINS)
    return len(others) if isinstance(others, list) else 0


# JSON


def _of_object(path: Path, document: Mapping[str, Json]) -> tuple[list[str], dict[str, Column]]:
    columns: dict[str, Column] = {}
    for pair, values in document.items():
        if not isinstance(values, dict):
            raise InputError(
                f"`{path}`: the value of `{pair}` is {kind(values)}. Expected an object of columns, as in "
                f'{{"ID1_ID2": {{"tracin_self_influence": 0.5}}}}. {_REMEDY}'
            )
        for name, value in values.items():
            columns.setdefault(name, {})[pair] = _unwrapped(name, value)
    return list(document), columns


def _unwrapped(column: str, value: Json) -> Json:
    """The score in `{"tracin_influence": x}` under `tracin_influence_TE1_TE2`, as an older script nested it."""
    while isinstance(value, dict):
        names = [name for name in value if name == column or column.startswith(f"{name}_")]
        if not names:
            return value
        value = value[max(names, key=len)]
    return value


# Long tables


def _of_long_table(
    path: Path, names: Sequence[str], rows: Iterable[Row]
) -> tuple[list[str], dict[str, Column], dict[str, tuple[str, str]]]:
    both = {"first", "second"} <= set(names)
    if "pair" not in names and not both:
        raise InputError(
            f"`{path}` has the columns {', '.join(names) or '(none)'}. Expected a column `pair`, or `first` and "
            f"`second`, and columns of scores. {_REMEDY}"
        )
    scores = [name for name in names if name.startswith(SCORES)]
    scores = scores or [name for name in names if name not in (*NAMES, *FACTS)]
    pairs: dict[str, None] = {}
    columns: dict[str, Column] = {}
    items: dict[str, tuple[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        pair = str(row["pair"]) if "pair" in names else f"{row['first']}_{row['second']}"
        pairs[pair] = None
        if both:
            items[pair] = str(row["first"]), str(row["second"])
        what = "".join(f"_{row[name]}" for name in ("test_pair", "checkpoint") if row.get(name) not in (None, ""))
        for name in scores:
            column = columns.setdefault(f"{name}{what}", {})
            if pair in column:
                raise InputError(
                    f"`{path}` has `{name}{what}` of pair `{pair}` a second time (row {line}). Expected each score "
                    f"once. {_REMEDY}"
                )
            column[pair] = row[name]
    return list(pairs), columns, items


def _csv_rows(path: Path) -> tuple[list[str], Sequence[Row]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = list(reader.fieldnames or [])
            rows = [{name: _cell(name, value) for name, value in row.items()} for row in reader]
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}. Expected a CSV file. {_REMEDY}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"`{path}` is not CSV in UTF-8: {error}. {_REMEDY}") from error
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"`{path}` has two columns `{twice}`. Expected each name once. {_REMEDY}")
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(f"`{path}`: row {line} has not {len(names)} cells, as the first has. {_REMEDY}")
    return names, rows


def _cell(name: str | None, text: Any) -> Json:
    """A cell of a CSV file: ids as they are, numbers elsewhere where they can be read as numbers."""
    if name in NAMES or not isinstance(text, str):
        return text
    try:
        return float(text)
    except ValueError:
        return text


def _parquet_rows(path: Path) -> tuple[list[str], Sequence[Row]]:
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(f'`{path}`: reading Parquet needs pyarrow: pip install "tracin-func[parquet]".') from error
    try:
        table = parquet.read_table(path)
        return list(table.column_names), table.to_pylist()
    except (OSError, ValueError, arrow.ArrowException) as error:  # ValueError: a name or an id is not UTF-8
        raise InputError(f"`{path}` is not Parquet: {str(error).partition(chr(10))[0]} {_REMEDY}") from error


# What is around the scores


def _require_file(path: Path) -> None:
    if path.name.endswith(_RECORD):
        raise InputError(
            f"`{path}` says where scores come from and holds none. Expected the result file itself. Fix: name "
            f"{path.name.removesuffix(_RECORD)}."
        )
    try:
        is_folder, is_there = path.is_dir(), path.exists()
        folder = path if is_folder else path.parent
        present = sorted(each.name for each in folder.iterdir() if _may_be_result(each)) if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}. {_REMEDY}") from error
    if is_there and not is_folder:
        return
    near = present if is_folder else difflib.get_close_matches(path.name, present, n=3, cutoff=0.4) or present
    there = f"; there: {', '.join(near[:3])}{', …' if len(near) > 3 else ''}" if near else ""
    what = "is a folder. Expected a result file in it" if is_folder else "no such file"
    raise InputError(f"`{path}`{' ' if is_folder else ': '}{what}{there}. {_REMEDY}")


def _may_be_result(path: Path) -> bool:
    return path.suffix in SUFFIXES and not path.name.endswith(_RECORD) and not path.name.startswith(".")


def _read_origins(path: Path) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Provenance by column; a record that cannot be read hinders nobody from looking at the scores."""
    try:
        record = provenance_path(path)
        document = read_object(record, number=None, remedy="The scores stand without it.")
    except (InputError, OSError) as error:
        return {}, str(error)
    columns = document.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(origin, dict) for origin in columns.values()):
        return {}, f"`{record}` is not a record of columns. The scores stand without it."
    return columns, None
