"""Tables of pairs as data frames write them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import tracin_func as ti
from tests.support.cases.reference import Table

LETTER_IDS = [f"d{number}" for number in range(6)]
NUMBER_IDS = ["5", "4", "3", "2", "1", "0"]  # whole numbers as text, in another order than the positions


def write_parquet(path: Path, **columns: Any) -> Path:
    """Two pairs of `LETTER_IDS` in a Parquet file; `columns` replace or add to its own."""
    own: dict[str, Any] = {"first": ["d0", "d1"], "second": ["d1", "d2"], "target": [1, -1]}
    pq.write_table(pa.table(own | columns), path)
    return path


def read(path: Path, item_ids: list[str]) -> Table:
    """All pairs of the file, by position."""
    blocks = [block for _, block in ti.PairTable(path, item_ids).blocks(10)]
    first, second, target = (
        [int(value) for block in blocks for value in getattr(block, name)] for name in ("first", "second", "target")
    )
    return Table(first, second, target)
