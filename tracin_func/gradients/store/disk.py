"""Bytes on the disk: written with pwrite and synced, read with pread, never through a memory map.

A full disk is then an error of one call; with a memory map a signal would kill the process.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError, OutputError

TEMPORARY = ".tmp"  # the end of the name of a file that is not yet in its place
RECOMPUTE = "Run tracin-func store verify --drop on it and then the same command, which recomputes the damaged blocks."
_BUFFER = 1 << 22
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ALLOCATION = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}  # of a file system that cannot


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, in row-major order; shared with it where it is contiguous."""
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data


# Writing


@contextlib.contextmanager
def writing(folder: Path, needed: int = 0) -> Iterator[None]:
    """Turn any error of the system while `needed` bytes are written in a folder into an OutputError of one line."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise not_written(folder, needed, error) from error


def allocate(path: Path, size: int) -> None:
    """Claim the bytes of a file up to `size` on the disk; its content stays, and its length too after an OSError."""
    with _opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        before = os.fstat(descriptor).st_size
        if before >= size:
            return
        try:
            _claim(descriptor, before, size)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise


def write_at(path: Path, data: memoryview, offset: int) -> None:
    """Write bytes into a file that exists, and wait until the disk has them."""
    with _opened(path, os.O_WRONLY) as descriptor:
        _write_all(descriptor, data, offset)
        os.fsync(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step: a reader finds the old file or all of the new one."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    data = f"{json.dumps(value, indent=2, ensure_ascii=True)}\n".encode()
    try:
        with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            _write_all(descriptor, memoryview(data), 0)
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of a folder: a renamed file keeps its new name."""
    with _opened(folder, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _claim(descriptor: int, start: int, stop: int) -> None:
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(descriptor, start, stop - start)
        except OSError as error:
            if error.errno not in _NO_ALLOCATION:
                raise
        else:
            return
    zeros = memoryview(bytes(min(_BUFFER, stop - start)))
    for offset in range(start, stop, _BUFFER):
        _write_all(descriptor, zeros[: stop - offset], offset)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write everything; one call may write only a part of it."""
    while data:
        written = os.pwrite(descriptor, data[: 1 << 30], offset)
        data, offset = data[written:], offset + written


def not_written(folder: Path, needed: int, error: OSError) -> OutputError:
    if error.errno in _FULL:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        return OutputError(
            f"`store` {folder} cannot grow: {error.strerror}; {needed} bytes were needed, "
            f"{shutil.disk_usage(there).free} are free. Its finished blocks are kept. Free some space, or move the "
            "store to a larger disk, and run the same command again."
        )
    return OutputError(
        f"{error.filename or folder} could not be written: {error.strerror or error}. Finished blocks of the store are "
        "kept. Check the permissions of the folder and the disk, or choose another folder for `store`."
    )


# Reading


def runs(index: Tensor) -> Iterator[tuple[int, int, int]]:
    """The runs of consecutive positions in an index [n]: where each starts in it, its first position, its length."""
    if not len(index):
        return
    breaks = (torch.nonzero(index[1:] != index[:-1] + 1).reshape(-1) + 1).tolist()
    starts = [0, *breaks]
    for start, first, stop in zip(starts, index[starts].tolist(), [*breaks, len(index)], strict=True):
        yield start, first, stop - start


def read_runs(path: Path, target: Tensor, wanted: Iterable[tuple[int, int, int]]) -> None:
    """Fill a contiguous tensor [n, ...] from a file of such rows, one call for each run (see `runs`)."""
    view = bytes_of(target)
    size = target[0].numel() * target.element_size() if len(target) else 0
    try:
        with _opened(path, os.O_RDONLY) as descriptor:
            for start, first, count in wanted:
                part, offset = view[start * size : (start + count) * size], first * size
                while part:
                    read = os.preadv(descriptor, [part[: 1 << 30]], offset)
                    if not read:
                        raise InputError(f"{path} is truncated: it ends before byte {offset}. {RECOMPUTE}")
                    part, offset = part[read:], offset + read
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. {RECOMPUTE}") from error
