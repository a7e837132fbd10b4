"""Rows computed by all processes in turn, chunk by chunk, and held by each of them."""

from dataclasses import replace

import torch
from torch import Tensor

from tracin_func.gradients.batches import Work
from tracin_func.gradients.processes import World
from tracin_func.gradients.representations.projected import ProjectedGradients, of_rows, projection_of, row_maker
from tracin_func.gradients.representations.rows import are_exact
from tracin_func.task.method import Projection


def shared(work: Work, projection: Projection, world: World) -> ProjectedGradients:
    """Rows of all units, each chunk computed by one process of `world`."""
    units, state, device = work.units, work.state, work.state.example.device
    into = projection_of(projection, state)
    fetch = row_maker(work, into)
    rows = torch.empty(units.count, into.width, dtype=state.row_dtype, device=device)
    # Of one unit, for the type of the objectives: a process may have no chunk.
    values = torch.empty(units.count, dtype=replace(work, units=replace(units, count=1)).values().dtype, device=device)
    chunks = list(enumerate(torch.arange(units.count).split(work.plan.chunk)))
    for block, index in chunks:
        if block % world.size == world.rank:
            rows[index[0] : index[-1] + 1], values[index[0] : index[-1] + 1] = fetch(index)
    world.wait()
    for block, index in chunks:
        for whole in (rows, values):
            world.spread(whole[index[0] : index[-1] + 1], block % world.size)

    def held(index: Tensor) -> tuple[Tensor, Tensor]:
        if len(index) == units.count:  # no copy
            return rows, values
        return rows[index.to(device)], values[index.to(device)]

    return of_rows(work, held, lambda: values, into, are_exact(state))
