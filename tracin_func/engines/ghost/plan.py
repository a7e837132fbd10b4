"""The form in which each parameter's gradient enters the kernel, with the operations that decide it."""

from tracin_func.engines.ghost.capture import Captured
from tracin_func.factors import Factors, built_operations, factor_operations, keeps_factors
from tracin_func.gradients import Need, Part, Units
from tracin_func.scorer import State


def explain(captured: Captured, units: Units, state: State, need: Need) -> tuple[Part, ...]:
    """The form of every parameter's gradient, by the operations that a unit's kernel entries cost."""
    entries = _entries(units, need)
    parts = []
    for name, part in captured.parts.items():
        operations = ", ".join(captured.operations[name])
        if not isinstance(part, Factors):
            size = state.parameters[name].numel()
            parts.append(Part(name, operations, "built", entries * size, "the rule gives the gradient itself"))
            continue
        shape = part.positions, part.rows.shape[-1], part.columns.shape[-1]
        by_factors, by_built = factor_operations(*shape, entries), built_operations(*shape, entries)
        form, cost, other = (
            ("factors", by_factors, by_built) if keeps_factors(*shape, entries) else ("built", by_built, by_factors)
        )
        reason = f"{shape[0]} positions, {shape[1]} × {shape[2]}: the other form takes {other:.1e}"
        parts.append(Part(name, operations, form, cost, reason))
    vmapped = [
        Part(name, "no rule", "vmap", entries * state.parameters[name].numel(), "vmap(grad) of these parameters alone")
        for name in sorted(captured.opaque)
    ]
    return (*parts, *vmapped)


def _entries(units: Units, need: Need) -> int:
    """Kernel entries a unit that are needed at least: with all units, or its norm and products with a few."""
    return units.count if need.norms == "pairs" else 1 + len(need.right)
