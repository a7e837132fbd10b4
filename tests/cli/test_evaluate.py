"""`tracin-func evaluate`: its tables, document and figure, what it keeps, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tracin_func.cli.app import app
from tracin_func.files import CACHE_VARIABLE

TASK = """
import torch, tracin_func as ti

def task():
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(28, 4, generator=generator)
    order = items @ torch.tensor([1.0, -1.0, 0.5, 0.0])
    def pairs(start, end, count):
        both = torch.combinations(torch.arange(start, end))
        first, second = both[torch.randperm(len(both), generator=generator)[:count]].T
        return ti.Pairs(first, second, torch.where(order[first] > order[second], 1, -1))
    torch.manual_seed(0)
    scorer = torch.nn.Linear(4, 1)
    args = {"epochs": EPOCHS, "batch_size": 8, "learning_rate": 0.1}
    start = {"model_state_dict": scorer.state_dict(), "args": args}
    return ti.Task(scorer, items, pairs(0, 16, 60), [ti.Checkpoint(start)], loss=ti.LogisticLoss(),
                   held_out=pairs(16, 28, 40))
"""
QUICK = ("--draws", "3", "--masks", "10", "--retrain-seeds", "2", "--runs", "2", "--left-out", "5")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return written(tmp_path, 2)


def written(folder: Path, epochs: int) -> Path:
    path = folder / f"evaluated_{epochs}.py"
    path.write_text(TASK.replace("EPOCHS", str(epochs)))
    return path


def invoke(file: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "--task", f"{file}:task", *QUICK, *words])


def document(file: Path, *words: str) -> dict[str, Any]:
    result = invoke(file, *words, "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_tables_have_repetitions_masks_and_seeds(file: Path, tmp_path: Path) -> None:
    figure = tmp_path / "figures" / "evaluation.svg"
    result = invoke(file, "--optimizer", "sgd", "--figure", str(figure))
    assert result.exit_code == 0, result.stderr
    words = " ".join(result.stdout.split())
    for expected in (
        "Trained with sgd, learning rate 0.1, batch size 8, 2 epochs: ",
        "Planted flips: 6 of 60 training labels flipped, then trained; 3 draws, seeds 0 to 2",
        "Removal: retrained without the first pairs; 6 flips planted; 3 repetitions, seeds 0 to 2",
        "3 dropped 6 dropped 12 dropped",
        "random halves of the pairs; 10 subsets × 2 seeds, 40 held-out pairs",
        "Retrained with seeds 1000 to 1001 on 50% of the pairs; runs have seeds 0 to 1. Noise ceiling, from split",
        f"Written {figure}",
    ):
        assert expected in words, expected
    assert "Left out" not in words
    texts = [each.text for each in ElementTree.parse(figure).getroot().iter("{http://www.w3.org/2000/svg}text")]
    assert "AUC of 6 planted flips, 3 draws" in texts
    assert "LDS, random halves of the pairs: 10 × 2 retrainings" in texts


def test_a_second_method_takes_the_models_of_the_first(file: Path) -> None:
    first = document(file, "--parts", "flips,datamodelling")
    again = document(file, "--parts", "flips,datamodelling", "--methods", "tracin-last")
    assert first["retrainings"]["computed"] == 1 + 2 + 20 + 2  # two runs, of which one is the first draw without flips
    assert again["retrainings"]["computed"] == 0
    assert [row["method"] for row in again["flips"]["methods"]] == ["tracin-last", "loss", "loss-last", "random"]
    assert again["flips"]["methods"][1:] == first["flips"]["methods"][2:]
    assert first["removal"] is None
    assert first["conclusions"]


def test_a_budget_says_what_it_left_out(file: Path) -> None:
    found = document(file, "--budget", "0.000001")
    assert found["left_out"] == ["1 run of 2", "flips: left out", "removal: left out", "datamodelling: left out"]
    assert (found["flips"], found["removal"], found["datamodelling"]) == (None, None, [])
    printed = invoke(file, "--budget", "0.000001").stdout
    assert "Left out for the budget: 1 run of 2; flips: left out" in " ".join(printed.split())


def test_labels_as_they_are(file: Path) -> None:
    found = document(file, "--flip-share", "0%", "--drop", "50%")
    assert found["flips"] is None
    assert found["removal"]["planted"] == 0
    assert {row["method"] for row in found["removal"]["rows"]} == {"tracin", "self", "loss", "loss-last", "random"}
    assert {row["k"] for row in found["removal"]["rows"]} == {30}


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--methods", "traciin"], 2, "--methods should be among tracin, tracin-last"),
        (["--parts", "flip"], 2, "--parts should be among flips, removal, datamodelling, items, left-out. Got 'flip'."),
        (["--budget", "0"], 2, "--budget should be above 0 minutes. Got 0."),
        (["--drop", "5"], 2, "--drop should be a percentage such as 5%. Got '5'."),
        (["--flip-share", "0%", "--parts", "flips"], 2, "--flip-share is 0, so that there are no flips to find."),
        (["--params", "x"], 2, "--params changes scores, and --methods says which are compared. Leave it out."),
        (["--epochs", "0"], 2, "--epochs should be at least 1. Got 0."),
    ],
)
def test_mistakes_are_one_line(file: Path, words: list[str], code: int, expected: str) -> None:
    result = invoke(file, *words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"error: {expected}")
    assert result.stderr.count("\n") == 1


def hears_interrupts() -> None:
    """In a new process: a shell ignores them for what runs in background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.thorough
def test_an_interrupted_evaluation_keeps_what_is_done(file: Path, tmp_path: Path) -> None:
    file, size = written(tmp_path, 60), ("--parts", "datamodelling", "--masks", "8", "--retrain-seeds", "1")
    command = [sys.executable, "-m", "tracin_func", "evaluate", "--task", f"{file}:task", "--runs", "1", *size]
    child = subprocess.Popen(
        [*command, "--processes", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hears_interrupts,
    )
    limit = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.pt"))) < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said.splitlines()[-1] == "interrupted; retrainings that are done are kept for the next call."
    with pytest.raises(ProcessLookupError):  # no process of the group is left
        os.killpg(child.pid, 0)
    done = len(list(tmp_path.rglob("*.pt")))
    assert document(file, "--runs", "1", *size)["retrainings"]["computed"] == 9 - done
