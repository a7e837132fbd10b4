"""Is the backward of a scorer linear in the gradient that comes in? Else u g_a + v g_b is not the gradient of a pair.

Hooks that clamp or normalise gradients, and autograd functions of one's own, may break it. No forward pass shows it.
The backward of torch's own operations is linear, so that a graph without hooks and foreign functions needs no test.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from tracin_func.gradients.coupling import FORWARD_FAULTS
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Units, positions
from tracin_func.task.items import each

LINEAR, LINEAR_IN_HALF = 1e-3, 5e-2  # relative deviations of a scaled gradient that are rounding
SMALLEST = 1e-12  # scales below which float32 keeps too few digits of the gradients to compare them


def linear_by_structure(forward: Callable[[], Tensor], leaves: Iterable[Tensor]) -> tuple[Tensor, bool]:
    """The value of `forward`, and whether its backward is that of torch's own operations alone, without hooks."""
    with torch.enable_grad(), _Hooks() as hooks:
        value = forward()
    hooked = hooks.seen or any(leaf._backward_hooks for leaf in leaves)
    return value, not hooked and not _has_foreign_functions(value)


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


class _Hooks(TorchFunctionMode):
    """Sees whether a hook is put on a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen = self.seen or func is Tensor.register_hook
        return func(*args, **(kwargs or {}))


def _has_foreign_functions(value: Tensor) -> bool:
    """Whether the graph of a value has autograd functions that are not torch's own; module hooks are such, too."""
    stack: list[Any] = [value.grad_fn]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, BackwardCFunction):
            return True
        seen.add(node)
        stack += [child for child, _ in node.next_functions]
    return False
