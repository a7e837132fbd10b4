"""Pairs in CSV and Parquet files, read in blocks and never whole."""

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from tracin_func.errors import InputError, UsageError
from tracin_func.files import opened_text
from tracin_func.task.ids import IDS, NAMES, POSITIONS, as_texts, require_distinct
from tracin_func.task.pairs import COLUMNS, Mask, PairBlock, Where, as_tensor, checked, require_items

REQUIRED = COLUMNS[:3]
OPTIONAL = (*COLUMNS[3:], "split")
SPLITS = ("train", "test")
_POSITIONS = REQUIRED[:2]
_INDEX = re.compile(r"__index_level_\d+__")  # pandas' name for an index without a name in Parquet
_UNNAMED = re.compile(r"(Unnamed: \d+)?")  # and in CSV, where it writes no name and reads it as this
_READ = 1 << 18  # rows decoded at a time


class PairReader:
    """Reads pairs with the columns first, second, target[, weight, margin, count, split].

    `first` and `second` are item ids if they are texts, as always in CSV, and positions if they are integers; `target`
    is 1 or −1, `split` train (also when empty) or test. An empty weight or count is 1.

    Args:
        path: the file, Parquet if its name ends in .parquet, else CSV in UTF-8.
        item_ids: id of each item, [items].
        ids: the meaning of `first` and `second`, whatever their type: `names` of items (item ids) or `positions`.

    Raises:
        UsageError: `ids` is something else.
        InputError: integers without `ids`, if item ids are other integers: both may be meant. The file cannot be
            read, or its columns have wrong names or types. Values are checked when they are read; the message names
            file, row or line, and column.
    """

    def __init__(self, path: str | Path, item_ids: Sequence[str], *, ids: str | None = None) -> None:
        if ids not in (None, *IDS):
            raise UsageError(f"`ids` should be one of {', '.join(IDS)}. Got {ids!r}.")
        self.path, self.unit = Path(path), "line"
        self.rows: int | None = None  # of Parquet
        own = as_texts(item_ids, "item_ids")
        require_distinct(own, "item_ids")
        self._items = [str(row) for row in range(len(own))] if ids == POSITIONS else own  # as the file names them
        self._known = pyarrow.array(self._items, pyarrow.string())
        self._seen: dict[str, tuple[Any, Mask]] = {}
        self._names_only = ids == NAMES
        if is_parquet(path):
            self._texts: list[str] = []
            with self._opened() as file:
                schema, self.unit, self.rows = file.schema_arrow, "row", int(file.metadata.num_rows)
                self.columns = _chosen(schema.names, self.path)
                self._texts = [name for name in self.columns if self._is_text(name, schema.field(name).type)]
            if ids is None and not set(_POSITIONS) <= set(self._texts):
                self._require_clear()

    def read(self, split: str | None = None) -> Iterator[tuple[PairBlock, Mask, Mask]]:
        """The pairs of a split, or of both, in their order, in blocks; other rows are ignored.

        Yields blocks with the numbers of their rows (Parquet, from 0) or lines (CSV), and which are test pairs. Raises
        InputError for a wrong row, or a file that can no longer be read.
        """
        for columns, numbers in self._batches() if is_parquet(self.path) else _csv_batches(self.path):
            texts = columns.pop("split", None)
            test = np.zeros(len(numbers), bool) if texts is None else self._is_test(texts, numbers)
            if split is not None and not (mine := test == (split == "test")).all():
                numbers, test = numbers[mine], test[mine]
                columns = {name: column.filter(pyarrow.array(mine)) for name, column in columns.items()}
            if len(numbers):
                yield self._block(columns, partial(self.where, numbers)), numbers, test

    def count(self, split: str) -> int:
        if self.rows is not None and "split" not in self.columns:
            return self.rows if split == "train" else 0
        if self.rows is None:
            return sum(len(numbers) for _, numbers, _ in self.read(split))
        tests = sum(int(self._is_test(batch["split"], numbers).sum()) for batch, numbers in self._batches(["split"]))
        return tests if split == "test" else self.rows - tests

    def where(self, numbers: Mask, row: int) -> str:
        return f"{self.path}, {self.unit} {numbers[row]}"

    # Parquet

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        with self._readable(), pyarrow.parquet.ParquetFile(self.path, read_dictionary=self._texts) as file:
            yield file

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn errors of the file in the block into an InputError of one line."""
        try:
            yield
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:  # names and ids may not be UTF-8
            reason = str(error).partition("\n")[0].rstrip(".")
            raise InputError(f"{self.path} is no whole Parquet file: {reason}. Write it again.") from error
        except OSError as error:
            reason = error.strerror or str(error).partition("\n")[0].rstrip(".")
            raise InputError(f"{self.path} cannot be read: {reason}. Expected a Parquet file of pairs.") from error

    def _batches(self, columns: list[str] | None = None) -> Iterator[tuple[dict[str, Any], Mask]]:
        offset, columns = 0, columns or self.columns
        with self._opened() as file:
            for batch in file.iter_batches(_READ, columns=columns, use_threads=True):
                yield dict(zip(batch.schema.names, batch.columns, strict=True)), np.arange(offset, offset + len(batch))
                offset += len(batch)

    def _is_text(self, name: str, kind: Any) -> bool:
        """Whether a column contains texts; InputError if its type is not allowed."""
        if _of_texts(kind) and name in (*_POSITIONS, "split"):
            return True
        whole, types = name in (*_POSITIONS, "count"), pyarrow.types
        if name != "split" and (types.is_integer(kind) or (types.is_floating(kind) and not whole)):
            return False
        expected = {"split": "texts", "count": "integers"}.get(name, "numbers")
        raise InputError(
            f"{self.path}: column '{name}' is of type {kind}; expected "
            f"{'item ids as texts, or positions as integers' if name in _POSITIONS else expected}."
        )

    def _require_clear(self) -> None:
        numbers = (row for row, name in enumerate(self._items) if name.removeprefix("-").isdecimal())
        if (row := next((row for row in numbers if self._items[row] != str(row)), None)) is not None:
            raise InputError(
                f"{self.path}: integers in 'first' and 'second' may be ids of items or positions, since the item "
                f"at position {row} has the id {self._items[row]!r}. Add "
                '`ids="names"` or `ids="positions"`.'
            )

    # Values

    def _block(self, columns: dict[str, Any], where: Where) -> PairBlock:
        with self._readable():
            numbers = {name: as_tensor(self._numbers(name, column, where)) for name, column in columns.items()}
        block = checked(numbers, where, lambda name, row: repr(columns[name][row].as_py()))
        require_items(block, len(self._items), where)
        return block

    def _is_test(self, column: Any, numbers: Mask) -> Mask:
        """Whether the split of a row is test; an empty split is train."""
        with self._readable():
            codes, texts = self._coded(column)
            names = texts.to_pylist()
        for code, name in enumerate(names):
            if name not in (*SPLITS, "", None):
                where = self.where(numbers, int(np.argmax(codes == code)))
                raise InputError(f"{where}: 'split' is {name!r}; expected one of {', '.join(SPLITS)}.")
        test: Mask = np.array([name == "test" for name in (*names, None)])[codes]
        return test

    def _numbers(self, name: str, column: Any, where: Where) -> Mask:
        """A column as numbers, ids as positions."""
        text = _of_texts(column.type)
        if column.null_count and name in ("weight", "count"):
            column = column.fill_null("1" if text else 1)
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(f"{where(row)}: '{name}' is empty. Fill it in.")
        if name in _POSITIONS and (text or self._names_only):
            return self._positions(name, column, where)
        if text:
            return np.array([_number(value) for value in column.to_pylist()])
        found: Mask = column.to_numpy(zero_copy_only=False)
        return found

    def _positions(self, name: str, column: Any, where: Where) -> Mask:
        """Ids as positions of items, int32 [pairs]."""
        codes, names = self._coded(column)
        seen = self._seen.get(name)
        if seen is None or not seen[0].equals(names):  # batches of a row group share their dictionary
            places = pyarrow.compute.index_in(names, self._known)
            if places.null_count:  # perhaps equal in another normal form
                in_one_form = (pyarrow.compute.utf8_normalize(each, form="NFC") for each in (names, self._known))
                places = pyarrow.compute.coalesce(places, pyarrow.compute.index_in(*in_one_form)).fill_null(-1)
            seen = self._seen[name] = (names, places.to_numpy(zero_copy_only=False).astype(np.int32))
        found: Mask = seen[1][codes]
        if (found < 0).any():
            row = int(np.argmax(found < 0))
            text = str(column[row].as_py())
            near = get_close_matches(text, self._items, n=1, cutoff=0.3) or list(self._items[:1]) or ["none"]
            is_position = text.isdecimal() and int(text) < len(self._items)
            hint = ' If it is a position, add `ids="positions"`.' if is_position else ""
            raise InputError(
                f"{where(row)}: '{name}' is {text!r}, which is no item; expected an id such as {near[0]!r}. Correct it "
                f"or load the item.{hint}"
            )
        return found

    def _coded(self, column: Any) -> tuple[Mask, Any]:
        """Codes of a column of texts, −1 where it is empty, and the texts by code."""
        coded = column if isinstance(column, pyarrow.DictionaryArray) else column.dictionary_encode()
        indices = coded.indices.fill_null(-1) if coded.null_count else coded.indices
        codes, texts = indices.to_numpy(), coded.dictionary.cast(pyarrow.string())
        if len(codes) and not -1 <= codes.min() <= codes.max() < len(texts):
            raise InputError(f"{self.path} is no whole Parquet file: a text is not in its dictionary. Write it again.")
        return codes, texts


def is_parquet(path: str | Path | None) -> bool:
    return path is not None and Path(path).suffix == ".parquet"


def _csv_batches(path: Path) -> Iterator[tuple[dict[str, Any], Mask]]:
    """Columns of texts by name, None where empty, and the numbers of their lines; blank lines are left out."""
    columns: list[str] | None = None
    lines: list[int] = []
    rows: list[list[str | None]] = []
    index = 0  # columns before the first one with a name: the index of a data frame
    with opened_text(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                fields = [field.strip() for field in row]
                if not any(fields):
                    continue
                if columns is None:
                    index = next((place for place, name in enumerate(fields) if not _UNNAMED.fullmatch(name)), 0)
                    columns = fields
                    _chosen(columns[index:], path, "separated by commas")
                elif len(fields) != len(columns):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(fields)} fields; expected {len(columns)} "
                        f"({', '.join(columns)}). Correct the line."
                    )
                else:
                    lines.append(reader.line_num)
                    rows.append([field or None for field in fields[index:]])
                if columns and len(rows) == _READ:
                    yield _as_batch(columns[index:], rows, lines)
                    lines, rows = [], []
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: not CSV ({error}). Correct the line.") from None
    if columns is None:
        raise InputError(f"{path} is empty; expected a header {','.join(REQUIRED)} and one row per pair.")
    if rows:
        yield _as_batch(columns[index:], rows, lines)


def _as_batch(columns: list[str], rows: list[list[str | None]], lines: list[int]) -> tuple[dict[str, Any], Mask]:
    texts = zip(*rows, strict=True)
    batch = {name: pyarrow.array(column, pyarrow.string()) for name, column in zip(columns, texts, strict=True)}
    return batch, np.array(lines)


def _chosen(names: Sequence[str], path: Path, how: str = "") -> list[str]:
    """The columns of pairs among those of a file, in the order of `COLUMNS`."""
    names = [name for name in names if not _INDEX.fullmatch(name)]
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name or "one without a name" for name in names if name not in REQUIRED + OPTIONAL]
    if missing or unknown or len(set(names)) < len(names):
        raise InputError(
            f"{path}, header {', '.join(names)!r}: expected the columns {', '.join(REQUIRED)} and, optionally, "
            f"{', '.join(OPTIONAL)}, each once{how and ', '}{how}. Missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(unknown) or 'none'}."
        )
    return [name for name in (*REQUIRED, *OPTIONAL) if name in names]


def _of_texts(kind: Any) -> bool:
    value = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return bool(pyarrow.types.is_string(value) or pyarrow.types.is_large_string(value))


def _number(text: str) -> float:
    """The number `text` spells, NaN when it spells none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
