"""The ghost engine: gradients of all items from batched forwards and backwards without weight gradients.

The input and the output gradient of an operation with a rule give every item's gradient of its parameters: built, or
as two factors if kernel entries cost less from these. A parameter that enters an operation without a rule is left to
vmap(grad), with all the other parameters as constants.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.profiler import record_function

from tracin_func.gradients.batches import batches
from tracin_func.gradients.budget import plan_chunks
from tracin_func.gradients.engines.ghost.capture import capture_units, channels_last, with_opaque
from tracin_func.gradients.engines.ghost.check import require_complete
from tracin_func.gradients.engines.ghost.examine import Evidence, examine
from tracin_func.gradients.engines.ghost.kernels import chosen_form
from tracin_func.gradients.engines.ghost.measure import with_kernels
from tracin_func.gradients.engines.ghost.plan import explain
from tracin_func.gradients.engines.suitable import require_suitable
from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Differentiate, Need, Plan, Planner, Sketch, Units, UnsuitableError, whole
from tracin_func.task.items import Batch


class GhostEngine:
    """Exact gradients of all units by capture; needs a batched objective that does not mix units."""

    name, factored = "capture", True

    def tried(self, units: Units, state: State) -> Planner:
        if units.batched is None:
            raise UnsuitableError(
                f"items are differentiated one at a time, because of {units.coupled}"
                if units.coupled
                else "units are whole pairs"
            )
        evidence: list[Evidence] = []
        seconds = require_suitable(lambda: evidence.append(examine(units, state)))
        found = evidence[0]

        def plan(need: Need) -> Plan:
            parts, kept = explain(found.parts_for(need), units, state, need)
            sizes = plan_chunks(units, state, need, kept, parts=parts, trial=seconds / found.tried)
            return with_kernels(sizes, units, state, need, found.shapes, found.layouts)

        return plan

    def values(self, units: Units, state: State, plan: Plan) -> Tensor:
        assert units.batched is not None
        laid = channels_last(state) if plan.kernels.channels_last else state
        with torch.no_grad(), units.holding(laid):
            every = batches(units, torch.arange(units.count), plan.chunk)
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
