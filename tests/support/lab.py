"""A small folder of recordings and checkpoints like the lab's, and the command line run on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from tracin_func.cli.app import app
from tracin_func.sources.demo.ranker import AngleRanker

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

    def save(self, epoch: int, weights: dict[str, torch.Tensor], **args: Any) -> Path:
        path = self.checkpoints / f"model_epoch_{epoch}.pt"
        optimizer = {"state": {}, "param_groups": [{"lr": 0.01, "params": list(range(16))}]}
        args = {"margin": 10.0, "seed": 3, **args}
        torch.save({"model_state_dict": weights, "optimizer_state_dict": optimizer, "args": args}, path)
        return path

    def train_with(self, **args: Any) -> None:
        """Both checkpoints, with these args too."""
        for epoch in (2, 10):
            self.save(epoch, AngleRanker().state_dict(), **args)

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


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('this code was run')",)
