"""The ghost engine: gradients of all items from batched forwards and backwards without weight gradients.

The input and the output gradient of an operation with a rule give every item's gradient of its parameters: built, or
as two factors if kernel entries cost less from these. A parameter that enters an operation without a rule is left to
vmap(grad), with all the other parameters as constants.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.profiler import record_function

from tracin_func.gradients.batches import batches
from tracin_func.gradients.budget import plan_chunks
from tracin_func.gradients.coupling import FORWARD_FAULTS, fault_of
from tracin_func.gradients.engines.ghost.capture import Captured, capture_units, channels_last, with_opaque
from tracin_func.gradients.engines.ghost.check import require_complete
from tracin_func.gradients.engines.ghost.kernels import chosen_form
from tracin_func.gradients.engines.ghost.measure import Shapes, with_kernels
from tracin_func.gradients.engines.ghost.plan import explain
from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Differentiate, Need, Plan, Sketch, Units, UnsuitableError, whole
from tracin_func.task.items import Batch

MOST_WITHOUT_RULE = 0.5  # of the parameter elements; beyond, vmap over all of them is less work than both


class GhostEngine:
    """Exact gradients of all units by capture; needs a batched objective that does not mix units."""

    name, factored = "capture", True

    def refusal(self, units: Units, state: State) -> str | None:
        if units.batched is None:
            return (
                f"items are differentiated one at a time, because of {units.coupled}"
                if units.coupled
                else "units are whole pairs"
            )
        spread = torch.tensor(sorted({0, units.count // 2, units.count - 1}))

        def attempt() -> None:
            # A scorer that sorts its items cannot keep both orders; comparing the first unit then shows it.
            for few, checked in ((spread, len(spread)), (spread.flip(0), 1)):
                for batch, index in batches(units, few, len(few)):
                    captured = capture_units(units, state, batch, len(index))
                    _require_rules(captured, state)
                    found = with_opaque(captured, units, state, batch)
                    require_complete(units, state, batch, len(index), found, range(min(checked, len(index))))

        return fault_of(attempt)

    def plan(self, units: Units, state: State, need: Need) -> Plan:
        # Two units: with one alone, a `view` may work in a layout that it refuses with more.
        batch, index = next(batches(units, torch.arange(min(2, units.count)), 2))
        shapes = Shapes(need, frozenset(state.scale))
        captured = capture_units(units, state, batch, len(index), form=shapes.form)
        parts, kept = explain(captured, units, state, need)
        layouts = (True, False) if _works_channels_last(captured, units, state, batch, len(index)) else (False,)
        plan = plan_chunks(units, state, need, kept, parts=parts)
        return with_kernels(plan, units, state, need, shapes.found, layouts)

    def values(self, units: Units, state: State, chunk: int) -> Tensor:
        assert units.batched is not None
        with torch.no_grad(), units.holding(state):
            every = batches(units, torch.arange(units.count), chunk)
            return torch.cat([units.batched(batch) for batch, _ in every])

    def differentiate(self, units: Units, state: State, plan: Plan, sketch: Sketch = whole) -> Differentiate:
        """By capture, the same parameters in every batch; a unit of the first one, and of any unlike it, is checked."""
        opaque: frozenset[str] | None = None  # of the first batch, and the parameters it gave
        given: frozenset[str] = frozenset()
        seconds: Sequence[bool] = ()
        checked: list[dict[str, set[str]]] = []  # operations by parameter
        laid = channels_last(state) if plan.kernels.channels_last else state
        form = chosen_form(plan.kernels.convolutions)

        def differentiate(batch: Batch, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
            nonlocal opaque, given, seconds
            found = capture_units(units, laid, batch, len(index), sketch, form, seconds)
            if opaque is None:
                opaque, given, seconds = frozenset(found.opaque), frozenset(found.parts), found.seconds
            parts = {name: part for name, part in found.parts.items() if name not in opaque}
            found = replace(found, parts=parts, opaque=found.opaque | opaque)
            if different := (found.opaque ^ opaque) | (found.parts.keys() ^ given):
                raise UnsuitableError(f"the scorer uses {', '.join(sorted(different)[:4])} for some items only")
            gradients = with_opaque(found, units, state, batch, sketch)
            used = {name: set(found.operations[name]) for name in parts}
            if used not in checked:  # another size may be taken for the number of items
                checked.append(used)
                with record_function("check of one unit"):
                    last = range(len(index) - 1, len(index))
                    require_complete(units, state, batch, len(index), gradients, last, plan.kernels, sketch)
            return gradients, found.values

        return differentiate


def _works_channels_last(found: Captured, units: Units, state: State, batch: Batch, size: int) -> bool:
    """Whether convolutions can and should: the layout is faster on CPUs, but a `view` may not allow it."""
    if state.example.device.type != "cpu" or not any(F.conv2d.__name__ in used for used in found.operations.values()):
        return False
    try:
        return capture_units(units, channels_last(state), batch, size).parts.keys() == found.parts.keys()
    except FORWARD_FAULTS:
        return False


def _require_rules(captured: Captured, state: State) -> None:
    """Raise where capture does not pay: vmap, for the parameters without a rule, repeats all the work."""
    missing = sum(state.parameters[name].numel() for name in captured.opaque)
    if missing > MOST_WITHOUT_RULE * sum(tensor.numel() for tensor in state.parameters.values()):
        names = ", ".join(sorted(captured.opaque)[:4])
        raise UnsuitableError(f"no rule for an operation that {names} enters, and most parameters are of this kind")
