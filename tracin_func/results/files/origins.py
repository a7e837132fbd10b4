"""Where the columns of a result file come from: `X.provenance.json` beside a file `X`.

    {"format": 1, "columns": {column: what `tracin_func.provenance` records}}

A file and its provenance are two files, and a kill may fall between them; no order of two writes is right, since
the first to be replaced contradicts the other. So there are three. Before the scores, a column the file holds is
said to be of its old or of its new origin (`other_origins`; null is an unknown one), and one it lacks gets its new
provenance, which nothing contradicts. After the scores, each has its own.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError
from tracin_func.files import kind, read_object, real_path

Json = Any

EMBEDDED = "embedded"
FORMAT = 1
OTHER_ORIGINS = "other_origins"


def provenance_path(path: str | Path) -> Path:
    """The file beside `path` that says where its columns come from."""
    path = real_path(path)
    return path.with_name(f"{path.name}.provenance.json")


def read_provenance(path: Path) -> dict[str, Json]:
    """What is recorded of the file at `path`, by column; {} where nothing is.

    Raises:
        InputError: it is not what a provenance file should be.
    """
    path = provenance_path(path)
    document = read_object(path, number=None)
    if not document:
        return {}
    columns = document.get("columns")
    if document.get("format") != FORMAT or not isinstance(columns, dict):
        raise InputError(
            f'`{path}` should be {{"format": {FORMAT}, "columns": {{...}}}}. Got format '
            f"{kind(document.get('format'))} with {kind(columns)} of columns. Fix: use the version of "
            "tracin-func that wrote it, or move the file away; the scores stand without it."
        )
    return columns


def provenance_document(columns: dict[str, Json]) -> Json:
    """What a provenance file holds; a column without a record is left out."""
    return {"format": FORMAT, "columns": {column: record for column, record in columns.items() if record}}


def origins(entry: Json) -> list[Json]:
    """All the provenances a column may have; [None], an unknown one, where nothing is recorded."""
    if not isinstance(entry, dict):
        return [None]
    own = {key: value for key, value in entry.items() if key != OTHER_ORIGINS}
    others = entry.get(OTHER_ORIGINS, [])
    return _distinct([*([own] if own else []), *(others if isinstance(others, list) else [None])]) or [None]


def claims(possible: list[Json], new: Json, mixed: bool) -> tuple[Json, Json]:
    """What to record of a column before its scores are replaced, and after; falsy for nothing.

    `possible` are the origins of what the file holds, `mixed` whether some of that stays in the column.
    """
    either = _distinct([*possible, new])
    others = [origin for origin in possible if origin != new] if mixed else []
    before = new if either == [new] else {OTHER_ORIGINS: either}
    return before, new and (new | {OTHER_ORIGINS: others} if others else new)


def embedded_conflict_in(path: Path, notes: dict[str, Json], columns: Collection[str]) -> str | None:
    """Why embedded results should not go into a file with these columns: one is of other or unknown origin."""
    column = _first(columns, notes, lambda found: not all(map(_is_embedded, found)))
    if column is None:
        return None
    return (
        f"`{path}` holds `{column}`, which was not computed from the embedded data; results of "
        "the embedded data are not written there. Fix: name another folder with --metadata-dir (or "
        "this one, to write there all the same), or score your own data with --data-root and "
        "--checkpoint-dir."
    )


def own_conflict_in(path: Path, notes: dict[str, Json], columns: Collection[str]) -> str | None:
    """Why results of the user's own should not: one is, in part, of embedded origin. An unknown one is no conflict."""
    column = _first(columns, notes, lambda found: any(map(_is_embedded, found)))
    if column is None:
        return None
    return (
        f"`{path}` holds `{column}`, which was computed from the embedded, synthetic data; your own results are not "
        "written there. Fix: name another folder with --metadata-dir (or this one, to write there all the same), or "
        "remove the file."
    )


def _first(columns: Collection[str], notes: dict[str, Json], chosen: Callable[[list[Json]], bool]) -> str | None:
    """The first of the columns whose origins are `chosen`."""
    return next((column for column in columns if chosen(origins(notes.get(column)))), None)


def _is_embedded(origin: Json) -> bool:
    source = origin.get("source") if isinstance(origin, dict) else None
    return (source.get("kind") if isinstance(source, dict) else source) == EMBEDDED


def _distinct(found: Sequence[Json]) -> list[Json]:
    return [origin for place, origin in enumerate(found) if origin not in found[:place]]
