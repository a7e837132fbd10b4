"""A run reads each checkpoint once and plans once; test pairs that are selected by score take a pass before it.

Before its first checkpoint is scored, a run opens each file once more, for its ends.
"""

import json
import subprocess
import sys

import pytest

from tests.support.lab import Lab
from tests.support.places import ROOT

# Runs commands one after the other and prints, for each, which checkpoints were opened in turn, and how often a run was
# planned.
COUNTING = """
import json, os, sys
from pathlib import Path

folder, commands = sys.argv[1], json.loads(sys.argv[2])
opened = []

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        path = Path(arguments[0])
        if str(path.parent) == folder and path.suffix == ".pt":
            opened.append(path.name)

sys.addaudithook(hook)
from typer.testing import CliRunner
from tracin_func.cli.app import app
from tracin_func.scoring import walk

prepare, plans = walk.prepare, 0

def counted(*args, **more):
    global plans
    plans += 1
    return prepare(*args, **more)

walk.prepare = counted
found = []
for words in commands:
    opened.clear()
    plans = 0
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    found.append([list(opened), plans])
print(json.dumps(found))
"""


@pytest.fixture
def counts(lab: Lab) -> list[tuple[list[str], int]]:
    commands = [
        lab.arguments(),
        lab.arguments("--num-test", "3"),
        lab.arguments("--num-test", "3", "--store", str(lab.folder / "store"), "--verify", "3"),
        lab.arguments("--num-test", "3", "--store", str(lab.folder / "store"), "--verify", "3"),
        lab.arguments("--num-test", "2", "--test-select", "lowest-margin"),
    ]
    words = [[command, *more] for command, more in zip(["self", *["influence"] * 4], commands, strict=True)]
    child = [sys.executable, "-c", COUNTING, str(lab.checkpoints), json.dumps(words)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(opened, plans) for opened, plans in json.loads(done.stdout)]


def test_each_pass_reads_a_checkpoint_once_and_plans_once(counts: list[tuple[list[str], int]]) -> None:
    second, tenth = "model_epoch_2.pt", "model_epoch_10.pt"
    ends = [second, tenth]
    once = ([second, *ends, tenth], 1)  # the options are compared with the first, which is read before
    twice = ([second, *ends, tenth, *ends, second, tenth], 2)
    assert counts == [once, once, once, once, twice]
