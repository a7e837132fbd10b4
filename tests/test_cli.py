"""The command line on real files: what it does, and the one line and exit code of each mistake."""

import io
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from typer.testing import CliRunner

from tracin_func.cli.app import app
from tracin_func.cli.options import TABLE
from tracin_func.engines.choose import NAMES
from tracin_func.losses import GHM_VARIANTS
from tracin_func.sources.ranker import AngleRanker
from tracin_func.terms import TEST_FUNCTIONALS

COLUMN = "tracin_self_influence"


class Lab:
    """A small tree of recordings with checkpoints of the embedded ranker, and a folder for results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.checkpoints, self.results = folder / "data", folder / "checkpoints", folder / "results"
        random, time = np.random.default_rng(0), np.arange(4800) / 48000
        for degree in (0, 36, 72):
            for take in range(4):
                path = self.data / f"deg{degree:03}/box/box_deg{degree:03}_500hz_{take:02}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                tone = (0.1 + degree / 200) * np.sin(2 * np.pi * 500 * time) + 0.01 * random.standard_normal(4800)
                soundfile.write(path, tone, 48000)
        self.checkpoints.mkdir()
        for epoch in (2, 10):
            torch.manual_seed(epoch)
            self.save(epoch, AngleRanker().state_dict())

    def save(self, epoch: int, weights: dict[str, torch.Tensor]) -> Path:
        path = self.checkpoints / f"model_epoch_{epoch}.pt"
        optimizer = {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]}
        content = {"model_state_dict": weights, "optimizer_state_dict": optimizer, "args": {"margin": 10.0, "seed": 3}}
        torch.save(content, path)
        return path

    def arguments(self, *more: str) -> list[str]:
        own = {"--data-root": self.data, "--checkpoint-dir": self.checkpoints, "--metadata-dir": self.results}
        given = [word for option, path in own.items() if option not in more for word in (option, str(path))]
        return [*given, *([] if "--material" in more else ["--material", "box"]), *more]

    def files(self) -> dict[str, bytes]:
        """Everything there is, byte for byte; locks hold nothing."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
        return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def run(command: str, lab: Lab, *more: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr with its line breaks undone."""
    result = CliRunner().invoke(app, [command, *lab.arguments(*more)])
    return result.exit_code, result.stdout, result.stderr


def refused(command: str, lab: Lab, *more: str, code: int) -> str:
    """The one line of an error; the files are as they were."""
    before = lab.files()
    found, stdout, stderr = run(command, lab, *more)
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert (found, len(errors)) == (code, 1), (stdout, stderr)
    assert "Traceback" not in stderr
    assert lab.files() == before
    return errors[0]


# What works


def test_self_writes_scores_with_provenance_and_a_table(lab: Lab) -> None:
    code, stdout, stderr = run("self", lab)
    assert code == 0, stderr
    scores = json.loads((lab.results / "box_500hz_metadata.json").read_text())
    assert all(list(values) == [COLUMN] and values[COLUMN] >= 0 for values in scores.values())
    best = max(scores, key=lambda pair: scores[pair][COLUMN])
    rows = [line for line in stdout.splitlines() if "box_deg" in line]
    assert best in rows[0]
    assert len(rows) == 10
    assert "model_epoch_2.pt, model_epoch_10.pt" in stdout.replace("\n", " ")
    record = json.loads((lab.results / "box_500hz_metadata.json.provenance.json").read_text())["columns"][COLUMN]
    assert record["loss"] == {"loss_type": "standard", "margin": 10.0}
    assert record["engine"]["engine"] == "item"


def test_influence_writes_a_column_a_test_pair_and_self_on_demand(lab: Lab) -> None:
    code, stdout, stderr = run("influence", lab, "--num-test", "2", "--with-self")
    assert code == 0, stderr
    scores = json.loads((lab.results / "box_500hz_influence_metadata.json").read_text())
    columns = list(next(iter(scores.values())))
    assert len(columns) == 2
    assert all(re.fullmatch(r"tracin_influence_box_deg\d{3}_500hz_\d\d_box_deg\d{3}_500hz_\d\d", c) for c in columns)
    assert (lab.results / "box_500hz_metadata.json").exists()
    assert stdout.count("Test pair ") == 2


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
    scores = json.loads(path.read_text())
    pair = next(iter(scores))
    scores[pair]["note"] = {"by": ["hand", None]}
    first, second = pair[: len(pair) // 2], pair[len(pair) // 2 + 1 :]
    swapped = f"{second}_{first}"
    scores = {swapped if name == pair and swapped not in scores else name: values for name, values in scores.items()}
    path.write_text(json.dumps(scores | {"another_pair": {"x": 1.5}}))
    assert run("self", lab, "--margin", "1")[0] == 0
    merged = json.loads(path.read_text())
    assert list(merged) == [*scores, "another_pair"]
    assert merged["another_pair"] == {"x": 1.5}
    assert next(iter(merged.values()))["note"] == {"by": ["hand", None]}


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
    assert "2 test pairs" not in stderr
    assert "has 1 test pairs" in refused("influence", lab, "--pairs", str(table), "--num-test", "2", code=3)


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
    assert after == {pair: values for pair, values in before.items() if item not in pair}
    assert after != before
    assert "1 of its ids name no item or pair here, such as nothing_of_that_name" in stderr
    shutil.rmtree(lab.results)
    assert run("self", lab, "--classes", "deg000,deg072", "--takes", "0,1,2")[0] == 0
    assert not re.search("deg036|_03", (lab.results / "box_500hz_metadata.json").read_text())


def test_environment_variables_and_safetensors(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.load(lab.checkpoints / "model_epoch_2.pt", weights_only=True)["model_state_dict"]
    safetensors.torch.save_file(weights, lab.checkpoints / "step_1.safetensors")
    monkeypatch.setenv("TRACIN_FUNC_CHECKPOINT_PREFIX", "step_")
    assert "records no learning rate" in refused("self", lab, code=3)
    monkeypatch.setenv("TRACIN_FUNC_LEARNING_RATE", "0.5")
    code, stdout, stderr = run("self", lab)
    assert code == 0, stderr
    assert "Checkpoints: step_1.safetensors" in " ".join(stdout.split())


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
    assert list(json.loads((lab.results / "job_metadata.json").read_text())) == ["0_1", "1_2", "2_3"]
    columns = json.loads((lab.results / "job_influence_metadata.json").read_text())["0_1"]
    assert list(columns) == ["tracin_influence_0_3"]
    assert "--data-root, --material, --checkpoint-dir cannot be used with it" in refused("self", lab, *task, code=2)


def test_embedded_results_do_not_go_into_files_of_others(
    lab: Lab, embedded_500hz: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab.folder)
    path = lab.folder / "metadata/plastic_500hz_metadata.json"
    path.parent.mkdir()
    path.write_text('{"a_b": {"tracin_self_influence": 1.0}}')
    result = CliRunner().invoke(app, ["self"])
    assert result.exit_code == 3
    assert "was not computed from the embedded data" in result.stderr
    assert path.read_text() == '{"a_b": {"tracin_self_influence": 1.0}}'
    assert CliRunner().invoke(app, ["self", "--metadata-dir", "metadata"]).exit_code == 0
    assert len(json.loads(path.read_text())) == 442


# What is refused


def test_missing_data_lists_what_there_is(lab: Lab) -> None:
    assert "nowhere" in refused("self", lab, "--data-root", str(lab.folder / "nowhere"), code=3)
    assert "no material 'wood'" in (line := refused("self", lab, "--material", "wood", code=3))
    assert "there are: box" in line
    assert "no tone '3khz'" in (line := refused("self", lab, "--frequency", "3khz", code=3))
    assert "there are: 500hz" in line


def test_a_corrupt_wav_among_good_ones_is_named(lab: Lab) -> None:
    path = lab.data / "deg036/box/box_deg036_500hz_02.wav"
    path.write_bytes(path.read_bytes()[:500])
    assert str(path) in refused("self", lab, code=3)


def test_no_checkpoint_of_the_prefix(lab: Lab) -> None:
    line = refused("self", lab, "--checkpoint-prefix", "epoch-", code=3)
    assert "there is: model_epoch_2.pt, model_epoch_10.pt" in line
    assert "no such folder" in refused("self", lab, "--checkpoint-dir", str(lab.folder / "no"), code=3)


def test_a_truncated_checkpoint(lab: Lab) -> None:
    path = lab.checkpoints / "model_epoch_10.pt"
    path.write_bytes(path.read_bytes()[:2000])
    assert f"{path}: not a readable checkpoint" in refused("self", lab, code=3)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('this code was run')",)


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


def test_data_without_checkpoints_and_the_reverse() -> None:
    for given, missing in (("--data-root", "--checkpoint-dir"), ("--checkpoint-dir", "--data-root")):
        result = CliRunner().invoke(app, ["self", given, "somewhere"])
        assert result.exit_code == 2
        assert f"{given} was given without {missing}" in result.stderr


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--engine", "gosht"], "`engine` should be one of auto, loop, pair, item"),
        (["--loss-type", "hinge"], "--loss-type should be one of standard, ghm, logistic"),
        (["--batch-size", "0"], "--batch-size should be a whole number of at least 1, or auto"),
        (["--device", "tpu"], "`device` should be auto, cuda, mps, cpu"),
        (["--learning-rate", "-1"], "`learning_rate` should be finite and at least 0"),
        (["--takes", "a"], "--takes should be whole numbers"),
        (["--seed", "-1"], "--seed should be a whole number from 0 to 4294967295. Got -1."),
        (["--top", "0"], "--top should be at least 1"),
        (["--num-workers", "-1"], "`workers` should be 0 or more"),
        (["--loss-type", "ghm", "--ghm-variant", "x"], "--ghm-variant should be one of symmetric, lab"),
        (["--loss-type", "ghm", "--ghm-batch-size", "0"], "--ghm-batch-size should be a whole number from 1"),
        (["--model", "ranker"], "--model should be FILE.py:Name"),
        (["--model", "m.py:R", "--model-arg", "x"], "--model-arg should be name=value"),
        (["--margin", "nan"], "--margin should be a finite number. Got nan."),
    ],
)
def test_options_wrong_in_themselves(lab: Lab, options: list[str], line: str) -> None:
    assert line in refused("self", lab, *options, code=2)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import nothing_there", "cannot be imported: ModuleNotFoundError: No module named 'nothing_there'"),
        ("class Other: pass", "defines no 'Mine'; it defines: Other"),
        (
            "import torch\nclass Mine(torch.nn.Module):\n    def __init__(self, width): pass",
            "Give them with --model-arg",
        ),
        ("class Mine: pass", "made a Mine. Expected a torch.nn.Module"),
        (
            "import torch\nclass Mine(torch.nn.Linear):\n"
            "    def __init__(self): super().__init__(2, 2)\n    def forward(self, x): return x, x",
            "its weights do not fit the model Mine",
        ),
    ],
)
def test_models_that_do_not_fit(lab: Lab, source: str, line: str) -> None:
    (lab.folder / "mine.py").write_text(source)
    assert line in refused("self", lab, "--model", f"{lab.folder / 'mine.py'}:Mine", code=3)


def test_a_reader_who_leaves_early_costs_nothing(lab: Lab) -> None:
    command = [sys.executable, "-m", "tracin_func", "influence", *lab.arguments("--num-test", "3")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 0, errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert (lab.results / "box_500hz_influence_metadata.json").exists()
    process.stderr.close()


def test_an_interrupt_leaves_files_as_they_were(lab: Lab) -> None:
    assert run("self", lab)[0] == 0
    before = lab.files()
    command = [sys.executable, "-m", "tracin_func", "self", *lab.arguments("--margin", "2", "--engine", "loop")]
    restored = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    start = f"sys.argv[1:] = {command[3:]!r}; runpy.run_module('tracin_func', run_name='__main__')"
    code = f"{restored}; import sys, runpy; {start}"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "reading clips: 100%" not in (line := process.stderr.readline()):
        assert line, "ended too early"
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read()
    assert process.wait() == 130, errors
    assert errors.rstrip().endswith("interrupted; result files are as they were.")
    assert lab.files() == before
    process.stderr.close()


def test_help_names_the_choices_there_are() -> None:
    assert all(name in TABLE["engine"].help for name in NAMES)
    assert all(name in TABLE["ghm_variant"].help for name in GHM_VARIANTS)
    assert all(name in TABLE["test_functional"].help for name in TEST_FUNCTIONALS)


@pytest.mark.parametrize("start", [["-m", "tracin_func"], ["cli.py"]])
def test_it_starts_as_a_module_and_from_a_clone(start: list[str]) -> None:
    root = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, *start, "self", "--data-root", "x"], capture_output=True, text=True, cwd=root, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: --data-root was given without --checkpoint-dir.")
    assert result.stdout == ""
