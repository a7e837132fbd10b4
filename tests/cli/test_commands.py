"""The command line on real files: what it does, and the one line and exit code of each mistake."""

import hashlib
import io
import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from tests.support.lab import COLUMN, Harmful, Lab, refused, run
from tests.support.places import ROOT
from tests.support.prepared import PREPARED, start
from tracin_func.cli.app import app
from tracin_func.cli.options import ComputeOptions, InfluenceOptions
from tracin_func.gradients.engines.registry import engine_names
from tracin_func.losses.ghm import GHM_VARIANTS
from tracin_func.sources.demo import cache
from tracin_func.sources.demo.ranker import AngleRanker
from tracin_func.sources.groups import loss_groups
from tracin_func.sources.options import declared
from tracin_func.task.method import TEST_FUNCTIONALS

# What works


def test_self_writes_scores_with_provenance_and_a_table(lab: Lab) -> None:
    code, stdout, stderr = run("self", lab)
    assert code == 0, stderr
    scores = json.loads((lab.results / "box_500hz_metadata.json").read_text())
    assert all(list(values) == [COLUMN] and values[COLUMN] >= 0 for values in scores.values())
    best = max(scores, key=lambda pair: scores[pair][COLUMN])
    rows = [line for line in stdout.splitlines() if "box_deg" in line]
    assert "_".join(rows[0].split()[1:3]) == best
    assert len(rows) == 10
    assert "model_epoch_2.pt, model_epoch_10.pt" not in stdout
    assert "model_epoch_2.pt, model_epoch_10.pt" in run("self", lab, "--verbose")[1]
    record = json.loads((lab.results / "box_500hz_metadata.json.provenance.json").read_text())["columns"][COLUMN]
    assert record["loss"] == {"loss_type": "standard", "margin": 10.0}
    assert record["engine"]["engine"] in engine_names()[1:]


def test_influence_writes_a_column_a_test_pair_and_self_on_demand(lab: Lab) -> None:
    code, stdout, stderr = run("influence", lab, "--num-test", "2", "--with-self")
    assert code == 0, stderr
    scores = json.loads((lab.results / "box_500hz_influence_metadata.json").read_text())
    columns = list(next(iter(scores.values())))
    assert len(columns) == 2
    assert all(re.fullmatch(r"tracin_influence_box_deg\d{3}_500hz_\d\d_box_deg\d{3}_500hz_\d\d", c) for c in columns)
    assert (lab.results / "box_500hz_metadata.json").exists()
    assert stdout.count("\ntest pair ") == 2


def test_engines_and_batch_sizes_write_the_same_scores(lab: Lab) -> None:
    found = []
    for engine, batch_size in (("item", "auto"), ("item", "3"), ("pair", "5"), ("loop", "1")):
        shutil.rmtree(lab.results, ignore_errors=True)
        code, _, stderr = run("self", lab, "--engine", engine, "--batch-size", batch_size)
        assert code == 0, stderr
        scores = json.loads((lab.results / "box_500hz_metadata.json").read_text())
        found.append({pair: values[COLUMN] for pair, values in scores.items()})
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)


def test_results_merge_and_other_values_survive(lab: Lab) -> None:
    assert run("self", lab)[0] == 0
    path = lab.results / "box_500hz_metadata.json"
    fresh = json.loads(path.read_text())
    assert run("self", lab, "--learning-rate", "0.5")[0] == 0
    of_other_rate = json.loads(path.read_text())
    assert of_other_rate != fresh
    width = len("box_deg036_500hz_01")
    pair = next(name for name in fresh if f"{name[width + 1 :]}_{name[:width]}" not in fresh)
    swapped = f"{pair[width + 1 :]}_{pair[:width]}"
    before = {swapped if name == pair else name: values for name, values in fresh.items()}
    before[swapped] = {"before": 1, COLUMN: 7.0, "note": {"by": ["hand", None]}}
    path.write_text(json.dumps(before | {"another_pair": {"x": 1.5}}))
    assert run("self", lab, "--learning-rate", "0.5")[0] == 0
    merged = json.loads(path.read_text())
    assert list(merged) == [*before, "another_pair"]
    assert merged.pop("another_pair") == {"x": 1.5}
    assert list(merged[swapped]) == ["before", COLUMN, "note"]
    assert merged[swapped].pop("note") == {"by": ["hand", None]}
    assert merged[swapped].pop("before") == 1
    expected = {swapped if name == pair else name: values for name, values in of_other_rate.items()}
    assert {name: values[COLUMN] for name, values in merged.items()} == pytest.approx(
        {name: values[COLUMN] for name, values in expected.items()}, rel=1e-4
    )


def test_pairs_of_a_table(lab: Lab) -> None:
    table = lab.folder / "pairs.csv"
    table.write_text(
        "first,second,target,split,weight\n"
        "box_deg072_500hz_00,box_deg000_500hz_00,1,train,2\n"
        "box_deg036_500hz_01,box_deg072_500hz_01,-1,train,1\n"
        "box_deg036_500hz_02,box_deg000_500hz_03,1,test,1\n"
    )
    code, _, stderr = run("influence", lab, "--pairs", str(table))
    assert code == 0, stderr
    scores = json.loads((lab.results / "box_500hz_influence_metadata.json").read_text())
    column = "tracin_influence_box_deg036_500hz_02_box_deg000_500hz_03"
    assert {pair: list(values) for pair, values in scores.items()} == {
        "box_deg072_500hz_00_box_deg000_500hz_00": [column],
        "box_deg036_500hz_01_box_deg072_500hz_01": [column],
    }
    doubled = {pair: values[column] for pair, values in scores.items()}
    table.write_text(table.read_text().replace(",train,2\n", ",train,1\n"))
    assert run("influence", lab, "--pairs", str(table))[0] == 0
    scores = json.loads((lab.results / "box_500hz_influence_metadata.json").read_text())
    single = {pair: values[column] for pair, values in scores.items()}
    first, second = single
    assert single[first] != 0
    assert doubled == pytest.approx({first: 2 * single[first], second: single[second]}, rel=1e-4)
    assert "--num-test 2 is more than the 1 distinct" in refused(
        "influence", lab, "--pairs", str(table), "--num-test", "2", code=3
    )
    assert "Allowed: drawn, all, a CSV or Parquet file" in refused("self", lab, "--pairs", "Drawn", code=3)


def test_exclusions_and_classes_and_takes(lab: Lab) -> None:
    excluded = lab.folder / "excluded.txt"
    assert run("self", lab)[0] == 0
    before = json.loads((lab.results / "box_500hz_metadata.json").read_text())
    item = next(iter(before))[: len("box_deg036_500hz_01")]
    excluded.write_text(f"# a bad take\n{item}\nnothing_of_that_name\n")
    shutil.rmtree(lab.results)
    code, _, stderr = run("self", lab, "--exclusions-file", str(excluded))
    assert code == 0, stderr
    after = json.loads((lab.results / "box_500hz_metadata.json").read_text())
    kept = {pair: values for pair, values in before.items() if item not in pair}
    assert list(after) == list(kept)
    for pair, values in kept.items():  # float32 rounds otherwise among other companions: see reference.TOLERANCE
        assert after[pair] == pytest.approx(values, rel=1e-5)
    assert after != before
    assert "no item or pair found for 1 id: nothing_of_that_name" in stderr
    shutil.rmtree(lab.results)
    assert run("self", lab, "--classes", "deg000,deg072", "--takes", "0,1,2")[0] == 0
    assert not re.search("deg036|_03", (lab.results / "box_500hz_metadata.json").read_text())


def test_explain_plan(lab: Lab) -> None:
    """On stderr, before scoring: what is printed on stdout is the result alone."""
    code, stdout, stderr = run("self", lab, "--explain-plan")
    assert code == 0, stderr
    assert "Plan: engine ghost" in stderr
    assert "MB expected" in stderr
    table = stderr[stderr.index("Plan: engine") :]
    for name, _ in AngleRanker().named_parameters():
        assert re.search(rf"{re.escape(name)}\W.*(built|factors)", table), name
    assert "multiply-adds" in table
    assert "Plan:" not in stdout
    code, _, stderr = run("self", lab, "--explain-plan", "--engine", "item")
    assert code == 0
    assert "same transform" in stderr


def test_environment_variables_and_safetensors(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.load(lab.checkpoints / "model_epoch_2.pt", weights_only=True)["model_state_dict"]
    safetensors.torch.save_file(weights, lab.checkpoints / "step_1.safetensors")
    monkeypatch.setenv("TRACIN_FUNC_CHECKPOINT_PREFIX", "step_")
    assert "records no learning rate" in refused("self", lab, code=3)
    monkeypatch.setenv("TRACIN_FUNC_LEARNING_RATE", "0.5")
    code, stdout, stderr = run("self", lab, "--verbose")
    assert code == 0, stderr
    assert "checkpoints step_1.safetensors" in " ".join(stdout.split())


def test_a_task_of_ones_own(lab: Lab) -> None:
    (lab.folder / "job.py").write_text(
        "import torch, tracin_func as ti\n"
        "def job():\n"
        "    torch.manual_seed(0)\n"
        "    scorer = torch.nn.Linear(3, 1)\n"
        "    pairs = ti.Pairs([0, 1, 2], [1, 2, 3], [1, -1, 1])\n"
        "    checkpoint = ti.Checkpoint(scorer.state_dict(), learning_rate=0.1)\n"
        "    return ti.Task(scorer, torch.randn(4, 3), pairs, [checkpoint], ti.Pairs([0], [3], [1]))\n"
    )
    task = ["--task", f"{lab.folder / 'job.py'}:job"]
    result = CliRunner().invoke(app, ["influence", *task, "--metadata-dir", str(lab.results), "--with-self"])
    assert result.exit_code == 0, result.output
    assert list(json.loads((lab.results / "job_job_metadata.json").read_text())) == ["0_1", "1_2", "2_3"]
    columns = json.loads((lab.results / "job_job_influence_metadata.json").read_text())["0_1"]
    assert list(columns) == ["tracin_influence_0_3"]
    assert "--data-root, --material cannot be used here" in refused("self", lab, *task, code=2)


def test_embedded_results_do_not_go_into_files_of_others(
    lab: Lab, embedded_500hz: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab.folder)
    path = lab.folder / "metadata/plastic_500hz_metadata.json"
    path.parent.mkdir()
    path.write_text('{"a_b": {"tracin_self_influence": 1.0}}')
    result = CliRunner().invoke(app, ["self"])
    assert result.exit_code == 3
    assert "holds other scores ('tracin_self_influence')" in result.stderr
    assert path.read_text() == '{"a_b": {"tracin_self_influence": 1.0}}'
    assert CliRunner().invoke(app, ["self", "--metadata-dir", "metadata", "--checkpoints", "last:1"]).exit_code == 0
    assert len(json.loads(path.read_text())) == 442


def test_own_results_do_not_go_into_files_of_the_embedded_default(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.folder)
    assert run("self", lab, "--metadata-dir", "metadata")[0] == 0
    path = lab.folder / "metadata/box_500hz_metadata.json"
    record = Path(f"{path}.provenance.json")
    record.write_text(record.read_text().replace('"kind": "tones"', '"kind": "embedded"'))
    before = lab.files()
    given = [word for word in lab.arguments() if word not in ("--metadata-dir", str(lab.results))]
    result = CliRunner().invoke(app, ["self", *given])
    assert result.exit_code == 3
    assert f"`{path}` already holds scores of the synthetic example ('{COLUMN}')" in result.stderr
    assert lab.files() == before
    assert CliRunner().invoke(app, ["self", *given, "--metadata-dir", "metadata"]).exit_code == 0


def test_a_score_margin_is_never_called_a_loss(lab: Lab) -> None:
    options = ["--num-test", "2", "--weight-test-pairs"]
    code, stdout, stderr = run("influence", lab, "--test-functional", "score-margin", *options)
    assert code == 0, stderr
    path = lab.results / "box_500hz_influence_metadata.json"
    (columns,) = {tuple(values) for values in json.loads(path.read_text()).values()}
    assert all(column.startswith("tracin_score_margin_influence_box_deg") for column in columns)
    record = json.loads(Path(f"{path}.provenance.json").read_text())["columns"][columns[0]]
    assert (record["test_functional"], record["weight_test_pairs"]) == ("score-margin", True)
    assert "training on p raised the score margin of q" in record["sign"]
    assert "Positive: it raised the score margin of the test pair" in stdout
    assert not re.search("its loss|, loss|lowered the loss", stdout)
    assert "warning: --weight-test-pairs has no effect" in stderr
    assert run("influence", lab, *options)[0] == 0
    assert len(next(iter(json.loads(path.read_text()).values()))) == 4


def test_provenance_is_enough_to_repeat_a_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.folder / "mine.py").write_text(
        "from tracin_func.sources.demo.ranker import AngleRanker\n"
        "class Mine(AngleRanker):\n    def __init__(self, note): super().__init__()\n"
    )
    (lab.folder / "out.txt").write_text("box_deg000_500hz_00\nno_such_id\n")
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("TRACIN_FUNC_MARGIN", "2")
    model = ["--model", "mine.py:Mine", "--model-arg", "note=(1, 2)", "--exclusions-file", "out.txt"]
    code, _, stderr = run("self", lab, *model, "--data-root", "data", "--checkpoint-dir", "checkpoints")
    assert code == 0, stderr
    path = lab.results / "box_500hz_metadata.json.provenance.json"
    record = json.loads(path.read_text())["columns"][COLUMN]
    assert record["working_folder"] == str(lab.folder)
    assert record["environment"]["TRACIN_FUNC_MARGIN"] == "2"
    source = record["source"]
    assert (source["model"], source["model_arguments"]) == ("mine.py:Mine", ["note=(1, 2)"])
    assert (source["data_root"], source["checkpoint_dir"]) == (str(lab.data), str(lab.checkpoints))
    digest = hashlib.sha256((lab.folder / "out.txt").read_bytes()).hexdigest()
    assert source["exclusions"] == {"path": str(lab.folder / "out.txt"), "sha256": digest}
    assert any("no_such_id" in sentence for sentence in source["notices"])
    assert isinstance(record["notices"], list)


def test_a_repeated_run_computes_convolutions_as_recorded(lab: Lab) -> None:
    assert run("self", lab)[0] == 0
    path = lab.results / "box_500hz_metadata.json.provenance.json"
    record = json.loads(path.read_text())
    kernels = record["columns"][COLUMN]["engine"]["kernels"]
    asked = {"channels_last": not kernels["channels_last"], "convolutions": {}}
    record["columns"][COLUMN]["engine"]["kernels"] = asked
    path.write_text(json.dumps(record))
    assert run("self", lab, "--from", str(path))[0] == 0
    assert json.loads(path.read_text())["columns"][COLUMN]["engine"]["kernels"] == asked


def test_exclusions_that_the_checkpoint_names(lab: Lab) -> None:
    excluded = lab.folder / "excluded.txt"
    lab.train_with(exclusions_file=str(excluded))
    line = refused("self", lab, code=3)
    assert f"args is {excluded}" in line
    assert "--exclusions-file none" in line
    excluded.write_text("box_deg072_500hz_03\n")
    code, _, stderr = run("self", lab)
    assert code == 0
    assert f"note: the exclusions file in the checkpoint's args, {excluded}, is applied after the split." in stderr
    scores = (lab.results / "box_500hz_metadata.json").read_text()
    assert "box_deg072_500hz_03" not in scores
    shutil.rmtree(lab.results)
    code, _, stderr = run("self", lab, "--exclusions-file", "none")
    assert code == 0
    assert "warning: settings differ from those of the training: --exclusions-file none (checkpoints: " in stderr
    assert "box_deg072_500hz_03" in (lab.results / "box_500hz_metadata.json").read_text()


def test_excluded_test_pairs_give_way_to_others(lab: Lab) -> None:
    path, excluded = lab.results / "box_500hz_influence_metadata.json", lab.folder / "excluded.txt"

    def columns(*more: str) -> list[str]:
        shutil.rmtree(lab.results, ignore_errors=True)
        code, _, stderr = run("influence", lab, *more)
        assert code == 0, stderr
        return [name.removeprefix("tracin_influence_") for name in next(iter(json.loads(path.read_text()).values()))]

    every, two = columns("--num-test", "all"), columns("--num-test", "2")
    excluded.write_text(f"{two[0]}\n")
    other = columns("--num-test", "2", "--exclusions-file", str(excluded))
    assert len(set(other)) == 2
    assert two[0] not in other
    assert two[1] in other
    excluded.write_text("\n".join(every))
    line = refused("influence", lab, "--exclusions-file", str(excluded), code=3)
    assert f"{excluded} excludes all {len(every)} test pairs" in line


def test_settings_that_contradict_the_checkpoints_are_one_warning(lab: Lab) -> None:
    lab.train_with(frequency="1000hz", material="box", loss_type="ghm", ghm_bins=5, batch_size=32)
    code, _, stderr = run("self", lab, "--margin", "2", "--ghm-batch-size", "all", "--ghm-variant", "symmetric")
    assert code == 0, stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("warning: ")]
    assert "settings differ from those of the training: " in line
    for words in ("--frequency 500hz (the default)", "--margin 2.0", "--ghm-batch-size all", "(checkpoints: lab)"):
        assert words in line
    lab.save(10, AngleRanker().state_dict(), margin=5.0)
    code, _, stderr = run("self", lab)
    assert code == 0
    assert "margin (10.0 in model_epoch_2.pt, 5.0 in model_epoch_10.pt)" in stderr


def test_options_that_change_nothing_are_told(lab: Lab) -> None:
    code, _, stderr = run("self", lab, "--ghm-bins", "5", "--ghm-alpha", "1")
    assert code == 0
    assert "warning: --ghm-bins, --ghm-alpha: no effect on the loss standard." in stderr
    code, _, stderr = run("influence", lab, "--loss-type", "logistic", "--margin", "3", "--weight-test-pairs")
    assert code == 0
    assert "--margin: no effect on the loss logistic." in stderr
    assert "warning: --weight-test-pairs has no effect" in stderr
    assert "not used" not in run("self", lab, "--loss-type", "ghm", "--ghm-bins", "5")[2]


def test_strays_are_told_and_what_cannot_be_opened_is_refused(lab: Lab) -> None:
    folder = lab.data / "deg036/box"
    (folder / "Box_deg036_500hz_07.wav").touch()
    code, _, stderr = run("self", lab)
    assert code == 0
    assert "note: left out 1 file for box" in stderr
    assert "deg036/box/Box_deg036_500hz_07.wav" in stderr
    (folder / "box_deg036_500hz_08.wav").symlink_to(lab.folder / "gone.wav")
    line = refused("self", lab, code=3)
    assert f"{folder / 'box_deg036_500hz_08.wav'} has the name of a recording and is a broken link" in line


def test_loss_options_change_the_loss_of_a_task(lab: Lab) -> None:
    (lab.folder / "job.py").write_text(
        "import torch, tracin_func as ti\n"
        "def job(loss=ti.GHMRankingLoss(margin=3.0, bins=4, alpha=0.5, batch_size=8)):\n"
        "    torch.manual_seed(0)\n"
        "    scorer = torch.nn.Linear(3, 1)\n"
        "    pairs = ti.Pairs([0, 1, 2], [1, 2, 3], [1, -1, 1])\n"
        "    checkpoint = ti.Checkpoint(scorer.state_dict(), learning_rate=0.1)\n"
        "    return ti.Task(scorer, torch.randn(4, 3), pairs, [checkpoint], ti.Pairs([0], [3], [1]), loss)\n"
        "def logistic(): return job(ti.LogisticLoss())\n"
        "def leaves(): raise SystemExit\n"
    )

    def of(factory: str, *more: str, command: str = "self") -> Any:
        task = ["--task", f"{lab.folder / 'job.py'}:{factory}", "--metadata-dir", str(lab.results)]
        return CliRunner().invoke(app, [command, *task, *more])

    def loss() -> Any:
        path = lab.results / "job_job_metadata.json.provenance.json"
        return json.loads(path.read_text())["columns"][COLUMN]["loss"]

    assert of("job", "--margin", "2", "--ghm-batch-size", "all").exit_code == 0
    own = {"loss_type": "ghm", "margin": 2.0, "bins": 4, "alpha": 0.5, "batch_size": None, "variant": "symmetric"}
    assert loss() == own
    result = of("job", "--loss-type", "standard", "--margin", "2")
    assert "note: --loss-type standard replaces the task's own loss." in result.stderr
    assert loss() == {"loss_type": "standard", "margin": 2.0}
    for factory, options, words, code in (
        (
            "logistic",
            ["--margin", "2"],
            "--margin cannot be used: the task's loss, LogisticLoss, has no field 'margin'",
            2,
        ),
        ("job", ["--num-workers", "0"], "--num-workers cannot be used here", 2),
        ("leaves", [], ":leaves failed: SystemExit", 3),
    ):
        result = of(factory, *options)
        assert result.exit_code == code, result.stderr
        assert words in result.stderr
    result = of("job", "--num-test", "1", command="influence")
    assert result.exit_code == 2
    assert "--num-test cannot be used here" in result.stderr


def test_weights_are_shown_where_the_loss_has_them(lab: Lab) -> None:
    words = "GHM hides label errors"
    assert words not in " ".join(run("self", lab)[1].split())
    assert words in " ".join(run("self", lab, "--loss-type", "ghm")[1].split())
    first, second = ("box_deg036_500hz_00", "box_deg000_500hz_01"), ("box_deg072_500hz_02", "box_deg036_500hz_03")
    rows = [f"{a},{b},1,{weight}\n" for (a, b), weight in zip((first, second), (2, 3), strict=True)]
    (lab.folder / "pairs.csv").write_text("first,second,target,weight\n" + "".join(rows))
    stdout = run("self", lab, "--pairs", str(lab.folder / "pairs.csv"))[1]
    assert "weight" in stdout
    assert words not in stdout, "weights of pairs are no GHM weights"


@pytest.mark.parametrize("width", [80, 100, 120, 140])
def test_a_row_is_a_line_at_every_width(lab: Lab, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracin_func.report.terminal.tables.PLAIN_WIDTH", width)
    code, stdout, stderr = run("influence", lab, "--num-test", "2", "--with-self", "--top", "2")
    assert code == 0, stderr
    (found,) = json.loads(run("influence", lab, "--num-test", "2", "--top", "2", "--json")[1])["runs"]
    ranked = [pair for sides in found["influence"].values() for pair in sides["proponents"] + sides["opponents"]]
    lines = [line for line in stdout.splitlines() if not line.startswith(("Written", "Next"))]
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if "box_deg" in line]
    assert len(rows) == 2 + len(ranked) + 2
    assert all(len(re.findall(r"(?<!\S)box_deg\d{3}_500hz_\d\d(?!\S)", row)) == 2 for row in rows)
    heading = next(line for line in lines if "loss rank" in line)
    assert "active" in heading
    assert ("mean loss" in heading) == (width >= 100)
    assert len(set(map(len, rows[-2:]))) == 1, "the last column is aligned"


# What is refused


def test_missing_data_lists_what_there_is(lab: Lab) -> None:
    assert "nowhere" in refused("self", lab, "--data-root", str(lab.folder / "nowhere"), code=3)
    assert "--material wood not found in" in (line := refused("self", lab, "--material", "wood", code=3))
    assert "Available: box" in line
    assert "--frequency 3khz not found for" in (line := refused("self", lab, "--frequency", "3khz", code=3))
    assert "Available: 500hz" in line


def test_a_corrupt_wav_among_good_ones_is_named(lab: Lab) -> None:
    path = lab.data / "deg036/box/box_deg036_500hz_02.wav"
    path.write_bytes(path.read_bytes()[:500])
    assert str(path) in refused("self", lab, code=3)


def test_no_checkpoint_of_the_prefix(lab: Lab) -> None:
    line = refused("self", lab, "--checkpoint-prefix", "epoch-", code=3)
    assert "Available: model_epoch_2.pt, model_epoch_10.pt" in line
    assert "--checkpoint-dir: folder not found: " in refused(
        "self", lab, "--checkpoint-dir", str(lab.folder / "no"), code=3
    )


def test_a_truncated_checkpoint(lab: Lab) -> None:
    path = lab.checkpoints / "model_epoch_10.pt"
    path.write_bytes(path.read_bytes()[:2000])
    assert f"{path}: not a readable checkpoint" in refused("self", lab, code=3)


def test_a_checkpoint_that_would_run_code(lab: Lab) -> None:
    path = lab.checkpoints / "model_epoch_10.pt"
    torch.save({"model_state_dict": {}, "args": Harmful()}, path)
    line = refused("self", lab, code=3)
    assert str(path) in line
    assert "exec" in line
    stream = io.BytesIO()
    pickle.dump(Harmful(), stream)
    path.write_bytes(stream.getvalue())
    assert str(path) in refused("self", lab, code=3)


def test_weights_that_do_not_fit(lab: Lab) -> None:
    weights = AngleRanker(hidden=100).state_dict()
    lab.save(10, weights)
    line = refused("self", lab, code=3)
    assert "model_epoch_10.pt: its weights do not fit the model AngleRanker: wrong shape head.1.weight" in line
    weights["extra"] = weights.pop("head.1.weight")
    lab.save(10, weights)
    assert "missing head.1.weight; unexpected extra" in refused("self", lab, code=3)


def test_nan_in_weights(lab: Lab) -> None:
    weights = AngleRanker().state_dict()
    weights["head.1.bias"][0] = float("nan")
    lab.save(10, weights)
    assert "model_epoch_10.pt: weight 'head.1.bias' holds NaN" in refused("self", lab, code=3)


def test_scores_that_overflow(lab: Lab) -> None:
    weights = AngleRanker().state_dict()
    weights["head.3.weight"] *= 1e38
    weights["head.1.weight"] *= 1e38
    lab.save(10, weights)
    line = refused("self", lab, code=1)
    assert re.search(r"model_epoch_10.pt: the score of item box_deg\d+_500hz_\d+ is NaN or infinite", line)


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"pair": 3}', '{"a_b": {}, "a_b": {}}'])
def test_a_result_file_that_is_not_one(lab: Lab, content: str) -> None:
    lab.results.mkdir()
    (lab.results / "box_500hz_metadata.json").write_text(content)
    assert "box_500hz_metadata.json" in refused("self", lab, code=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there(lab: Lab) -> None:
    line = refused("self", lab, "--device", "cuda", code=2)
    assert "device 'cuda' is not available here" in line
    assert "cpu" in line


def test_wrong_words_are_told_before_the_embedded_default_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACIN_FUNC_CACHE_DIR", str(tmp_path / "cache"))
    for option, flagged in (
        *((["--engine", "x"], "--engine"), (["--loss-type", "x"], "--loss-type")),
        *((["--test-functional", "x"], "--test-functional"), (["--num-test", "0"], "--num-test")),
        (["--pairs", "x"], "--pairs"),
    ):
        result = CliRunner().invoke(app, ["influence", *option])
        assert result.exit_code == (3 if flagged == "--pairs" else 2)
        assert result.stderr.startswith(f"error: {flagged} ")
        assert not (tmp_path / "cache").exists()


def test_data_without_checkpoints_and_the_reverse() -> None:
    for given, missing in (("--data-root", "--checkpoint-dir"), ("--checkpoint-dir", "--data-root")):
        result = CliRunner().invoke(app, ["self", given, "somewhere"])
        assert result.exit_code == 2
        assert f"{given} was given without {missing}" in result.stderr


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--engine", "gosht"], "--engine should be one of auto, loop, pair, item"),
        (["--loss-type", "hinge"], "--loss-type should be one of standard, ghm, logistic"),
        (["--batch-size", "0"], "--batch-size should be a whole number of at least 1, or auto"),
        (["--device", "tpu"], "--device should be auto, cuda, mps, cpu"),
        (["--learning-rate", "-1"], "--learning-rate should be finite and at least 0"),
        (["--takes", "a"], "--takes should be whole numbers"),
        (["--seed", "-1"], "--seed should be a whole number from 0 to 4294967295. Got -1."),
        (["--top", "0"], "--top should be at least 1"),
        (["--num-workers", "-1"], "--num-workers should be at least 0"),
        (["--loss-type", "ghm", "--ghm-variant", "x"], "--ghm-variant should be one of symmetric, lab"),
        (["--loss-type", "ghm", "--ghm-batch-size", "0"], "--ghm-batch-size should be a whole number from 1"),
        (["--model", "ranker"], "--model should be FILE.py:Name"),
        (["--model", "m.py:R", "--model-arg", "x"], "--model-arg should be NAME=VALUE"),
        (["--margin", "nan"], "--margin should be a finite number. Got nan."),
        (["--sample-rate", "0"], "--sample-rate should be at least 1. Got 0."),
        (["--model-arg", "width=3"], "--model-arg was given without --model"),
        (["--classes", " "], "--classes should be one or more values separated by commas. Got ' '."),
        (["--takes", ","], "--takes should be one or more values separated by commas"),
        (["--checkpoint-dir", "models/{frequenzy}"], "placeholder {frequenzy}. Allowed: {frequency}, {material}"),
    ],
)
def test_options_wrong_in_themselves(lab: Lab, options: list[str], line: str) -> None:
    assert line in refused("self", lab, *options, code=2)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import nothing_there", "cannot be imported: ModuleNotFoundError: No module named 'nothing_there'"),
        ("class Other: pass", "Available: Other"),
        (
            "import torch\nclass Mine(torch.nn.Module):\n    def __init__(self, width): pass",
            "Set them with --model-arg",
        ),
        ("class Mine: pass", "returned a Mine. It should return a torch.nn.Module"),
        (
            "import torch\nclass Mine(torch.nn.Linear):\n"
            "    def __init__(self): super().__init__(2, 2)\n    def forward(self, x): return x, x",
            "its weights do not fit the model Mine",
        ),
        (
            "import torch\nclass Mine(torch.nn.Module):\n    def forward(self, x): return x.mean((1, 2, 3))",
            "Mine",
        ),
        ("import sys\nsys.exit(4)", "cannot be imported: SystemExit: 4"),
        ("import sys\nclass Mine:\n    def __init__(self): sys.exit('no')", "Mine failed: SystemExit: no"),
    ],
)
def test_models_that_do_not_fit(lab: Lab, source: str, line: str) -> None:
    (lab.folder / "mine.py").write_text(source)
    assert line in refused("self", lab, "--model", f"{lab.folder / 'mine.py'}:Mine", code=3)


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, without a terminal."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "tracin_func", *arguments]
    return subprocess.run(command, text=True, check=False, **(streams | options))


def in_shell(command: str) -> subprocess.CompletedProcess[str]:
    """A command as a shell starts it."""
    start = f"{shlex.quote(sys.executable)} -m tracin_func {command}"
    return subprocess.run(start, shell=True, capture_output=True, text=True, check=False)


def test_a_reader_who_leaves_early_costs_nothing(lab: Lab) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = process("influence", *lab.arguments("--num-test", "3", "--with-self"), stdout=writer)
    os.close(writer)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    for name in ("box_500hz_influence_metadata.json", "box_500hz_metadata.json"):
        assert json.loads((lab.results / name).read_text())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_stdout_that_is_full_is_one_line(lab: Lab) -> None:
    for arguments in (["self", *lab.arguments()], ["--help"]):
        with open("/dev/full", "w") as full:
            result = process(*arguments, stdout=full)
        assert result.returncode == 1, result.stderr
        last = result.stderr.splitlines()[-1]
        assert last.startswith("error: stdout cannot be written: No space left on device")
        assert "Traceback" not in result.stderr
    assert json.loads((lab.results / "box_500hz_metadata.json").read_text())


CLOSED = (">&-", "2>&-", ">&- 2>&-")


@pytest.mark.parametrize(
    "closed", [*(pytest.param(each, marks=pytest.mark.thorough) for each in CLOSED[:2]), CLOSED[2]]
)
def test_streams_that_are_closed_do_no_harm(lab: Lab, closed: str) -> None:
    result = in_shell(f"self {shlex.join(lab.arguments())} {closed}")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads((lab.results / "box_500hz_metadata.json").read_text())


@pytest.mark.parametrize("closed", CLOSED)
def test_streams_that_are_closed_do_no_harm_to_what_is_shown(lab: Lab, closed: str) -> None:
    assert run("self", lab)[0] == 0
    result = in_shell(f"show {lab.results / 'box_500hz_metadata.json'} {closed}")
    assert (result.returncode, result.stderr) == (0, "")
    assert bool(result.stdout) == (closed == "2>&-")


def test_a_stdout_of_few_signs(lab: Lab) -> None:
    for arguments in (["self", *lab.arguments()], ["self", "--help"]):
        result = process(*arguments, env=os.environ | {"PYTHONIOENCODING": "ascii"})
        assert result.returncode == 0, result.stderr
        assert "Hardest training pairs" in result.stdout or "?_t" in result.stdout
        result.stdout.encode("ascii")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["self", "--sed", "3"], "No such option: --sed. Did you mean --seed?"),
        (["self", "--loss-tpye", "ghm"], "Did you mean --loss-type?"),
        (["self", "--seed", "three"], "--seed should be a whole number."),
        (["self", "--margin", "wide"], "--margin should be a number."),
        (["selv"], "No such command 'selv'"),
        (["demo"], "Missing argument"),
        (["self", "more"], "unexpected extra argument"),
    ],
)
def test_words_that_cannot_be_parsed_are_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = start(tuple(arguments), tmp_path / "log").end()
    assert result.code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert result.stdout == ""


def test_help_and_version_go_to_stdout(tmp_path: Path) -> None:
    for arguments, words in (
        ([], "Start with\n  tracin-func self"),
        (["--help"], "Usage"),
        (["self", "-h"], "--margin"),
        (["--version"], "0."),
    ):
        result = start(tuple(arguments), tmp_path / "log").end()
        assert result.code == 0
        assert words in result.stdout
        assert result.stderr == ""


def test_an_interrupt_after_saving_says_where_the_scores_are(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tracin_func.cli.score.print_self", interrupt)
    code, _, stderr = run("self", lab)
    path = lab.results / "box_500hz_metadata.json"
    assert code == 130
    assert stderr.splitlines()[-1] == f"interrupted; the scores are in {path}."
    assert json.loads(path.read_text())
    monkeypatch.setattr(cache, "write_demo", interrupt)
    result = CliRunner().invoke(app, ["demo", "there"])
    assert (result.exit_code, result.stderr) == (130, "interrupted; what is in there is not complete.\n")
    monkeypatch.setattr("tracin_func.results.influence.SelfInfluence.save", interrupt)
    _, _, stderr = run("self", lab)
    assert stderr.splitlines()[-1] == f"interrupted; each of {path} is as it was or holds the new scores."


def test_an_interrupt_leaves_files_as_they_were(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert run("self", lab)[0] == 0
    before = lab.files()
    log = tmp_path_factory.mktemp("log") / "log"
    process = start(("self", *lab.arguments("--margin", "2", "--engine", "loop", "--verbose")), log)
    shown = log.with_name("log.stderr")
    while not shown.exists() or "model_epoch_2.pt" not in shown.read_text():
        assert process.process.is_alive(), "ended too early"
    process.send(signal.SIGINT)
    result = process.end()
    assert result.code == 130, result.stderr
    assert result.stderr.rstrip().endswith("interrupted; result files are as they were.")
    assert lab.files() == before


def test_help_names_the_choices_there_are() -> None:
    assert all(name in declared(ComputeOptions)["engine"].help for name in engine_names())
    assert all(name in declared(*loss_groups())["ghm_variant"].help for name in GHM_VARIANTS)
    assert all(name in declared(InfluenceOptions)["test_functional"].help for name in TEST_FUNCTIONALS)


@pytest.mark.parametrize("start", [["-m", "tracin_func"], ["cli.py"]])
def test_it_starts_as_a_module_and_from_a_clone(start: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, *start, "show", "nowhere.json"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 3
    assert result.stderr.startswith("error: `nowhere.json`: file not found")
    assert result.stdout == ""


def run_without_dynamo(words: list[str]) -> None:
    assert "torch._dynamo" not in sys.modules
    assert CliRunner().invoke(app, words).exit_code == 0
    assert "torch._dynamo" not in sys.modules


def test_a_first_run_does_not_load_dynamo(lab: Lab) -> None:
    """It takes longer to load than all else together."""
    process = PREPARED.Process(target=run_without_dynamo, args=(["self", *lab.arguments()],))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_result_fits_one_screen(embedded_500hz: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns and 24 lines, notices included."""
    monkeypatch.setattr("tracin_func.report.terminal.tables.PLAIN_WIDTH", 80)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["self"])
    assert result.exit_code == 0, result.stderr
    lines = [*result.stderr.splitlines(), *result.stdout.splitlines()]
    assert len(lines) <= 22, "two are left for the prompt and the command"
    assert max(map(len, lines)) <= 80
    heading = next(number for number, line in enumerate(lines) if line.startswith("Hardest training pairs"))
    assert heading <= 3


def test_the_next_command_works(lab: Lab) -> None:
    """By class only where ids name the classes."""
    (lab.folder / "job.py").write_text(
        "import torch, tracin_func as ti\n"
        "def job():\n"
        "    scorer = torch.nn.Linear(3, 1)\n"
        "    pairs = ti.Pairs([0, 1, 2], [1, 2, 3], [1, -1, 1])\n"
        "    return ti.Task(scorer, torch.randn(4, 3), pairs, [ti.Checkpoint(scorer.state_dict(), 0.1)])\n"
    )
    task = ["--task", f"{lab.folder / 'job.py'}:job", "--metadata-dir", str(lab.results)]
    for words, view in ((task, "item"), (lab.arguments(), "class-pair")):
        result = CliRunner().invoke(app, ["self", *words])
        assert result.exit_code == 0, result.stderr
        label, _, *command = shlex.split(result.stdout.splitlines()[-1])
        assert (label, command[-1]) == ("Next", view)
        shown = CliRunner().invoke(app, command)
        assert shown.exit_code == 0, shown.stderr
