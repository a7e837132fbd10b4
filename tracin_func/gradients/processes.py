"""The processes of one run, started by torchrun: who this one is, whose turn a block of work is, and what all wait for.

    torchrun --nproc-per-node 4 -m tracin_func influence --store DIR ...

Every block is worked on by one process, in the same way whichever it is, so that with equal threads a process the
scores do not depend on how many there are.
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

LONGEST_OPERATION = timedelta(minutes=30)  # of a collective operation; what takes longer is waited for before it
POLL = 0.01  # seconds between looks at who has come


@dataclass(frozen=True, eq=False)
class World:
    """Process `rank` of `size`; the first, 0, is writes results and reports.

    Args:
        started: True if torchrun launched this process, even as a world of one.
        board: the key-value store that torchrun keeps for its processes.
    """

    rank: int = 0
    size: int = 1
    started: bool = False
    board: Any = None
    _meetings: Iterator[int] = field(default_factory=itertools.count)

    @property
    def first(self) -> bool:
        """Whether this process writes results and reports."""
        return self.rank == 0

    def mine(self, blocks: Sequence[int]) -> list[int]:
        """The blocks that are this process's: every `size`-th."""
        return [block for block in blocks if block % self.size == self.rank]

    def wait(self) -> None:
        """Until all processes are here, however long one of them has to work.

        Raises:
            OutputError: one has ended; so for all below.
        """
        # A barrier of the backend has a limit of time, and a signal does not reach a process that is inside.
        if self.size > 1:
            self._together(self._meet, f"tracin_func/meeting {next(self._meetings)}")

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes of `tensor`, in its place; of parts that are 0 in all but one it is exact."""
        if self.size > 1:
            self.wait()
            moved = tensor.cuda() if dist.get_backend() == "nccl" else tensor
            self._together(dist.all_reduce, moved)
            tensor.copy_(moved)
        return tensor

    def spread(self, tensor: Tensor, owner: int) -> None:
        """What process `owner` has in `tensor` goes to all."""
        if self.size > 1:
            self._together(dist.broadcast, tensor, src=owner)

    def agree(self, word: str) -> str:
        """What the first process says."""
        said = [word]
        if self.size > 1:
            self._together(dist.broadcast_object_list, said, src=0)
        return said[0]

    def _meet(self, place: str) -> None:
        self.board.add(place, 1)
        while self.board.add(place, 0) < self.size:
            time.sleep(POLL)

    def _together(self, collective: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        try:
            collective(*arguments, **named)
        except RuntimeError as error:  # what gloo and nccl say of a lost connection
            raise OutputError(
                f"process {self.rank} of {self.size}: another process of this run has ended ("
                f"{str(error).splitlines()[0][:120]}). Blocks that are finished stay in the store; run again to go on."
            ) from error


ALONE = World()


@contextmanager
def processes(device: str | None) -> Iterator[World]:
    """The processes that torchrun has started, by its environment; this one alone without.

    Gloo connects them on CPUs, NCCL with one CUDA device each. Where they end with an error, one of them reports it.

    Raises:
        ReportedElsewhereError: an error in the block, when another process has been the first to raise one.
    """
    if "MASTER_ADDR" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    on_cuda = torch.cuda.is_available() if device in (None, "auto") else str(device).startswith("cuda")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if on_cuda and local >= torch.cuda.device_count():
        raise UsageError(
            f"process {local} of this host has no CUDA device; there are {torch.cuda.device_count()}. Expected "
            "--nproc-per-node of at most so many, or --device cpu."
        )
    if on_cuda:
        torch.cuda.set_device(local)
    try:
        board = _own_board()
        rank, size = (-1, -1) if board is None else (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        kind = "nccl" if on_cuda else "gloo"
        dist.init_process_group(kind, timeout=LONGEST_OPERATION, store=board, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise OutputError(f"the processes of torchrun do not find each other: {error}") from error
    board = board or dist.distributed_c10d._get_default_store()
    try:
        with _ending_in_words():
            yield World(dist.get_rank(), dist.get_world_size(), True, board)
    except Exception as error:
        if not _first_to_tell(board):
            raise ReportedElsewhereError from error
        raise
    dist.destroy_process_group()


def _own_board() -> Any:
    """The key-value store of torchrun's agent for the processes of this start alone; None where each start has its own.

    torchrun (2.6 to 2.13 at least) keeps one over restarts, in which processes would find the addresses and the
    meetings of those before. Hosts may count restarts differently, so that there nothing can tell the starts apart.

    Raises:
        OutputError: on several hosts, after a restart.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    kept = TCPStore(address, port, is_master=False, timeout=LONGEST_OPERATION)
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        return PrefixStore(f"tracin_func/start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", kept)
    if kept.add(f"tracin_func/process {os.environ['RANK']}", 1) > 1:
        raise OutputError(
            "torchrun has started this run again with what it kept of the processes before. Blocks that are finished "
            "stay in the store. Fix: run again, with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 where it shall be restarted."
        )
    return PrefixStore("tracin_func", kept)


@contextmanager
def _ending_in_words() -> Iterator[None]:
    """SIGTERM, which torchrun sends to the others when one process ends, is an error in the block.

    After an error it is ignored, so that the process that reports the error has time to.
    """
    if threading.current_thread() is not threading.main_thread():  # no other one may set what a signal does
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
        "this run was told to end (SIGTERM), as torchrun does when another of its processes has ended. Blocks that are "
        "finished stay in the store; run again to go on."
    )


def _first_to_tell(board: Any) -> bool:
    """Whether no other process has raised before this one; where that is unknown, this one reports."""
    try:
        return int(board.add("tracin_func/told", 1)) == 1
    except RuntimeError:  # whoever kept the board has ended
        return True
