"""The processes of one run, started by torchrun: their ranks, their blocks of work, and meetings of all.

    torchrun --nproc-per-node 4 -m tracin_func influence --store DIR ...

Each block is computed by one process, in the same way by any, so that with equal threads per process the scores do not
depend on the number of processes.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from tracin_func.errors import OutputError, ReportedElsewhereError, UsageError

LONGEST_OPERATION = timedelta(minutes=30)  # of a collective operation; processes meet before it for longer waits
_CONTINUE = "Finished blocks stay in the store; run the same command again to continue."
POLL = 0.01  # seconds between looks at the number of processes that have arrived


@dataclass(frozen=True, eq=False)
class World:
    """Process `rank` of `size`; the first, 0, writes results and reports.

    Args:
        started: True if torchrun launched this process, even as a world of one.
        board: torchrun's key-value store for its processes.
    """

    rank: int = 0
    size: int = 1
    started: bool = False
    board: Any = None
    _meetings: Iterator[int] = field(default_factory=itertools.count)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mine(self, blocks: Sequence[int]) -> list[int]:
        """The blocks of this process: every `size`-th."""
        return [block for block in blocks if block % self.size == self.rank]

    def wait(self) -> None:
        """Wait until all processes have arrived, however long; like all below, OutputError if one has stopped."""
        # A barrier of the backend has a time limit, and signals do not reach a process inside it.
        if self.size > 1:
            self._together(self._meet, f"tracin_func/meeting {next(self._meetings)}")

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes of `tensor`, in place; exact for entries that are 0 in all processes but one."""
        if self.size > 1:
            self.wait()
            moved = tensor.cuda() if dist.get_backend() == "nccl" else tensor
            self._together(dist.all_reduce, moved)
            tensor.copy_(moved)
        return tensor

    def spread(self, tensor: Tensor, owner: int) -> None:
        """Copy `tensor` of process `owner` to all processes."""
        if self.size > 1:
            self._together(dist.broadcast, tensor, src=owner)

    def agree(self, word: str) -> str:
        """The word of the first process."""
        words = [word]
        if self.size > 1:
            self._together(dist.broadcast_object_list, words, src=0)
        return words[0]

    def _meet(self, place: str) -> None:
        self.board.add(place, 1)
        while self.board.add(place, 0) < self.size:
            time.sleep(POLL)

    def _together(self, collective: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        try:
            collective(*arguments, **named)
        except RuntimeError as error:  # of gloo and nccl for a lost connection
            raise OutputError(
                f"process {self.rank} of {self.size}: another process of this run has stopped ("
                f"{str(error).splitlines()[0][:120]}). {_CONTINUE}"
            ) from error


ALONE = World()


@contextmanager
def processes(device: str | None) -> Iterator[World]:
    """The processes that torchrun has started, by its environment; without it this one alone.

    Gloo connects them on CPUs, NCCL with one CUDA device each. One of them reports an error of the block, the others
    raise ReportedElsewhereError.
    """
    if "MASTER_ADDR" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    on_cuda = torch.cuda.is_available() if device in (None, "auto") else str(device).startswith("cuda")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if on_cuda and local >= torch.cuda.device_count():
        raise UsageError(
            f"--nproc-per-node should be at most {torch.cuda.device_count()}, the number of CUDA devices here. Got "
            f'process {local}, without one. Start fewer, or use `device="cpu"`.'
        )
    if on_cuda:
        torch.cuda.set_device(local)
    try:
        board = _own_board()
        rank, size = (-1, -1) if board is None else (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        kind = "nccl" if on_cuda else "gloo"
        dist.init_process_group(kind, timeout=LONGEST_OPERATION, store=board, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise OutputError(f"the processes of torchrun cannot connect to each other: {error}") from error
    board = board or dist.distributed_c10d._get_default_store()
    try:
        with _ending_in_words():
            yield World(dist.get_rank(), dist.get_world_size(), True, board)
    except Exception as error:
        if not _first_to_report(board):
            raise ReportedElsewhereError from error
        raise
    dist.destroy_process_group()


def _own_board() -> Any:
    """The key-value store of torchrun's agent, for the processes of this start only; None if each start has its own.

    torchrun (2.6 to 2.13 at least) keeps one over restarts, with the addresses and meetings of earlier processes. Hosts
    may count restarts differently, so on several hosts the starts cannot be distinguished: a restart is an error.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    kept = TCPStore(address, port, is_master=False, timeout=LONGEST_OPERATION)
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        return PrefixStore(f"tracin_func/start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", kept)
    if kept.add(f"tracin_func/process {os.environ['RANK']}", 1) > 1:
        raise OutputError(
            f"torchrun has restarted this run with data of the earlier processes. {_CONTINUE} Set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 if torchrun should restart it."
        )
    return PrefixStore("tracin_func", kept)


@contextmanager
def _ending_in_words() -> Iterator[None]:
    """SIGTERM, which torchrun sends to the others when one process stops, is an error in the block.

    After an error it is ignored, so that the process has time to report it.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may set signal handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, before)


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise OutputError(
        f"this run was stopped (SIGTERM), as torchrun does when another of its processes has stopped. {_CONTINUE}"
    )


def _first_to_report(board: Any) -> bool:
    """Whether no other process has raised an error before; if that is unknown, this one reports."""
    try:
        return int(board.add("tracin_func/reported", 1)) == 1
    except RuntimeError:  # the process with the board has stopped
        return True
