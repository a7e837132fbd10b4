"""Processes and runs that share a job: those of torchrun, and the shards of a job array with what `merge` repeats."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch

from tracin_func.cli.errors import say
from tracin_func.cli.options import ComputeOptions
from tracin_func.cli.repeat import as_options
from tracin_func.errors import InputError
from tracin_func.files import read_object
from tracin_func.gradients.processes import World, processes
from tracin_func.gradients.store.blocks import checkpoint_folders
from tracin_func.gradients.store.disk import write_json, writing
from tracin_func.gradients.store.identity import read_manifest
from tracin_func.gradients.store.locks import preparing
from tracin_func.scoring.steps import Filled
from tracin_func.sources.options import Options

RECORD = "job.json"  # in a store: what its shards are to be merged to
_REMEDY = "Run the shards again: tracin-func self or influence with --store FOLDER --shard I/N."


@contextmanager
def together(options: Options) -> Iterator[World]:
    """The processes of this run, each with its threads; only the first prints."""
    with processes(options[ComputeOptions].device) as world:
        _set_threads(options[ComputeOptions].threads, world)
        if world.first:
            yield world
            return
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
            yield world


def record_job(folder: Path, command: str, options: Mapping[str, Any], shard: tuple[int, int] | None) -> None:
    """Note in a store what its shards are made for, as `merge` will run it; `options` are those that were given."""
    with preparing(folder), writing(folder):  # shards may end at the same time
        write_json(folder / RECORD, _job(command, options, shard))


def require_same_job(folder: Path, command: str, options: Mapping[str, Any], shard: tuple[int, int] | None) -> None:
    """Raise before rows are made where other shards of the store were run for something else.

    Raises:
        InputError: naming what differs; machines may differ in threads and devices.
    """
    path = folder / RECORD
    if not path.is_file():
        return
    flat = [
        {"command": each.get("command"), "shards": each.get("shards"), **_options(each)}
        for each in (read_object(path, number=None, remedy=_REMEDY), _job(command, options, shard))
    ]
    names = sorted({*flat[0], *flat[1]} - {"threads", "device"})
    if differing := [name for name in names if flat[0].get(name) != flat[1].get(name)]:
        raise InputError(
            f"{path}: other shards were run with another {', '.join(differing)}. Expected equal options of all shards. "
            "Give the same, or another --store; or remove that file (computed gradients are kept)."
        )


def _job(command: str, options: Mapping[str, Any], shard: tuple[int, int] | None) -> dict[str, Any]:
    return {"command": command, "options": dict(options), "shards": 1 if shard is None else shard[1]}


def recorded_job(folder: Path) -> tuple[str, dict[str, Any]]:
    """The command and the options that the shards of a store were run with.

    Raises:
        InputError: no store, no record of a shard, or rows of a shard are missing.
    """
    manifest = read_manifest(folder)
    path = folder / RECORD
    if not path.is_file():
        raise InputError(f"{folder}: no shard of self or influence was run on this store. {_REMEDY}")
    found = read_object(path, number=None, remedy=_REMEDY)
    command, options, shards = found.get("command"), found.get("options"), found.get("shards")
    if command not in ("self", "influence") or not isinstance(options, dict) or type(shards) is not int or shards < 1:
        raise InputError(f"{path} is no record of shards. {_REMEDY}")
    for each in checkpoint_folders(folder, manifest):
        left = sorted(set(range(manifest.blocks)) - each.finished())
        if left and _counts(each.record.learning_rates):
            of = sorted({(each.first_block + block) % shards + 1 for block in left})
            raise InputError(
                f"{folder}: checkpoint {each.record.name} lacks {len(left)} of {manifest.blocks} blocks, of shard "
                f"{', '.join(f'{position}/{shards}' for position in of[:6])}{' ...' if len(of) > 6 else ''}. Expected "
                "all. Run these shards again; what they finished is kept."
            )
    return str(command), as_options(options, path, _REMEDY)


def _counts(rates: Any) -> bool:
    """Whether a checkpoint with these learning rates adds anything."""
    return any(rates.values()) if isinstance(rates, Mapping) else bool(rates)


def say_filled(filled: Sequence[Filled], folder: Path, command: str | None, *, quiet: bool) -> None:
    """How much of the store is there, and what to run next."""
    missing, every = sum(each.missing for each in filled), sum(each.blocks for each in filled)
    made, name = sum(each.made for each in filled), shlex.quote(str(folder))
    if missing:
        say(f"Store {folder}: {every - missing} of {every} blocks, {made} of them new.", quiet=quiet)
        return
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(f"Store {folder} is complete: {every} blocks ({made} new), {size / 1e6:,.0f} MB.", quiet=quiet)
    say(f"Next: tracin-func {f'merge {name}' if command else f'self or influence with --store {name}'}", quiet=quiet)


def _set_threads(asked: int | None, world: World) -> None:
    if asked is not None:
        torch.set_num_threads(asked)
    elif world.size > 1:  # torchrun's own default is one thread each
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))


def _options(record: Mapping[str, Any]) -> Mapping[str, Any]:
    found = record.get("options")
    return found if isinstance(found, Mapping) else {}
