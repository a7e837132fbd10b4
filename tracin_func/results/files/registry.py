"""The formats of result files. A new one is a module in this folder and a line below."""

from pathlib import Path

from tracin_func.errors import UsageError
from tracin_func.results.files.format import Format
from tracin_func.results.files.scores_csv import CSV
from tracin_func.results.files.scores_json import JSON
from tracin_func.results.files.scores_parquet import PARQUET

FORMATS: dict[str, Format] = {each.name: each for each in (JSON, CSV, PARQUET)}


def format_of(path: str | Path) -> Format:
    """The format by the ending of `path`; for a link that of the link, not of its target.

    Raises:
        UsageError: the ending is unknown.
    """
    found = FORMATS.get(Path(path).suffix.removeprefix(".").lower())
    if found is None:
        *others, last = (f".{name}" for name in FORMATS)
        raise UsageError(f"`path` should end in {', '.join(others)} or {last}. Got {path}.")
    return found
