"""Rows in a store: missing blocks are computed, the others are read.

A block is computed by one process, in chunks that begin where it does. Its rows are therefore the same to the last bit
whichever process computes it, in this run or in one that resumes it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.gradients.batches import Work
from tracin_func.gradients.companions import SAME_IN_HALF
from tracin_func.gradients.device import wide_type
from tracin_func.gradients.processes import World
from tracin_func.gradients.representations.projected import ProjectedGradients, of_rows, projection_of, row_maker
from tracin_func.gradients.store.locks import Shard
from tracin_func.gradients.store.store import Store
from tracin_func.task.method import Projection

CHECKED = 4  # items whose scores are recomputed where rows exist
SAME_SCORES = 1e-3  # relative deviation of scores that is rounding


def stored(
    work: Work, projection: Projection, store: Store, world: World, shard: Shard | None = None
) -> ProjectedGradients:
    """Rows of all units in `store`, after missing ones are computed; see `fill`."""
    fill(work, projection, store, world, shard)
    name, device = work.state.name, work.state.example.device
    values = store.read_values(name).to(device)

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        return store.read_rows(name, index).to(device), values[index.to(device)]

    # Rows are float32 in a store, whatever the model computes in.
    exact = wide_type(values) == torch.float64
    return of_rows(work, fetch, lambda: values, projection_of(projection, work.state), exact)


def fill(work: Work, projection: Projection, store: Store, world: World, shard: Shard | None = None) -> int:
    """Compute this process's part of the missing blocks of one checkpoint, and wait for the others; returns how many.

    With `shard` (i, n), only the blocks of the i-th run of n.
    """
    state = work.state
    missing = store.missing(state.name)
    if 0 not in missing:
        _require_same_scores(work, store)
    world.wait()  # before any is finished that another process would not find missing
    position, of = shard or (1, 1)
    first = store.folders[state.name].first_block  # so that checkpoints of one block are spread, too
    numbers = {first + block: block for block in missing}
    of_shard = [n for n in numbers if n % of == position - 1]  # however many processes a shard has
    mine = [numbers[n] for n in of_shard if n // of % world.size == world.rank]
    if mine:
        fetch = row_maker(work, projection_of(projection, state))
        for block in mine:
            rows, values = fetch(torch.arange(*store.manifest.range(block)))
            store.write(state.name, block, rows, values, work.units.label)
    world.wait()
    return len(mine)


def _require_same_scores(work: Work, store: Store) -> None:
    """Names, shapes and weights may be equal while the code of the model differs: then its scores do."""
    units, state = work.units, work.state
    few = min(CHECKED, store.manifest.range(0)[1])
    before = store.read_values(state.name, slice(0, few)).double()
    now = work.engine.values(replace(units, count=few), state, replace(work.plan, chunk=few)).cpu()
    tolerance = SAME_SCORES if now.dtype in (torch.float32, torch.float64) else SAME_IN_HALF
    off, allowed = float((now.double() - before).abs().max()), tolerance * (float(before.abs().max()) + 1e-6)
    if not off <= allowed:  # NaN, too
        raise InputError(
            f"`store` {store.path} was made by another model code or other model arguments: at {state.name} the score "
            f"of {units.label(0)} was {float(before[0]):.6g} and is {float(now[0]):.6g} now, with equal weights. Use "
            "the model of the store, or choose another folder for `store`."
        )
