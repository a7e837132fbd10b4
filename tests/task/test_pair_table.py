"""Tables of pairs in files and arrays: the same pairs, block by block, from whatever holds them."""

from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

import tracin_func as ti
from tracin_func.task.pair_files import read_pairs
from tracin_func.task.pair_table import PairBlocks
from tracin_func.task.pairs import COLUMNS

IDS = [f"item {position}" for position in range(5)]
ROWS = {
    "first": [0, 3, 2, 4],
    "second": [1, 0, 4, 1],
    "target": [1, -1, -1, 1],
    "weight": [0.5, 0.75, 0.0, 2.0],
    "margin": [0.1, -3.0, 1.0, 0.0],
    "count": [1, 2, 1, 7],
}
SPLIT = ["train", "test", "train", "train"]


def columns_of(pairs: PairBlocks, size: int) -> dict[str, list[float]]:
    blocks = [block for _, block in pairs.blocks(size)]
    assert [start for start, _ in pairs.blocks(size)] == list(range(0, len(pairs), size))
    return {name: torch.cat([getattr(block, name) for block in blocks]).tolist() for name in COLUMNS}


def written(folder: Path, ending: str) -> Path:
    """A file of `ROWS` by item id, with a split."""
    named = {name: [IDS[place] for place in ROWS[name]] for name in ("first", "second")}
    table, path = pyarrow.table(ROWS | named | {"split": SPLIT}), folder / f"pairs.{ending}"
    (pyarrow.parquet.write_table if ending == "parquet" else pyarrow.csv.write_csv)(table, path)
    return path


@pytest.mark.parametrize("size", [1, 2, 10])
def test_pairs_are_the_same_whatever_holds_them(size: int) -> None:
    assert columns_of(ti.Pairs(**ROWS), size) == columns_of(ti.PairTable(**ROWS), size) == ROWS


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_a_file(ending: str, split: str, tmp_path: Path) -> None:
    path = written(tmp_path, ending)
    found = ti.PairTable(path, IDS, split)
    rows = [row for row, name in enumerate(SPLIT) if name == split]
    chosen = {name: [column[row] for row in rows] for name, column in ROWS.items()}
    assert len(found) == len(rows)
    assert columns_of(found, 2) == chosen
    held = read_pairs(path, IDS)[SPLIT.index(split)]
    assert held is not None
    assert columns_of(held, 2) == chosen


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_takes_the_ids_of_a_task(ending: str, tmp_path: Path) -> None:
    table = ti.PairTable(written(tmp_path, ending))
    with pytest.raises(ti.UsageError, match="pairs.* needs the ids of items"):
        len(table)
    assert columns_of(table.over(IDS), 3)["first"] == [0, 2, 4]
    with pytest.raises(ti.InputError, match="'first' is 'item 4', which is no item; expected an id such as '"):
        columns_of(table.over(IDS[:4]), 3)


def test_a_file_or_arrays() -> None:
    for wrong in (
        {},
        {"path": "pairs.csv", **ROWS},
        {"first": [0], "second": [1]},
        {"path": "pairs.csv", "count": [1]},
    ):
        with pytest.raises(ti.UsageError, match="a PairTable needs a path, or 'first', 'second' and 'target'"):
            ti.PairTable(**wrong)  # type: ignore[arg-type]


def test_a_csv_file_is_no_text_far_into_it(tmp_path: Path) -> None:
    """The byte is counted over the blocks that are decoded."""
    path = tmp_path / "pairs.csv"
    lines = b"first,second,target\n" + b"item 0,item 1,1\n" * 5000
    path.write_bytes(lines + "flöte,item 1,1\n".encode("latin-1"))
    with pytest.raises(ti.InputError, match=rf"pairs.csv is not UTF-8 text \(byte {len(lines) + 2}\)"):
        ti.PairTable(path, IDS)
