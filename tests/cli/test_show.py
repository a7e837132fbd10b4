"""`tracin-func show` on files of the lab, of our own commands and of neither: what it says, and what it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.lab import Lab
from tests.support.lab import run as run_job
from tests.support.places import DATA
from tracin_func.cli.app import app

SELF, INFLUENCE = "tracin_self_influence", "tracin_influence_plastic_deg072_1000hz_01_plastic_deg000_1000hz_01"
SCORED = {"a_deg036_b_deg000": {"x": 1.5, "y": 2}, "a_deg072_b_deg000": {"x": -3.0}}
NUMBER = r"(?<!\S)[-+]?[\d,]+\.?\d*(?:e-\d+)?(?!\S)"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with copies of the lab's excerpts."""
    for path in DATA.glob("plastic_*_metadata.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


def show(path: Path | str, *more: str) -> str:
    """What is printed of a file."""
    result = CliRunner().invoke(app, ["show", str(path), *more])
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return result.stdout


def document(path: Path | str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(show(path, "--json", *more))
    return found


def error_of(code: int, path: Path | str, *more: str) -> str:
    """The one line of a mistake."""
    result = CliRunner().invoke(app, ["show", str(path), *more])
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def written(folder: Path, text: str, name: str = "scores.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# Files of the lab


def test_flags_stand_before_the_table_and_the_table_before_the_histogram(files: Path) -> None:
    stdout = show(files / "plastic_1000hz_runs_metadata.json")
    places = [stdout.index(words) for words in ("no provenance", "! constant runs", "score\n", "scores: min 0", "█")]
    assert places == sorted(places)
    stdout = " ".join(stdout.split())
    assert "22 pairs are in 5 runs of 3 or more consecutive identical scores" in stdout
    assert "6 times from plastic_deg180_1000hz_04_plastic_deg072_1000hz_03 on" in stdout
    assert "averages over a batch" in stdout
    assert "1 more column: --column all" in stdout
    rows = re.findall(r" (\d+) plastic_(\S+) plastic_(\S+) ([\d,]+)", stdout)
    assert [rank for rank, *_ in rows] == [str(rank) for rank in range(1, 11)]
    assert rows[0][3] == "1,641"


def test_nested_values_and_the_two_ends_of_influence(files: Path) -> None:
    found = document(files / "plastic_1000hz_metadata.json", "--column", "deg072_1000hz_01", "--top", "1")
    assert found["shown"] == [INFLUENCE]
    assert found["provenance"] == {INFLUENCE: None}
    assert [row["score"] for row in found["rows"]] == [84.45858273764216, -99.61194140190071]
    stdout = show(files / "plastic_1000hz_metadata.json", "--column", INFLUENCE)
    assert "Positive: lowered its loss; negative: raised its loss." in stdout
    assert re.search(r"proponents +plastic_\S+ +plastic_\S+ +\+84\.5\n", stdout)
    assert re.search(r"opponents +plastic_deg180_1000hz_08 +plastic_deg036_1000hz_04 +-99\.6\n", stdout)


def test_several_columns_are_an_overview_and_zero_columns_are_told(files: Path) -> None:
    stdout = show(files / "plastic_500hz_influence_metadata.json")
    assert "! zero column: 3 of 5 columns." in stdout
    assert "5 columns; each name begins with tracin_influence_" in stdout
    assert stdout.count("100%") == 3
    assert "█" not in stdout
    found = document(files / "plastic_500hz_influence_metadata.json")
    assert [row["zero_share"] for row in found["rows"]] == [1, 1, 0, 0, 1]
    assert [flag["kind"] for flag in found["flags"]] == ["zero column"] * 3
    order = document(files / "plastic_500hz_influence_metadata.json", "--sort", "abs")["rows"]
    assert [row["mean"] for row in order][2:] == [0, 0, 0]


def test_views_sum_the_columns_of_influence(files: Path) -> None:
    path = files / "plastic_1000hz_influence_metadata.json"
    table = json.loads(path.read_text())
    total = {pair: sum(row.values()) for pair, row in table.items()}
    found = document(path, "--by", "class-pair")
    assert [row["name"] for row in found["rows"]] == ["deg072–deg108", "deg036–deg180"]
    assert found["rows"][1]["pairs"] == 2
    both_orders = [value for pair, value in total.items() if "deg180" in pair]
    assert found["rows"][1]["sum"] == pytest.approx(sum(both_orders))
    assert "Positive: such pairs helped" in show(path, "--by", "class-pair")
    # of a file with self-influence too, the kind has to be named
    assert document(files / "plastic_1000hz_metadata.json", "--by", "class", "--column", "tracin_influence")["rows"]
    line = error_of(3, files / "plastic_1000hz_metadata.json", "--by", "class", "--column", "all")
    assert "such as --column tracin_influence" in line


@pytest.mark.parametrize("by", ["item", "class", "class-pair"])
def test_views_of_self_influence(files: Path, by: str) -> None:
    path = files / "plastic_1000hz_runs_metadata.json"
    rows = document(path, "--by", by, "--top", "100")["rows"]
    values = {pair: row[SELF] for pair, row in json.loads(path.read_text()).items()}
    assert [row["mean"] for row in rows] == sorted((row["mean"] for row in rows), reverse=True)
    for row in rows:
        words = row["name"].split("–")
        own = [value for pair, value in values.items() if all(word in pair for word in words)]
        assert (row["pairs"], row["sum"]) == (len(own), pytest.approx(sum(own)))
        assert values[row["largest_pair"]] == row["largest"] == max(own)
    stdout = show(path, "--by", by, "--top", "2", "--no-histogram")
    first = next(line for line in stdout.splitlines() if line.startswith(f"{rows[0]['name']} "))
    largest_with = rows[0]["largest_pair"].replace(rows[0]["name"], "").strip("_")
    assert first.endswith(largest_with if by == "item" else rows[0]["largest_pair"])
    assert f"{len(rows) - 2} more: --top {len(rows)} shows all." in stdout
    assert "█" not in stdout


@pytest.mark.parametrize("width", [80, 100, 120, 140])
@pytest.mark.parametrize("by", ["pair", "item", "class", "class-pair"])
def test_it_fits_the_terminal(files: Path, width: int, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracin_func.report.terminal.tables.PLAIN_WIDTH", width)
    monkeypatch.chdir(files)
    for path in files.iterdir():
        stdout = show(path.name, "--by", by)
        assert max(map(len, stdout.splitlines())) <= width
        rows = document(path.name, "--by", by)["rows"]
        values = [row.get("median", row.get("mean", row.get("score"))) for row in rows]
        for row, value in zip(rows, values, strict=True):  # one line each, nothing is broken
            items = re.findall(r"plastic_deg\d+_\d+hz_\d+", row["name"])
            name = re.escape("  ".join(items) if "score" in row else row["name"].removeprefix("tracin_influence_"))
            lines = re.findall(rf"^(?:.* )?{name}(?: .*)?$", stdout, re.MULTILINE)
            assert lines, (path, row)
            numbers = [float(word.replace(",", "")) for word in re.findall(NUMBER, "\n".join(lines))]
            assert any(abs(number - value) <= 0.006 * max(map(abs, values)) for number in numbers), (lines, value)


def test_a_table_says_what_it_leaves_out(files: Path) -> None:
    path = files / "plastic_1000hz_influence_metadata.json"
    lines = show(path, "--by", "item", "--top", "1", "--no-histogram").splitlines()
    rows = [line.split(" ")[0] for line in lines if line.startswith(("plastic_", "…"))]
    assert rows == ["plastic_deg108_1000hz_06", "…", "plastic_deg180_1000hz_08"]
    assert "2 in between: --top 2 shows all." in lines
    rows = [line for line in show(path, "--by", "item", "--top", "2").splitlines() if line.startswith("plastic_")]
    assert (len(rows), "…" in "".join(rows)) == (4, False)


# Files of our own


def test_files_of_our_own_commands_say_where_they_come_from(lab: Lab) -> None:
    code, _, stderr = run_job("influence", lab, "--num-test", "3", "--with-self", "--test-functional", "score-margin")
    assert code == 0, stderr
    path = lab.results / "box_500hz_metadata.json"
    assert "standard, margin 10.0; 2 checkpoints (details: --verbose)" in show(path)
    stdout = show(path, "--verbose")
    assert re.search(r"command +\S+", stdout)
    assert "standard, margin 10.0" in stdout
    assert "2: model_epoch_2.pt, model_epoch_10.pt; learning rate 0.01" in stdout
    assert "larger = harder pair" in stdout
    assert "first-order change of the loss per visit with SGD" in stdout
    assert "! " not in stdout
    scores = {pair: row[SELF] for pair, row in json.loads(path.read_text()).items()}
    found = document(path, "--top", "3")
    assert [row["score"] for row in found["rows"]] == sorted(scores.values(), reverse=True)[:3]
    assert found["flags"] == []
    assert found["provenance"][SELF]["loss"]["margin"] == 10.0
    of_tests = lab.results / "box_500hz_influence_metadata.json"
    column = document(of_tests)["columns"][1]
    assert "Positive: raised its score margin" in show(of_tests, "--column", column)
    assert document(of_tests)["flags"] == []


def test_columns_of_several_origins(lab: Lab) -> None:
    assert run_job("self", lab)[0] == 0
    path = lab.results / "box_500hz_metadata.json"
    record = Path(f"{path}.provenance.json")
    table, columns = json.loads(path.read_text()), json.loads(record.read_text())["columns"]
    for row in table.values():
        row |= {"other": row[SELF] + 1, "unknown": row[SELF] + 2}
    path.write_text(json.dumps(table))
    columns["other"] = columns[SELF] | {"unit": "pounds"}
    columns[SELF]["other_origins"] = [columns["other"]]
    record.write_text(json.dumps({"format": 1, "columns": columns}))
    stdout = show(path, "--column", "all")
    assert "1 column of another origin" in stdout
    assert "1 column with no provenance" in stdout
    assert "some scores come from 1 earlier run" in stdout
    assert "pounds" in show(path, "--column", "other", "--verbose")
    path.write_text(json.dumps({pair: row | {SELF: 2.0} for pair, row in table.items()}))
    stdout = show(path, "--column", SELF)  # computed pair by pair, so that they are no averages
    assert "! constant runs" in stdout
    assert "copies of an item" in stdout
    assert "averages" not in stdout
    record.write_text("{")
    assert "the provenance cannot be read:" in show(path)


# Files of others


def test_a_long_table(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "pair,first,second,test_pair,tracin_influence,loss\n"
        "p1,a_1,b,t1,0.5,7\np1,a_1,b,t2,-0.25,7\np2,a_1,c,t1,1e-3,8\np2,a_1,c,t2,,8\n",
        "scores.csv",
    )
    found = document(path)
    assert (found["format"], found["columns"]) == ("CSV", ["tracin_influence_t1", "tracin_influence_t2"])
    assert [flag["kind"] for flag in found["flags"]] == ["not numbers"]
    assert [row["mean"] for row in found["rows"]] == [0.2505, -0.25]
    by_item = document(path, "--by", "item", "--column", "t1")["rows"]
    assert {row["name"]: row["sum"] for row in by_item} == {"a_1": 0.501, "b": 0.5, "c": 0.001}
    record = {"tracin_influence": {"score": "influence", "test_functional": "score-margin", "unit": "pounds"}}
    written(tmp_path, json.dumps({"format": 1, "columns": record}), "scores.csv.provenance.json")
    stdout = show(path, "--column", "t1", "--verbose")
    assert "pounds" in stdout
    assert "raised its score margin" in stdout
    assert "not scores  loss" in stdout
    without_pair = written(tmp_path, "first,second,mine\na,b,1\n", "mine.csv")
    assert document(without_pair)["rows"] == [{"name": "a_b", "score": 1.0}]


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "scores.parquet"
    columns = {"pair": ["a_b", "a_c"], "tracin_self_influence": [0.5, None], "count": [1, 2]}
    parquet.write_table(pytest.importorskip("pyarrow").table(columns), path)
    found = document(path)
    assert (found["format"], found["rows"]) == ("Parquet", [{"name": "a_b", "score": 0.5}])
    path.write_text("no Parquet")
    assert "is not Parquet: " in error_of(3, path)


def test_what_is_odd_in_a_file_stops_nothing(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"a[b]_c": {"x": 1e400, "y": "high", "note": {"by": 1}}, "odd": {"x": 3}, '
        '"a[b]_d": {"x": null}, "b_d": {"x": 1}}',
    )
    stdout = show(path)
    assert "! not numbers: 2 values left out, such as inf of a[b]_c." in stdout
    assert re.search(r"not scores +y, note", show(path, "--verbose"))
    found = document(path, "--by", "item")
    assert (found["left_out"], found["flags"][0]["value"]) == (1, None)
    assert "Left out: 1 of 2 pairs, whose ids name no item." in show(path, "--by", "item")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds an array. Expected an object of pairs"),
        ('{"a_b": 3}', "the value of 'a_b' is `3`. It should be an object of columns"),
        ('{"a_b": {"x": 1}, "a_b": {}}', "has the key 'a_b' a second time"),
        ("{}", "holds no scores"),
        ('{"a_b": {"x": "high"}}', "holds no scores"),
        ('{"a_b": {"x": ' + "9" * 5000 + "}}", "cannot be read"),
    ],
)
def test_what_is_no_result_file(tmp_path: Path, content: str, words: str) -> None:
    path = written(tmp_path, content)
    line = error_of(3, path)
    assert words in line
    assert "--metadata-dir" not in line  # nothing is written here


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has the columns (none)"),
        ("test_pair,x\n1,2\n", "It should have 'pair', or 'first' and 'second'"),
        ("pair,x\na\n", "row 2 should have 2 cells"),
        ("pair,x,x\na,1,2\n", "has two columns 'x'"),
        ("pair,x\na,1\na,2\n", "has 'x' of pair 'a' a second time (row 3)"),
        ('pair,x\n"a,1\n', "is not CSV in UTF-8"),
        ("pair,x\na,high\n", "holds no scores"),
    ],
)
def test_what_is_no_long_table(tmp_path: Path, content: str, words: str) -> None:
    assert words in error_of(3, written(tmp_path, content, "scores.csv"))


def test_what_is_not_there_is_told_with_what_is(files: Path) -> None:
    path = files / "plastic_1000hz_metadata.json"
    line = error_of(3, files / "plastic_1000_metadata.json")
    assert "file not found. Available: plastic_1000hz_metadata.json" in line
    assert "this is a folder. Available: plastic_1000hz_influence_metadata.json" in error_of(3, files)
    assert "holds provenance, not scores" in error_of(3, f"{path}.provenance.json")
    line = error_of(3, path, "--column", "tracin_self_influense")
    assert f"Expected a name, a part of one, or all. Nearest: {SELF}." in line
    assert "is part of 6 names" in error_of(3, path, "--column", "tracin")
    ids = written(files, json.dumps({"one": {"x": 1}}))
    assert "--by item needs pair ids of the form ID1_ID2. Got 'one'" in error_of(3, ids, "--by", "item")
    ids = written(files, json.dumps({"0_1": {"x": 1}}))
    assert "such as deg036. Got '0_1'" in error_of(3, ids, "--by", "class")
    if os.geteuid():
        path.chmod(0)
        assert "cannot be read: Permission denied" in error_of(3, path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--by", "klass"], "--by should be one of pair, item, class, class-pair. Got 'klass'."),
        (["--sort", "size"], "--sort should be one of score, abs, id. Got 'size'."),
        (["--top", "0"], "--top should be at least 1. Got 0."),
    ],
)
def test_options_wrong_in_themselves(files: Path, options: list[str], words: str) -> None:
    assert words in error_of(2, files / "plastic_1000hz_metadata.json", *options)


def test_orders(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(SCORED))
    first, second = SCORED

    def names(*options: str) -> list[str]:
        return [row["name"] for row in document(path, "--column", "x", *options)["rows"]]

    assert names() == names("--sort", "id") == [first, second]
    assert names("--sort", "abs") == [second, first]
    assert names("--sort", "abs", "--top", "1") == [second]


def test_it_starts_without_torch(files: Path) -> None:
    code = (
        "import sys\n"
        "from tracin_func.cli.app import app\n"
        f"app(['show', {str(files / 'plastic_1000hz_metadata.json')!r}, '--by', 'class'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "classes by mean score" in result.stdout


def test_a_stdout_of_few_signs_and_one_that_is_closed(files: Path) -> None:
    command = [sys.executable, "-m", "tracin_func", "show", str(files / "plastic_1000hz_metadata.json")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "##" in result.stdout
    reader, writer = os.pipe()
    os.close(reader)
    left = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (left.returncode, left.stderr) == (0, "")
