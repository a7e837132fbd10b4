"""Stores, shards and processes through the command line: real processes, real kills, equal files.

The job is small and slow where a test asks for it: 20,000 items are five blocks of rows at each of two checkpoints.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile
import torch

from tests.support.lab import Lab, refused, run
from tests.support.places import ROOT
from tests.support.prepared import Ended, Started, end, errors_of, start, world
from tests.support.series import several
from tracin_func.gradients.store.identity import read_manifest

JOB = """
import dataclasses, os, time, torch
import tracin_func as ti

class Ranker(torch.nn.Sequential):
    def forward(self, items):
        if len(items) == 1024 and torch.is_grad_enabled():  # a batch of a block, which has four
            time.sleep(float(os.environ.get("PAUSE", "0")))
        return super().forward(items)

def job(seed=0, epochs=(1, 2), spoiled=None, items=20_000, hop=256):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20_000, 6, generator=generator)[:items]
    every = torch.combinations(items // 40 * torch.arange(40))
    first, second = every[torch.randperm(len(every), generator=generator)[:60]].T
    target = torch.where(torch.rand(60, generator=generator) < 0.5, 1, -1)
    train = ti.Pairs(first[:57], second[:57], target[:57])
    test = ti.Pairs(first[57:], second[57:], target[57:])
    scorer = Ranker(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    generator.manual_seed(seed)
    def checkpoint(epoch):
        weights = {name: torch.randn(w.shape, generator=generator) for name, w in scorer.state_dict().items()}
        return ti.Checkpoint(weights, learning_rate=0.1, name=f"epoch {epoch}")
    checkpoints = [checkpoint(epoch) for epoch in epochs]
    if spoiled is not None:
        data[spoiled] = float("nan")
    return ti.Task(scorer, data, train, checkpoints, test=test, describe={"front_end": {"hop": hop}})

class Rotating(Ranker):
    # Puts the items in another order inside, and back, at epoch 2: a capture that was right before is wrong then.
    def __init__(self, *layers):
        super().__init__(*layers)
        self.register_buffer("turned", torch.tensor(0.0))
    def forward(self, items):
        if not bool(self.turned > 0):
            return super().forward(items)
        hidden = self[0](torch.cat([items[1:], items[:1]]))
        return self[2](self[1](torch.cat([hidden[-1:], hidden[:-1]])))

def rotating():
    task = job()
    checkpoints = [dataclasses.replace(one, source={**one.source, "turned": torch.tensor(float(epoch))})
                   for epoch, one in enumerate(task.checkpoints)]
    return dataclasses.replace(task, scorer=Rotating(*task.scorer), checkpoints=checkpoints)

def other_model(): return job(seed=1)
def other_items(): return job(items=19_960)
def with_nan(): return job(spoiled=9_000)
def other_front_end(): return job(hop=128)
"""
COMPUTING = ("--threads", "1", "--batch-size", "1024", "--quiet")
PROJECTED = ("--projection", "sjlt", "--proj-dim", "16")
BLOCKS = 5  # a checkpoint
MOMENTS = several(6, 20)


class Runs:
    """Commands in one folder that holds the job; each writes its results to a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "job.py").write_text(JOB)
        self._number = 0

    def start(self, *words: str, **environment: str) -> Started:
        return start(words, self._log(), folder=self.folder, **environment)

    def run(self, *words: str, **environment: str) -> Ended:
        return self.start(*words, **environment).end()

    def world(self, size: int, *words: str, **environment: str) -> AbstractContextManager[list[Started]]:
        return world(size, words, self._log(), folder=self.folder, **environment)

    def together(self, how: str, size: int, *words: str) -> Ended:
        """The processes of one run: by torchrun, or prepared ones in its place."""
        if how == "torchrun":
            return self.torchrun(size, *words)
        with self.world(size, *words) as ranks:
            return end(ranks)

    def torchrun(self, processes: int, *words: str) -> Ended:
        done = subprocess.run(
            torchrun("--standalone", "--nproc-per-node", str(processes), words=words),
            capture_output=True, text=True, check=False, cwd=self.folder, env=environment_of(),
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def _log(self) -> Path:
        self._number += 1
        return self.folder / f"log-{self._number}"

    def results(self, name: str) -> dict[str, bytes]:
        """The result files that a run wrote to the folder `name`; where they come from differs by the command."""
        files = sorted((self.folder / name).glob("*_metadata.json"))
        assert files
        return {path.name: path.read_bytes() for path in files}

    def markers(self, store: str) -> dict[str, int]:
        """The finished blocks of a store, and when each was finished."""
        folder = self.folder / store
        return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("*/done/*.json")}

    def await_blocks(self, store: str, number: int) -> None:
        end = time.monotonic() + 120
        while len(self.markers(store)) < number:
            assert time.monotonic() < end, "no blocks were made"
            time.sleep(0.01)


def job(*more: str, factory: str = "job", command: str = "influence") -> tuple[str, ...]:
    own = ("--with-self",) if command == "influence" else ()
    return (command, *own, "--task", f"job.py:{factory}", *COMPUTING, *more)


def torchrun(*options: str, words: Iterable[str]) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "tracin_func", *words]


def environment_of(**more: str) -> dict[str, str]:
    root = str(ROOT)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, **more}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A folder with the results of one process and its store: `exact` and `projected`; do not write there."""
    runs = Runs(tmp_path_factory.mktemp("undisturbed"))
    for name, projection in (("exact", ()), ("projected", PROJECTED)):
        done = runs.run(*job("--store", f"store-{name}", "--metadata-dir", name, *projection))
        assert done.code == 0, done.stderr
        assert len(runs.markers(f"store-{name}")) == 2 * BLOCKS
    return runs


# Equal files


def ways(*plain: tuple[str, int], thorough: Sequence[tuple[str, int]] = ()) -> Any:
    """Rows of a kind of processes and their number."""
    later = [pytest.param(*row, marks=pytest.mark.thorough) for row in thorough]
    return pytest.mark.parametrize(("how", "size"), [*plain, *later])


@ways(("prepared", 1), ("prepared", 2), ("prepared", 3), thorough=[("torchrun", size) for size in (1, 2, 3)])
def test_processes_of_a_store_change_no_byte(runs: Runs, undisturbed: Runs, how: str, size: int) -> None:
    done = runs.together(how, size, *job("--store", "store", "--metadata-dir", "results"))
    assert done.code == 0, done.stderr
    assert runs.results("results") == undisturbed.results("exact")
    assert len(runs.markers("store")) == 2 * BLOCKS


@ways(("prepared", 2), thorough=[("torchrun", 2)])
def test_processes_of_a_projected_store_change_no_byte(runs: Runs, undisturbed: Runs, how: str, size: int) -> None:
    done = runs.together(how, size, *job("--store", "store", "--metadata-dir", "results", *PROJECTED))
    assert done.code == 0, done.stderr
    assert runs.results("results") == undisturbed.results("projected")
    assert len(runs.markers("store")) == 2 * BLOCKS


@pytest.mark.parametrize(("name", "projection"), [("exact", ()), ("projected", PROJECTED)])
def test_shards_of_a_store_change_no_byte(
    runs: Runs, undisturbed: Runs, name: str, projection: tuple[str, ...]
) -> None:
    shards = [
        runs.start(*job("--store", "shared", "--shard", f"{number}/3", "--metadata-dir", "merged", *projection))
        for number in (1, 2, 3)
    ]
    assert [shard.end().code for shard in shards] == [0, 0, 0]
    assert not (runs.folder / "merged").exists()
    done = runs.run("merge", "shared", "--quiet")
    assert done.code == 0, done.stderr
    assert runs.results("merged") == undisturbed.results(name)


@pytest.mark.parametrize("how", ["prepared", pytest.param("torchrun", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("sizes", "projection"), [((1, 2, 3), ()), ((1, 3), PROJECTED)], ids=["exact", "projected"])
def test_processes_without_a_store_change_no_byte(
    runs: Runs, sizes: tuple[int, ...], projection: tuple[str, ...], how: str
) -> None:
    found = []
    for size in sizes:
        done = runs.together(how, size, *job("--metadata-dir", f"of-{size}", *projection))
        assert done.code == 0, done.stderr
        found.append(runs.results(f"of-{size}"))
    assert len(found[0]) == 2
    assert all(each == found[0] for each in found)


def test_self_influence_alone_is_that_beside_influence(runs: Runs, undisturbed: Runs) -> None:
    shutil.copytree(undisturbed.folder / "store-exact", runs.folder / "store")
    assert runs.run(*job("--store", "store", "--metadata-dir", "own", command="self")).code == 0
    (name,) = runs.results("own")
    assert runs.results("own")[name] == undisturbed.results("exact")[name]


def test_two_agents_are_two_hosts(runs: Runs, undisturbed: Runs) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "one", "--rdzv-backend", "c10d",
               "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1")  # fmt: skip
    words = job("--store", "store", "--metadata-dir", "results")
    agents = [
        subprocess.Popen(
            torchrun(*options, words=words), stderr=subprocess.PIPE, text=True, cwd=runs.folder, env=environment_of()
        )
        for _ in range(2)
    ]
    texts = [agent.communicate()[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], texts
    assert runs.results("results") == undisturbed.results("exact")


# Kills


def children(process: int) -> dict[int, dict[str, str]]:
    """The processes that a process has started, with their environments."""
    found = {}
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        try:
            words = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        found[int(child)] = dict(word.split("=", 1) for word in words if "=" in word)
    return found


@contextmanager
def ranks_of_torchrun(runs: Runs, *words: str, **environment: str) -> Iterator[tuple[list[int], Callable[[], Ended]]]:
    """The processes of ranks 0 and 1 once two blocks are there, and what waits for the end of all."""
    if not Path("/proc").is_dir():
        pytest.skip("looks for the processes in /proc")
    with open(runs.folder / "stderr", "w", encoding="utf-8") as log:
        agent = subprocess.Popen(
            torchrun("--standalone", "--nproc-per-node", "2", words=words),
            stderr=log, cwd=runs.folder, env=environment_of(**environment),
        )  # fmt: skip
        runs.await_blocks("store", 2)
        of_rank = {variables.get("RANK"): child for child, variables in children(agent.pid).items()}

        def wait() -> Ended:
            return Ended(agent.wait(timeout=60), "", (runs.folder / "stderr").read_text())

        yield [of_rank["0"], of_rank["1"]], wait


@contextmanager
def ranks_prepared(runs: Runs, *words: str, **environment: str) -> Iterator[tuple[list[int], Callable[[], Ended]]]:
    """The same of prepared processes."""
    with runs.world(2, *words, **environment) as ranks:
        runs.await_blocks("store", 2)
        yield [rank.pid for rank in ranks], lambda: end(ranks)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("together", [ranks_prepared, pytest.param(ranks_of_torchrun, marks=pytest.mark.thorough)])
def test_a_killed_process_ends_the_run_in_one_line_and_the_next_goes_on(
    runs: Runs, undisturbed: Runs, together: Any, rank: int
) -> None:
    words = job("--store", "store", "--metadata-dir", "results")
    with together(runs, *words, PAUSE="0.1") as (processes, wait):
        os.kill(processes[rank], signal.SIGKILL)
        done = wait()
    assert done.code != 0
    assert len(errors_of(done.stderr)) == 1, done.stderr
    assert not (runs.folder / "results").exists()
    kept = runs.markers("store")
    assert 2 <= len(kept) < 2 * BLOCKS
    done = runs.run(*words)
    assert done.code == 0, done.stderr
    assert kept.items() <= runs.markers("store").items()
    assert runs.results("results") == undisturbed.results("exact")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the processes in /proc")
def test_processes_that_torchrun_starts_again_go_on(runs: Runs, undisturbed: Runs) -> None:
    words = job("--store", "store", "--metadata-dir", "results")
    with open(runs.folder / "stderr", "w", encoding="utf-8") as log:
        agent = subprocess.Popen(
            torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "2", words=words),
            stderr=log, cwd=runs.folder, env=environment_of(PAUSE="0.1"),
        )  # fmt: skip
        try:
            for blocks in (2, 4):  # twice, as what was kept of the first start would do no harm to itself
                runs.await_blocks("store", blocks)
                kept = runs.markers("store")
                workers: list[int] = []
                while not workers:  # between two starts there are none
                    workers = [child for child, names in children(agent.pid).items() if names.get("RANK") == "1"]
                os.kill(workers[0], signal.SIGKILL)
                while psutil.pid_exists(workers[0]):
                    time.sleep(0.01)
            assert agent.wait(timeout=120) == 0, (runs.folder / "stderr").read_text()
        finally:
            agent.terminate()
            agent.wait()
    assert kept.items() <= runs.markers("store").items()
    assert runs.results("results") == undisturbed.results("exact")


def test_a_killed_run_goes_on_where_it_was(runs: Runs, undisturbed: Runs) -> None:
    """At random moments, again and again: no finished block is made twice, and the scores are as if undisturbed."""
    words = ("gradients", "--task", "job.py:job", "--threads", "1", "--batch-size", "1024", "--store", "store")
    begin = time.monotonic()
    done = runs.run(*words, PAUSE="0.01")
    whole = time.monotonic() - begin
    assert f"is complete: {2 * BLOCKS} blocks ({2 * BLOCKS} new)" in done.stderr
    shutil.rmtree(runs.folder / "store")
    unfinished = 0
    for moment in range(MOMENTS):
        before = runs.markers("store")
        if len(before) == 2 * BLOCKS:
            shutil.rmtree(runs.folder / "store")
            before = {}
        process = runs.start(*words, PAUSE="0.01")
        time.sleep(random.Random(moment).uniform(0, whole))
        process.kill()
        after = runs.markers("store")
        assert before.items() <= after.items()
        unfinished += 0 < len(after) < 2 * BLOCKS
    assert unfinished, "no moment fell between two blocks"
    before = runs.markers("store")
    done = runs.run(*words)
    assert f"is complete: {2 * BLOCKS} blocks ({2 * BLOCKS - len(before)} new)" in done.stderr
    assert before.items() <= runs.markers("store").items()
    full = runs.markers("store")
    done = runs.run(*job("--store", "store", "--metadata-dir", "results"))
    assert done.code == 0, done.stderr
    assert runs.markers("store") == full
    assert runs.results("results") == undisturbed.results("exact")


# One line for all processes


ALL_FAULTS = ("recordings", "nan", "memory", "engine")


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        *(("prepared", fault) for fault in ALL_FAULTS),
        *(pytest.param("torchrun", fault, marks=pytest.mark.thorough) for fault in ALL_FAULTS),
    ],
)
def test_processes_tell_a_fault_once(runs: Runs, how: str, fault: str) -> None:
    (runs.folder / "data").mkdir()
    words, told = {
        "recordings": (("self", "--data-root", "data", "--checkpoint-dir", "none", *COMPUTING), "no class folder"),
        "memory": (job("--memory-budget", "1KB"), "every process would hold 0.0 GB of gradients"),
        "engine": (job(factory="rotating"), "processes that share a run cannot change the engine"),
        "nan": (job("--store", "store", factory="with_nan"), "epoch 1: the score of item 9000 is NaN"),
    }[fault]
    done = runs.together(how, 2, *words)
    (error,) = errors_of(done.stderr)
    assert done.code != 0
    assert told in error
    assert "fault inside" not in done.stderr


# Two runs at once


def test_a_store_in_use_is_refused_with_who_uses_it(runs: Runs) -> None:
    words = job("--store", "store", "--metadata-dir", "results")
    first = runs.start(*words, PAUSE="0.1")
    runs.await_blocks("store", 1)
    first.send(signal.SIGSTOP)  # it would be done by the time that others have started on a busy machine
    begin = time.monotonic()
    second = runs.run(*words)
    assert first.process.is_alive(), f"the second run waited {time.monotonic() - begin:.0f} s for the first"
    assert second.code == 3
    assert f"process {first.pid} on " in second.error
    assert "tracin-func influence --with-self --task job.py:job" in second.error
    first.kill()


def test_a_shard_runs_once_at_a_time(runs: Runs) -> None:
    words = job("--store", "store", command="self")
    first = runs.start(*words, "--shard", "1/2", PAUSE="0.1")
    runs.await_blocks("store", 1)
    first.send(signal.SIGSTOP)  # it would be done by the time that others have started on a busy machine
    for shard in ("1/2", "1/3"):
        again = runs.run(*words, "--shard", shard)
        assert again.code == 3
        assert f"by shard 1/2: process {first.pid} on " in again.error
    first.kill()


def test_shards_that_do_not_belong_together(runs: Runs) -> None:
    words = job("--store", "store", "--metadata-dir", "results", command="self")
    assert runs.run(*words, "--shard", "2/3").code == 0
    done = runs.run("merge", "store")
    assert done.code == 3
    assert "checkpoint epoch 1 lacks 3 of 5 blocks, of shard 1/3, 3/3" in done.error
    for more, name in ((("--margin", "2"), "margin"), (("--metadata-dir", "other"), "metadata_dir")):
        done = runs.run(*words, *more, "--shard", "1/3")
        assert done.code == 3
        assert f"other shards were run with another {name}." in done.error
    assert not (runs.folder / "results").exists()


# Stores that do not fit, or are damaged


@pytest.fixture
def filled(runs: Runs, undisturbed: Runs) -> Runs:
    """A folder with a copy of the finished exact store."""
    shutil.copytree(undisturbed.folder / "store-exact", runs.folder / "store")
    return runs


@pytest.mark.parametrize(
    ("factory", "more", "told"),
    [
        ("other_model", (), "a checkpoint 'epoch 1' with other weights"),
        ("other_items", (), "was made with another 'units': 20000; this run has 19960"),
        ("other_front_end", (), "was made with another 'front end.hop': 256; this run has 128"),
        ("job", ("--dtype", "float64"), "was made with another 'dtype of the model[0]'"),
        ("job", PROJECTED, "was made with another 'width'"),
        ("job", ("--store-dtype", "float16"), "was made with another 'dtype'"),
        ("job", ("--params", "0.weight"), "was made with another 'width'"),
        ("job", ("--learning-rate", "0.5"), "with other learning rates"),
    ],
)
def test_a_store_of_something_else_is_refused(filled: Runs, factory: str, more: tuple[str, ...], told: str) -> None:
    before = filled.markers("store")
    done = filled.run(*job("--store", "store", "--metadata-dir", "results", *more, factory=factory))
    assert done.code == 3, done.stderr
    assert told in done.error
    assert filled.markers("store") == before
    assert not (filled.folder / "results").exists()


def test_a_store_of_other_recordings_is_refused(lab: Lab) -> None:
    store = ("--store", str(lab.folder / "store"))
    assert run("self", lab, *store)[0] == 0
    assert "was made with another 'items'" in refused("self", lab, *store, "--clip-seconds", "0.05", code=3)
    for path in lab.data.rglob("*.wav"):
        soundfile.write(path, soundfile.read(path)[0][::2], 24000)
    assert "was made with another 'items'" in refused("self", lab, *store, "--sample-rate", "24000", code=3)


def test_a_dimension_for_a_store_asks_for_a_projection(lab: Lab) -> None:
    """As --projection auto does, which projects 12 gradients to 8 dimensions; those of two layers, which is fast."""

    few = "--params", r"blocks\.[01]"

    def scores(name: str, *more: str) -> tuple[bytes, Any]:
        store, results = lab.folder / name, lab.folder / f"results of {name}"
        code, _, stderr = run("self", lab, "--store", str(store), "--metadata-dir", str(results), *few, *more)
        assert code == 0, stderr
        assert f" to the new store {store}: " in stderr
        return (results / "box_500hz_metadata.json").read_bytes(), read_manifest(store).identity["projection"]

    common = "--proj-dim", "8", "--projection-seed", "3", "--engine", "item", "--batch-size", "4"
    found = scores("alone", *common)
    assert found == scores("auto", *common, "--projection", "auto")
    assert (found[1]["kind"], found[1]["dim"], found[1]["seed"]) == ("sjlt", 8, 3)
    store = "--store", str(lab.folder / "alone"), *few
    for more in (["--proj-dim", "8"], ["--projection-seed", "3"], []):
        code, _, stderr = run("self", lab, *store, *more)
        assert (code, "new store" in stderr) == (0, False)
    assert "--proj-dim 9 was given, and the store" in refused("self", lab, *store, "--proj-dim", "9", code=2)
    assert "has 3. Leave the option out" in refused("self", lab, *store, "--projection-seed", "0", code=2)


def test_a_store_of_exact_gradients_has_no_dimension(lab: Lab) -> None:
    store = "--store", str(lab.folder / "store")
    assert run("self", lab, *store, "--projection", "none")[0] == 0
    assert "holds exact gradients" in refused("self", lab, *store, "--proj-dim", "8", code=2)
    assert run("self", lab, *store)[0] == 0


def test_an_item_that_is_nan_is_named_and_the_blocks_before_it_stay(runs: Runs) -> None:
    done = runs.run("gradients", "--task", "job.py:with_nan", *COMPUTING, "--store", "store")
    assert done.code == 1
    assert "epoch 1: the score of item 9000 is NaN" in done.error
    kept = runs.markers("store")
    assert sorted(kept) == [f"001-epoch_1/done/{block}.json" for block in range(2)]
    done = runs.run(*job("--store", "store", "--metadata-dir", "results", factory="with_nan"))
    assert done.code == 1
    assert "item 9000" in done.error
    assert runs.markers("store") == kept
    assert not (runs.folder / "results").exists()


def test_a_damaged_block_is_named_dropped_and_made_again(filled: Runs, undisturbed: Runs) -> None:
    words = job("--store", "store", "--metadata-dir", "results")
    before = filled.markers("store")
    with open(filled.folder / "store/002-epoch_2/rows.bin", "r+b") as rows:
        rows.seek(rows.seek(0, os.SEEK_END) // 2)  # in the third of five blocks
        byte = rows.read(1)[0]
        rows.seek(-1, os.SEEK_CUR)
        rows.write(bytes([byte ^ 1]))
    done = filled.run(*words)
    assert done.code == 3
    assert "block 2 (units 8192 to 12287)" in done.error
    assert "tracin-func store verify --drop" in done.error
    done = filled.run("store", "verify", "store")
    assert done.code == 1
    assert "1 blocks are damaged" in done.error
    assert "block 2 (units 8192 to 12287)" in done.stderr
    assert filled.run("store", "verify", "store", "--drop").code == 0
    assert len(filled.markers("store")) == 2 * BLOCKS - 1
    done = filled.run(*words)
    assert done.code == 0, done.stderr
    assert filled.results("results") == undisturbed.results("exact")
    changed = {name for name, moment in filled.markers("store").items() if before[name] != moment}
    assert changed == {"002-epoch_2/done/2.json"}
    assert filled.run("store", "verify", "store").code == 0


# Half precision, and documents


def lengths(of: Mapping[str, Any]) -> list[dict[str, float]]:
    """By pair, at each checkpoint, the sum of the lengths of the gradients of its two items."""
    task = of["job"]()
    found = []
    for checkpoint in task.checkpoints:
        task.scorer.load_state_dict(checkpoint.source)
        found.append({})
        for pairs in (task.train_pairs, task.test):
            for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
                total = 0.0
                for item in (first, second):
                    score = task.scorer(task.items.content[[item]]).sum()
                    gradients = torch.autograd.grad(score, list(task.scorer.parameters()))
                    total += float(torch.cat([each.reshape(-1) for each in gradients]).norm())
                found[-1][f"{first}_{second}"] = total
    return found


@pytest.mark.parametrize(("dtype", "rounding"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_half_precision_is_off_by_its_rounding(runs: Runs, undisturbed: Runs, dtype: str, rounding: float) -> None:
    """Each number of a row is off by at most `rounding` of itself, and u and v of a margin loss are 0 or ±1: at each
    checkpoint a score is off by at most (2 rounding + rounding²) η (‖g_a‖ + ‖g_b‖)(‖g_c‖ + ‖g_d‖).
    """
    done = runs.run(*job("--store", "store", "--metadata-dir", "results", "--store-dtype", dtype))
    assert done.code == 0, done.stderr
    namespace: dict[str, Any] = {}
    exec(JOB, namespace)
    by_checkpoint = lengths(namespace)
    off = 0.0
    for name, content in runs.results("results").items():
        exact = json.loads(undisturbed.results("exact")[name])
        for pair, columns in json.loads(content).items():
            for column, score in columns.items():
                other = column.removeprefix("tracin_influence_") if "influence_" in column else pair
                size = sum(0.1 * length[pair] * length[other] for length in by_checkpoint)
                error = abs(score - exact[pair][column])
                assert error <= (2 * rounding + rounding**2 + 1e-5) * size
                off = max(off, error / size)
    assert off > rounding / 100, "rows were not rounded"
    assert f"({dtype})" in runs.run("store", "info", "store").stdout
    done = runs.run(*job("--store", "store", "--metadata-dir", "again"))
    assert runs.results("again") == runs.results("results"), "a store that is there says its dtype"


def test_documents_are_one_json_value(filled: Runs) -> None:
    def document(*words: str) -> Any:
        done = filled.run(*words, "--json")
        assert done.code == 0, done.stderr
        return json.loads(done.stdout)

    info = document("store", "info", "store")
    assert [(each["name"], each["done"], each["blocks"]) for each in info["checkpoints"]] == [
        ("epoch 1", BLOCKS, BLOCKS),
        ("epoch 2", BLOCKS, BLOCKS),
    ]
    assert info["manifest"]["dtype"] == "float32"
    assert document("store", "verify", "store") == {"findings": [], "dropped": 0}
    document("gradients", "--task", "job.py:job", *COMPUTING, "--store", "store")
    document(*job("--store", "store", "--shard", "1/1", "--metadata-dir", "results"))
    (merged,) = document("merge", "store")["runs"]
    (whole,) = document(*job("--store", "store", "--metadata-dir", "results"))["runs"]
    assert [merged[name] for name in ("self", "influence")] == [whole[name] for name in ("self", "influence")]
    (filled.folder / "store/001-epoch_1/done/1.json").write_text("{}")
    done = filled.run("store", "verify", "store", "--json")
    assert done.code == 1
    assert [finding["block"] for finding in json.loads(done.stdout)["findings"]] == [1]
