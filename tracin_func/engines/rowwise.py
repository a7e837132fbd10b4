"""What engines that build whole gradient rows share: the layout of a row, and filling rows chunk by chunk."""

import traceback
from collections.abc import Callable

import torch
from torch import Tensor

from tracin_func.gradients import Plan, Units, positions
from tracin_func.items import Batch
from tracin_func.rows import Rows
from tracin_func.scorer import State

# units with a first axis [n] -> their gradients by parameter name [n, *shape], and their objectives [n]
Differentiate = Callable[[Batch], tuple[dict[str, Tensor], Tensor]]

# What operations raise when a transform, a device or a batch of one does not suit them.
UNSUITABLE = (RuntimeError, NotImplementedError, TypeError, IndexError, ValueError, AttributeError)


def gradient_rows(
    units: Units,
    state: State,
    root_rate: dict[str, float],
    plan: Plan,
    differentiate: Differentiate,
    values: Callable[[], Tensor],
) -> Rows:
    """Rows of all units by `differentiate`, plan.chunk units at a time, metric applied."""
    layout = _layout(state)
    width = sum(tensor.numel() for tensor in state.parameters.values())
    example = next(iter(state.parameters.values()))

    def fetch(start: int, stop: int) -> tuple[Tensor, Tensor]:
        rows = torch.empty(stop - start, width, dtype=row_dtype(state), device=example.device)
        parts = []
        for low in range(start, stop, plan.chunk):
            high = min(low + plan.chunk, stop)
            gradients, objectives = differentiate(units.take(positions(low, high)))
            for name, (offset, size) in layout.items():
                # √η is applied while the gradient is copied to its place: no pass of its own.
                part = rows[low - start : high - start, offset : offset + size]
                torch.mul(gradients[name].reshape(part.shape), root_rate[name], out=part)
            parts.append(objectives)
        return rows, torch.cat(parts)

    def locate(unit: int, column: int) -> str:
        name = next(name for name, (offset, size) in layout.items() if offset <= column < offset + size)
        return f"{units.label(unit)} with respect to {name!r}"

    return Rows(units.count, fetch, plan.block, values, locate)


def row_dtype(state: State) -> torch.dtype:
    """float64 where any parameter is, else float32: half-precision gradients are summed in float32."""
    double = any(tensor.dtype == torch.float64 for tensor in state.parameters.values())
    return torch.float64 if double else torch.float32


def cause(error: BaseException) -> str:
    """The first line of an error's text and the module it was raised in."""
    lines = str(error).strip().splitlines()
    inside = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module):
            inside = f" (in {type(owner).__name__})"
    return f"{lines[0] if lines else type(error).__name__}{inside}"


def _layout(state: State) -> dict[str, tuple[int, int]]:
    layout, offset = {}, 0
    for name, tensor in state.parameters.items():
        layout[name] = (offset, tensor.numel())
        offset += tensor.numel()
    return layout
