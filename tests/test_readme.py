"""The README's commands and example are run as they stand."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.places import ROOT
from tests.support.prepared import start
from tracin_func.scoring.accuracy import TRAIN_NAMES, recorded_share
from tracin_func.sources.demo.cache import EmbeddedDemo
from tracin_func.task.checkpoints import read
from tracin_func.task.learning_rates import learning_rates

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`command` as a reader types it, with the commands of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )


def test_the_two_first_commands_install_run_and_test() -> None:
    install, test = blocks("sh")[:2]
    assert install == 'pip install -e ".[dev]" && tracin-func self\n'
    assert test == "pytest\n"


COMMANDS = [line for block in blocks("sh")[2:] for line in block.splitlines()]


def test_the_commands_on_the_embedded_example_run(tmp_path: Path, embedded_500hz: object) -> None:
    """The first by a shell, the others in prepared processes."""
    first, *others = COMMANDS[:6]
    result = shell(first, tmp_path)
    assert (first, result.returncode) == ("tracin-func self", 0), result.stderr
    assert result.stdout
    for command in others:
        name, *words = shlex.split(command)
        done = start(tuple(words), tmp_path / "log", folder=tmp_path).end()
        assert (name, done.code) == ("tracin-func", 0), (command, done.stderr)
        assert done.stdout
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*_metadata.json")}
    assert written == {
        "metadata/plastic_500hz_metadata.json",
        "metadata/plastic_500hz_influence_metadata.json",
        "metadata/plastic_500hz_per_checkpoint_metadata.json",
    }


def test_a_command_on_the_example_folder_runs(tmp_path: Path, embedded_500hz: EmbeddedDemo) -> None:
    """The folder holds here what `demo example`, which trains two more rankers, would put there for one tone."""
    demo, command, _ = COMMANDS[6:]
    assert demo == "tracin-func demo example"
    shutil.copytree(embedded_500hz.data_root, tmp_path / "example/data")
    shutil.copytree(embedded_500hz.checkpoint_dir, tmp_path / "example/checkpoints/500hz")
    done = start(tuple(shlex.split(command)[1:]), tmp_path / "log", folder=tmp_path).end()
    assert done.code == 0, done.stderr
    assert (tmp_path / "results/plastic_500hz_metadata.json").exists()


@pytest.mark.thorough
def test_the_commands_run(tmp_path: Path, embedded_500hz: object) -> None:
    assert len(COMMANDS) == 9
    for command in COMMANDS:
        result = shell(command, tmp_path)
        assert result.returncode == 0, (command, result.stderr)
        assert result.stdout
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*_metadata.json")}
    assert written == {
        "metadata/plastic_500hz_metadata.json",
        "metadata/plastic_500hz_influence_metadata.json",
        "metadata/plastic_500hz_per_checkpoint_metadata.json",
        "results/plastic_500hz_metadata.json",
        "results/plastic_1000hz_influence_metadata.json",
    }


def test_a_checkpoint_saved_as_shown_says_what_a_run_takes_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    model = torch.nn.Linear(2, 1)
    shown: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), shown)
    shown["save"](model, torch.optim.SGD(model.parameters(), lr=0.5), 3, 0.75)
    found = read(tmp_path / "checkpoints" / "model_epoch_3.pt", "3")
    assert found.weights.keys() == model.state_dict().keys()
    assert learning_rates(found, dict(model.named_parameters()), None) == (0.5, "optimizer")
    assert found.args == {"seed": 42, "loss_type": "standard", "margin": 1.0}
    assert recorded_share(found.recorded, TRAIN_NAMES) == 0.75


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, example = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "torch.Size([760, 20])"
    assert printed[0] in example
    assert len(printed) == 5  # the shape, a heading and three pairs
