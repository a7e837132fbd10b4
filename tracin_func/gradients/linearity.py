"""Is the backward of a scorer linear in the gradient that comes in? Else u g_a + v g_b is not the gradient of a pair.

Hooks that clamp or normalise gradients, and autograd functions of one's own, may break it. No forward pass shows it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tracin_func.gradients.coupling import FORWARD_FAULTS
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Units, positions
from tracin_func.task.items import each

LINEAR, LINEAR_IN_HALF = 1e-3, 5e-2  # relative deviations of a scaled gradient that are rounding
SMALLEST = 1e-12  # scales below which float32 keeps too few digits of the gradients to compare them


def is_linear(found: float, state: State) -> bool:
    """Whether a deviation is rounding."""
    half = any(tensor.dtype.itemsize < 4 for tensor in state.parameters.values())
    return found <= (LINEAR_IN_HALF if half else LINEAR)


def deviation(units: Units, state: State, unit: int, scales: Sequence[float]) -> float:
    """The largest ‖g(c) / c − g(1)‖ / ‖g(1)‖ over the incoming gradients c of `scales`, for one unit alone.

    g(c) is the gradient of the unit's objective when c comes in; of a difference, of which rounding may leave little,
    the minuend's. 0 where the unit has no gradient.
    """
    batch = each(lambda leaf: leaf.squeeze(0), units.take(positions(unit, unit + 1)))
    worst = 0.0
    with units.holding(state) as leaves, torch.enable_grad():
        value = (units.minuend or units.alone)(batch)
        if not value.requires_grad:
            return 0.0

        def gradient(scale: float, value: Tensor) -> list[Tensor]:
            incoming = torch.full_like(value, scale)
            found = torch.autograd.grad(value, list(leaves.values()), incoming, retain_graph=True, allow_unused=True)
            dense = [part.to_dense() if part.is_sparse else part for part in found if part is not None]
            return [part.flatten().double() for part in dense]

        try:
            plain = gradient(1.0, value)
        except FORWARD_FAULTS:  # cannot be retained; the engine that works will tell what is wrong with it
            return 0.0
        length = float(torch.stack([part.norm() for part in plain]).norm()) if plain else 0.0
        for scale in scales:
            if length == 0 or abs(scale) < SMALLEST:
                continue
            parts = [(part / scale - right).norm() for part, right in zip(gradient(scale, value), plain, strict=True)]
            worst = max(worst, float(torch.stack(parts).norm()) / length)
    return worst
