"""`tracin-func train`: checkpoints that scoring reads without further options, also after a kill."""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tracin_func as ti
from tests.support.lab import Lab
from tests.support.prepared import Started, start
from tracin_func.cli.app import app
from tracin_func.sources.demo.cache import EmbeddedDemo

JOB = """
import torch, tracin_func as ti
from torch import nn

def task():
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(20, 6, generator=generator)
    order = items @ torch.randn(6, generator=generator)
    every = [(a, b) for a in range(20) for b in range(a)]
    mixed = [every[row] for row in torch.randperm(len(every), generator=generator).tolist()]
    def pairs(some):
        target = [1 if order[a] > order[b] else -1 for a, b in some]
        return ti.Pairs([a for a, _ in some], [b for _, b in some], target)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))
    return ti.Task(net, items, pairs(mixed[:128]), [net], pairs(mixed[128:]), item_ids=[f"i{k}" for k in range(20)])

class Small(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(width), nn.Flatten(), nn.Linear(width * width, 1))

    def forward(self, items):
        return self.layers(items)
"""


@pytest.fixture
def job(tmp_path: Path) -> str:
    (tmp_path / "job.py").write_text(JOB)
    return str(tmp_path / "job.py")


def run(*words: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, result.output
    return result


def error(*words: Any, code: int) -> str:
    """The one line that says what is wrong."""
    (line,) = [each for each in run(*words, code=code).stderr.splitlines() if each.startswith("error: ")]
    return str(line)


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(folder.glob("*.pt"))
    return {path.name: torch.load(path, weights_only=True) for path in paths}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def scores(file: Path) -> dict[str, float]:
    return {pair: columns["tracin_self_influence"] for pair, columns in json.loads(file.read_text()).items()}


def test_recordings_are_trained_on_and_scored_without_a_further_option(lab: Lab, tmp_path: Path) -> None:
    """Loss, margin, seed, tone, material, seconds and the front end come from the checkpoints."""
    own = ["--data-root", lab.data, "--checkpoint-dir", tmp_path / "run"]
    chosen = ["--material", "box", "--clip-seconds", "0.08", "--takes", "0,1,2", "--seed", "5"]
    result = run("train", *own, *chosen, "--loss-type", "ghm", "--margin", "4", "--epochs", "2", "--batch-size", "8")
    assert "epoch 2 of 2: loss " in result.stderr
    assert "on held-out pairs" in result.stderr
    assert "GHM bins (training pairs from easy to hard)" in result.stdout
    assert f"Next     tracin-func self --data-root {lab.data} --checkpoint-dir {tmp_path / 'run'}" in result.stdout
    scored = run("self", *own, "--metadata-dir", tmp_path / "metadata")
    provenance = json.loads((tmp_path / "metadata/box_500hz_metadata.json.provenance.json").read_text())
    described = provenance["columns"]["tracin_self_influence"]
    source, loss = described["source"], described["loss"]
    assert (source["seed"], source["takes"], source["clip_seconds"]) == (5, [0, 1, 2], 0.08)
    expected = {"loss_type": "ghm", "margin": 4.0, "bins": 10, "alpha": 0.75, "batch_size": 8, "variant": "symmetric"}
    assert loss == expected
    assert not [line for line in scored.stderr.splitlines() if line.startswith("warning: ")]


def test_an_undisturbed_second_training_gives_the_same_scores(lab: Lab, tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        own = ["--data-root", lab.data, "--checkpoint-dir", tmp_path / name]
        run("train", *own, "--material", "box", "--epochs", "2", "--batch-size", "8", "--learning-rate", "0.001")
        run("self", *own, "--metadata-dir", tmp_path / f"metadata {name}")
        found.append(scores(tmp_path / f"metadata {name}" / "box_500hz_metadata.json"))
    assert found[0] == found[1]
    assert any(found[0].values())


def test_exclusions_and_flips_change_neither_split_nor_held_out_pairs(lab: Lab, tmp_path: Path) -> None:
    """And scoring applies those that the checkpoints name."""
    own = ["--data-root", lab.data, "--material", "box", "--epochs", "1", "--batch-size", "4"]
    run("train", *own, "--checkpoint-dir", tmp_path / "all")
    run("self", "--data-root", lab.data, "--checkpoint-dir", tmp_path / "all", "--metadata-dir", tmp_path / "m")
    first, second, *_ = scores(tmp_path / "m" / "box_500hz_metadata.json")
    exclusions, flips = tmp_path / "exclusions.txt", tmp_path / "flips.txt"
    exclusions.write_text(f"# one\n{first}\n")
    flips.write_text(f"{second}\n")
    lists = ["--exclusions-file", exclusions, "--flips-file", flips]
    run("train", *own, "--checkpoint-dir", tmp_path / "less", *lists)
    args = [contents(tmp_path / name)["model_epoch_1.pt"]["args"] for name in ("all", "less")]
    assert args[0]["pairs_sha256"] != args[1]["pairs_sha256"]
    assert (args[1]["exclusions_file"], args[1]["flips_file"]) == (str(exclusions), str(flips))
    less = ["--data-root", lab.data, "--checkpoint-dir", tmp_path / "less", "--metadata-dir", tmp_path / "n"]
    result = run("self", *less, "--format", "parquet")
    assert str(exclusions) in result.stderr
    assert str(flips) in result.stderr
    left = ti.load(tmp_path / "n" / "box_500hz_metadata.parquet")
    assert isinstance(left, ti.SelfInfluence)
    everything = scores(tmp_path / "m" / "box_500hz_metadata.json")
    mirror = "_".join(reversed([first[: len(first) // 2], first[len(first) // 2 + 1 :]]))
    assert len(left.scores) == len(everything.keys() - {first, mirror})
    flips.unlink()
    assert "'flips_file' in the checkpoint's args is" in error("self", *less, code=3)
    run("self", *less, "--flips-file", "none", "--format", "csv")


def test_a_model_of_the_user_s_on_recordings(lab: Lab, tmp_path: Path, job: str) -> None:
    model = ["--model", f"{job}:Small", "--model-arg", "width=3"]
    own = ["--data-root", lab.data, "--checkpoint-dir", tmp_path / "run"]
    result = run("train", *own, *model, "--material", "box", "--epochs", "2", "--batch-size", "8", "--optimizer", "sgd")
    assert f"--model {job}:Small --model-arg width=3" in result.stdout
    run("self", *own, *model, "--metadata-dir", tmp_path / "metadata")
    line = error("train", *own, "--resume", "--model", f"{job}:Small", "--material", "box", code=3)
    assert "is of another training: its" in line


def test_the_scorer_of_a_task_for_several_seeds(tmp_path: Path, job: str) -> None:
    own = ["--task", f"{job}:task", "--loss-type", "logistic"]
    result = run("train", *own, "--checkpoint-dir", tmp_path / "runs", "--seeds", "1,2", "--epochs", "3", "--json")
    document = json.loads(result.stdout)
    runs = document["runs"] if isinstance(document, dict) and "runs" in document else document
    assert "seed_1" in json.dumps(runs)
    assert "seed_2" in json.dumps(runs)
    first, second = (contents(tmp_path / "runs" / name)["model_epoch_3.pt"] for name in ("seed_1", "seed_2"))
    assert not same(first["model_state_dict"], second["model_state_dict"])
    assert first["args"]["pairs_sha256"] == second["args"]["pairs_sha256"]
    assert first["args"]["loss_type"] == "logistic"
    run("self", "--task", f"{job}:task", "--checkpoint-dir", tmp_path / "runs/seed_1", "--metadata-dir", tmp_path / "m")
    (record,) = tmp_path.glob("m/*.provenance.json")
    loss = json.loads(record.read_text())["columns"]["tracin_self_influence"]["loss"]
    assert loss["loss_type"] == "logistic"


def test_variables_of_scoring_options_are_not_read(tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"batch_size": 7, "loss_type": "ghm", "margin": 3, "learning_rate": 9, "seed": 9,
                        "checkpoint_dir": tmp_path / "no", "exclusions_file": "no"}.items():  # fmt: skip
        monkeypatch.setenv(f"TRACIN_FUNC_{name.upper()}", str(value))
    run("train", "--task", f"{job}:task", "--checkpoint-dir", tmp_path / "run", "--epochs", "1")
    args = contents(tmp_path / "run")["model_epoch_1.pt"]["args"]
    expected = {
        "batch_size": 32,
        "loss_type": "standard",
        "margin": 1.0,
        "learning_rate": 0.03,
        "exclusions_file": None,
    }
    assert expected.items() <= args.items()


def test_a_wrong_setting_is_one_line_and_nothing_is_lost(tmp_path: Path, job: str) -> None:
    own = ["train", "--task", f"{job}:task", "--epochs", "2"]
    there = [*own, "--checkpoint-dir", tmp_path / "run"]
    run(*there)
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.pt")}
    assert "already holds 2 checkpoints, the last model_epoch_2.pt. Continue" in error(*there, code=3)
    assert "its learning_rate is 0.03, not 0.1" in error(*there, "--resume", "--learning-rate", "0.1", code=3)
    assert "Nothing to do" in run(*there, "--resume").stdout
    assert {path: path.read_bytes() for path in (tmp_path / "run").glob("*.pt")} == before
    new = [*own, "--checkpoint-dir", tmp_path / "new"]
    line = error(*new, "--learning-rate", "1e30", code=1)
    assert "the loss became NaN or infinite in epoch 1, step 2. Lower --learning-rate 1e+30" in line
    assert "--checkpoint-dir is missing" in error(*own, code=2)
    assert "--seeds should be different numbers" in error(*new, "--seeds", "1,1", code=2)
    assert "--ghm-bins cannot be used" in error(*new, "--loss-type", "standard", "--ghm-bins", "5", code=2)
    assert "--exclusions-file: file not found: no.txt" in error(*new, "--exclusions-file", "no.txt", code=3)
    assert "--model, --seed cannot be used here: --task brings" in error(*new, "--model", "x", "--seed", "1", code=2)
    assert "--learning-rate should be above 0" in error(*new, "--learning-rate", "0", code=2)
    (tmp_path / "file").write_text("")
    assert "is not a folder" in error(*own, "--checkpoint-dir", tmp_path / "file/run", code=1)
    assert not list((tmp_path / "new").glob("*.pt"))


def killed(process: Started, seconds: float) -> bool:
    """Whether the training was still running when it was killed after so long."""
    process.await_start()
    process.process.join(seconds)
    running = process.process.is_alive()
    process.kill()
    return running


@pytest.mark.parametrize("moments", [1, pytest.param(10, marks=pytest.mark.thorough)], ids=["once", "ten times"])
def test_a_killed_training_continues_to_the_same_tensors(tmp_path: Path, job: str, moments: int) -> None:
    words = ["train", "--task", f"{job}:task", "--epochs", "60", "--checkpoint-interval", "4", "--loss-type", "ghm"]
    began = time.monotonic()
    run(*words, "--checkpoint-dir", tmp_path / "whole")
    took, chance, interrupted = time.monotonic() - began, random.Random(moments), 0
    for _ in range(moments):
        log = tmp_path / "log"
        again = (*words, "--checkpoint-dir", str(tmp_path / "parts"), "--resume")
        interrupted += killed(start(again, log, folder=tmp_path), chance.uniform(0.2, 0.6) * took)
    assert interrupted
    run(*words, "--checkpoint-dir", tmp_path / "parts", "--resume")
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert list(whole) == list(parts)
    assert same(whole, parts)
    assert not [path for path in (tmp_path / "parts").iterdir() if path.suffix == ".tmp"]


@pytest.mark.thorough
@pytest.mark.parametrize("loss", ["standard", "ghm", "logistic"])
def test_the_tones_are_learned_with_each_loss(embedded_500hz: EmbeddedDemo, tmp_path: Path, loss: str) -> None:
    run("train", "--checkpoint-dir", tmp_path, "--loss-type", loss, "--epochs", "5")
    last = contents(tmp_path)["model_epoch_5.pt"]
    assert last["test_accuracy"] >= 0.9
    assert np.isfinite(last["history"][-1]["loss"])
    own = ["--data-root", embedded_500hz.data_root, "--checkpoint-dir", tmp_path, "--metadata-dir", tmp_path / "m"]
    assert run("self", *own).exit_code == 0
    assert os.path.exists(tmp_path / "m" / "plastic_500hz_metadata.json")
