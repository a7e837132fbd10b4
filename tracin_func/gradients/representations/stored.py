"""Rows in a store: blocks that are missing are computed, the others are read.

A block is computed by one process, in chunks that begin where it does, so that its rows are the same to the last bit
whichever process computes it, in this run or in one that resumes it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError
from tracin_func.gradients.batches import Work
from tracin_func.gradients.companions import SAME_IN_HALF
from tracin_func.gradients.device import wide_type
from tracin_func.gradients.processes import World
from tracin_func.gradients.protocol import Units
from tracin_func.gradients.representations.projected import ProjectedGradients, of_rows, projection_of, row_maker
from tracin_func.gradients.store.locks import Shard
from tracin_func.gradients.store.store import Store
from tracin_func.task.method import Projection

CHECKED = 4  # items whose scores are computed again where rows are there
SAME_SCORES = 1e-3  # relative deviation of scores that is rounding


def stored(
    work: Work, projection: Projection, store: Store, world: World, shard: Shard | None = None
) -> ProjectedGradients:
    """Rows of all units in `store`, those that were missing made first; see `fill`."""
    fill(work, projection, store, world, shard)
    name, device = work.state.name, work.state.example.device
    values = store.read_values(name).to(device)

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        return store.read_rows(name, index).to(device), values[index.to(device)]

    # Rows are float32 in a store, whatever the model computes in.
    exact = wide_type(values) == torch.float64
    return of_rows(work, fetch, lambda: values, projection_of(projection, work.state), exact)


def fill(work: Work, projection: Projection, store: Store, world: World, shard: Shard | None = None) -> int:
    """Make this process's part of the missing blocks of one checkpoint, and wait for the others; blocks made.

    Of `shard` (i, n), only the blocks that are the i-th run's of n.
    """
    units, state = work.units, work.state
    missing = store.missing(state.name)
    if 0 not in missing:
        _require_same_scores(work, store)
    world.wait()  # before any is finished that another process would not find missing
    position, of = shard or (1, 1)
    first = store.first_block(state.name)  # so that checkpoints of one block are spread, too
    numbers = {first + block: block for block in missing}
    of_shard = [n for n in numbers if n % of == position - 1]  # however many processes a shard has
    mine = [numbers[n] for n in of_shard if n // of % world.size == world.rank]
    if mine:
        fetch = row_maker(work, projection_of(projection, state))
        for block in mine:
            index = torch.arange(*store.manifest.range(block))
            rows, values = fetch(index)
            _require_finite(units, index, rows, values)
            store.write(state.name, block, rows, values)
    world.wait()
    return len(mine)


def _require_same_scores(work: Work, store: Store) -> None:
    """Names, shapes and weights may be those of the store and the model another one: its scores tell."""
    units, state = work.units, work.state
    few = min(CHECKED, store.manifest.range(0)[1])
    before = store.read_values(state.name, slice(0, few)).double()
    now = work.engine.values(replace(units, count=few), state, few).cpu()
    tolerance = SAME_SCORES if now.dtype in (torch.float32, torch.float64) else SAME_IN_HALF
    off, allowed = float((now.double() - before).abs().max()), tolerance * (float(before.abs().max()) + 1e-6)
    if not off <= allowed:  # NaN, too
        raise InputError(
            f"{store.path}: at {state.name} the score of {units.label(0)} was {float(before[0]):.6g}, and is "
            f"{float(now[0]):.6g} now, with equal weights: the code of the model, or its arguments, are others. "
            "Fix: take the model that the store was made with, or another --store."
        )


def _require_finite(units: Units, index: Tensor, rows: Tensor, values: Tensor) -> None:
    """Raise before a block is stored that no score can be made of; a store itself knows units by number only."""
    for what, tensor in (("score", values), ("gradient", rows)):
        wrong = ~tensor.isfinite().reshape(len(index), -1).all(dim=1)
        if bool(wrong.any()):
            unit = int(index[int(wrong.nonzero()[0])])
            raise NumericalError(
                f"the {what} of {units.label(unit)} is NaN or infinite. Blocks that are finished stay in the store. "
                "Fix: look at it in the data, or leave it out."
            )
