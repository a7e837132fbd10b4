"""A run and its store: what both have to agree on, and the plan for rows that are stored or shared."""

import hashlib
import inspect
import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from tracin_func.errors import InputError, OutputError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.device import versions
from tracin_func.gradients.model import State
from tracin_func.gradients.processes import World
from tracin_func.gradients.projection.registry import row_dimension
from tracin_func.gradients.protocol import Kernels
from tracin_func.gradients.representations.keep import Keeping
from tracin_func.gradients.representations.projected import projection_of
from tracin_func.gradients.store.blocks import CheckpointRecord
from tracin_func.gradients.store.encoding import ROW_DTYPES
from tracin_func.gradients.store.identity import (
    KERNELS_NOTE,
    NAME,
    Manifest,
    items_digest,
    read_manifest,
    weights_digest,
)
from tracin_func.gradients.store.locks import Shard
from tracin_func.gradients.store.store import Store, open_store
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.plan import Prepared
from tracin_func.task.items import DatasetItems, StackedItems

BLOCK_BYTES = 1 << 23  # of rows that are written together
LARGE, LONG = 10**9, 100  # bytes of a store, and its dimensions per projected dimension, that have to be confirmed
STORE_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
LARGEST_BLOCK = 4096  # units, of narrow rows
Found = TypeVar("Found")


def require_rows(prepared: Prepared, what: str) -> None:
    """Refuse gradients of whole pairs: they include the losses, which change with the checkpoint.

    Raises:
        InputError: naming `what`, which needs gradients of items.
    """
    if prepared.choice.unit == "pairs":
        raise InputError(
            f"{what} needs gradients of single items, which serve any pairs. Got engine {prepared.choice.name!r}, "
            'which differentiates whole pairs. Use `engine="auto"` with a scorer of single items.'
        )


def unit_in(folder: Path | None) -> str | None:
    """The units of a store, `items` or `differences`; None where there is no store yet."""
    if folder is None or not (folder / NAME).is_file():
        return None
    return read_manifest(folder).unit


def require_items_in(folder: Path | None) -> None:
    """Refuse a store of gradients of pairs.

    Raises:
        InputError: naming it.
    """
    if unit_in(folder) == "differences":
        raise InputError(
            f"`store` {folder} holds gradients of score differences, which serve its own pairs only. Expected "
            "gradients of items. Name another folder, which is then filled with these."
        )


def manifest_of(prepared: Prepared, state: State, dtype: str) -> Manifest:
    """The manifest of a store of this run; every later run on it must have the same identity."""
    make, width = prepared.make, projection_of(prepared.projection, state).width
    chunk = prepared.plan.chunk
    rows = max(1, min(LARGEST_BLOCK, BLOCK_BYTES // (4 * width)))
    items = make.task.items
    data = items.content if isinstance(items, StackedItems | DatasetItems) else items
    identity: dict[str, Any] = {
        "model": make.scorer.class_name,
        "parameters": {name: list(tensor.shape) for name, tensor in state.parameters.items()},
        "dtype of the model": sorted({str(tensor.dtype) for tensor in state.parameters.values()}),
        "items": items_digest(data, make.task.item_ids),
        "front end": make.task.describe.get("front_end"),
        "projection": prepared.projection.describe(),
        "preconditioner": "adam" if state.scale else "none",
    }
    if make.by_difference:
        identity["pairs"] = [items_digest((pairs.first, pairs.second)) for pairs in make.tables]
    notes: dict[str, Any] = {name: text for name, text in versions().items() if name in ("tracin-func", "torch")}
    notes["source of the model"] = _source(type(make.scorer.module))
    unit = "differences" if make.by_difference else "items"
    block = -(-rows // chunk) * chunk
    notes["engine"] = prepared.choice.engine.name
    notes[KERNELS_NOTE] = prepared.plan.kernels.describe()
    return Manifest(unit, prepared.scored.count, width, dtype, block, chunk, identity, notes)


def record_of(state: State, rate: Any, values: torch.dtype) -> CheckpointRecord:
    """The record of a checkpoint in a store: its weights as they are used, with Adam's scale."""
    scale = {f"scale of {name}": tensor for name, tensor in state.scale.items()}
    digest = weights_digest({**state.parameters, **state.constants, **scale})
    return CheckpointRecord(state.name, digest, rate, str(values).removeprefix("torch."))


def open_for(
    prepared: Prepared,
    state: State,
    compute: Compute,
    observer: Observer,
    checkpoints: int,
    stack: ExitStack,
) -> Store:
    """The store of a run, open until `stack` is closed.

    Checkpoints are admitted when it is their turn; see `admit`.

    Raises:
        InputError: it was made from something else, is in use, or is new and so large that it has to be confirmed.
        OutputError: it cannot be written.
    """
    folder = compute.store
    assert folder is not None
    _announce(prepared, state, compute, observer, checkpoints)

    def opened() -> Store:
        manifest, words = manifest_of(prepared, state, compute.store_dtype), shlex.join(sys.argv)
        shard, rank = compute.shard, compute.world.rank
        return stack.enter_context(open_store(folder, manifest, command=words, shard=shard, rank=rank))

    store = _in_turn(compute.world, opened)
    for warning in store.warnings:
        observer.notice(warning)
    if (dtype := store.manifest.dtype) != "float32":
        observer.notice(
            f"warning: {dtype} rounding in the store ({STORE_ROUNDING[dtype]:.0e} of each gradient) makes "
            "self-influence unreliable for nearly identical items, and standard errors do not show it. To avoid it, "
            'fill another store with `store_dtype="float32"`.'
        )
    return store


def admit(store: Store, record: CheckpointRecord, world: World) -> None:
    """Prepare the store for a checkpoint."""
    _in_turn(world, lambda: store.admit(record))


def _in_turn(world: World, action: Callable[[], Found]) -> Found:
    """`action` in the first process, and then in the others."""
    if not world.first:
        world.wait()
    found = action()
    world.wait()
    if world.first:
        world.wait()
    return found


def stored(prepared: Prepared, store: Store, world: World, shard: Shard | None) -> Prepared:
    """`prepared`, its rows in `store`."""
    # An engine that takes one unit at a time does so in any store; its rows do not depend on the chunk.
    alone = prepared.choice.name == "loop"
    plan = prepared.plan if alone else replace(prepared.plan, chunk=store.manifest.chunk)
    if not alone and store.manifest.chunk != prepared.plan.chunk:
        plan = replace(plan, reason="as in the store")
    if isinstance(kernels := store.manifest.notes.get(KERNELS_NOTE), Mapping):  # a store of an older release has none
        plan = replace(plan, kernels=Kernels.read(kernels))
    return replace(prepared, plan=plan, keeping=Keeping(prepared.projection, store, world, shard))


def shared(prepared: Prepared, state: State, world: World) -> Prepared:
    """`prepared`, its rows computed by all processes and held by each.

    Raises:
        InputError: they do not fit.
    """
    held = 4 * prepared.scored.count * projection_of(prepared.projection, state).width
    if world.size > 1 and held > prepared.budget // 2:
        raise InputError(
            f"every process would hold {held / 1e9:.1f} GB of gradients, and {prepared.budget / 2e9:.1f} GB are "
            "planned for them. Cache them in a folder that all processes share (`store`), project them (`projection`), "
            "or allow more memory (`memory_budget`)."
        )
    # These may have been measured.
    chunk = int(world.agree(str(prepared.plan.chunk)))
    kernels = Kernels.read(json.loads(world.agree(json.dumps(prepared.plan.kernels.describe()))))
    plan = replace(prepared.plan, chunk=chunk, kernels=kernels, block=prepared.scored.count)
    return replace(prepared, plan=plan, keeping=Keeping(prepared.projection, world=world))


def _announce(prepared: Prepared, state: State, compute: Compute, observer: Observer, checkpoints: int) -> None:
    """Report the size of a new store before it is created.

    Raises:
        OutputError: the disk has less space.
        InputError: `auto` keeps exact gradients where projected ones are far smaller; asked for by name they pass.
    """
    store = compute.store
    assert store is not None
    if (store / NAME).is_file():
        return
    width, units = projection_of(prepared.projection, state).width, prepared.scored.count
    number = units * checkpoints * ROW_DTYPES[compute.store_dtype].itemsize
    asked = prepared.make.method.projection
    if asked.kind == "auto" and prepared.projection.kind == "none":
        short = row_dimension(replace(asked, kind="sjlt"))
        if short < width and (number * width > LARGE or width >= LONG * short):
            raise InputError(
                f"`store` {store} would take {_size(number * width)} for exact gradients of {width:,} dimensions; "
                f'projected to {short:,} they take {_size(number * short)}. Confirm with `projection="none"`, or '
                'estimate scores with `projection="sjlt"`.'
            )
    there = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    if (free := shutil.disk_usage(there).free) < number * width:
        raise OutputError(
            f"`store` {store} takes {_size(number * width)}, and its disk has {_size(free)} free. Free space on it, "
            "name a folder on another disk, or project the gradients (`projection`)."
        )
    observer.notice(
        f"note: writing {_size(number * width)} to the new store {store}: {units:,} gradients of {width:,} dimensions "
        f"at {checkpoints} checkpoint{'' if checkpoints == 1 else 's'}."
    )


def _size(count: int) -> str:
    """Bytes, to three digits."""
    power = 0 if count < 1000 else min(4, int(math.log10(count)) // 3)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _source(model: type) -> str:
    """A digest of the file that a model's class is written in; empty where there is none to read."""
    try:
        return hashlib.sha256(Path(inspect.getfile(model)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""
