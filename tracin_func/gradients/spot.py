"""Does a device compute gradients rightly? Two units again on the CPU in float64.

MPS is known to return wrong gradients past 32k elements (pytorch#177116), silently.
"""

from dataclasses import replace

import torch
from torch import Tensor

from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Combination, Engine, Plan, Units


def cpu_deviation(engine: Engine, here: tuple[Units, State], there: tuple[Units, State]) -> float:
    """Largest relative deviation of the inner products of two units `here` from those `there`, the exact ones."""
    found, exact = _products(engine, *here), _products(engine, *there)
    scale = exact.diagonal().sqrt()
    return float(((found - exact).abs() / torch.outer(scale, scale).clamp(min=1e-300)).max())


def _products(engine: Engine, units: Units, state: State) -> Tensor:
    two = replace(units, count=min(2, units.count))
    plan = Plan(1, two.count, 0, "spot check")
    gradients = engine.gradients(two, state, dict.fromkeys(state.parameters, 1.0), plan)
    return gradients.columns(Combination(torch.arange(two.count)[:, None], torch.ones(two.count, 1)))
