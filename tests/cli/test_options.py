"""Options of `self` and `influence` through the command line: what each changes, and what it leaves alone."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from typer.testing import CliRunner

from tests.support.lab import COLUMN, Lab, refused, run
from tracin_func.cli.app import app
from tracin_func.cli.errors import say
from tracin_func.cli.options import in_flags
from tracin_func.sources.demo.ranker import AngleRanker

ITEM = len("box_deg036_500hz_01")


def scores(lab: Lab, name: str = "box_500hz_metadata.json") -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((lab.results / name).read_text())
    return found


def succeeded(command: str, lab: Lab, *more: str) -> tuple[str, str]:
    """stdout and stderr of a run that ends well, on an empty folder of results.

    Of one batch size, where none is given: on a busy machine it would be measured, and rounding be another.
    """
    shutil.rmtree(lab.results, ignore_errors=True)
    sizes = () if "--batch-size" in more else ("--batch-size", "4")
    code, stdout, stderr = run(command, lab, *more, *sizes)
    assert code == 0, stderr
    return stdout, stderr


def flat(text: str) -> str:
    return " ".join(text.split())


def test_settings_in_sentences_of_the_library_become_options() -> None:
    sentence = 'use `preconditioner="none"`, `batch_size=1`, `store` or `dry_run=True`; `requires_grad` stays'
    assert (
        in_flags(sentence) == "use --preconditioner none, --batch-size 1, --store or --dry-run; `requires_grad` stays"
    )


# Which checkpoints, at which weight


def test_checkpoints_by_number_and_the_last(lab: Lab) -> None:
    sums = {}
    for asked in ("2", "10", "last:1", "2,10", "all"):
        succeeded("self", lab, "--checkpoints", asked)
        sums[asked] = sum(values[COLUMN] for values in scores(lab).values())
    assert sums["last:1"] == sums["10"]
    assert sums["2,10"] == sums["all"] == pytest.approx(sums["2"] + sums["10"])
    line = refused("self", lab, "--checkpoints", "3", code=3)
    assert "number 3 not found. Available: 2, 10" in line
    assert "all, numbers such as 10,20, or last:3" in refused("self", lab, "--checkpoints", "first", code=2)
    assert "or last:3. Got 'last:0'" in refused("self", lab, "--checkpoints", "last:0", code=2)


def test_uniform_weights_need_no_rate(lab: Lab) -> None:
    succeeded("self", lab)
    rated = scores(lab)
    for epoch in (2, 10):
        path = lab.checkpoints / f"model_epoch_{epoch}.pt"
        held = torch.load(path, weights_only=True)
        torch.save({"model_state_dict": held["model_state_dict"], "args": held["args"]}, path)
    assert "--checkpoint-weights uniform" in refused("self", lab, code=3)
    succeeded("self", lab, "--checkpoint-weights", "uniform")
    for pair, values in scores(lab).items():
        assert values[COLUMN] == pytest.approx(100 * rated[pair][COLUMN], rel=1e-4)  # the rate was 0.01
    line = refused("self", lab, "--checkpoint-weights", "uniform", "--learning-rate", "1", code=2)
    assert "which ignores learning rates" in line


def test_parameters_by_name_add_up(lab: Lab) -> None:
    parts = []
    for params in ("^head", "^(?!head)", "."):
        succeeded("self", lab, "--params", params)
        parts.append({pair: values[COLUMN] for pair, values in scores(lab).items()})
    for pair, total in parts[2].items():
        assert parts[0][pair] + parts[1][pair] == pytest.approx(total, rel=1e-4)
    assert "is not found in any name of a trainable parameter" in refused("self", lab, "--params", "nothing", code=2)


# Which pairs


def test_a_limit_takes_the_first_pairs(lab: Lab) -> None:
    succeeded("self", lab)
    every = scores(lab)
    succeeded("self", lab, "--limit", "3")
    assert list(scores(lab)) == list(every)[:3]
    _, stderr = succeeded("self", lab, "--limit", "3", "--loss-type", "ghm")
    assert "warning: --limit 3: GHM weights are computed from these pairs only" in stderr


def test_test_pairs_by_name(lab: Lab) -> None:
    named = "box_deg036_500hz_00_box_deg000_500hz_03,box_deg000_500hz_01_box_deg072_500hz_02"
    succeeded("influence", lab, "--test-pairs", named)
    columns = list(next(iter(scores(lab, "box_500hz_influence_metadata.json").values())))
    assert columns == [f"tracin_influence_{name}" for name in named.split(",")]
    listed = lab.folder / "test_pairs.txt"
    listed.write_text("# those of interest\n" + named.replace(",", "\n") + "\n")
    succeeded("influence", lab, "--test-pairs", str(listed))
    assert list(next(iter(scores(lab, "box_500hz_influence_metadata.json").values()))) == columns
    for wrong, words, code in (
        ("box_deg036_500hz_00_box_deg036_500hz_01", "are of one class", 3),
        ("box_deg036_500hz_00_box_deg999_500hz_01", "does not name two items", 3),
        (f"{named},{named}", "is named twice", 3),
        (",", "names no pair", 3),
    ):
        assert words in refused("influence", lab, "--test-pairs", wrong, code=code)
    line = refused("influence", lab, "--test-pairs", named, "--num-test", "2", code=2)
    assert "cannot be combined with --num-test or --test-select" in line


def test_test_pairs_by_the_model(lab: Lab) -> None:
    _, stderr = succeeded("influence", lab, "--test-select", "lowest-margin", "--num-test", "1", "--verbose")
    assert "1 of " in stderr
    assert "selected as lowest-margin" in stderr
    assert "should be one of random, misranked" in refused("influence", lab, "--test-select", "worst", code=2)
    line = refused("influence", lab, "--test-select", "active", "--num-test", "500", code=3)
    assert re.search(r"--test-select active finds \d+ of \d+ test pairs. Expected 500", line)


def test_exclusions_before_the_split_are_as_if_never_recorded(lab: Lab) -> None:
    gone = "box_deg036_500hz_01"
    excluded = lab.folder / "excluded.txt"
    excluded.write_text(f"{gone}\n")
    succeeded("self", lab, "--exclusions-file", str(excluded))
    after = list(scores(lab))
    succeeded("self", lab, "--exclusions-file", str(excluded), "--exclude-before-split")
    before = list(scores(lab))
    (lab.data / f"deg036/box/{gone}.wav").unlink()
    succeeded("self", lab)
    assert before == list(scores(lab))
    assert before != after


def test_exclusions_before_the_split_tell_ids_that_name_nothing(lab: Lab) -> None:
    excluded = lab.folder / "excluded.txt"
    excluded.write_text("box_deg036_500hz_01\nbox_deg036_500hz_01_box_deg072_500hz_01\nbox_deg036_500hz_99\n")
    _, stderr = succeeded("self", lab, "--exclusions-file", str(excluded), "--exclude-before-split")
    assert "no item or pair found for 1 id: box_deg036_500hz_99." in stderr


def test_a_table_of_pairs_may_name_what_is_excluded(lab: Lab) -> None:
    """There is no split that the exclusion could come before."""
    table, excluded = lab.folder / "pairs.csv", lab.folder / "excluded.txt"
    excluded.write_text("box_deg036_500hz_01\n")
    rows = ["box_deg036_500hz_01,box_deg000_500hz_01,1", "box_deg036_500hz_02,box_deg000_500hz_01,1"]
    table.write_text("\n".join(["first,second,target", *rows]))
    succeeded("self", lab, "--pairs", str(table), "--exclusions-file", str(excluded), "--exclude-before-split")
    assert list(scores(lab)) == ["box_deg036_500hz_02_box_deg000_500hz_01"]


def test_a_test_pair_of_a_recording_that_cannot_be_read_is_not_scored(lab: Lab) -> None:
    path = lab.data / "deg036/box/box_deg036_500hz_01.wav"
    path.write_bytes(b"RIFF")
    named = "box_deg036_500hz_01_box_deg000_500hz_01"
    line = refused("influence", lab, "--skip-bad-audio", "--test-pairs", named, code=3)
    assert "contains box_deg036_500hz_01, which cannot be used" in line


def test_recordings_that_cannot_be_read_are_left_out_and_counted(lab: Lab) -> None:
    succeeded("self", lab)
    item = next(iter(scores(lab)))[:ITEM]
    excluded = lab.folder / "excluded.txt"
    excluded.write_text(item)
    succeeded("self", lab, "--exclusions-file", str(excluded))
    expected = scores(lab)
    path = next(lab.data.glob(f"*/*/{item}.wav"))
    path.write_bytes(path.read_bytes()[:500])
    assert str(path) in refused("self", lab, code=3)
    _, stderr = succeeded("self", lab, "--skip-bad-audio")
    assert "note: 1 of 12 recordings cannot be used. Their pairs are left out" in stderr
    assert str(path) in stderr
    found = scores(lab)
    assert list(found) == list(expected)
    for pair, values in expected.items():
        assert found[pair] == pytest.approx(values, rel=1e-4)
    for other in lab.data.rglob("*.wav"):
        other.write_bytes(b"RIFF")
    assert "none of the 12 recordings can be used" in refused("self", lab, "--skip-bad-audio", code=3)


def test_every_tone_is_a_run_of_its_own(lab: Lab) -> None:
    for path in list(lab.data.rglob("*.wav")):
        samples, rate = soundfile.read(path)
        soundfile.write(str(path).replace("500hz", "1000hz"), samples[::-1], rate)
    line = refused("self", lab, "--frequency", "all", code=2)
    assert "--checkpoint-dir must contain {frequency} with --frequency all: the tones 500hz, 1000hz" in line
    for tone in ("500hz", "1000hz"):
        shutil.copytree(lab.checkpoints, lab.folder / "of" / tone)
    folder = str(lab.folder / "of" / "{frequency}")
    stdout, _ = succeeded("self", lab, "--frequency", "all", "--checkpoint-dir", folder)
    assert stdout.count("Hardest training pairs") == 2
    one, other = scores(lab), scores(lab, "box_1000hz_metadata.json")
    assert [name.replace("500hz", "1000hz") for name in one] == list(other)
    assert list(one.values()) != list(other.values())
    stdout, _ = succeeded("self", lab, "--frequency", "all", "--checkpoint-dir", folder, "--json")
    assert [Path(each["files"]["self"]).name for each in json.loads(stdout)["runs"]] == [
        "box_500hz_metadata.json",
        "box_1000hz_metadata.json",
    ]
    shutil.rmtree(lab.folder / "of" / "1000hz")
    shutil.rmtree(lab.results)
    assert "1000hz. It should hold checkpoints" in refused(
        "self", lab, "--frequency", "all", "--checkpoint-dir", folder, code=3
    )
    assert not lab.results.exists(), "the other tone was scored, and hours may be lost"


# What is computed


def test_one_column_for_all_test_pairs(lab: Lab) -> None:
    succeeded("influence", lab, "--num-test", "all")
    every = scores(lab, "box_500hz_influence_metadata.json")
    stdout, _ = succeeded("influence", lab, "--num-test", "all", "--aggregate", "mean")
    assert re.search(r"test pair mean +\d+ of \d+ correct", flat(stdout))
    for pair, values in scores(lab, "box_500hz_influence_metadata.json").items():
        assert list(values) == ["tracin_influence_mean"]
        low, high = min(every[pair].values()), max(every[pair].values())
        assert low <= values["tracin_influence_mean"] <= high


def test_cosines(lab: Lab) -> None:
    stdout, _ = succeeded("influence", lab, "--num-test", "2", "--normalize", "cosine")
    found = scores(lab, "box_500hz_influence_metadata.json")
    assert all(name.startswith("tracin_cosine_influence_") for values in found.values() for name in values)
    assert all(abs(value) <= 1 for values in found.values() for value in values.values())
    assert "cosine of the gradients, from -1 to 1" in flat(stdout)
    assert "loss change" not in flat(stdout)
    succeeded("self", lab)
    plain = scores(lab)
    succeeded("influence", lab, "--normalize", "cosine", "--with-self")  # self-influence stays what it is
    for pair, values in scores(lab).items():
        assert values[COLUMN] == pytest.approx(plain[pair][COLUMN], rel=1e-4)


def test_precision_and_memory(lab: Lab) -> None:
    succeeded("self", lab)
    plain = scores(lab)
    succeeded("self", lab, "--dtype", "float64", "--memory-budget", "20MB")
    for pair, values in scores(lab).items():
        assert values[COLUMN] == pytest.approx(plain[pair][COLUMN], rel=1e-3)
    record = json.loads((lab.results / "box_500hz_metadata.json.provenance.json").read_text())["columns"][COLUMN]
    assert (record["engine"]["dtype"], record["engine"]["memory_budget"]) == ("torch.float64", 20_000_000)
    for wrong in ("much", "0", "4 XB", "-1GB"):
        assert "should be a size such as 800MB or 4GB" in refused("self", lab, "--memory-budget", wrong, code=2)
    assert "--dtype should be one of float32, float64" in refused("self", lab, "--dtype", "double", code=2)


def test_scores_are_verified(lab: Lab) -> None:
    _, stderr = succeeded("influence", lab, "--with-self", "--verify", "3")
    assert re.match(r"Verification passed: [456] ", stderr.splitlines()[-1])
    shutil.rmtree(lab.results)
    code, _, stderr = run("self", lab, "--dtype", "bfloat16", "--verify", "3")  # too few digits, and it says so
    assert code == 1
    error = stderr.splitlines()[-1]
    assert error.startswith("error: Verification FAILED: ")
    assert "The scores are in" in error
    assert scores(lab)


# What is written


def test_a_column_for_each_checkpoint(lab: Lab) -> None:
    succeeded("influence", lab, "--num-test", "2", "--with-self", "--per-checkpoint")
    names = ("model_epoch_2.pt", "model_epoch_10.pt")
    own, each = scores(lab), scores(lab, "box_500hz_per_checkpoint_metadata.json")
    for pair, values in each.items():
        assert list(values) == [f"{COLUMN}_{name}" for name in names]
        assert sum(values.values()) == pytest.approx(own[pair][COLUMN])
    influence = scores(lab, "box_500hz_influence_metadata.json")
    for pair, values in scores(lab, "box_500hz_per_checkpoint_influence_metadata.json").items():
        assert list(values) == [f"{column}_{name}" for column in influence[pair] for name in names]
        for column, total in influence[pair].items():
            assert sum(values[f"{column}_{name}"] for name in names) == pytest.approx(total)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_long_tables(lab: Lab, format: str) -> None:
    options = ["--num-test", "2", "--loss-type", "ghm", "--ghm-bins", "4", "--per-checkpoint"]
    succeeded("influence", lab, *options)
    merged = scores(lab, "box_500hz_influence_metadata.json")
    succeeded("influence", lab, *options, "--format", format)
    names = sorted(path.name for path in lab.results.iterdir() if path.suffix == f".{format}")
    assert names == [f"box_500hz_influence_metadata.{format}", f"box_500hz_per_checkpoint_influence_metadata.{format}"]
    rows = table(lab.results / names[0])
    assert len(rows) == 2 * len(merged)
    for row in rows:
        assert float(row["tracin_influence"]) == merged[row["pair"]][f"tracin_influence_{row['test_pair']}"]
        assert row["pair"] == f"{row['first']}_{row['second']}"
        assert int(row["target"]) in (1, -1)
        assert 0 <= int(row["ghm_bin"]) < 4
        assert 0 <= float(row["active_share"]) <= 1
    each = table(lab.results / names[1])
    assert len(each) == 2 * len(rows)
    assert {row["checkpoint"] for row in each} == {"model_epoch_2.pt", "model_epoch_10.pt"}
    assert sum(float(row["tracin_influence"]) for row in each) == pytest.approx(
        sum(float(row["tracin_influence"]) for row in rows)
    )
    shown = CliRunner().invoke(app, ["show", str(lab.results / names[0])])
    assert shown.exit_code == 0, shown.output


def table(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def test_a_name_of_ones_own(lab: Lab) -> None:
    succeeded("influence", lab, "--num-test", "1", "--with-self", "--score-name", "second_try")
    assert {name for values in scores(lab).values() for name in values} == {"second_try"}
    influence = scores(lab, "box_500hz_influence_metadata.json")
    assert all(name.startswith("second_try_box_deg") for values in influence.values() for name in values)
    assert "--score-name should not be empty" in refused("self", lab, "--score-name", " ", code=2)


def test_what_another_loss_left_is_named_when_it_is_replaced(lab: Lab) -> None:
    succeeded("self", lab, "--margin", "3")
    code, _, stderr = run("self", lab, "--margin", "3")
    assert code == 0
    assert "another loss" not in stderr
    _, _, stderr = run("self", lab, "--margin", "4")
    assert f"held {COLUMN} with another loss (loss_type standard, margin 3.0)" in stderr


# What is told


@pytest.mark.parametrize("by", ["item", "class", "class-pair"])
def test_views(lab: Lab, by: str) -> None:
    stdout, _ = succeeded("influence", lab, "--num-test", "1", "--with-self", "--by", by)
    names = {
        "item": r"^box_deg\d{3}_500hz_\d\d +\d",
        "class": r"^deg\d{3} +\d",
        "class-pair": r"^deg\d{3}–deg\d{3} +\d",
    }
    assert len(re.findall(names[by], stdout, re.MULTILINE)) >= 3
    assert "Hardest training pairs" not in stdout


def test_views_by_class_need_classes(lab: Lab) -> None:
    (lab.folder / "job.py").write_text(
        "import torch, tracin_func as ti\n"
        "def job():\n"
        "    scorer = torch.nn.Linear(3, 1)\n"
        "    pairs = ti.Pairs([0, 1, 2], [1, 2, 3], [1, -1, 1])\n"
        "    return ti.Task(scorer, torch.randn(4, 3), pairs, [ti.Checkpoint(scorer.state_dict(), 0.1)])\n"
    )
    task = ["self", "--task", f"{lab.folder / 'job.py'}:job", "--metadata-dir", str(lab.results)]
    result = CliRunner().invoke(app, [*task, "--by", "class"])
    assert result.exit_code == 2
    assert "Give `Task(item_classes=...)`" in result.stderr
    assert CliRunner().invoke(app, [*task, "--by", "item"]).exit_code == 0


def test_quiet_leaves_warnings_and_files(lab: Lab) -> None:
    stdout, stderr = succeeded("self", lab, "--quiet", "--margin", "3")
    assert stdout == ""
    assert [line.partition(":")[0] for line in stderr.splitlines()] == ["warning"]
    assert scores(lab)


def test_json_is_one_document(lab: Lab) -> None:
    stdout, _ = succeeded("influence", lab, "--num-test", "2", "--with-self", "--json", "--top", "2", "--verify", "1")
    document = json.loads(stdout)
    (one,) = document["runs"]
    assert document["command"] == "influence"
    assert len(one["self"]) == 2
    assert set(one["files"]) == {"self", "influence"}
    assert one["verification"]["passed"]
    written = scores(lab, "box_500hz_influence_metadata.json")
    for test, sides in one["influence"].items():
        for row in (*sides["proponents"], *sides["opponents"]):
            assert written[row["pair"]][f"tracin_influence_{test}"] == row["score"]


def test_a_dry_run_writes_nothing(lab: Lab) -> None:
    before = lab.files()
    code, stdout, stderr = run("influence", lab, "--dry-run", "--num-test", "2")
    assert code == 0, stderr
    assert lab.files() == before
    assert not lab.results.exists()
    for words in ("items 12: deg000 4, deg036 4, deg072 4", "test pairs 2", "engine ghost"):
        assert words in flat(stdout)
    assert re.search(r"time +[\d.]+ s for the gradients, measured on \d+ of \d+ items", stdout)
    assert "Nothing was scored" in stdout
    code, stdout, _ = run("self", lab, "--dry-run", "--json")
    assert code == 0
    assert json.loads(stdout)["dry_run"] is True


def test_each_checkpoint_says_how_it_does_beside_what_it_recorded(lab: Lab) -> None:
    held = torch.load(lab.checkpoints / "model_epoch_2.pt", weights_only=True)
    torch.save({**held, "train_accuracy": 99.5, "test_accuracy": 0.0}, lab.checkpoints / "model_epoch_2.pt")
    _, stderr = succeeded("self", lab)
    line = next(line for line in stderr.splitlines() if line.startswith("model_epoch_2.pt "))
    assert re.fullmatch(r"model_epoch_2.pt +0.01 +[\d.]+% \(99.5%\) +[\d.]+% \(0.0%\) +[\d]+% +[\d.]+ +[\d.]+", line)
    assert "2 checkpoints, pair accuracy not as recorded" in stderr
    (warning,) = [line for line in stderr.splitlines() if "Is this what was trained?" in line]
    assert "split and seed" in warning
    record = json.loads((lab.results / "box_500hz_metadata.json.provenance.json").read_text())["columns"][COLUMN]
    assert 0 <= record["checkpoints"][0]["evaluation"]["train_right"] <= 1


def test_a_contradiction_says_what_it_changes(lab: Lab) -> None:
    _, stderr = succeeded("self", lab, "--margin", "-1000")
    (warning,) = [line for line in stderr.splitlines() if line.startswith("warning: ")]
    assert "--margin -1000.0 (checkpoints: 10.0)" in warning
    assert re.search(r"Inactive: 100% of training pairs, instead of \d+%", warning)


# A run again


@pytest.mark.parametrize("lost", ["options", "engine"])
def test_a_record_that_lacks_what_a_run_needs_is_not_repeated(lab: Lab, lost: str) -> None:
    succeeded("self", lab)
    record = lab.results / "box_500hz_metadata.json.provenance.json"
    held = json.loads(record.read_text())
    del held["columns"][COLUMN][lost]
    record.write_text(json.dumps(held))
    result = CliRunner().invoke(app, ["self", "--from", str(record)])
    assert result.exit_code == 3
    assert "its runs of self are not recorded with their options" in result.stderr


def test_self_influence_that_was_recorded_beside_influence_says_so_when_repeated_alone(lab: Lab) -> None:
    """Test items are in the same batches then, which may change the last digits."""
    succeeded("influence", lab, "--with-self")
    record = lab.results / "box_500hz_metadata.json.provenance.json"
    result = CliRunner().invoke(app, ["self", "--from", str(record)])
    assert result.exit_code == 0
    assert "was recorded from one pass with influence (--with-self). Scores may differ." in result.stderr


def test_a_document_holds_what_was_noticed_while_scoring(lab: Lab) -> None:
    code, stdout, stderr = run("influence", lab, "--margin", "-1000", "--json", "--verbose")
    assert code == 0
    (notice,) = [line.removeprefix("note: ") for line in stderr.splitlines() if "have a zero gradient at every" in line]
    assert notice in json.loads(stdout)["runs"][0]["notices"]


def test_a_file_of_several_runs_says_which_is_repeated(lab: Lab) -> None:
    for margin in ("10", "20"):
        assert run("self", lab, "--margin", margin, "--score-name", f"of_{margin}")[0] == 0
    record = lab.results / "box_500hz_metadata.json.provenance.json"
    result = CliRunner().invoke(app, ["self", "--from", str(record)])
    assert "records different runs of self; repeating that of of_20" in result.stderr


def test_a_recorded_run_is_repeated_to_the_last_bit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.folder)
    options = ["--num-test", "2", "--margin", "5", "--seed", "0", "--memory-budget", "30MB", "--dtype", "float32"]
    given = ["--data-root", "data", "--checkpoint-dir", "checkpoints", "--material", "box", "--metadata-dir", "results"]
    assert CliRunner().invoke(app, ["influence", *given, *options]).exit_code == 0
    path = lab.results / "box_500hz_influence_metadata.json"
    record = lab.results / "box_500hz_influence_metadata.json.provenance.json"
    before = path.read_bytes()
    shutil.copy(record, lab.folder / "record.json")
    shutil.rmtree(lab.results)
    monkeypatch.chdir(lab.folder.parent)
    result = CliRunner().invoke(app, ["influence", "--from", str(lab.folder / "record.json")])
    assert result.exit_code == 0, result.stderr
    assert path.read_bytes() == before
    assert "not as recorded" not in result.stderr
    lab.save(2, AngleRanker().state_dict())
    result = CliRunner().invoke(app, ["influence", "--from", str(lab.folder / "record.json"), "--margin", "6"])
    assert result.exit_code == 0
    assert "checkpoints model_epoch_2.pt have other content" in flat(result.stderr)
    assert path.read_bytes() != before
    for command, file, words in (
        ("self", "record.json", "records no run of self, only of influence"),
        ("influence", "nothing.json", "no such file"),
    ):
        result = CliRunner().invoke(app, [command, "--from", str(lab.folder / file)])
        assert result.exit_code == 3
        assert words in flat(result.stderr)


def test_shells_complete_commands_and_options() -> None:
    for words, expected in (("tracin-func inf", "influence"), ("tracin-func self --memory-b", "--memory-budget")):
        environment = os.environ | {
            "_TRACIN_FUNC_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        script = Path(sys.executable).with_name("tracin-func")
        done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
        assert expected in done.stdout, done.stderr


def test_a_long_sentence_is_broken_between_words_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.delenv("NO_COLOR", raising=False)
    sentence = "error: some words and --long-names-of-options are whole"
    say(sentence)
    assert capsys.readouterr().err == f"{sentence}\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    say(sentence)
    lines = ["error: some words", "  and", "  --long-names-of-options", "  are whole"]
    red, plain = "\x1b[31m", "\x1b[0m"
    assert capsys.readouterr().err.splitlines() == [lines[0].replace("error", f"{red}error{plain}"), *lines[1:]]
    monkeypatch.setenv("NO_COLOR", "1")
    say(sentence)
    assert capsys.readouterr().err.splitlines() == lines


def test_a_switch_takes_no_value_in_help() -> None:
    own = re.sub(r"--help .*", "", CliRunner().invoke(app, ["self", "--help"]).output)  # which typer makes
    assert "--quiet" in own
    assert "<bool>" not in own


def test_pairs_that_are_all_inactive_are_told_with_what_would_help(lab: Lab) -> None:
    for path in lab.checkpoints.glob("*.pt"):
        held = torch.load(path, weights_only=True)
        held["args"]["margin"] = -1000.0
        torch.save(held, path)
    _, stderr = succeeded("self", lab)
    (warning,) = [line for line in stderr.splitlines() if line.startswith("warning: ")]
    assert "inactive at every checkpoint" in warning
    assert "--margin" in warning
