"""The protocol of a format of result files: how scores are written and read."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracin_func.files import real_path, require_writable
from tracin_func.results.files.origins import conflict_of, provenance_path, read_provenance

Json = Any
Column = dict[str, Json]
REMEDY = "Name a result file of tracin-func or of the same form."  # if a file cannot be read
Parts = tuple[str, str | None, str | None]


@dataclass(frozen=True)
class Sheet:
    """Scores to write.

    Args:
        column: name of the scores.
        blocks: a long table, at least one `pyarrow.Table`, all of one schema; see `results.frame.Frame.long`.
        rows: the same as scores by column by pair id; None if pairs are streamed.
        swapped: `ID2_ID1` by `ID1_ID2`, a key under which a merged file may have the pair.
        record: provenance of the scores; None if unknown.
    """

    column: str
    blocks: Callable[[], Iterator[Any]]
    rows: Callable[[], Mapping[str, Mapping[str, float]]] | None = None
    swapped: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Contents:
    """The contents of a result file, values of any JSON type.

    Args:
        pairs: ids, in the order of the file.
        columns: value by pair id of each column, in the order of the file.
        facts: value by pair id of each column about pairs that is no score; of several rows of a pair the last one.
        items: the two items of each pair, if the file has columns of them.
        names: the user's own id of each pair, if the file has a column of them.
        parts: score name, test pair and checkpoint of each column, if the file has columns of them.
    """

    pairs: list[str]
    columns: dict[str, Column]
    facts: dict[str, Column] = field(default_factory=dict)
    items: dict[str, tuple[str, str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Parts] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A format of result files.

    Args:
        name: its value of `format` and, after a dot, the ending of a file's name.
        label: its name in messages.
        write: writes a sheet to a path, atomically, with provenance beside it; returns the real path.
        read: returns the contents of a file, or raises InputError.
        columns: returns the names of the columns of the file at a real path, or raises InputError if scores cannot
            be written into the given ones.
    """

    name: str
    label: str
    write: Callable[[Path, Sheet], Path]
    read: Callable[[Path], Contents]
    columns: Callable[[Path, Collection[str]], Collection[str]]

    def check(self, path: str | Path, columns: Collection[str] = ()) -> None:
        """Raise now what `write` would raise after hours of computing; nothing on disk is changed.

        Args:
            path: the result file, which need not exist.
            columns: names of the columns that will be written.

        Raises:
            InputError: the file, or its provenance, does not have the right form.
            OutputError: it, or its folder, cannot be written or created.
        """
        path = real_path(path)
        require_writable(path)
        require_writable(provenance_path(path))
        read_provenance(path)
        self.columns(path, columns)

    def conflict(self, path: str | Path, embedded: bool) -> str | None:
        """Why results, of the `embedded` example or of other data, should not be written to `path`, or None.

        Raises:
            InputError: the file, or its provenance, does not have the right form.
        """
        path = real_path(path)
        return conflict_of(path, read_provenance(path), self.columns(path, ()), embedded)
