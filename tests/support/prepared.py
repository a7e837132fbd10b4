"""Processes that start in a moment: copies of one that has read torch and the program, which take signals as any other.

What belongs to the start of a Python (imports, streams that are closed, encodings) or to its end needs one of its own.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from torch.distributed import TCPStore

from tracin_func.cli.app import main

PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload(
    ["pytest", "hypothesis", "torch.distributed", "typer._adapters", "tests.support.lab", "tracin_func.cli.score"]
)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int | None
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that tells it."""
        errors = errors_of(self.stderr)
        assert len(errors) == 1, self.stderr
        assert "Traceback" not in self.stderr
        assert "fault inside" not in self.stderr
        return errors[0]


@dataclass(frozen=True)
class Started:
    """A command at work; what it prints goes to files."""

    process: BaseProcess
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def await_start(self) -> None:
        """Until the command begins."""
        while not _mark(self.log).exists():
            assert self.process.is_alive()
            time.sleep(0.001)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        await_end(self.pid)

    def send(self, number: signal.Signals) -> None:
        """A signal, to nobody where the process has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> Ended:
        self.process.join()
        texts = [path.read_text() if path.exists() else "" for path in _streams(self.log)]
        return Ended(self.process.exitcode, *texts)


def start(words: tuple[str, ...], log: Path, *, folder: Path | None = None, **environment: str) -> Started:
    """The command `tracin-func` with these words; in `folder`, and with these variables beside those there are."""
    variables = {**os.environ, **environment}
    _mark(log).unlink(missing_ok=True)
    process = PREPARED.Process(target=_work, args=(words, log, folder or Path.cwd(), variables))
    process.start()
    return Started(process, log)


@contextmanager
def world(size: int, words: tuple[str, ...], log: Path, *, folder: Path, **environment: str) -> Iterator[list[Started]]:
    """What `torchrun` starts: a process for each rank, by its environment, with one key-value store for all."""
    board = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(board.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
              "TORCHELASTIC_RESTART_COUNT": "0", **environment}  # fmt: skip
    ranks = [
        start(words, log.with_name(f"{log.name}-{rank}"), folder=folder, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(size)
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()


def end(ranks: list[Started]) -> Ended:
    """Until all processes of a world have ended; when one fails, the others get SIGTERM as they do by `torchrun`."""
    running = {rank.process.sentinel: rank.process for rank in ranks}
    while running:
        for sentinel in wait(list(running)):
            process = running.pop(sentinel)  # type: ignore[call-overload]
            process.join()
            if process.exitcode != 0:
                for other in running.values():
                    other.terminate()
    ends = [rank.end() for rank in ranks]
    code = next((each.code for each in ends if each.code != 0), 0)
    return Ended(code, "".join(each.stdout for each in ends), "".join(each.stderr for each in ends))


def await_end(pid: int) -> None:
    """Until a killed process has closed all its files; `join` waits for one of them."""
    while psutil.pid_exists(pid):  # the server of the copies collects it when its last thread has ended
        time.sleep(0.01)


def errors_of(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("error: ")]


def _work(words: tuple[str, ...], log: Path, folder: Path, environment: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(_streams(log), start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["tracin-func", *words]
    _mark(log).touch()
    main()


def _mark(log: Path) -> Path:
    return log.with_name(f"{log.name}.started")


def _streams(log: Path) -> tuple[Path, Path]:
    return log.with_name(f"{log.name}.stdout"), log.with_name(f"{log.name}.stderr")
