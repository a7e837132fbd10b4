"""The processes at work on a store: locks of the operating system, released however a process ends.

Either one whole run, or shards of one count, each once. The gate is locked while a process checks whether it may
start. A JSON file beside each lock names its holder.
"""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tracin_func.errors import InputError, OutputError
from tracin_func.files import read_object
from tracin_func.gradients.store.disk import not_written, write_json, writing

_GATE = "gate.lock"
_PREPARATION = "preparation.lock"
_RUN = "run"
_SHARD = re.compile(r"shard-(\d+)-of-(\d+)")
OWN_FILES = re.compile(rf"\.?(gate|preparation|{_RUN}|{_SHARD.pattern})\.(lock|json)(\.tmp)?")
_PATIENCE = 30.0  # seconds at the gate, which is held for a moment only

Shard = tuple[int, int]


@dataclass(frozen=True)
class Occupant:
    """A process at work on a store; `shard` is 2/4, or empty for a whole run."""

    pid: int
    host: str
    since: str
    command: str
    shard: str = ""


@contextlib.contextmanager
def occupied(folder: Path, command: str, shard: Shard | None = None) -> Iterator[None]:
    """Hold the lock of a store, for a whole run or for shard (i, n), i from 1 to n.

    Raises:
        InputError: another process works on the same part; the message names it.
        OutputError: lock files cannot be written in the folder.
    """
    name = _RUN if shard is None else f"shard-{shard[0]}-of-{shard[1]}"
    with _locked(folder / _GATE, _PATIENCE):
        for other in _locks(folder):
            if other == name:
                continue
            if not _held(folder / f"{other}.lock"):
                _forget(folder, other)  # of a process that was killed
            elif shard is None or (found := _SHARD.fullmatch(other)) is None or int(found[2]) != shard[1]:
                raise _in_use(folder, other)
        try:
            own = _acquired(folder / f"{name}.lock", 0)
        except Timeout as error:
            raise _in_use(folder, name) from error
        try:
            with writing(folder):
                since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
                part = f"{shard[0]}/{shard[1]}" if shard else ""
                myself = Occupant(os.getpid(), socket.gethostname(), since, command, part)
                write_json(_record(folder, name), asdict(myself))
        except BaseException:
            own.release()
            raise
    try:
        yield
    finally:
        _forget(folder, name)
        own.release()


@contextlib.contextmanager
def preparing(folder: Path) -> Iterator[None]:
    """Be the only process that adds files to a store; the other shards wait meanwhile."""
    with _locked(folder / _PREPARATION, -1):
        yield


def occupants(folder: Path) -> list[Occupant]:
    """The processes at work on a store; where no lock can be tried, those that are recorded."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder / _GATE, _PATIENCE))
        except OutputError:
            return [_recorded(folder, name) for name in _locks(folder) if _record(folder, name).exists()]
        return [_recorded(folder, name) for name in _locks(folder) if _held(folder / f"{name}.lock")]


def _locks(folder: Path) -> list[str]:
    stems = sorted(path.stem for path in folder.glob("*.lock"))
    return [stem for stem in stems if stem == _RUN or _SHARD.fullmatch(stem)]


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _forget(folder: Path, name: str) -> None:
    """Remove the record of a lock's holder; one that stays is ignored unless the lock is held."""
    with contextlib.suppress(OSError):
        _record(folder, name).unlink(missing_ok=True)


def _held(path: Path) -> bool:
    try:
        _acquired(path, 0).release()
    except Timeout:
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path, timeout: float) -> Iterator[None]:
    try:
        lock = _acquired(path, timeout)
    except Timeout as error:
        raise InputError(
            f"{path} was held by another process for {timeout:g} s. Expected it to be free at once. Stop the process "
            "that hangs on this store, and run again."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _acquired(path: Path, timeout: float) -> BaseFileLock:
    """The lock at `path`, held; raises Timeout where another process has it."""
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:  # an OSError too
        raise
    except OSError as error:
        raise not_written(path.parent, 0, error) from error
    except NotImplementedError as error:
        raise OutputError(
            f"`store` {path.parent} is on a file system without locks, which keep two runs apart. Choose a folder on "
            "another disk."
        ) from error
    return lock


def _recorded(folder: Path, name: str) -> Occupant:
    """The recorded holder of a lock; unknown where the record is missing or damaged."""
    shard = "" if name == _RUN else name.removeprefix("shard-").replace("-of-", "/")
    unknown = Occupant(0, "unknown", "unknown", "unknown", shard)
    try:
        values = read_object(_record(folder, name), number=None)
        return Occupant(**{key: type(getattr(unknown, key))(values[key]) for key in asdict(unknown)})
    except (InputError, KeyError, TypeError, ValueError):  # of a process that was killed while it wrote, or before
        return unknown


def _in_use(folder: Path, name: str) -> InputError:
    who = _recorded(folder, name)
    part = f" by shard {who.shard}" if who.shard else ""
    return InputError(
        f"`store` {folder} is in use{part}: process {who.pid} on {who.host} since {who.since}, '{who.command}'. "
        "Expected one run at a time, or shards of one count, each once. Wait for it to finish, or choose another "
        "folder."
    )
