"""Tables written as result files, without a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow

from tracin_func.results.files.format import Sheet
from tracin_func.results.files.registry import format_of
from tracin_func.results.frame import texts


def write_table(path: Path | str, columns: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> Path:
    """Columns, of which `score` has the provenance `record`, in the format that the ending of `path` names."""
    arrays = {name: texts(each) if isinstance(next(iter(each), None), str) else each for name, each in columns.items()}
    table = pyarrow.table(arrays)
    return format_of(path).write(Path(path), Sheet("score", lambda: iter([table]), record=record))
