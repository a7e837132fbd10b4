"""What a format of result files is: how scores are written and read; `registry` lists the formats."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = Any
Column = dict[str, Json]
REMEDY = "Fix: name a result file of tracin-func or of the same form."  # where a file is read
Parts = tuple[str, str | None, str | None]


@dataclass(frozen=True)
class Sheet:
    """Scores to write.

    Args:
        column: name of the scores.
        blocks: a long table, at least one `pyarrow.Table`, all of one schema; see `results.frame.Frame.long`.
        rows: the same as scores by column by pair id; None where pairs are streamed.
        swapped: `ID2_ID1` by `ID1_ID2`, a key under which a merged file may know the pair.
        record: provenance of the scores; None where it is unknown.
    """

    column: str
    blocks: Callable[[], Iterator[Any]]
    rows: Callable[[], Mapping[str, Mapping[str, float]]] | None = None
    swapped: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Contents:
    """What a result file holds, values of any JSON type.

    Args:
        pairs: ids, in the order of the file.
        columns: value by pair id of each column, in the order of the file.
        facts: names of columns that say more about a pair than its scores.
        items: the two items of each pair, where the file has them in columns of their own.
        parts: score name, test pair and checkpoint of each column, where the file has these in columns of their own.
    """

    pairs: list[str]
    columns: dict[str, Column]
    facts: list[str] = field(default_factory=list)
    items: dict[str, tuple[str, str]] = field(default_factory=dict)
    parts: dict[str, Parts] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A format of result files.

    Args:
        name: the word of `--format` and, after a dot, the ending of a file's name.
        label: what messages call it.
        write: write a sheet to a path, atomically, with provenance beside it; returns the real path.
        read: the contents of a file, or an InputError.
        check: raise what `write` would raise, before hours of computing; takes the path and the names of columns.
        conflict: why results, of the embedded example or not, should not be written to a path; None where they may.
    """

    name: str
    label: str
    write: Callable[[Path, Sheet], Path]
    read: Callable[[Path], Contents]
    check: Callable[[Path, Collection[str]], None]
    conflict: Callable[[Path, bool], str | None]
