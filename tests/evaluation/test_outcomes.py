"""Retrainings in processes, kept on disk: equal to those in this process, done once, and ended with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import tracin_func as ti
from tracin_func.evaluation.outcomes import Outcomes, Training
from tracin_func.evaluation.workers import unordered
from tracin_func.training.retrain import Recipe, retrain

ITEMS = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
PAIRS = ti.Pairs(list(range(5)), list(range(5, 10)), [1, -1, 1, 1, -1])
RECIPE = Recipe(epochs=2, batch_size=2, learning_rate=0.1)
SUBSETS = [PAIRS.select(torch.arange(5) != row) for row in range(4)]


def task(margin: float = 1.0) -> ti.Task:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        scorer = nn.Linear(4, 1)
    return ti.Task(scorer, ITEMS, PAIRS, [ti.Checkpoint(scorer, 0.1)], loss=ti.MarginRankingLoss(margin))


@pytest.mark.parametrize("processes", [1, 3])
def test_outcomes_are_those_of_retraining_in_the_order_of_jobs(processes: int, tmp_path: Path) -> None:
    jobs = [Training(pairs, seed) for pairs in SUBSETS for seed in (0, 1)]
    found = Outcomes(task(), RECIPE, tmp_path, processes)(jobs)
    for job, each in zip(jobs, found, strict=True):
        assert torch.equal(each.scores, retrain(task(), job.pairs, job.seed, RECIPE).scores)


def test_a_known_outcome_is_not_computed_again(tmp_path: Path) -> None:
    jobs = [Training(pairs, 0, states=True) for pairs in SUBSETS]
    first = Outcomes(task(), RECIPE, tmp_path, 1)
    before = first(jobs)
    again = Outcomes(task(), RECIPE, tmp_path, 1)
    after = again([*jobs, Training(SUBSETS[0], 0)])  # states serve a job without them, too
    assert (first.computed, first.found, again.computed, again.found) == (4, 0, 0, 5)
    assert all(torch.equal(old.scores, new.scores) for old, new in zip(before, after, strict=False))
    weights = after[0].states[-1]["model_state_dict"]["weight"]
    assert torch.equal(weights, before[0].states[-1]["model_state_dict"]["weight"])
    assert again.seconds[:4] == first.seconds


@pytest.mark.parametrize("change", ["seed", "target", "recipe", "loss"])
def test_whatever_an_outcome_depends_on_is_in_its_name(change: str, tmp_path: Path) -> None:
    Outcomes(task(), RECIPE, tmp_path, 1)([Training(PAIRS, 0)])
    flipped = ti.Pairs(PAIRS.first, PAIRS.second, -PAIRS.target)
    own = Outcomes(
        task(2.0 if change == "loss" else 1.0),
        Recipe(epochs=1) if change == "recipe" else RECIPE,
        tmp_path,
        1,
    )
    own([Training(flipped if change == "target" else PAIRS, int(change == "seed"))])
    assert own.computed == 1


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    first = Outcomes(task(), RECIPE, tmp_path, 1)([Training(PAIRS, 0)])
    (file,) = tmp_path.rglob("*.pt")
    file.write_bytes(file.read_bytes()[:100])
    again = Outcomes(task(), RECIPE, tmp_path, 1)
    assert torch.equal(again([Training(PAIRS, 0)])[0].scores, first[0].scores)
    assert again.computed == 1


def test_no_folder_keeps_nothing(tmp_path: Path) -> None:
    own = Outcomes(task(), RECIPE, None, 1)
    own([Training(PAIRS, 0)])
    own([Training(PAIRS, 0)])
    assert own.computed == 2


def test_an_error_of_a_job_ends_all(tmp_path: Path) -> None:
    def work(job: int) -> int:
        if job == 3:
            raise ti.InputError("job 3")
        time.sleep(0.01 if job < 3 else 60)
        return job

    began = time.monotonic()
    with pytest.raises(ti.InputError, match="job 3"):
        list(unordered(work, range(8), 2))
    assert time.monotonic() - began < 10


def test_a_killed_process_is_reported() -> None:
    def work(job: int) -> int:
        if job == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        return job

    with pytest.raises(RuntimeError, match="ended with code -9"):
        list(unordered(work, range(4), 2))


SCRIPT = """
import os, sys, time
from tracin_func.evaluation.workers import unordered

def work(job):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once, beside that of the other worker
    time.sleep(float(sys.argv[1]))

try:
    list(unordered(work, range(4), 2))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def started(seconds: float) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with two workers in jobs of so many seconds, and the ids of these."""
    command = [sys.executable, "-c", SCRIPT, str(seconds)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it in background
    )
    assert child.stdout is not None
    return child, [int(child.stdout.readline()) for _ in range(2)]


def test_an_interrupt_ends_the_processes_at_once() -> None:
    child, workers = started(100)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    found, _ = child.communicate(timeout=10)
    assert found.strip() == "interrupted"
    assert not any(map(alive, workers))


def test_processes_whose_parent_was_killed_end_after_their_jobs() -> None:
    child, workers = started(0.5)
    child.kill()
    child.wait(10)
    assert child.stdout is not None
    child.stdout.close()
    limit = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
