"""Pairs in a Parquet file, read a batch of rows at a time and never whole."""

import contextlib
import difflib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tracin_func.errors import InputError
from tracin_func.files import pyarrow_module
from tracin_func.task.ids import NAMES, POSITIONS, as_texts, numeric_id, positions_hint, require_distinct, require_kind
from tracin_func.task.pair_table import COLUMNS, Mask, PairBlock, checked, require_items

REQUIRED = COLUMNS[:3]
OPTIONAL = (*COLUMNS[3:], "split")
SPLITS = ("train", "test")
_POSITIONS = REQUIRED[:2]
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls an index without a name
_READ = 1 << 18  # rows that are decoded at a time


class ParquetPairs:
    """Pairs of a Parquet file with the columns first, second, target[, weight, margin, count, split].

    `first` and `second` are item ids where they are texts, positions where they are whole numbers; `target` is 1 or −1.
    With a column `split` only the rows of the split asked for are pairs, numbered in their order; empty ones are of
    `train`, as are all without such a column. An empty weight or count is 1.

    Args:
        path: the file.
        item_ids: id of each item, [items].
        split: `train` or `test`; of `test` there may be none.
        ids: what `first` and `second` are, whatever their type: `names` of items (item ids) or `positions`.

    Raises:
        UsageError: pyarrow is not installed.
        InputError: whole numbers without `ids`, where item ids are other whole numbers: both may be meant. The file
            cannot be read, lacks a column, has one of a wrong type, or no training pair. Values are checked when they
            are read; the message names file, row and column.
    """

    def __init__(
        self, path: str | Path, item_ids: Sequence[str], split: str = "train", *, ids: str | None = None
    ) -> None:
        require_kind(ids)
        self._path, self._split = Path(path), split
        own = as_texts(item_ids, "item_ids")
        require_distinct(own, "item_ids")
        self._items = [str(row) for row in range(len(own))] if ids == POSITIONS else own  # as the file names them
        self._arrow = pyarrow_module("pyarrow", f"the table of pairs {self._path.name}")
        self._known = self._arrow.array(self._items, self._arrow.string())
        self._seen: dict[str, tuple[Any, Mask]] = {}
        self._texts: list[str] = []
        with self._opened() as file:
            schema = file.schema_arrow
            self._columns = _chosen_columns(schema.names, self._path)
            self._texts = [name for name in self._columns if self._is_text(name, schema.field(name).type)]
            self._named = [name for name in _POSITIONS if name in self._texts or ids == NAMES]
            self._length = int(file.metadata.num_rows) if split == "train" or "split" in self._columns else 0
        if len(self._named) < len(_POSITIONS) and ids is None:
            self._require_clear()
        if "split" in self._columns:
            self._length = sum(len(rows) for _, rows, _ in self._batches(["split"]))
        if not self._length and split == "train":
            raise InputError(
                f"{self._path} has no training pair; expected at least one row whose split is train. Add it."
            )

    def __len__(self) -> int:
        return self._length

    def blocks(self, size: int) -> Iterator[tuple[int, PairBlock]]:
        """Blocks of at most `size` pairs, see `PairBlocks`.

        Raises:
            InputError: a row that is no pair, or the file can no longer be read.
        """
        start = 0
        for offset, rows, batch in self._batches(self._columns) if self._length else ():
            names = [name for name in self._columns if name != "split"]
            with self._read():
                columns = {name: torch.from_numpy(self._numbers(name, batch, offset, rows)) for name in names}
            where = partial(self._where, offset, rows)
            whole = checked(columns, where)
            require_items(whole, len(self._items), where)
            for at in range(0, len(whole), size):
                yield start + at, whole.select(slice(at, at + size))
            start += len(whole)

    # Reading

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, open in the block."""
        with (
            self._read(),
            pyarrow_module("pyarrow.parquet").ParquetFile(self._path, read_dictionary=self._texts) as file,
        ):
            yield file

    @contextlib.contextmanager
    def _read(self) -> Iterator[None]:
        """What goes wrong with the file in the block is told in one line."""
        try:
            yield
        except (self._arrow.ArrowException, UnicodeDecodeError) as error:  # of names and ids that are not UTF-8
            reason = str(error).partition("\n")[0].rstrip(".")
            raise InputError(f"{self._path} is no whole Parquet file: {reason}. Write it again.") from error
        except OSError as error:
            reason = error.strerror or str(error).partition("\n")[0].rstrip(".")
            raise InputError(f"{self._path} cannot be read: {reason}. Expected a Parquet file of pairs.") from error

    def _batches(self, columns: list[str]) -> Iterator[tuple[int, Mask, Any]]:
        """Of each batch that holds a pair of the split: the file's row it starts at, the rows of these, itself."""
        offset = 0
        with self._opened() as file:
            for batch in file.iter_batches(_READ, columns=columns, use_threads=True):
                rows = np.arange(len(batch))
                if "split" in columns:
                    rows = np.flatnonzero(self._in_split(batch.column("split"), offset))
                if len(rows):
                    yield offset, rows, batch
                offset += len(batch)

    def _in_split(self, column: Any, offset: int) -> Mask:
        """Whether a row is of the split asked for; an empty one is of `train`."""
        codes, texts = self._coded(column)
        names = texts.to_pylist()
        meaning = np.array([(name or "train") == self._split for name in (*names, None)])
        for code, name in enumerate(names):
            if name not in (*SPLITS, "", None):
                row = int(np.argmax(codes == code))
                raise InputError(
                    f"{self._path}, row {offset + row}: `split` is {name!r}; expected one of {', '.join(SPLITS)}."
                )
        chosen: Mask = meaning[codes]
        return chosen

    def _numbers(self, name: str, batch: Any, offset: int, rows: Mask) -> Mask:
        """A column as numbers, of the training pairs alone; ids as positions."""
        column = batch.column(name)
        if name in self._named:
            found = self._positions(name, column, offset, rows)
        else:
            if column.null_count and name in ("weight", "count"):
                column = column.fill_null(1)
            if column.null_count and (missing := column.is_null().to_numpy(zero_copy_only=False)[rows]).any():
                raise self._empty(name, offset, rows, missing)
            if column.null_count:
                column = column.fill_null(0)
            found = column.to_numpy(zero_copy_only=False)
        chosen = found if len(rows) == len(batch) else found[rows]
        plain = np.dtype(np.int64) if chosen.dtype.kind == "u" else chosen.dtype
        return chosen.astype(plain, copy=not chosen.flags.writeable)  # torch warns about memory it may not write to

    def _positions(self, name: str, column: Any, offset: int, rows: Mask) -> Mask:
        """Ids as positions of items, int32 [rows of the batch]; −1 outside the training pairs where there is none."""
        codes, names = self._coded(column)
        seen = self._seen.get(name)
        if seen is None or not seen[0].equals(names):  # batches of a row group share their dictionary
            compute = pyarrow_module("pyarrow.compute")
            places = compute.index_in(names, self._known)
            if places.null_count:  # perhaps the same in another normal form
                in_one_form = (compute.utf8_normalize(each, form="NFC") for each in (names, self._known))
                places = compute.coalesce(places, compute.index_in(*in_one_form)).fill_null(-1)
            seen = self._seen[name] = (names, np.append(places.to_numpy(), -1).astype(np.int32))
        found: Mask = seen[1][codes]
        lost = found[rows] < 0
        if lost.any():
            row = int(rows[np.argmax(lost)])
            if column[row].as_py() is None:
                raise self._empty(name, offset, rows, lost)
            text = str(column[row].as_py())
            near = difflib.get_close_matches(text, self._items, n=1, cutoff=0.3) or list(self._items[:1])
            raise InputError(
                f"{self._path}, row {offset + row}: `{name}` is {text!r}, which is no item; expected an id such as "
                f"{next(iter(near), 'none')!r}. Correct it or load the item.{positions_hint(text, len(self._items))}"
            )
        return found

    def _coded(self, column: Any) -> tuple[Mask, Any]:
        """Codes of a column of texts, −1 where it is empty, and the texts they stand for."""
        coded = column if isinstance(column, self._arrow.DictionaryArray) else column.dictionary_encode()
        indices = coded.indices.fill_null(-1) if coded.null_count else coded.indices
        codes, texts = indices.to_numpy(), coded.dictionary.cast(self._arrow.string())
        if len(codes) and not -1 <= codes.min() <= codes.max() < len(texts):
            raise InputError(f"{self._path} is no whole Parquet file: a text is not in its dictionary. Write it again.")
        return codes, texts

    # Words

    def _require_clear(self) -> None:
        if (row := numeric_id(self._items)) is not None:
            raise InputError(
                f"{self._path}: whole numbers in `first` and `second` may be ids of items or positions, since the item "
                f"at position {row} has the id {self._items[row]!r}. Choose with --ids names or --ids positions (in "
                'Python ids="names" or ids="positions").'
            )

    def _is_text(self, name: str, kind: Any) -> bool:
        """Whether a column holds texts.

        Raises:
            InputError: it holds what such a column may not.
        """
        types = self._arrow.types
        value = kind.value_type if types.is_dictionary(kind) else kind
        text = types.is_string(value) or types.is_large_string(value)
        if text and name in (*_POSITIONS, "split"):
            return True
        whole = name in (*_POSITIONS, "count")
        if name != "split" and (types.is_integer(kind) or (types.is_floating(kind) and not whole)):
            return False
        expected = {"split": "texts", "count": "whole numbers"}.get(name, "numbers")
        raise InputError(
            f"{self._path}: column `{name}` is of type {kind}; expected "
            f"{'item ids as texts, or positions as whole numbers' if name in _POSITIONS else expected}."
        )

    def _where(self, offset: int, rows: Mask, row: int) -> str:
        return f"{self._path}, row {offset + int(rows[row])}"

    def _empty(self, name: str, offset: int, rows: Mask, missing: Mask) -> InputError:
        return InputError(f"{self._where(offset, rows, int(np.argmax(missing)))}: `{name}` is empty. Fill it in.")


def _chosen_columns(names: Sequence[str], path: Path) -> list[str]:
    names = [name for name in names if not _INDEX.fullmatch(name)]
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name for name in names if name not in REQUIRED + OPTIONAL]
    if missing or unknown or len(set(names)) < len(names):
        raise InputError(
            f"{path} has the columns {', '.join(names) or 'none'}: expected {', '.join(REQUIRED)} and, at choice, "
            f"{', '.join(OPTIONAL)}, each once. Missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(unknown) or 'none'}."
        )
    return [name for name in (*REQUIRED, *OPTIONAL) if name in names]
