"""Tables of scores on real files: every digit is read back, and no kill or full disk harms what was there."""

import csv
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from tests.support.places import ROOT
from tests.support.result_files import write_table
from tracin_func.errors import InputError, OutputError, UsageError
from tracin_func.results.files.origins import provenance_path
from tracin_func.results.files.registry import format_of

SUFFIXES = [".csv", ".parquet"]
COLUMNS: dict[str, Any] = {
    "pair": ["a_b", 'say "a,b"\n', "角度_\udcff", "a_b"],
    "score": [0.1 + 0.2, -5e-324, 1.7976931348623157e308, -0.0],
    "loss": [1 / 3, None, math.inf, 1e-5],
    "count": [1, 2**62, -3, 0],
    "active": [True, False, True, None],
    "nothing": [None] * 4,
}
RECORD = {"source": {"kind": "tones"}, "sign": "larger = harder", "unit": "loss change"}
EMBEDDED = {"source": {"kind": "embedded"}}

# writes generation 2 where generation 1 is, and ends before the `sys.argv[2]`-th time a file takes its place
KILLED = """
import os, signal, sys
from tests.support.result_files import write_table
left, put = int(sys.argv[2]), os.replace
def replace(*paths):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    put(*paths)
os.replace = replace
write_table(sys.argv[1], {"score": [2.0] * 1000}, {"generation": 2})
"""
FULL_DISK = """
import random, resource, sys
from tracin_func.errors import OutputError
from tests.support.result_files import write_table
resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
try:
    scores = [random.random() for _ in range(20000)]
    write_table(sys.argv[1], {"score": scores}, {"generation": 2})
except OutputError as error:
    print(error)
"""


def read(path: Path) -> dict[str, list[Any]]:
    """A table as Python values; of CSV the texts of its cells."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pydict()
    with open(path, encoding="utf-8", newline="") as stream:
        heading, *rows = csv.reader(stream)
    return {name: [row[column] for row in rows] for column, name in enumerate(heading)}


def notes(path: Path) -> Any:
    return json.loads(provenance_path(path).read_text(encoding="utf-8"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".lock"}


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


class TestWhatIsReadBack:
    def test_csv_to_the_last_bit(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "x.csv", COLUMNS)
        table = read(path)
        assert list(table) == list(COLUMNS)
        assert [float(cell).hex() for cell in table["score"]] == [value.hex() for value in COLUMNS["score"]]
        assert [cell and float(cell) for cell in table["loss"]] == [1 / 3, "", math.inf, 1e-5]
        assert [int(cell) for cell in table["count"]] == COLUMNS["count"]
        assert table["active"] == ["true", "false", "true", ""]
        assert table["nothing"] == [""] * 4
        assert table["pair"] == ["a_b", 'say "a,b"\n', "角度_\\udcff", "a_b"]
        assert path.read_bytes().count(b"\r") == 0

    def test_parquet_to_the_last_bit(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "x.parquet", COLUMNS, RECORD | {"sign": "σ"})
        table = read(path)
        assert [value.hex() for value in table.pop("score")] == [value.hex() for value in COLUMNS["score"]]
        assert table == {name: COLUMNS[name] for name in table} | {
            "pair": ["a_b", 'say "a,b"\n', "角度_\\udcff", "a_b"]
        }
        schema = pyarrow.parquet.read_schema(path)
        types = [str(field.type).partition("<")[0] for field in schema]
        assert types == ["dictionary", "double", "double", "int64", "bool", "null"]
        assert schema.metadata[b"sign"] == "σ".encode()
        document = {"format": 1, "columns": {"score": RECORD | {"sign": "σ"}}}
        assert json.loads(schema.metadata[b"provenance"]) == document == notes(path)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_columns_may_be_arrays_and_tables_empty(self, suffix: str, tmp_path: Path) -> None:
        single = np.array([0.1, 0.2], dtype=np.float32)
        found = read(write_table(tmp_path / f"x{suffix}", {"x": single}))["x"]
        assert [float(value) for value in found] == single.tolist()
        assert read(write_table(tmp_path / f"x{suffix}", {"pair": [], "x": []})) == {"pair": [], "x": []}

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_table_is_replaced_through_a_link(self, suffix: str, tmp_path: Path) -> None:
        real, link = tmp_path / "real.data", tmp_path / f"x{suffix}"
        real.write_text("before")
        real.chmod(0o640)
        link.symlink_to(real)
        assert write_table(link, {"x": [1]}) == real
        assert link.is_symlink()
        assert real.stat().st_mode & 0o777 == 0o640
        assert [int(value) for value in read(link)["x"]] == [1]


class TestFaults:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("moment", [1, 2, 3])
    def test_killed_before_a_file_takes_its_place(self, suffix: str, moment: int, tmp_path: Path) -> None:
        path = write_table(tmp_path / f"x{suffix}", {"score": [1.0] * 1000}, {"generation": 1})
        old = path.read_bytes()
        assert run(KILLED, path, moment).returncode == -signal.SIGKILL
        assert (path.read_bytes() == old) == (moment < 3)
        assert {float(value) for value in read(path)["score"]} == {1.0 if moment < 3 else 2.0}
        either = {"other_origins": [{"generation": 1}, {"generation": 2}]}
        assert notes(path)["columns"] == {"score": {"generation": 1} if moment == 1 else either}
        assert list(tmp_path.glob(".*.tmp"))
        write_table(path, {"score": [3.0]}, {"generation": 3})
        assert notes(path)["columns"] == {"score": {"generation": 3}}
        assert not list(tmp_path.glob(".*.tmp"))

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_full_disk(self, suffix: str, tmp_path: Path) -> None:
        path = write_table(tmp_path / f"x{suffix}", {"score": [1.0]}, {"generation": 1})
        before = snapshot(tmp_path)
        result = run(FULL_DISK, path)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        assert result.stdout.startswith(f"`{path}` could not be written: File too large. Its former content")
        assert snapshot(tmp_path) == before

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_what_cannot_be_written(self, suffix: str, tmp_path: Path) -> None:
        file, read_only = tmp_path / "file", tmp_path / f"read_only{suffix}"
        file.write_text("")
        read_only.write_text("")
        read_only.chmod(0o444)
        folder = tmp_path / f"folder{suffix}"
        folder.mkdir()
        before = sorted(tmp_path.iterdir())
        for path, message in [
            (file / f"x{suffix}", "file` is not a folder"),
            (read_only, "is read-only"),
            (folder, "is a folder or a device"),
        ]:
            for call in (format_of("x.csv").check, lambda place: write_table(place, {"x": [1]})):
                with pytest.raises(OutputError, match=message):
                    call(path)
        assert sorted(tmp_path.iterdir()) == before

    def test_check_makes_no_folder(self, tmp_path: Path) -> None:
        format_of("x.csv").check(tmp_path / "new" / "x.csv")
        assert not list(tmp_path.iterdir())

    def test_a_provenance_file_of_another_kind(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        provenance_path(path).write_text('{"format": 2}')
        for call in (format_of("x.csv").check, lambda place: write_table(place, {"x": [1]})):
            with pytest.raises(InputError, match="x.csv.provenance.json` should be"):
                call(path)

    def test_endings(self) -> None:
        assert [format_of(f"x.{name}").label for name in ("json", "csv", "PARQUET")] == ["JSON", "CSV", "Parquet"]
        with pytest.raises(UsageError, match="should end in .json, .csv or .parquet. Got x.xlsx"):
            format_of("x.xlsx")


def test_embedded_and_own_results_do_not_take_each_others_place(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    conflict = format_of(path).conflict
    assert conflict(path, True) is None
    write_table(path, {"score": [1.0]}, EMBEDDED)
    assert conflict(path, True) is None
    assert "already holds scores of the synthetic example ('score')" in str(conflict(path, False))
    write_table(path, {"score": [1.0]}, RECORD)
    assert conflict(path, False) is None
    assert "holds other scores ('score')" in str(conflict(path, True))
    write_table(path, {"score": [1.0]})
    assert conflict(path, False) is None
    assert "holds other scores ('a column')" in str(conflict(path, True))


def test_rows_of_csv_are_counted_on_from_piece_to_piece(tmp_path: Path) -> None:
    rows = "".join(f"a_{row},{row}\n\n" for row in range(10_001))
    path = tmp_path / "x.csv"
    path.write_text(f"pair,mine\n{rows}")
    found = format_of(path).read(path)
    assert list(found.columns["mine"].values()) == list(range(10_001))
    path.write_text(f"pair,mine\n{rows}short\n")
    with pytest.raises(InputError, match="row 10003 should have 2 cells"):
        format_of(path).read(path)
    path.write_text(f"pair,mine\n{rows}a_5,text\n")
    with pytest.raises(InputError, match=r"'mine' of pair 'a_5' a second time \(row 10003\)"):
        format_of(path).read(path)
