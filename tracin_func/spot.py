"""Does a device compute gradients rightly? Two units again on the CPU in float64.

MPS is known to return wrong gradients past 32k elements (pytorch#177116), silently.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tracin_func.gradients import Combination, Engine, Plan
from tracin_func.scorer import State
from tracin_func.units import UnitMaker


def cpu_deviation(engine: Engine, make: UnitMaker, unit: str, state: State, weights: Mapping[str, Tensor]) -> float:
    """Largest relative deviation of the inner products of two units from the CPU's in float64."""
    reference = replace(make, device=torch.device("cpu"), dtype=torch.float64)
    exact = reference.scorer.state(state.name, weights, reference.device, reference.dtype)
    here, there = _gram(engine, make, unit, state), _gram(engine, reference, unit, exact)
    scale = there.diagonal().sqrt()
    return float(((here - there).abs() / torch.outer(scale, scale).clamp(min=1e-300)).max())


def _gram(engine: Engine, make: UnitMaker, unit: str, state: State) -> Tensor:
    every = torch.arange(sum(map(len, make.tables)))
    units = make.items() if unit == "items" else make.pairs(torch.ones(len(every)), every)
    two = replace(units, count=min(2, units.count))
    plan = Plan(1, two.count, 0, 0, "spot check")
    gradients = engine.gradients(two, state, dict.fromkeys(state.parameters, 1.0), plan)
    return gradients.columns(Combination(torch.arange(two.count)[:, None], torch.ones(two.count, 1)))
