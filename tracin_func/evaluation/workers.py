"""Independent jobs in several processes, whose results arrive as they are done."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from tracin_func.errors import UsageError

Job = TypeVar("Job")
Result = TypeVar("Result")
_CHECK = 1.0  # seconds after which an idle worker looks whether its parent is alive


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def unordered(
    work: Callable[[Job], Result], jobs: Sequence[Job], processes: int | None = None
) -> Iterator[tuple[int, Result]]:
    """The position and the result of each job, in the order in which they are done.

    A process takes the next job when it is done with one. On Linux processes are forked, so that `work` may hold
    anything; elsewhere all jobs run in this process. An error in a job is raised here, and the processes end; so
    they do on an interrupt, and when this process is killed.

    Args:
        work: computes one job; it should use one thread.
        jobs: picklable, as are the results.
        processes: at most; one per core when None.

    Raises:
        UsageError: `processes` is below 1.
        RuntimeError: a process was killed.
    """
    if processes is not None and processes < 1:
        raise UsageError(f"`processes` should be at least 1. Got {processes}.")
    count = min(processes or cores(), len(jobs))
    if count <= 1 or sys.platform != "linux":
        for position, job in enumerate(jobs):
            yield position, work(job)
        return
    context = multiprocessing.get_context("fork")
    workers: dict[Connection, Any] = {}
    waiting = iter(enumerate(jobs))
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work, os.getpid(), [*workers, ours]), daemon=True)
            with warnings.catch_warnings():  # of threads in this process: a worker uses none of their locks
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            workers[ours] = process
            ours.send(next(waiting))
        yield from _results(workers, waiting)
    finally:
        for connection, process in workers.items():
            connection.close()
            process.kill()
        for process in workers.values():
            process.join()


def _results(workers: dict[Connection, Any], waiting: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    busy = set(workers)
    while busy:
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            try:
                position, result, error = connection.recv()
            except (EOFError, OSError):
                workers[connection].join()
                code = workers[connection].exitcode
                raise RuntimeError(f"a process that retrains ended with code {code}. Is there enough memory?") from None
            if error is not None:
                raise error
            following = next(waiting, None)
            if following is None:
                busy.remove(connection)
            else:
                connection.send(following)
            yield position, result


def _serve(connection: Connection, work: Callable[[Any], Any], parent: int, inherited: Sequence[Connection]) -> None:
    """Compute jobs until the parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    for other in inherited:
        other.close()
    while os.getppid() == parent:
        if not connection.poll(_CHECK):
            continue
        try:
            position, job = connection.recv()
        except EOFError:
            return
        result, fault = None, None
        try:
            result = work(job)
        except Exception as error:
            fault = error
        try:
            connection.send((position, result, fault))
        except OSError:  # nobody waits for it
            return
