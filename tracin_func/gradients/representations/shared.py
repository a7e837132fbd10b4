"""Rows computed by all processes in turn, chunk by chunk, and kept by each of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tracin_func.gradients.device import row_dtype, wide_type
from tracin_func.gradients.model import State
from tracin_func.gradients.processes import World
from tracin_func.gradients.protocol import ANYTHING, Differentiation, Gradients, Need, Plan, Request, Sketch, Units
from tracin_func.gradients.representations.projected import ProjectedGradients, ProjectingEngine
from tracin_func.gradients.representations.rows import Rows


@dataclass(frozen=True, eq=False)
class SharedEngine:
    """`engine`, with rows made by all processes of `world` in turn, chunk by chunk, and held by each of them."""

    engine: ProjectingEngine
    world: World

    @property
    def name(self) -> str:
        return f"{self.engine.name}, shared"

    def refusal(self, units: Units, state: State) -> str | None:
        return self.engine.refusal(units, state)

    def plan(self, units: Units, state: State, request: Request) -> Plan:
        return self.engine.plan(units, state, request)

    def values(self, units: Units, state: State, chunk: int) -> Tensor:
        return self.engine.values(units, state, chunk)

    def differentiation(self, units: Units, state: State, plan: Plan, sketch: Sketch) -> Differentiation:
        return self.engine.differentiation(units, state, plan, sketch)

    def gradients(
        self, units: Units, state: State, root_rate: dict[str, float], plan: Plan, need: Need = ANYTHING
    ) -> Gradients:
        into, example = self.engine.projector(state), next(iter(state.parameters.values()))
        fetch = self.engine.fetch(units, state, root_rate, plan, into)
        every = torch.empty(units.count, into.width, dtype=row_dtype(state), device=example.device)
        values = torch.empty(units.count, dtype=self._value_type(units, state), device=example.device)
        for block, index in enumerate(torch.arange(units.count).split(plan.chunk)):
            if block % self.world.size == self.world.rank:
                every[index[0] : index[-1] + 1], values[index[0] : index[-1] + 1] = fetch(index)
        self.world.wait()
        for block, index in enumerate(torch.arange(units.count).split(plan.chunk)):
            for whole in (every, values):
                self.world.spread(whole[index[0] : index[-1] + 1], block % self.world.size)

        def held(index: Tensor) -> tuple[Tensor, Tensor]:
            if len(index) == units.count:  # all, as they are
                return every, values
            return every[index.to(every.device)], values[index.to(every.device)]

        exact = row_dtype(state) != wide_type(example)
        rows = Rows(units.count, held, plan.block, lambda: values, lambda unit, _: units.label(unit), exact)
        return ProjectedGradients(rows, into)

    def _value_type(self, units: Units, state: State) -> torch.dtype:
        """Of the objectives; a process may have no unit to learn it from."""
        return self.engine.values(replace(units, count=1), state, 1).dtype
