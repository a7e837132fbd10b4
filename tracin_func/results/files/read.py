"""Result files read for display, by whatever program written.

Every value of a column is kept, even if it is not a number. A score of a long table becomes the column that a JSON file
would have, `tracin_influence_TE1_TE2`.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracin_func.errors import InputError
from tracin_func.files import read_object
from tracin_func.results.files.format import REMEDY, Column, Contents
from tracin_func.results.files.origins import OTHER_ORIGINS, provenance_path
from tracin_func.results.files.registry import FORMATS
from tracin_func.results.files.scores_json import JSON
from tracin_func.results.names import STANDARD_ERROR
from tracin_func.results.views import number

_RECORD = ".provenance.json"


@dataclass(frozen=True, kw_only=True)
class ResultFile(Contents):
    """A result file; its `columns` are those of scores.

    Args:
        path: as given.
        format: label of its format, such as `JSON`.
        errors: value by pair id of each column of standard errors, by the name of the scores.
        others: names of columns without numbers, and of columns that are not scores.
        origins: provenance by column, if recorded.
        fault: why the provenance cannot be read, or None.
    """

    path: Path
    format: str
    errors: dict[str, Column]
    others: tuple[str, ...]
    origins: dict[str, dict[str, Any]]
    fault: str | None

    def origin(self, column: str) -> dict[str, Any] | None:
        """The provenance of a column; in a long table one record may cover all test pairs."""
        names = [name for name in self.origins if column == name or column.startswith(f"{name}_")]
        return self.origins[max(names, key=len)] if names else None


def read_result(path: Path) -> ResultFile:
    """The file at `path`, in the format of its ending, JSON if the ending is unknown.

    Raises:
        InputError: the file is not found, cannot be read, or is not a result file.
    """
    _require_file(path)
    form = FORMATS.get(path.suffix.removeprefix(".").lower(), JSON)
    found = form.read(path)
    start = f"{STANDARD_ERROR}_"
    errors = {name.removeprefix(start): column for name, column in found.columns.items() if name.startswith(start)}
    scores = {
        name: column
        for name, column in found.columns.items()
        if not name.startswith(STANDARD_ERROR) and any(number(value) is not None for value in column.values())
    }
    if not scores:
        raise InputError(f"`{path}` holds no scores: no column with a number among {len(found.pairs)} pairs. {REMEDY}")
    unlisted = start if found.parts else None  # of a long table, whose facts list it already
    others = [name for name in found.columns if name not in scores and not (unlisted and name.startswith(unlisted))]
    origins, fault = _read_origins(path)
    own = {"path": path, "format": form.label, "errors": errors, "others": (*found.facts, *others)}
    return ResultFile(**vars(found) | {"columns": scores} | own, origins=origins, fault=fault)


def other_origins(origin: Mapping[str, Any]) -> int:
    """The number of other runs whose values remain in a column."""
    others = origin.get(OTHER_ORIGINS)
    return len(others) if isinstance(others, list) else 0


def recorded_classes(origin: Mapping[str, Any], items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The class of each item: the only recorded class that is a part of its id, as in `box_deg036_500hz_04`."""
    source = origin.get("source")
    names = source.get("classes") if isinstance(source, dict) else None
    names = set(map(str, names)) if isinstance(names, list) else set()
    found = {item: [part for part in item.split("_") if part in names] for both in items for item in both}
    return {item: parts[0] for item, parts in found.items() if len(parts) == 1}


# What is around the scores


def _require_file(path: Path) -> None:
    if path.name.endswith(_RECORD):
        raise InputError(
            f"`{path}` holds provenance, not scores. Name the result file, {path.name.removesuffix(_RECORD)}."
        )
    try:
        is_folder, is_there = path.is_dir(), path.exists()
        folder = path if is_folder else path.parent
        present = sorted(each.name for each in folder.iterdir() if _may_be_result(each)) if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}. {REMEDY}") from error
    if is_there and not is_folder:
        return
    near = present if is_folder else difflib.get_close_matches(path.name, present, n=3, cutoff=0.4) or present
    available = f"Available: {', '.join(near[:3])}{', …' if len(near) > 3 else ''}. " if near else ""
    what = "this is a folder" if is_folder else "file not found"
    raise InputError(f"`{path}`: {what}. {available}{REMEDY}")


def _may_be_result(path: Path) -> bool:
    return (
        path.suffix.removeprefix(".") in FORMATS and not path.name.endswith(_RECORD) and not path.name.startswith(".")
    )


def _read_origins(path: Path) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Provenance by column, and why it cannot be read: the scores are shown all the same."""
    try:
        record = provenance_path(path)
        document = read_object(record, number=None, remedy="The scores are valid without it.")
    except (InputError, OSError) as error:
        return {}, str(error)
    columns = document.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(origin, dict) for origin in columns.values()):
        return {}, f"`{record}` does not have the form of provenance. The scores are valid without it."
    return columns, None
