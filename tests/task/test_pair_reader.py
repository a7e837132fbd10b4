"""Files and arrays of pairs, read in blocks, against the same pairs in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

import tracin_func as ti
from tests.support.random_pairs import ITEMS, NAMES, table, write
from tracin_func.task.pair_table import PairBlocks, PairTable


def read(pairs: PairBlocks, size: int) -> ti.Pairs:
    """All blocks together, whose places are checked."""
    parts, at = [], 0
    for start, block in pairs.blocks(size):
        assert start == at
        assert 0 < len(block) <= size
        parts.append(block.pairs())
        at += len(block)
    assert at == len(pairs)
    columns = {
        name: None if getattr(parts[0], name) is None else torch.cat([getattr(part, name) for part in parts])
        for name in ("first", "second", "target", "weight", "margin", "count")
    }
    return ti.Pairs(**columns)


def require_equal(left: ti.Pairs, right: ti.Pairs) -> None:
    for name in ("first", "second", "target", "weight", "margin", "count"):
        mine, theirs = getattr(left, name), getattr(right, name)
        assert (mine is None) == (theirs is None), name
        assert mine is None or torch.equal(mine, theirs), name


class TestParquet:
    @pytest.mark.parametrize("ids", [True, False])
    @pytest.mark.parametrize("size", [1, 33, 10_000])
    def test_pairs_as_in_memory(self, ids: bool, size: int, tmp_path: Path) -> None:
        pairs = table(1000, weight=True, margin=True, count=True)
        found = PairTable(write(tmp_path / "p.parquet", pairs, ids=ids, rows=77), NAMES)
        require_equal(read(found, size), pairs)
        require_equal(read(found, size), pairs)

    def test_plain_and_dictionary_columns_of_texts(self, tmp_path: Path) -> None:
        pairs = table(500)
        texts = [NAMES[place] for place in pairs.first.tolist()]
        for kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())):
            path = write(tmp_path / "p.parquet", pairs, first=pyarrow.array(texts, pyarrow.string()).cast(kind))
            require_equal(read(PairTable(path, NAMES), 64), pairs)
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), path, use_dictionary=False, row_group_size=50)
        require_equal(read(PairTable(path, NAMES), 64), pairs)

    def test_only_training_rows_are_pairs(self, tmp_path: Path) -> None:
        pairs = table(600, weight=True)
        split = np.random.default_rng(1).choice(["train", "test", ""], 600).tolist()
        split[5] = None
        first = [NAMES[place] if name != "test" else "unknown" for place, name in zip(pairs.first, split, strict=True)]
        path = write(tmp_path / "p.parquet", pairs, split=split, first=first)
        mask = torch.tensor([name != "test" for name in split])
        require_equal(read(PairTable(path, NAMES), 50), pairs.select(mask))

    def test_empty_weights_and_counts_are_1(self, tmp_path: Path) -> None:
        path = write(tmp_path / "p.parquet", table(3), weight=[None, 2.0, None], count=[3, None, 1])
        found = read(PairTable(path, NAMES), 2)
        assert found.weight is not None
        assert (found.weight.tolist(), found.counts.tolist()) == ([1.0, 2.0, 1.0], [3, 1, 1])

    @pytest.mark.parametrize(
        ("column", "values", "message"),
        [
            ("first", ["item_01", "item_02", "itm_07"], "row 2: 'first' is 'itm_07', which is no item; .*'item_07'"),
            ("first", ["item_01", None, "item_07"], "row 1: 'first' is empty"),
            (
                "first",
                ["item_01", "item_02", "item_39"],
                "row 2: 'second' is 'item_39'; expected another item than 'first'",
            ),
            ("first", [1, 2, 40], "row 2: 'first' is 40; expected the position of an item, below 40"),
            ("first", [1, -2, 4], "row 1: 'first' is -2; expected the position of an item, 0 or more"),
            ("first", [1.5, 2.0, 3.0], "column 'first' is of type double; expected item ids as texts, or positions"),
            ("target", [1, 0, -1], "row 1: 'target' is 0; expected 1 .first above second. or -1"),
            ("target", [1, None, -1], "row 1: 'target' is empty"),
            ("target", ["1", "1", "-1"], "column 'target' is of type string; expected numbers"),
            ("weight", [1.0, -0.5, 1.0], "row 1: 'weight' is -0.5; expected a number, 0 or more"),
            ("weight", [1.0, 1.0, float("inf")], "row 2: 'weight' is inf; expected a number, 0 or more"),
            ("margin", [1.0, float("nan"), 1.0], "row 1: 'margin' is nan; expected a finite number"),
            ("margin", [1.0, None, 1.0], "row 1: 'margin' is empty"),
            ("count", [1, 2, 0], "row 2: 'count' is 0; expected an integer, 1 or more"),
            ("count", [1.0, 2.0, 3.0], "column 'count' is of type double; expected integers"),
            ("split", ["train", "train", "valid"], "row 2: 'split' is 'valid'; expected one of train, test"),
            ("split", ["test", "test", "test"], "has no training pair"),
            ("split", [1, 2, 3], "column 'split' is of type int64; expected texts"),
            (
                "angle",
                [1, 2, 3],
                "header 'first, .*': expected the columns first, second, target and, .* unknown: angle",
            ),
        ],
    )
    def test_what_does_not_fit_is_told_in_one_line(
        self, column: str, values: list[Any], message: str, tmp_path: Path
    ) -> None:
        pairs = ti.Pairs([1, 2, 3], [37, 38, 39], [1, 1, -1])
        path = write(tmp_path / "p.parquet", pairs, **{column: values})
        with pytest.raises(ti.InputError, match=message) as caught:
            read(PairTable(path, NAMES), 2)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_rows_are_counted_over_the_whole_file(self, tmp_path: Path) -> None:
        pairs = table(300_000)
        path = write(tmp_path / "p.parquet", pairs, ids=False, rows=150_000)
        require_equal(read(PairTable(path, NAMES), 100_000), pairs)
        target = pairs.target.numpy().copy()
        target[290_123] = 3
        write(path, pairs, ids=False, rows=150_000, target=target)
        with pytest.raises(ti.InputError, match="row 290123: 'target' is 3"):
            read(PairTable(path, NAMES), 100_000)

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        path, folder = tmp_path / "p.parquet", tmp_path / "folder.parquet"
        folder.mkdir()
        with pytest.raises(ti.InputError, match="p.parquet cannot be read: "):
            PairTable(path, NAMES)
        with pytest.raises(ti.InputError, match="cannot be read: .*Expected a Parquet file"):
            PairTable(folder, NAMES)
        whole = write(path, table(1000)).read_bytes()
        for content in (b"", b"no Parquet", whole[: len(whole) // 2]):
            path.write_bytes(content)
            with pytest.raises(ti.InputError, match="p.parquet is no whole Parquet file: .*Write it again") as caught:
                PairTable(path, NAMES)
            assert "\n" not in str(caught.value)
        path.write_bytes(whole[:100] + bytes(600) + whole[700:])
        with pytest.raises(ti.InputError, match="p.parquet "):
            read(PairTable(path, NAMES), 100)
        write(path, table(3).select(torch.zeros(0, dtype=torch.int64)))
        with pytest.raises(ti.InputError, match="has no training pair"):
            PairTable(path, NAMES)
        pyarrow.parquet.write_table(pyarrow.table({"first": NAMES, "target": [1] * ITEMS}), path)
        with pytest.raises(ti.InputError, match="Missing: second; unknown: none"):
            PairTable(path, NAMES)
        with pytest.raises(ti.InputError, match="two items have the id"):
            PairTable(path, ["a", "a"])


class TestArrays:
    def test_any_types_and_memory_mapped(self, tmp_path: Path) -> None:
        pairs = table(300)
        np.save(tmp_path / "first.npy", pairs.first.numpy().astype(">u2"))
        mapped = np.load(tmp_path / "first.npy", mmap_mode="r")
        found = PairTable(first=mapped, second=pairs.second.to(torch.uint8), target=pairs.target.double().tolist())
        require_equal(read(found, 70), pairs)

    def test_nothing_is_copied_whole(self) -> None:
        pairs = table(300)
        _, block = next(iter(PairTable(first=pairs.first, second=pairs.second.int(), target=pairs.target).blocks(100)))
        assert block.first.data_ptr() == pairs.first.data_ptr()
        assert block.target.data_ptr() == pairs.target.data_ptr()
        assert block.second.dtype == torch.int32
