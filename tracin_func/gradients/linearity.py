"""Is the backward of a scorer linear in the incoming gradient? Else u g_a + v g_b is not the gradient of a pair.

Hooks that clamp or normalise gradients, and custom autograd functions, may break it. No forward pass shows it. The
backward of torch's own operations is linear, so graphs without hooks and custom functions need no test.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from tracin_func.gradients.backward import by_leaves
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Units
from tracin_func.task.items import Batch, RaggedItemsError, each

LINEAR, LINEAR_IN_HALF = 1e-3, 5e-2  # relative deviations of a gradient that are rounding
SMALLEST_SCALE = 1e-12  # scales below which float32 keeps too few digits of the gradients to compare them
COMPARED_TOGETHER = 16  # units of a batch that is compared with units alone


def is_linear(found: float, state: State) -> bool:
    half = any(tensor.dtype.itemsize < 4 for tensor in state.parameters.values())
    return found <= (LINEAR_IN_HALF if half else LINEAR)


def deviation(units: Units, state: State, scales: Sequence[float]) -> tuple[float, float]:
    """How far the backward is from linear, over all units: alone, and in batches.

    Alone: the largest ‖g(c) / c − g(1)‖ / ‖g(1)‖ over the c of `scales`; g(c) is the gradient of a unit for incoming c.
    In batches: the largest ‖g_B − Σ w_i g_i‖ / ‖Σ w_i g_i‖; g_B is the gradient of a batch for incoming weights w.
    It is 0 where units are not batched.
    """
    alone, together = 0.0, 0.0
    weights = torch.rand(units.count, generator=torch.Generator().manual_seed(0)).tolist()
    for index in torch.arange(units.count).split(COMPARED_TOGETHER):
        total: Tensor | None = None
        for unit in index.tolist():
            plain, off = _of_one(units, state, unit, scales)
            alone = max(alone, off)
            total = weights[unit] * plain if total is None else total + weights[unit] * plain
        if units.batched is None or total is None or len(index) < 2:
            continue
        try:
            batch = units.take(index)
        except RaggedItemsError:  # never in one batch
            continue
        with units.holding(state) as leaves:
            incoming = torch.tensor([weights[unit] for unit in index.tolist()])
            found = _gradient(partial(units.batched, batch), leaves, incoming)
        together = max(together, _relative(found, total))
    return alone, together


def _of_one(units: Units, state: State, unit: int, scales: Sequence[float]) -> tuple[Tensor, float]:
    """The gradient of one unit alone, and how far it is from linear."""
    batch: Batch = each(lambda leaf: leaf.squeeze(0), units.take(torch.arange(unit, unit + 1)))
    with units.holding(state) as leaves:
        plain = _gradient(partial(units.alone, batch), leaves, torch.ones(()))
        off = [
            _relative(_gradient(partial(units.alone, batch), leaves, torch.tensor(scale)) / scale, plain)
            for scale in scales
            if abs(scale) >= SMALLEST_SCALE
        ]
    return plain, max(off, default=0.0)


def _gradient(value: Callable[[], Tensor], leaves: dict[str, Tensor], incoming: Tensor) -> Tensor:
    _, found = by_leaves(value, list(leaves.values()), incoming)
    return torch.cat([part.flatten().double() for part in found])


def _relative(found: Tensor, right: Tensor) -> float:
    norm = float(right.norm())
    return float((found - right).norm()) / norm if norm else float(found.norm())
