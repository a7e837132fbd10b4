"""One autograd call per unit: slow, and obviously correct. Runs what vmap cannot."""

from functools import partial

import torch
from torch import Tensor

from tracin_func.gradients.backward import by_leaves
from tracin_func.gradients.budget import plan_singles
from tracin_func.gradients.engines.suitable import require_suitable
from tracin_func.gradients.factors import Contribution, scaled
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Differentiate, Plan, Planner, Sketch, Units, sketched, whole
from tracin_func.task.items import Batch, each


class LoopEngine:
    """Per-unit gradients by torch.autograd.grad, one unit after another."""

    name, factored = "loop", False

    def tried(self, units: Units, state: State) -> Planner:
        require_suitable(lambda: differentiate(units, state, units.take(torch.arange(1))))
        return partial(plan_singles, units, state)

    def values(self, units: Units, state: State, plan: Plan) -> Tensor:
        with torch.no_grad(), units.holding(state):
            parts = [units.alone(_only(units.take(torch.arange(unit, unit + 1)))) for unit in range(units.count)]
        return torch.stack(parts)

    def differentiate(self, units: Units, state: State, plan: Plan, sketch: Sketch = whole) -> Differentiate:
        return lambda batch, _: sketched(*differentiate(units, state, batch), sketch)


def differentiate(units: Units, state: State, batch: Batch) -> tuple[dict[str, Contribution], Tensor]:
    """Gradients by parameter name [1, *shape], times state.scale, and objective [1] of the one unit in `batch`."""
    # The backward runs in here, too: it may repeat parts of the forward (torch.utils.checkpoint).
    with units.holding(state) as leaves:
        value, found = by_leaves(lambda: units.alone(_only(batch)), list(leaves.values()))
    named = {name: gradient.unsqueeze(0) for name, gradient in zip(leaves, found, strict=True)}
    return scaled(named, state.scale), value.unsqueeze(0)


def _only(batch: Batch) -> Batch:
    return each(lambda leaf: leaf.squeeze(0), batch)
