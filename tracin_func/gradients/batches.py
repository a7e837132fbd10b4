"""What engines share: units in batches, the layout of a gradient row, and filling rows chunk by chunk."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from tracin_func.gradients.factors import Contribution, dense
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Differentiation, Plan, Sketch, Units
from tracin_func.gradients.representations.products import wide_type
from tracin_func.gradients.representations.rows import Rows
from tracin_func.task.items import Batch, RaggedItemsError

# units with a first axis [n], and their positions -> gradients by parameter name, and objectives [n]
Differentiate = Callable[[Batch, Tensor], tuple[dict[str, Contribution], Tensor]]


def gradient_rows(
    units: Units,
    state: State,
    root_rate: dict[str, float],
    plan: Plan,
    differentiate: Differentiate,
    values: Callable[[], Tensor],
    parameters: Sequence[str] | None = None,
) -> Rows:
    """Rows of all units by `differentiate`, plan.chunk units at a time, metric applied.

    A row holds the gradients of `parameters` in their order; of all when None.
    """
    layout = _layout(state, state.parameters if parameters is None else parameters)
    width = sum(size for _, size in layout.values())
    example = next(iter(state.parameters.values()))

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.empty(len(index), width, dtype=row_dtype(state), device=example.device)
        parts = []
        low = 0
        for batch, size in batches(units, index, plan.chunk):
            gradients, objectives = differentiate(batch, index[low : low + size])
            with record_function("rows"):
                for name, (offset, length) in layout.items():
                    # √η is applied while the gradient is copied to its place: no pass of its own.
                    part = rows[low : low + size, offset : offset + length]
                    torch.mul(dense(gradients[name]).reshape(part.shape), root_rate[name], out=part)
            parts.append(objectives)
            low += size
        return rows, torch.cat(parts)

    def locate(unit: int, column: int) -> str:
        name = next(name for name, (offset, size) in layout.items() if offset <= column < offset + size)
        return f"{units.label(unit)} with respect to {name!r}"

    exact = row_dtype(state) != wide_type(example)
    return Rows(units.count, fetch, plan.block, values, locate, exact)


def batches(units: Units, index: Tensor, chunk: int) -> Iterator[tuple[Batch, int]]:
    """The units at `index` in batches of `chunk`, with their sizes; one by one where they cannot be stacked."""
    for part in index.split(chunk) if len(index) else ():
        try:
            yield units.take(part), len(part)
        except RaggedItemsError:
            for one in part.split(1):
                yield units.take(one), 1


def sketched(differentiate: Differentiate, sketch: Sketch) -> Differentiation:
    """Gradients of one batch by `differentiate`, each parameter's as `sketch` leaves it."""

    def work(batch: Batch, index: Tensor) -> tuple[dict[str, Any], Tensor]:
        gradients, objectives = differentiate(batch, index)
        # One after another out of the mapping: what was sketched need not stay.
        return {name: sketch(name, gradients.pop(name)) for name in list(gradients)}, objectives

    return work


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
        if isinstance(owner, torch.nn.Module) and not type(owner).__module__.startswith("tracin_func."):
            inside = f" (in {type(owner).__name__})"
    return f"{lines[0] if lines else type(error).__name__}{inside}"


def _layout(state: State, parameters: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Offset and size of each parameter in a row."""
    layout, offset = {}, 0
    for name in parameters:
        size = state.parameters[name].numel()
        layout[name] = (offset, size)
        offset += size
    return layout
