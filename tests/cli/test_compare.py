"""`tracin-func compare`: what it prints of two result files, and what it refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases.command_line import refused, works
from tests.support.places import DATA
from tracin_func.results.agreement import correlation_of

SELF, INFLUENCE = "tracin_self_influence", "tracin_influence"
FILE = "plastic_1000hz_runs_metadata.json"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an excerpt of the lab and the same in another order of scores, less a pair."""
    shutil.copy(DATA / FILE, tmp_path / "a.json")
    table = json.loads((DATA / FILE).read_text())
    other = {pair: {SELF: 1 / (1 + place)} for place, pair in enumerate(table)}
    other.pop(next(reversed(table)))
    (tmp_path / "b.json").write_text(json.dumps(other))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: str, column: str, scores: dict[str, float]) -> str:
    Path(path).write_text(json.dumps({pair: {column: score} for pair, score in scores.items()}))
    return path


def document(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(works("compare", *words, "--json").stdout)
    return found


def test_two_files_are_compared(files: Path) -> None:
    stdout = works("compare", "a.json", "b.json").stdout
    first, second = (
        {pair: row[SELF] for pair, row in json.loads((files / name).read_text()).items()}
        for name in ("a.json", "b.json")
    )
    expected = correlation_of([first[pair] for pair in second], list(second.values()))
    assert expected is not None
    count = len(second)
    places = [
        stdout.index(words)
        for words in (
            f"a.json: {count + 1} pairs",
            f"b.json: {count} pairs",
            f"{count} common pairs; 1 only in the first, 0 only in the second.",
            f"Rank correlation (Spearman): {expected:+.2f}",
            "by chance",
            "Pairs whose rank changed most",
            "Positive change: the second file ranks it higher.",
        )
    ]
    assert places == sorted(places)
    found = document("a.json", "b.json", "--top", "3")
    (column,) = found["columns"]
    assert (column["correlation"], column["common"]) == (expected, count)
    assert (column["only_first"], column["only_second"], found["sum"]) == (1, 0, None)
    changes = [abs(row["change"]) for row in found["rows"]]
    assert len(changes) == 3
    assert changes == sorted(changes, reverse=True)
    row = found["rows"][0]
    above = sum(value > first[row["pair"]] for pair, value in first.items() if pair in second)
    assert above < row["first_rank"] <= above + 6


@pytest.mark.parametrize("by", ["item", "class", "class-pair"])
def test_groups_are_compared(files: Path, by: str) -> None:
    rows = document("a.json", "b.json", "--by", by, "--top", "100")["rows"]
    changes = [abs(row["change"]) for row in rows]
    assert changes == sorted(changes, reverse=True)
    stdout = works("compare", "a.json", "b.json", "--by", by, "--top", "2").stdout
    assert rows[0]["name"] in stdout
    assert ("correlation within" in stdout) == (by != "item")  # a single pair has none
    assert f"{len(rows) - 2} more: --top {len(rows)} shows all." in stdout


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("by", ["pair", "class-pair"])
def test_it_fits_the_terminal(files: Path, width: int, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracin_func.report.terminal.tables.PLAIN_WIDTH", width)
    influence = str(DATA / "plastic_500hz_influence_metadata.json")
    shutil.copy(influence, "c.json")
    for names in (("a.json", "b.json"), ("c.json", "c.json")):
        assert max(map(len, works("compare", *names, "--by", by).stdout.splitlines())) <= width


def test_influence_is_compared_by_test_pair_and_as_a_sum(files: Path) -> None:
    table = json.loads((DATA / "plastic_500hz_influence_metadata.json").read_text())
    *kept, dropped = next(iter(table.values()))
    for row in table.values():
        row.pop(dropped)
        row[f"{INFLUENCE}_new_pair"] = 1.0
        for name in kept[2:]:
            row[name] = -row[name]
    Path("c.json").write_text(json.dumps(table))
    shutil.copy(DATA / "plastic_500hz_influence_metadata.json", "d.json")
    stdout = works("compare", "d.json", "c.json").stdout
    assert "4 columns in both" in stdout
    assert "1 column only in the first:" in stdout
    assert f"1 column only in the second: {INFLUENCE}_new_pair." in stdout
    assert "Sum of 4 columns" in stdout
    assert "no rank correlation; all" in stdout
    found = document("d.json", "c.json")
    assert [column["correlation"] for column in found["columns"]] == [None, None, -1, -1]
    assert found["sum"]["correlation"] == -1
    assert [each["asked"] for each in found["sum"]["lowest"]] == [each["asked"] for each in found["sum"]["highest"]]
    part = kept[2].removeprefix(f"{INFLUENCE}_")
    assert [column["name"] for column in document("d.json", "c.json", "--column", part)["columns"]] == [part]


def test_identical_files_are_called_so(files: Path) -> None:
    stdout = works("compare", "a.json", "a.json").stdout
    assert "Identical: both have the same pairs with equal scores" in stdout
    assert "Rank correlation" not in stdout
    assert document("a.json", "a.json")["identical"]


def test_a_constant_column_has_no_rank_correlation(files: Path) -> None:
    table = json.loads((files / "a.json").read_text())
    written("zero.json", SELF, dict.fromkeys(table, 0.0))
    stdout = works("compare", "a.json", "zero.json").stdout
    assert f"No rank correlation: all {len(table)} scores of the second are equal (0)." in stdout
    assert "changed" not in stdout
    found = document("a.json", "zero.json")
    assert (found["columns"][0]["correlation"], found["rows"]) == (None, [])


def test_two_columns_of_one_file(files: Path) -> None:
    table = {f"a_{place}": {"old": place, "new": place**2, "other": 1 / (1 + place)} for place in range(20)}
    Path("both.json").write_text(json.dumps(table))
    found = document("both.json", "both.json", "--column", "old", "--column", "new")
    assert (found["columns"][0]["correlation"], found["rows"]) == (1, [])
    assert (
        "No common pair changed its rank."
        in works("compare", "both.json", "both.json", "--column", "old", "--column", "new").stdout
    )
    assert document("both.json", "both.json", "--column", "old", "--column", "other")["columns"][0]["correlation"] == -1


def test_what_cannot_be_compared_is_refused(files: Path) -> None:
    written("other.json", SELF, {"x_y": 1.0, "u_v": 2.0})
    written("influence.json", f"{INFLUENCE}_e_f", {"x_y": 1.0})
    line = refused("compare", "a.json", "other.json")
    assert "have no pair in common" in line
    assert "'x_y' of the second" in line
    assert "Choose one of each with --column, given twice." in refused("compare", "influence.json", "a.json")
    assert "file not found" in refused("compare", "a.json", "missing.json")
    assert "--column nothing not found in `a.json`" in refused("compare", "a.json", "b.json", "--column", "nothing")
    assert "--by class needs pairs of items with a known class" in refused(
        "compare", "other.json", written("more.json", SELF, {"x_y": 2.0, "u_v": 3.0}), "--by", "class"
    )
    more = ["--column", "a", "--column", "b", "--column", "c"]
    assert "--column can be given twice" in refused("compare", "a.json", "b.json", *more, code=2)


def test_it_starts_without_torch(files: Path) -> None:
    code = (
        "import sys\n"
        "from tracin_func.cli.app import app\n"
        "app(['compare', 'a.json', 'b.json'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
