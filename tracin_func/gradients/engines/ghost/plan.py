"""The form of each parameter's gradient in the kernel, chosen by operations and bytes."""

import torch

from tracin_func.gradients.budget import Kept
from tracin_func.gradients.engines.ghost.capture import Captured
from tracin_func.gradients.factors import Factors
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Need, Part, Units
from tracin_func.gradients.representations.factored import built_operations, factor_operations, kernel_entries


def explain(captured: Captured, units: Units, state: State, need: Need) -> tuple[tuple[Part, ...], Kept]:
    """The form of every parameter's gradient, by the cost of a unit's Gram entries, and the bytes kept of it."""
    entries = kernel_entries(units.count, need.combinations) if need.held else need.entries
    factors = {name: part for name, part in captured.parts.items() if isinstance(part, Factors)}
    width = state.row_dtype.itemsize
    sizes = {name: _held_bytes(part, state.row_dtype) for name, part in factors.items()}
    fit = not need.held or units.count * sum(sizes.values()) <= need.budget // 4
    parts: list[Part] = []
    for name in state.parameters:
        operations = ", ".join(captured.operations.get(name, ["no rule" if name in captured.opaque else "not used"]))
        if name in factors:
            parts.append(_cheaper(name, operations, factors[name], entries, fit))
        elif name in captured.opaque:
            cost = entries * state.parameters[name].numel()
            parts.append(Part(name, operations, "vmap", cost, "vmap(grad) of these parameters alone"))
        elif name in captured.parts:
            cost = entries * state.parameters[name].numel()
            scaled = name in state.scale
            reason = "scaled entry by entry, as no factors are" if scaled else "the rule gives the gradient itself"
            parts.append(Part(name, operations, "built", cost, reason))
    kept = sum(sizes[part.parameter] for part in parts if part.form == "factors")
    row = sum(width * state.parameters[part.parameter].numel() for part in parts if part.form != "factors")
    return tuple(parts), Kept(max(1, row), kept)


def _held_bytes(part: Factors, dtype: torch.dtype) -> int:
    """Of one unit's factors; products of several positions need a copy in float64."""
    copied = dtype != torch.float64 and part.positions > 1
    numbers = part.rows[0].numel() + part.columns[0].numel()
    return numbers * (dtype.itemsize + (torch.float64.itemsize if copied else 0))


def _cheaper(name: str, operations: str, part: Factors, entries: float, fit: bool) -> Part:
    shape = part.positions, part.rows.shape[-1], part.columns.shape[-1]
    by_factors, by_built = factor_operations(*shape, entries), built_operations(*shape, entries)
    what = f"{shape[0]} position{'s' if shape[0] > 1 else ''}, {shape[1]} × {shape[2]}"
    if by_factors < by_built and not fit:
        return Part(name, operations, "built", by_built, f"{what}: factors of all units exceed the memory budget")
    form, cost, other = ("factors", by_factors, by_built) if by_factors < by_built else ("built", by_built, by_factors)
    alternative = "built" if form == "factors" else "as factors"
    return Part(name, operations, form, cost, f"{what}; {alternative} it would take {other:,.0f}")
