"""vmap(grad) of one scalar objective per unit: exact per-unit gradients in chunks (torch.func)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from tracin_func.gradients.batches import batches
from tracin_func.gradients.budget import plan_chunks
from tracin_func.gradients.engines.suitable import require_suitable
from tracin_func.gradients.factors import Contribution, scaled
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Differentiate, Plan, Planner, Sketch, Units, sketched, whole
from tracin_func.task.items import Batch, each

COPIES = 6  # of the tensors that a forward saves: vmap's weight gradients first move units to other axes


class VmappedEngine:
    """Per-unit gradients by vmap over grad; a unit is differentiated alone, whatever its companions."""

    name, factored = "vmap(grad)", False

    def tried(self, units: Units, state: State) -> Planner:
        two = replace(units, count=min(2, units.count))

        def attempt() -> None:
            for batch, _ in batches(two, torch.arange(two.count), two.count):
                outside_transforms(two, state, batch)
                differentiate(two, state, batch)
            self.values(
                two, state, Plan(two.count, two.count, 0, "trial")
            )  # without gradients some operations take another path (LSTM)

        seconds = require_suitable(attempt)
        return partial(plan_chunks, units, state, copies=COPIES, trial=seconds / two.count)

    def values(self, units: Units, state: State, plan: Plan) -> Tensor:
        def one(unit: Batch) -> Tensor:
            return units.objective(state.parameters, state.constants, unit)

        with torch.no_grad(), quiet_fallbacks():
            parts = [vmap(one)(batch) for batch, _ in batches(units, torch.arange(units.count), plan.chunk)]
        return torch.cat(parts)

    def differentiate(self, units: Units, state: State, plan: Plan, sketch: Sketch = whole) -> Differentiate:
        return lambda batch, _: sketched(*differentiate(units, state, batch), sketch)


def differentiate(units: Units, state: State, batch: Batch) -> tuple[dict[str, Contribution], Tensor]:
    """Gradients by parameter name [n, *shape], times state.scale, and objectives [n] of the units in `batch`."""
    # no_grad outside the transform: grad records what it needs itself.
    with torch.no_grad(), quiet_fallbacks():
        function = vmap(grad_and_value(units.objective), in_dims=(None, None, 0))
        gradients, values = function(state.parameters, state.constants, batch)
    return scaled(gradients, state.scale), values


def outside_transforms(units: Units, state: State, batch: Batch) -> None:
    """Call the objective once, for what it finds out at its first call."""
    with torch.no_grad():
        units.objective(state.parameters, state.constants, each(lambda leaf: leaf[0], batch))


@contextmanager
def quiet_fallbacks() -> Iterator[None]:
    """Ignore the warning of operations that vmap runs one by one (LSTM, some attention): slow, not wrong."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield
