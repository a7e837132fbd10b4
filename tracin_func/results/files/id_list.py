"""Lists of ids as files: text with a reason above each id, Parquet, or a mask of the training pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from tracin_func.errors import InputError, UsageError
from tracin_func.files import Content, locked, real_path, replace, require_writable
from tracin_func.results.frame import texts

LIST_FORMATS = AS_TEXT, AS_TABLE, AS_MASK = "text", "parquet", "mask"
_ENDINGS = {".parquet": AS_TABLE, ".npy": AS_MASK}
_HEAD = "# tracin-func exclude: "  # how a text file begins
_NAMES = ("id", "kind", "reason")


def write_ids(path: Path, form: str | None, head: str, rows: Sequence[Mapping[str, Any]], kept: Tensor) -> Path:
    """Write a list of ids, whole or not at all; a symbolic link is followed.

    Args:
        path: the file.
        form: `text`, `parquet` or `mask`; None for that of the ending.
        head: first line of a text file, in words.
        rows: the ids, with their facts by name.
        kept: whether each training pair is outside the list, [pairs].

    Raises:
        UsageError: the format is unknown. InputError: an id cannot be a line of text, or the path holds another
            kind of file. OutputError: it could not be written. The old file is unchanged.
    """
    form = form or _ENDINGS.get(path.suffix.lower(), AS_TEXT)
    if form not in LIST_FORMATS:
        raise UsageError(f"`format` should be one of {', '.join(LIST_FORMATS)}. Got {form!r}.")
    contents: dict[str, Content] = {
        AS_TEXT: _text(head, rows) if form == AS_TEXT else "",
        AS_TABLE: lambda stream: _write_table(stream, rows),
        AS_MASK: lambda stream: np.save(stream, kept.numpy()),
    }
    path = real_path(path)
    require_writable(path, "output_file")
    with locked(path, 60.0):
        if path.exists() and not _is_list(path):
            raise InputError(
                f"`{path}` exists and is not a list that tracin-func has written. Name another file, or remove "
                "this one."
            )
        replace(path, [(path, contents[form])], "output_file")
    return path


def _is_list(path: Path) -> bool:
    """Whether a file is a list of ids, or a mask, in the form written here."""
    with path.open("rb") as stream:
        start = stream.read(len(_HEAD))
        stream.seek(0)
        if start.startswith(b"PAR1"):
            import pyarrow.parquet

            try:
                return bool(pyarrow.parquet.read_schema(stream).names[: len(_NAMES)] == [*_NAMES])
            except (OSError, pyarrow.ArrowException):
                return False
        if start.startswith(np.lib.format.MAGIC_PREFIX):
            try:
                found = np.load(stream, allow_pickle=False)
            except ValueError:
                return False
            return bool(found.dtype == bool and found.ndim == 1)
        return start in (_HEAD.encode(), b"")


def _text(head: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One id per line, the reason in a comment above it."""
    for row in rows:
        name = row["id"]
        if not name or name != name.strip() or name.startswith("#") or len(name.splitlines()) != 1:
            raise InputError(
                f"id {name!r} cannot be a line of a text file, where # begins a comment and spaces at the ends are "
                f'lost. Rename it, or set `format="{AS_TABLE}"`.'
            )
    lines = [f"{_HEAD}{head}", *(line for row in rows for line in (f"# {' '.join(row['reason'].split())}", row["id"]))]
    return "".join(f"{line}\n" for line in lines)


def _write_table(stream: BinaryIO, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    types = {"occurrences": pyarrow.int64(), "score": pyarrow.float64(), "total": pyarrow.float64()}
    columns = {name: texts([row[name] for row in rows]) for name in _NAMES}
    columns |= {name: pyarrow.array([row[name] for row in rows], kind) for name, kind in types.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
