"""The form of each parameter's gradient in the kernel, chosen by operations and bytes."""

import torch

from tracin_func.gradients.budget import Kept
from tracin_func.gradients.engines.ghost.capture import Captured
from tracin_func.gradients.factors import Factors
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Need, Part, Units
from tracin_func.gradients.representations.factored import (
    built_operations,
    factor_operations,
    keeps_factors,
    kernel_entries,
)


def explain(captured: Captured, units: Units, state: State, need: Need) -> tuple[tuple[Part, ...], Kept]:
    """The form of every parameter's gradient, by the cost of a unit's Gram entries, and the bytes kept of it."""
    entries = kernel_entries(units.count, need.combinations) if need.held else need.entries
    factors = {name: part for name, part in captured.parts.items() if isinstance(part, Factors)}
    width = state.row_dtype.itemsize
    chosen = _factored(factors, units.count, state, need, entries)
    parts: list[Part] = []
    for name in state.parameters:
        operations = ", ".join(captured.operations.get(name, ["no rule" if name in captured.opaque else "not used"]))
        if name in factors:
            parts.append(_part(name, operations, factors[name], entries, name in chosen))
        elif name in captured.opaque:
            cost = entries * state.parameters[name].numel()
            parts.append(Part(name, operations, "vmap", cost, "vmap(grad) of these parameters alone"))
        elif name in captured.parts:
            cost = entries * state.parameters[name].numel()
            scaled = name in state.scale
            reason = "scaled entry by entry, as no factors are" if scaled else "the rule gives the gradient itself"
            parts.append(Part(name, operations, "built", cost, reason))
    kept = sum(chosen.values())
    rows = [width * state.parameters[part.parameter].numel() for part in parts if part.form != "factors"]
    return tuple(parts), Kept(max(1, sum(rows)), kept, max(rows, default=1))


def _factored(factors: dict[str, Factors], units: int, state: State, need: Need, entries: float) -> dict[str, int]:
    """The parameters whose kernel entries cost less from factors, and the bytes of one unit's.

    Factors of all units are held: where a quarter of the budget is too small for them, those that take the most memory
    beyond that of a row are left out.
    """
    recorded = {} if need.kernels is None else need.kernels.convolutions
    cheaper = {
        name: _held_bytes(part, state.row_dtype)
        for name, part in factors.items()
        if _cheaper(part, entries) or recorded.get(name) == "factors"
    }
    if not need.held:
        return cheaper
    beyond = {name: held - state.row_dtype.itemsize * state.parameters[name].numel() for name, held in cheaper.items()}
    for name in sorted(cheaper, key=lambda name: beyond[name], reverse=True):
        if units * sum(cheaper.values()) <= need.budget // 4:
            break
        del cheaper[name]
    return cheaper


def _cheaper(part: Factors, entries: float) -> bool:
    return keeps_factors(part.positions, part.rows.shape[-1], part.columns.shape[-1], entries)


def _held_bytes(part: Factors, dtype: torch.dtype) -> int:
    """Of one unit's factors, and of their copy in float64."""
    copied = dtype != torch.float64
    numbers = part.rows[0].numel() + part.columns[0].numel()
    return numbers * (dtype.itemsize + (torch.float64.itemsize if copied else 0))


def _part(name: str, operations: str, part: Factors, entries: float, factored: bool) -> Part:
    shape = part.positions, part.rows.shape[-1], part.columns.shape[-1]
    by_factors, by_built = factor_operations(*shape, entries), built_operations(*shape, entries)
    what = f"{shape[0]} position{'s' if shape[0] > 1 else ''}, {shape[1]} × {shape[2]}"
    if _cheaper(part, entries) and not factored:
        return Part(name, operations, "built", by_built, f"{what}: factors of all units exceed the memory budget")
    form, cost, other = ("factors", by_factors, by_built) if factored else ("built", by_built, by_factors)
    alternative = "built" if form == "factors" else "as factors"
    return Part(name, operations, form, cost, f"{what}; {alternative} it would take {other:,.0f}")
