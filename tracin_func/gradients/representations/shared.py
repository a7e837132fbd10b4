"""Rows computed by all processes in turn, chunk by chunk, and kept by each of them."""

from dataclasses import replace

import torch
from torch import Tensor

from tracin_func.gradients.device import row_dtype
from tracin_func.gradients.model import State
from tracin_func.gradients.processes import World
from tracin_func.gradients.protocol import Engine, Plan, Units
from tracin_func.gradients.representations.projected import ProjectedGradients, of_rows, projection_of, row_maker
from tracin_func.gradients.representations.rows import are_exact
from tracin_func.task.method import Projection


def shared(
    engine: Engine,
    units: Units,
    state: State,
    root_rate: dict[str, float],
    plan: Plan,
    projection: Projection,
    world: World,
) -> ProjectedGradients:
    """Rows of all units, each chunk of them made by one process of `world`."""
    into, example = projection_of(projection, state), next(iter(state.parameters.values()))
    fetch = row_maker(engine, units, state, root_rate, plan, into)
    every = torch.empty(units.count, into.width, dtype=row_dtype(state), device=example.device)
    # A process may have no unit to learn the type of the objectives from.
    dtype = engine.values(replace(units, count=1), state, 1).dtype
    values = torch.empty(units.count, dtype=dtype, device=example.device)
    chunks = list(enumerate(torch.arange(units.count).split(plan.chunk)))
    for block, index in chunks:
        if block % world.size == world.rank:
            every[index[0] : index[-1] + 1], values[index[0] : index[-1] + 1] = fetch(index)
    world.wait()
    for block, index in chunks:
        for whole in (every, values):
            world.spread(whole[index[0] : index[-1] + 1], block % world.size)

    def held(index: Tensor) -> tuple[Tensor, Tensor]:
        if len(index) == units.count:  # all, as they are
            return every, values
        return every[index.to(every.device)], values[index.to(every.device)]

    return of_rows(units, held, plan, lambda: values, into, are_exact(state))
