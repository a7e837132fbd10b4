"""Any engine, its gradients projected as they arise: one short row a unit, and no gradient row is held."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tracin_func.gradients.batches import batches, row_dtype
from tracin_func.gradients.budget import block_size, row_bytes
from tracin_func.gradients.factors import Contribution, flat
from tracin_func.gradients.model import State
from tracin_func.gradients.projection.projector import Projector, projector
from tracin_func.gradients.protocol import (
    ANYTHING,
    Differentiation,
    Engine,
    Gradients,
    Need,
    Part,
    Plan,
    Request,
    Sketch,
    Units,
)
from tracin_func.gradients.representations.estimates import ProjectedGradients
from tracin_func.gradients.representations.products import wide_type
from tracin_func.gradients.representations.rows import Rows
from tracin_func.task.method import Projection

GATHERED = 1 << 28  # bytes of gradients that are collected where what is drawn should serve many of them


@dataclass(frozen=True)
class ProjectingEngine:
    """`engine` with the gradients of every checkpoint projected."""

    engine: Engine
    projection: Projection

    @property
    def name(self) -> str:
        exact = self.projection.kind == "none"
        return self.engine.name if exact else f"{self.engine.name}, then {self.projection.kind} projection"

    def refusal(self, units: Units, state: State) -> str | None:
        return self.engine.refusal(units, state)

    def plan(self, units: Units, state: State, request: Request) -> Plan:
        # Gradients are used one chunk at a time, as where norms of single units alone are asked for.
        into = self.projector(state)
        row = into.width * row_dtype(state).itemsize
        plan = self.engine.plan(units, state, replace(request, need=Need(combined=False), row=row, measured=self))
        block = block_size(units.count, row, request.budget)
        gathered = GATHERED if into.gathered else 0
        return replace(plan, block=block, bytes_held=block * row + gathered, parts=self._parts(into, state))

    def values(self, units: Units, state: State, chunk: int) -> Tensor:
        return self.engine.values(units, state, chunk)

    def gradients(
        self, units: Units, state: State, root_rate: dict[str, float], plan: Plan, need: Need = ANYTHING
    ) -> Gradients:
        into = self.projector(state)
        fetch = self.fetch(units, state, root_rate, plan, into)
        exact = row_dtype(state) != wide_type(next(iter(state.parameters.values())))
        rows = Rows(
            units.count,
            fetch,
            plan.block,
            lambda: self.values(units, state, plan.chunk),
            lambda unit, _: units.label(unit),
            exact,
        )
        return ProjectedGradients(rows, into)

    def differentiation(self, units: Units, state: State, plan: Plan, sketch: Sketch) -> Differentiation:
        return self.engine.differentiation(units, state, plan, sketch)

    def projector(self, state: State) -> Projector:
        """Π of the checkpoint that `state` is of."""
        shapes = {name: tensor.shape for name, tensor in state.parameters.items()}
        return projector(self.projection, shapes, state.name)

    def fetch(
        self, units: Units, state: State, root_rate: dict[str, float], plan: Plan, into: Projector
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """What makes the rows Π √M g_i [n, width] and objectives [n] of the units at given positions [n]."""
        dtype, device = row_dtype(state), next(iter(state.parameters.values())).device

        def sketch(name: str, part: Contribution) -> Tensor:
            return into.sketch(name, part.to(dtype))

        def gather(_: str, part: Contribution) -> Tensor:
            return flat(part).to(dtype)

        differentiate = self.engine.differentiation(units, state, plan, gather if into.gathered else sketch)
        together = max(plan.chunk, GATHERED // row_bytes(state)) if into.gathered else plan.chunk

        def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
            rows = torch.zeros(len(index), into.width, dtype=dtype, device=device)
            objectives, start = [], 0
            for some in index.split(together):
                found: list[dict[str, Tensor]] = []
                low = start
                for batch, size in batches(units, some, plan.chunk):
                    parts, values = differentiate(batch, index[low : low + size])
                    found.append(parts)
                    objectives.append(values)
                    low += size
                for name in list(found[0]):
                    own = [parts.pop(name) for parts in found]
                    part = own[0] if len(own) == 1 else torch.cat(own)
                    sketched = sketch(name, part) if into.gathered else part
                    rows[start:low, into.place(name)].add_(sketched, alpha=root_rate[name])
                start = low
            return rows, torch.cat(objectives)

        return fetch

    def _parts(self, into: Projector, state: State) -> tuple[Part, ...]:
        forms = {name: into.form(name) for name in state.parameters}
        return tuple(Part(name, "", self.projection.kind, cost, words) for name, (words, cost) in forms.items())
