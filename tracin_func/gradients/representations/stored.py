"""Rows in a store: blocks that are missing are computed, the others are read.

A block is computed by one process, in chunks that begin where it does, so that its rows are the same to the last bit
whichever process computes it, in this run or in one that resumes it.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError
from tracin_func.gradients.device import wide_type
from tracin_func.gradients.model import State
from tracin_func.gradients.processes import World
from tracin_func.gradients.protocol import ANYTHING, Differentiation, Gradients, Need, Plan, Request, Sketch, Units
from tracin_func.gradients.representations.projected import ProjectedGradients, ProjectingEngine
from tracin_func.gradients.representations.rows import Rows
from tracin_func.gradients.store.locks import Shard
from tracin_func.gradients.store.store import Store

CHECKED = 4  # items whose scores are computed again where rows are there
SAME, SAME_IN_HALF = 1e-3, 3e-2  # relative deviations of scores that are rounding


@dataclass(frozen=True, eq=False)
class StoredEngine:
    """`engine`, with the rows of every checkpoint in `store`: blocks that are missing are made, the others are read.

    Args:
        world: the processes that make them together.
        shard: (i, n): of the blocks only those that are the i-th run's of n.
    """

    engine: ProjectingEngine
    store: Store
    world: World
    shard: Shard | None = None

    @property
    def name(self) -> str:
        return f"{self.engine.name}, stored"

    def refusal(self, units: Units, state: State) -> str | None:
        return self.engine.refusal(units, state)

    def plan(self, units: Units, state: State, request: Request) -> Plan:
        return replace(self.engine.plan(units, state, request), chunk=self.store.chunk)

    def values(self, units: Units, state: State, chunk: int) -> Tensor:
        return self.engine.values(units, state, chunk)

    def differentiation(self, units: Units, state: State, plan: Plan, sketch: Sketch) -> Differentiation:
        return self.engine.differentiation(units, state, plan, sketch)

    def gradients(
        self, units: Units, state: State, root_rate: dict[str, float], plan: Plan, need: Need = ANYTHING
    ) -> Gradients:
        self.fill(units, state, root_rate, plan)
        device = next(iter(state.parameters.values())).device
        values = self.store.read_values(state.name).to(device)

        def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
            return self.store.read_rows(state.name, index).to(device), values[index.to(device)]

        # Rows are float32 in a store, whatever the model computes in.
        exact = wide_type(values) == torch.float64
        rows = Rows(units.count, fetch, plan.block, lambda: values, lambda unit, _: units.label(unit), exact)
        return ProjectedGradients(rows, self.engine.projector(state))

    def fill(self, units: Units, state: State, root_rate: dict[str, float], plan: Plan) -> int:
        """Make this process's part of the missing blocks of one checkpoint, and wait for the others; blocks made."""
        missing = self.store.missing(state.name)
        if 0 not in missing:
            self._require_same_scores(units, state)
        self.world.wait()  # before any is finished that another process would not find missing
        position, of = self.shard or (1, 1)
        first = self.store.first_block(state.name)  # so that checkpoints of one block are spread, too
        numbers = {first + block: block for block in missing}
        of_shard = [n for n in numbers if n % of == position - 1]  # however many processes a shard has
        mine = [numbers[n] for n in of_shard if n // of % self.world.size == self.world.rank]
        if mine:
            fetch = self.engine.fetch(units, state, root_rate, plan, self.engine.projector(state))
            for block in mine:
                index = torch.arange(*self.store.range(block))
                rows, values = fetch(index)
                _require_finite(units, index, rows, values)
                self.store.write(state.name, block, rows, values)
        self.world.wait()
        return len(mine)

    def _require_same_scores(self, units: Units, state: State) -> None:
        """Names, shapes and weights may be those of the store and the model another one: its scores tell."""
        few = min(CHECKED, self.store.range(0)[1])
        before = self.store.read_values(state.name, slice(0, few)).double()
        now = self.values(replace(units, count=few), state, few).cpu()
        tolerance = SAME if now.dtype in (torch.float32, torch.float64) else SAME_IN_HALF
        off, allowed = float((now.double() - before).abs().max()), tolerance * (float(before.abs().max()) + 1e-6)
        if not off <= allowed:  # NaN, too
            raise InputError(
                f"{self.store.path}: at {state.name} the score of {units.label(0)} was {float(before[0]):.6g}, and is "
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
