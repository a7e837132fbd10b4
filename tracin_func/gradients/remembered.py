"""What was measured to be the fastest on this machine, kept in the cache folder from run to run."""

import functools
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from tracin_func import files
from tracin_func.errors import InputError, OutputError

MEASURED_FILE = "measured.json"
MOST_KEPT = 4096  # choices that are kept; the oldest are dropped
WAIT = 1.0  # seconds for another process that writes

_here: dict[str, Any] = {}  # of this process, which may have no cache folder


def machine(device: torch.device) -> str:
    """What speed depends on besides the operation: device, threads and version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return f"{device.type}, {name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def recall(keys: list[str]) -> dict[str, Any]:
    """The remembered choices by key."""
    if missing := [key for key in keys if key not in _here]:
        known = _read()
        _here.update({key: known[key] for key in missing if key in known})
    return {key: _here[key] for key in keys if key in _here}


def remember(found: dict[str, Any]) -> None:
    """Keep choices; a choice that another process made first stays, so that all runs take the same."""
    _here.update(found)
    path = _path()
    if not found or path is None:
        return
    try:
        with files.locked(path, timeout=WAIT):
            known = found | _read()
            text = json.dumps(dict(list(known.items())[-MOST_KEPT:]), indent=1)
            files.replace(path, [(path, text + "\n")])
    except OutputError:  # a cache that cannot be written costs a measurement per process
        return
    _here.update({key: known[key] for key in found})


def _path() -> Path | None:
    folder = files.cache_folder()
    return None if folder is None else folder / MEASURED_FILE


def _read() -> dict[str, Any]:
    path = _path()
    if path is None:
        return {}
    try:
        return files.read_object(path, number=None)
    except InputError:  # damaged: measured anew
        return {}


@functools.cache
def _processor() -> str:
    """The name of the processor, which on Linux only the kernel knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
