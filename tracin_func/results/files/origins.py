"""The origin of the columns of a result file: `X.provenance.json` beside a file `X`.

    {"format": 1, "columns": {column: `Run.provenance`}}

A file and its provenance are two files, and the process may be killed between their writes. In any order of two writes
the first contradicts the old file of the second. Therefore there are three. Before the scores, a column of the file
gets both its old and its new origin (`other_origins`; null is unknown), and a missing one its new provenance, which
nothing contradicts. After the scores, each column gets its own.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError
from tracin_func.files import kind, read_object, real_path

Json = Any

EMBEDDED = "embedded"
FORMAT = 1
OTHER_ORIGINS = "other_origins"


def provenance_path(path: str | Path) -> Path:
    """The file beside `path` with the origin of its columns."""
    path = real_path(path)
    return path.with_name(f"{path.name}.provenance.json")


def read_provenance(path: Path) -> dict[str, Json]:
    """The record of the file at `path`, by column; {} if there is none.

    Raises:
        InputError: it does not have the form of a provenance file.
    """
    path = provenance_path(path)
    document = read_object(path, number=None)
    if not document:
        return {}
    columns = document.get("columns")
    if document.get("format") != FORMAT or not isinstance(columns, dict):
        raise InputError(
            f'`{path}` should be {{"format": {FORMAT}, "columns": {{...}}}}. Got format '
            f"{kind(document.get('format'))} with {kind(columns)} of columns. Use the version of tracin-func that "
            "wrote it, or move the file away; the scores are valid without it."
        )
    return columns


def provenance_document(columns: dict[str, Json]) -> Json:
    """The content of a provenance file; a column without a record is left out."""
    return {"format": FORMAT, "columns": {column: record for column, record in columns.items() if record}}


def origins(entry: Json) -> list[Json]:
    """All provenances that a column may have; [None], an unknown one, if nothing is recorded."""
    if not isinstance(entry, dict):
        return [None]
    own = {key: value for key, value in entry.items() if key != OTHER_ORIGINS}
    others = entry.get(OTHER_ORIGINS, [])
    return _distinct([*([own] if own else []), *(others if isinstance(others, list) else [None])]) or [None]


def claims(possible: list[Json], new: Json, mixed: bool) -> tuple[Json, Json]:
    """The records of a column before and after its scores are replaced; falsy for none.

    `possible` are the origins of the column in the file, `mixed` is whether some of its values remain.
    """
    either = _distinct([*possible, new])
    others = [origin for origin in possible if origin != new] if mixed else []
    before = new if either == [new] else {OTHER_ORIGINS: either}
    return before, new and (new | {OTHER_ORIGINS: others} if others else new)


def conflict_of(path: Path, notes: dict[str, Json], columns: Collection[str], embedded: bool) -> str | None:
    """Why results should not be written into a file with these columns, or None.

    Those of the `embedded` example are not written where a column is of other or unknown origin, those of other data
    not where a column is, in part, of the embedded example. An origin is embedded if its `source` is "embedded", or an
    object whose `kind` is.
    """
    step = "Set `metadata_dir` to another folder, or to this one to write there anyway."
    for column in columns:
        found = [_is_embedded(origin) for origin in origins(notes.get(column))]
        if embedded and not all(found):
            return f"`{path}` holds other scores ('{column}'); those of the synthetic example are kept apart. {step}"
        if not embedded and any(found):
            return f"`{path}` already holds scores of the synthetic example ('{column}'); yours are kept apart. {step}"
    return None


def _is_embedded(origin: Json) -> bool:
    source = origin.get("source") if isinstance(origin, dict) else None
    return (source.get("kind") if isinstance(source, dict) else source) == EMBEDDED


def _distinct(found: Sequence[Json]) -> list[Json]:
    return [origin for place, origin in enumerate(found) if origin not in found[:place]]
