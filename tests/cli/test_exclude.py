"""`tracin-func exclude`: what it lists, prints and writes, and that `self` leaves out what it lists."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.support.lab import Lab
from tests.support.lab import run as run_job
from tests.support.lab_files import influence_file
from tests.support.places import DATA
from tests.support.prepared import start
from tracin_func.cli.app import app
from tracin_func.files import read_lines

SCORES = {"a_b": [-9, -8], "b_a": [1, 0], "a_c": [-6, 4], "c_d": [2, 1], "d_a": [3, 5], "e_b": [4, 5]}


def invoke(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["exclude", *map(str, words)])


def output(*words: str | Path) -> str:
    """What is printed, its spaces as one."""
    result = invoke(*words)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return " ".join(result.stdout.split())


def document(*words: str | Path) -> dict[str, Any]:
    result = invoke(*words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def error(code: int, *words: str | Path) -> str:
    """The one line of a mistake."""
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small_influence_metadata.json"
    rows = {
        pair: {f"tracin_influence_{test}": x for test, x in zip("pq", row, strict=True)} for pair, row in SCORES.items()
    }
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "small_metadata.json"
    path.write_text(json.dumps({pair: {"tracin_self_influence": sum(row) + 20} for pair, row in SCORES.items()}))
    return path


# What is listed


def test_help_names_the_files_without_python_types() -> None:
    text = CliRunner().invoke(app, ["exclude", "--help"], env={"COLUMNS": "120"}).output
    assert "{FILE}..." in text
    assert "list[" not in text
    assert invoke().exit_code == 2  # a file is required


def test_counts_of_the_lab_are_printed_by_threshold(tmp_path: Path) -> None:
    for tone, rows in (("500hz", "268 98 0 228 85 0 201 71 0"), ("1000hz", "222 36 0 182 6 0 163 0 0")):
        path = influence_file(tone, tmp_path)
        stdout = output(path, "--sweep", "-5,-10,-15")
        counts = rows.split()
        for place, limit in enumerate(("< -5", "< -10", "< -15")):
            assert f"{limit} {' '.join(counts[3 * place : 3 * place + 3])}" in stdout
        assert output("--metadata-file", path, "--thresholds", "-5,-10,-15") == stdout
        assert len(document(path)["rows"]) == int(counts[0])
        assert len(document(path, "--threshold", "-10", "--min-occurrences", "2")["rows"]) == int(counts[4])


def test_both_items_of_all_pairs_of_the_lab_are_refused_with_the_count(tmp_path: Path) -> None:
    path = influence_file("500hz", tmp_path)
    for words in (("--mode", "full_pair"), ("--pair-mode", "full_pair"), ("--consider-both-samples",)):
        line = error(3, path, *words, "--output-file", tmp_path / "list.txt")
        assert "--mode full_pair excludes all 37 training items" in line
        assert "--max-exclusions" in line
    assert not (tmp_path / "list.txt").exists()
    stdout = output(path, "--mode", "full_pair", "--sweep", "-5,-290")
    assert "Number of items (of 37) beyond a threshold" in stdout
    assert "< -5 37 " in stdout
    assert stdout.endswith("--mode full_pair --threshold -290 --output-file exclusions.txt")  # the first leaves nothing
    found = document(path, "--mode", "full_pair", "--max-exclusions", "4")
    assert [len(found["rows"]), found["kind"]] == [4, "item"]


def test_a_class_that_would_be_emptied_is_known_by_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    pairs = {"x_deg000_y_deg036": -9, "x_deg000_z_deg072": 1, "y_deg036_z_deg072": 2, "v_deg180_z_deg072": -8}
    path.write_text(json.dumps({pair: {"tracin_influence_q": score} for pair, score in pairs.items()}))
    assert "excludes all 1 pair of class deg180" in error(3, path)


def test_the_screen_has_the_result_first_and_the_next_command_last(small: Path) -> None:
    stdout = invoke(small).stdout
    order = ("2 of 6 training pairs to exclude: influence below -5 on at least 1 test pair", "lowest")
    order += ("Number of pairs", "Most affected items", "these pairs", "Next ")
    places = [stdout.index(words) for words in order if words != "these pairs"]
    assert places == sorted(places)
    flat = " ".join(stdout.split())
    assert "1 a b 2 -9.00 -17.0 2 a c 1 -6.00 -2.0" in flat
    assert "1 more pair of the same items in the other order: --exclusions-file leaves these out too." in flat
    assert "item a 2 4 50%" in flat
    assert flat.endswith(f"Next tracin-func exclude {small} --output-file exclusions.txt")


def test_a_large_part_of_the_pairs_is_pointed_out(small: Path, own: Path) -> None:
    words = "These are {} of all pairs. For a shorter list: {}."
    stdout = output(small, "--threshold", "3.5")
    assert words.format("83%", "--threshold 1% or --min-occurrences 2") in stdout
    assert words.format("50%", "--upper-threshold 99%") in output(own, "--upper-threshold", "22")
    assert "of all pairs" not in output(small, "--drop", "90%") + output(small, "--threshold", "-5")


def test_the_next_command_runs(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--sweep", "-5,-10", "--min-occurrences", "2"], ["--drop", "20%"], ["--threshold", "-8.5"]):
        following = output(small, *words).partition("Next tracin-func ")[2]
        assert CliRunner().invoke(app, shlex.split(following)).exit_code == 0
    assert read_lines(tmp_path / "exclusions.txt") == ["a_b"]
    small.write_text(small.read_text().replace("-", ""))
    stdout = output(small)
    assert "Lowest live score: 0. Set a higher threshold, or a quantile such as 1%." in stdout
    following = stdout.partition("Next tracin-func ")[2]
    assert following.endswith("--threshold 1%")
    assert "1 of 6 training pairs" in CliRunner().invoke(app, shlex.split(following)).stdout


def test_self_influence_has_an_upper_threshold(own: Path) -> None:
    stdout = output(own)
    assert "1 of 6 training pairs to exclude: self-influence above 28.75" in stdout
    assert "> 28.75 (95%) 1" in stdout
    assert [row["id"] for row in document(own, "--upper-threshold", "22.5")["rows"]] == ["e_b", "d_a", "c_d"]
    line = error(2, own, "--threshold", "-5")
    assert "Set --upper-threshold, which excludes the hard pairs above it" in line


def test_a_file_of_both_kinds_gives_influence_unless_a_column_is_named() -> None:
    path = DATA / "plastic_1000hz_metadata.json"
    assert document(path, "--sweep", "-5")["score"] == "influence"
    assert document(path, "--column", "tracin_self_influence", "--sweep", "10%")["score"] == "self"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_long_tables_and_several_files(lab: Lab, form: str) -> None:
    more = ("--num-test", "all", "--format", form)
    assert run_job("influence", lab, *more)[0] == 0
    path = lab.results / f"box_500hz_influence_metadata.{form}"
    assert run_job("influence", lab, *more, "--format", "json")[0] == 0
    given = ("--threshold", "20%", "--max-exclusions", "5")
    found = document(path, *given)
    assert found["rows"] == document(path.with_suffix(".json"), *given)["rows"]
    assert found["rows"] == document(path, path, *given)["rows"]
    assert found["rows"]


def test_files_of_two_tones_are_one_list(tmp_path: Path) -> None:
    paths = [influence_file(tone, tmp_path) for tone in ("500hz", "1000hz")]
    assert len(document(*paths)["rows"]) == 268 + 222


def test_flips_by_a_table_hold_misranked_pairs_alone(lab: Lab) -> None:
    assert run_job("self", lab, "--format", "csv", "--loss-type", "standard")[0] == 0
    path = lab.results / "box_500hz_metadata.csv"
    header, *lines = [line.split(",") for line in path.read_text().splitlines()]
    margin = {line[0]: float(line[header.index("score_margin")]) for line in lines}
    score = {line[0]: float(line[header.index("tracin_self_influence")]) for line in lines}
    limit = np.quantile(list(score.values()), 0.5)
    found = document(path, "--suggest", "flip", "--upper-threshold", "50%", "--output-file", lab.folder / "flips.txt")
    assert found["action"] == "flip"
    expected = {pair for pair in score if score[pair] > limit and margin[pair] < 0}
    assert expected
    assert {row["id"] for row in found["rows"]} == expected
    assert set(read_lines(lab.folder / "flips.txt")) == expected
    assert "with a label that looks inverted" in output(path, "--suggest", "flip", "--upper-threshold", "50%")


# What is written


def test_a_list_round_trips_into_self_and_its_scores(lab: Lab) -> None:
    """By real processes: the pairs of the list, in either order, are out, and the others keep their scores."""

    def command(*words: str) -> None:
        done = start(words, lab.folder / "log", folder=lab.folder).end()
        assert done.code == 0, done.stderr

    fixed = ("--loss-type", "standard", "--batch-size", "4")  # GHM weights depend on all pairs
    command("influence", *lab.arguments("--num-test", "all", *fixed, "--with-self"))
    path = lab.results / "box_500hz_influence_metadata.json"
    command("exclude", str(path), "--threshold", "20%", "--max-exclusions", "6", "--output-file", "list.txt")
    listed = read_lines(lab.folder / "list.txt")
    assert len(listed) == 6
    before = json.loads((lab.results / "box_500hz_metadata.json").read_text())
    lab.results = lab.folder / "without"
    command("self", *lab.arguments(*fixed, "--exclusions-file", "list.txt"))
    after = json.loads((lab.results / "box_500hz_metadata.json").read_text())
    half = len("box_deg036_500hz_01")
    mirrors = {f"{pair[half + 1 :]}_{pair[:half]}" for pair in listed}
    assert set(after) == set(before) - set(listed) - mirrors
    assert set(listed) <= set(before)
    for pair, values in after.items():
        assert values["tracin_self_influence"] == pytest.approx(before[pair]["tracin_self_influence"], rel=1e-5)


def test_the_next_command_of_a_recorded_run_leaves_the_list_out(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.folder)
    assert run_job("self", lab)[0] == 0
    path = lab.results / "box_500hz_metadata.json"
    stdout = output(path, "--upper-threshold", "80%", "--output-file", "list of mine.txt", "--max-exclusions", "3")
    following = shlex.split(stdout.partition("Next tracin-func ")[2])
    assert following[:2] == ["self", "--from"]
    assert CliRunner().invoke(app, following).exit_code == 0
    after = json.loads((lab.results / "without" / path.name).read_text())
    assert set(after).isdisjoint(read_lines(lab.folder / "list of mine.txt"))


def test_formats_of_the_list(small: Path, tmp_path: Path) -> None:
    output(small, "--output-file", tmp_path / "mask", "--format", "mask")
    assert np.load(tmp_path / "mask").tolist() == [False, True, False, True, True, True]
    output(small, "--output-file", tmp_path / "list.parquet")
    assert (tmp_path / "list.parquet").read_bytes().startswith(b"PAR1")


def test_marks_in_the_file_and_back(small: Path, embedded_500hz: object, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = output(small, "--update-metadata")
    assert f"Marked {small}" in stdout
    rows = json.loads(small.read_text())
    assert [pair for pair, row in rows.items() if row.get("excluded")] == ["a_b", "a_c"]
    assert rows["a_b"]["notes"] == "influence below -5 on 2 of 2 live test pairs; lowest -9, sum -17"
    assert rows["a_b"]["tracin_info"]["exclusion"]["occurrences"] == 2
    assert output(small) == stdout.replace(f"Marked {small} ", "")  # marks change no score
    output(small, "--mode", "full_pair", "--max-exclusions", "1", "--threshold", "-7", "--update-metadata")
    rows = json.loads(small.read_text())
    assert [pair for pair, row in rows.items() if row.get("excluded")] == ["a_b", "b_a", "a_c", "d_a"]
    assert rows["d_a"]["notes"].startswith("item a is excluded: in 1 chosen pair")
    output(small, "--threshold", "-100", "--update-metadata")
    assert all(
        row.keys() == {"tracin_influence_p", "tracin_influence_q"} for row in json.loads(small.read_text()).values()
    )


def test_marks_do_not_keep_later_scores_of_the_embedded_example_out(
    tmp_path: Path, embedded_500hz: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["self", "--checkpoints", "last:1"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    path = Path("metadata/plastic_500hz_metadata.json")
    output(path, "--update-metadata")
    assert "excluded" in path.read_text()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "excluded" in path.read_text()


# What is refused


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--drop", "5%", "--threshold", "-5"), "--drop cannot be combined with --threshold, --upper-threshold or"),
        (("--drop", "5"), "--drop should be a percentage such as 5%. Got '5'"),
        (("--threshold", "low"), "--threshold should be a number, or a quantile such as 5%. Got 'low'"),
        (("--sweep", "-5", "--threshold", "-5"), "--sweep cannot be combined with --threshold"),
        (("--sweep", ","), "--sweep should be one or more values separated by commas"),
        (("--sweep", "-5,x"), "--threshold should be a number, or a quantile such as 5%. Got 'x'"),
        (("--suggest", "flip", "--mode", "full_pair"), "--suggest cannot be combined with --mode"),
        (("--suggest", "flip", "--update-metadata"), "--suggest cannot be combined with --update-metadata"),
        (("--suggest", "drop"), "--suggest should be one of flip. Got 'drop'"),
        (("--format", "mask"), "--format was given without --output-file"),
        (("--mode", "both"), "--mode should be one of ranking_pair, full_pair"),
        (("--min-occurrences", "0"), "--min-occurrences should be at least 1"),
        (("--max-exclusions", "0"), "--max-exclusions should be at least 1"),
    ],
)
def test_options_that_are_wrong_in_themselves(small: Path, words: tuple[str, ...], line: str) -> None:
    assert line in error(2, small, *words)


def test_files_that_do_not_fit(small: Path, own: Path, tmp_path: Path) -> None:
    before = small.read_bytes()
    assert "file not found" in error(3, tmp_path / "none.json")
    assert "holds influence and" in error(3, small, own)
    assert "--output-file is one of the result files" in error(2, small, "--output-file", small)
    csv = tmp_path / "table.csv"
    csv.write_text("pair,tracin_self_influence\na_b,1\nb_c,2\n")
    assert "--update-metadata marks JSON files only" in error(2, csv, "--update-metadata")
    assert "JSON files do not hold whether the model ranks" in error(3, own, "--suggest", "flip")
    assert "2 live test columns, too few" in error(3, small, "--suggest", "flip")
    mine = tmp_path / "mine.txt"
    mine.write_text("a_b\n")
    assert "is not a list that tracin-func has written" in error(3, small, "--output-file", mine)
    assert (small.read_bytes(), mine.read_text()) == (before, "a_b\n")


def test_a_file_of_the_strongest_pairs_is_refused(lab: Lab) -> None:
    assert run_job("influence", lab, "--keep", "2", "--num-test", "2")[0] == 0
    line = error(3, lab.results / "box_500hz_influence_strongest.parquet")
    assert "holds the strongest pairs of each test pair only" in line
    assert "Score without --keep" in line


def test_a_list_that_cannot_be_written_changes_nothing(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("x")
    before = small.read_bytes()
    result = invoke(small, "--output-file", folder / "list.txt", "--update-metadata")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is not a folder" in result.stderr
    assert "another folder (--output-file)" in result.stderr
    assert small.read_bytes() == before
