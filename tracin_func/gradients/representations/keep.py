"""What is kept of gradients, decided only here: rows, factors, norms and products, projected, stored or shared rows."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from tracin_func.gradients.batches import Work
from tracin_func.gradients.budget import block_size
from tracin_func.gradients.model import State
from tracin_func.gradients.processes import ALONE, World
from tracin_func.gradients.protocol import ANYTHING, Combination, Engine, Gradients, Need, Part, Plan, Planner, Units
from tracin_func.gradients.representations import stored
from tracin_func.gradients.representations.chunks import Measurement
from tracin_func.gradients.representations.held import held
from tracin_func.gradients.representations.projected import GATHERED, projected, projection_of
from tracin_func.gradients.representations.shared import shared
from tracin_func.gradients.representations.streamed import streamed
from tracin_func.gradients.store.locks import Shard
from tracin_func.gradients.store.store import Store
from tracin_func.task.method import NONE, Projection


@dataclass(frozen=True, eq=False)
class Keeping:
    """How gradients are kept beyond what a need and a plan specify.

    Args:
        projection: of each gradient to a short row; the gradient itself with kind `none`.
        store: where rows are kept on disk.
        world: the processes that compute rows together; without a store each of them holds all.
        shard: (i, n): of the store's blocks only those of the i-th run of n.
    """

    projection: Projection = NONE
    store: Store | None = None
    world: World = ALONE
    shard: Shard | None = None

    @property
    def words(self) -> str:
        """What is done with an engine's gradients, for reports, after its name; empty for nothing."""
        kind = self.projection.kind
        place = ", stored" if self.store is not None else ", shared" if self.world.started else ""
        return f"{'' if kind == 'none' else f', then {kind} projection'}{place}"


EXACT = Keeping()  # gradients as they are, in this process


def keep(work: Work, need: Need = ANYTHING, keeping: Keeping = EXACT) -> Gradients:
    """The gradients of all units, in a form that serves `need`.

    Raises:
        UnsuitableError: what `Engine.tried` could not know from a few units.
        InputError, NumericalError, OutputError: of a store.
    """
    if keeping.store is not None:
        return stored.stored(work, keeping.projection, keeping.store, keeping.world, keeping.shard)
    if keeping.world.started:
        return shared(work, keeping.projection, keeping.world)
    if keeping.projection.kind != "none":
        return projected(work, keeping.projection)
    return held(work) if need.held else streamed(work, need)


def fill(work: Work, keeping: Keeping) -> int:
    """Compute the missing blocks of one checkpoint; returns how many this process computed."""
    assert keeping.store is not None
    return stored.fill(work, keeping.projection, keeping.store, keeping.world, keeping.shard)


def plan_for(
    engine: Engine, planner: Planner, units: Units, state: State, need: Need, projection: Projection = NONE
) -> Plan:
    """The plan of `engine` for units and their projected or exact gradients; the chunk is measured if asked for."""
    measured = partial(_measured, engine, units, state, projection)
    if projection.kind == "none":
        return measured(planner(need), need)
    # Gradients are used one chunk at a time, as if only norms of single units were needed.
    into = projection_of(projection, state)
    row = into.width * state.row_dtype.itemsize
    asked = replace(need, norms=True, combined=False, right=torch.arange(0), row=row)
    plan = measured(planner(asked), asked)
    block = block_size(units.count, row, need.budget)
    forms = {name: into.form(name) for name in state.parameters}
    parts = tuple(Part(name, "", projection.kind, cost, words) for name, (words, cost) in forms.items())
    return replace(plan, block=block, bytes_held=block * row + (GATHERED if into.gathered else 0), parts=parts)


def _measured(engine: Engine, units: Units, state: State, projection: Projection, plan: Plan, need: Need) -> Plan:
    if not plan.largest:
        return plan
    rates = dict.fromkeys(state.parameters, 1.0)

    def run(clocked: Engine, some: Units, small: Plan, asked: Need) -> Gradients:
        return keep(Work(clocked, some, state, rates, small), asked, Keeping(projection))

    return Measurement(engine, units, state, need, plan, run, units.count * need.visits).fastest()


def cpu_deviation(engine: Engine, here: tuple[Units, State], there: tuple[Units, State]) -> float:
    """Largest relative deviation of the dot products of two units `here` from the exact ones `there`.

    MPS silently returns wrong gradients past 32k elements (pytorch#177116).
    """
    found, exact = _products(engine, *here), _products(engine, *there)
    scale = exact.diagonal().sqrt()
    return float(((found - exact).abs() / torch.outer(scale, scale).clamp(min=1e-300)).max())


def _products(engine: Engine, units: Units, state: State) -> Tensor:
    two = replace(units, count=min(2, units.count))
    plan = Plan(1, two.count, 0, "spot check")
    gradients = keep(Work(engine, two, state, dict.fromkeys(state.parameters, 1.0), plan))
    return gradients.columns(Combination(torch.arange(two.count)[:, None], torch.ones(two.count, 1)))
