"""The ghost engine: gradients of all items from batched forwards and backwards that make no weight gradient.

What an operation with a rule received and sent back gives every item's gradient of its parameters: built, or as
two factors where kernel entries cost less from these. A parameter that enters an operation without a rule goes to
vmap(grad), with all the other parameters as constants.
"""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.profiler import record_function

from tracin_func.errors import InputError, UsageError
from tracin_func.gradients.batches import Differentiate, batches, cause, gradient_rows, row_dtype
from tracin_func.gradients.budget import plan_chunks
from tracin_func.gradients.coupling import FORWARD_FAULTS
from tracin_func.gradients.engines.ghost.capture import Captured, capture_gradients
from tracin_func.gradients.engines.ghost.plan import explain
from tracin_func.gradients.engines.loop import differentiate as differentiate_alone
from tracin_func.gradients.engines.vmap import differentiate as differentiate_vmapped
from tracin_func.gradients.factors import Contribution, FactorGradients, Factors, dense, scaled
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import (
    ANYTHING,
    Combination,
    Differentiation,
    Gradients,
    Need,
    Plan,
    Request,
    Sketch,
    Units,
    UnsuitableError,
    positions,
)
from tracin_func.gradients.representations.products import wide_type
from tracin_func.gradients.representations.rows import Rows
from tracin_func.gradients.representations.streamed import streamed
from tracin_func.task.items import Batch, each

MOST_WITHOUT_RULE = 0.5  # of the parameter elements; beyond, vmap over all of them is less work than both
COMPLETE = 1e-3  # relative deviation of one unit's gradient from autograd's that is rounding, not a fault
NEGLIGIBLE = 1e-5  # and relative to the gradient of all parameters, for parts that are 0 but for rounding


class GhostGradients:
    """Rows of the parameters whose gradients were built, and factors of the others."""

    def __init__(self, rows: Rows, factors: list[FactorGradients]) -> None:
        self._rows = rows
        self._factors = factors

    @property
    def values(self) -> Tensor:
        return self._rows.values

    def columns(self, right: Combination) -> Tensor:
        parts = [self._rows.columns(right), *(factor.products(right) for factor in self._factors)]
        return torch.stack(parts).sum(dim=0)

    def squared_norm(self, combination: Combination) -> Tensor:
        # Parameters are orthogonal: norms add up, and each part sees to its own cancellation.
        parts = [self._rows.squared_norm(combination), *(factor.squared_norm(combination) for factor in self._factors)]
        return torch.stack(parts).sum(dim=0)


class GhostEngine:
    """Exact gradients of all units by capture; needs a batched objective that does not mix units."""

    name = "capture"

    def refusal(self, units: Units, state: State) -> str | None:
        if units.batched is None:
            return (
                f"a batched forward mixes items, through {units.coupled}" if units.coupled else "units are whole pairs"
            )
        spread = torch.tensor(sorted({0, units.count // 2, units.count - 1}))
        try:
            # An order of the scorer's own is not the given one both times; then the first unit tells.
            for few, checked in ((spread, len(spread)), (spread.flip(0), 1)):
                for batch, size in batches(units, few, len(few)):
                    captured = _capture(units, state, batch, size)
                    if faults := _without_rule(captured, state):
                        return faults
                    found = _with_opaque(captured, units, state, batch)
                    _require_complete(units, state, batch, size, found, range(min(checked, size)))
        except (InputError, UsageError):
            raise
        except UnsuitableError as error:
            return str(error)
        except FORWARD_FAULTS as error:
            return cause(error)
        return None

    def plan(self, units: Units, state: State, request: Request) -> Plan:
        # Two units: a `view` may stand another layout with one alone.
        batch, size = next(batches(units, positions(0, min(2, units.count)), 2))
        captured = _capture(units, state, batch, size)
        parts, kept = explain(captured, units, state, request)
        channels_last = _works_channels_last(captured, units, state, batch, size)
        return plan_chunks(self, units, state, request, kept, parts=parts, channels_last=channels_last)

    def values(self, units: Units, state: State, chunk: int) -> Tensor:
        assert units.batched is not None
        with torch.no_grad():
            every = batches(units, positions(0, units.count), chunk)
            return torch.cat([units.batched(state.parameters, state.constants, batch) for batch, _ in every])

    def gradients(
        self, units: Units, state: State, root_rate: dict[str, float], plan: Plan, need: Need = ANYTHING
    ) -> Gradients:
        differentiate = _differentiation(units, state, plan)
        if not need.held:
            return streamed(units, state, root_rate, plan, need, differentiate)
        first, size = next(batches(units, positions(0, units.count), plan.chunk))
        ready = [differentiate(first, positions(0, size))]  # says what there will be to hold, and is used
        del first
        planned = {part.parameter for part in plan.parts if part.form == "factors"}
        factors = {
            name: _empty_factors(name, part, units, row_dtype(state))
            for name, part in ready[0][0].items()
            if isinstance(part, Factors) and name in planned
        }
        built = [name for name in state.parameters if name in ready[0][0] and name not in factors]

        def differentiate_rest(batch: Batch, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
            return ready.pop() if ready and torch.equal(index, positions(0, size)) else differentiate(batch, index)

        return _held(units, state, root_rate, plan, differentiate_rest, factors, built)

    def differentiation(self, units: Units, state: State, plan: Plan, sketch: Sketch) -> Differentiation:
        return _differentiation(units, state, plan, sketch)


def _differentiation(units: Units, state: State, plan: Plan, sketch: Sketch | None = None) -> Differentiate:
    """Gradients of one batch by capture, the same parameters of every batch, one unit of the first checked."""
    opaque: frozenset[str] | None = None  # of the first batch, and which parts it told
    told: frozenset[str] = frozenset()

    def differentiate(batch: Batch, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
        nonlocal opaque, told
        found = _capture(units, state, batch, len(index), plan.channels_last, sketch)
        first = opaque is None
        if opaque is None:
            opaque, told = frozenset(found.opaque), frozenset(found.parts)
        found = found.treated_as_opaque(opaque)
        if different := (found.opaque ^ opaque) | (found.parts.keys() ^ told):
            raise UnsuitableError(f"the scorer uses {', '.join(sorted(different)[:4])} for some items only")
        gradients = _with_opaque(found, units, state, batch, sketch)
        if first:
            with record_function("check of one unit"):
                last = range(len(index) - 1, len(index))
                _require_complete(units, state, batch, len(index), gradients, last, plan.channels_last, sketch)
        return gradients, found.values

    return differentiate


def _held(
    units: Units,
    state: State,
    root_rate: dict[str, float],
    plan: Plan,
    differentiate: Differentiate,
    factors: dict[str, FactorGradients],
    built: list[str],
) -> GhostGradients:
    """Rows of the parameters `built` and `factors`, which are to be filled, of the rest."""

    def fill(batch: Batch, index: Tensor) -> tuple[dict[str, Contribution], Tensor]:
        captured, values = differentiate(batch, index)
        for name, factor in factors.items():
            part = captured[name]
            assert isinstance(part, Factors)
            if part.positions != factor.factors.positions:
                raise UnsuitableError(f"{name} is used at more positions in some items than in others")
            factor.factors.rows[index] = part.rows.to(factor.factors.rows.dtype) * root_rate[name]
            factor.factors.columns[index] = part.columns.to(factor.factors.columns.dtype)
        return captured, values

    def values() -> Tensor:
        """Where rows are not held together, factors still are: one pass makes them."""
        parts, done = [], 0
        for batch, size in batches(units, positions(0, units.count), plan.chunk):
            parts.append(fill(batch, positions(done, done + size))[1])
            done += size
        return torch.cat(parts)

    return GhostGradients(gradient_rows(units, state, root_rate, plan, fill, values, built), list(factors.values()))


def _works_channels_last(found: Captured, units: Units, state: State, batch: Batch, size: int) -> bool:
    """Whether convolutions can and should: on CPUs the layout is the faster one, but a `view` may not stand it."""
    example = next(iter(state.parameters.values()))
    if example.device.type != "cpu" or not any(F.conv2d.__name__ in used for used in found.operations.values()):
        return False
    try:
        return _capture(units, state, batch, size, channels_last=True).parts.keys() == found.parts.keys()
    except FORWARD_FAULTS:
        return False


def _capture(
    units: Units, state: State, batch: Batch, size: int, channels_last: bool = False, sketch: Sketch | None = None
) -> Captured:
    """What the batched objective tells of the units in `batch`, as `sketch` leaves it."""
    batched = units.batched
    assert batched is not None
    leaves = {name: tensor.detach() for name, tensor in state.parameters.items()}
    if channels_last:  # what the weights have, the activations take over
        four = {name: leaf for name, leaf in leaves.items() if leaf.ndim == 4}
        leaves |= {name: leaf.clone(memory_format=torch.channels_last) for name, leaf in four.items()}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}

    def arrived(name: str, part: Contribution) -> Contribution:
        own = scaled({name: part}, state.scale)[name]
        return own if sketch is None else sketch(name, own)

    def work() -> Captured:
        width = units.width(batch)
        return capture_gradients(lambda: batched(leaves, state.constants, batch), leaves, size, width, arrived)

    captured: Captured = units.within(leaves, state.constants, work)
    if captured.reordered is not None:
        raise UnsuitableError(f"the scorer may put items in another order inside, by {captured.reordered}")
    return captured


def _without_rule(captured: Captured, state: State) -> str | None:
    """Why capture does not pay: vmap, which the parameters without a rule need, does all the work again."""
    missing = sum(state.parameters[name].numel() for name in captured.opaque)
    if missing <= MOST_WITHOUT_RULE * sum(tensor.numel() for tensor in state.parameters.values()):
        return None
    names = ", ".join(sorted(captured.opaque)[:4])
    return f"no rule for an operation that {names} enters, and most parameters are of this kind"


def _with_opaque(
    captured: Captured, units: Units, state: State, batch: Batch, sketch: Sketch | None = None
) -> dict[str, Contribution]:
    """The captured gradients, and those of the parameters without a rule by vmap(grad) over just these."""
    if not captured.opaque:
        return captured.parts
    others = {name: tensor for name, tensor in state.parameters.items() if name not in captured.opaque}

    def objective(parameters: dict[str, Tensor], constants: dict[str, Tensor], unit: Batch) -> Tensor:
        return units.objective(others | parameters, constants, unit)

    opaque = {name: tensor for name, tensor in state.parameters.items() if name in captured.opaque}
    gradients, _ = differentiate_vmapped(replace(units, objective=objective), replace(state, parameters=opaque), batch)
    if sketch is not None:
        return captured.parts | {name: sketch(name, part) for name, part in gradients.items()}
    return captured.parts | gradients


def _require_complete(
    units: Units,
    state: State,
    batch: Batch,
    size: int,
    found: dict[str, Contribution],
    checked: range,
    channels_last: bool = False,
    sketch: Sketch | None = None,
) -> None:
    """Every parameter's gradient of the units `checked` of `size`, as `sketch` left it, against autograd's of that unit
    alone."""
    example = next(iter(state.parameters.values()))
    if example.is_meta:
        return
    fault = _incomplete(units, state, batch, checked, found, sketch)
    if fault is not None and example.dtype != wide_type(example):
        # Rounding decides a ReLU otherwise in another batch or layout, and few channels may hang on it.
        wide = replace(state, parameters=_widened(state.parameters), constants=_widened(state.constants))
        exact = _widened(batch)
        try:
            captured = _capture(units, wide, exact, size, channels_last)
            fault = _incomplete(units, wide, exact, checked, _with_opaque(captured, units, wide, exact))
        except FORWARD_FAULTS:  # the scorer insists on a type
            pass
    if fault is not None:
        raise UnsuitableError(fault)


def _incomplete(
    units: Units,
    state: State,
    batch: Batch,
    checked: range,
    found: dict[str, Contribution],
    sketch: Sketch | None = None,
) -> str | None:
    """The first parameter whose gradient is not autograd's, and by how much."""

    def form(name: str, part: Contribution) -> Tensor:
        return dense(part) if sketch is None else sketch(name, part)

    for unit in checked:
        exact, errors, scales = _one(batch, unit), {}, {}
        built = {
            name: dense(_one(part, unit) if isinstance(part, Tensor) else part.only(unit))
            for name, part in found.items()
        }
        for name, part in differentiate_alone(units, state, exact)[0].items():
            right = form(name, part)
            errors[name] = float((built[name] - right if name in built else right).norm())
            scales[name] = float(right.norm())
        beyond = _beyond_rounding(errors, scales)
        if beyond is not None and units.minuend is not None:
            # A difference may be small beside what was subtracted, which is what its rounding is relative to.
            of_scale, _ = differentiate_alone(replace(units, objective=units.minuend), state, exact)
            scales = {name: float(form(name, part).norm()) for name, part in of_scale.items()}
            beyond = _beyond_rounding(errors, scales)
        if beyond is not None:
            return f"the captured gradient of {beyond!r} is not autograd's (off by {errors[beyond]:.1e})"
    return None


def _beyond_rounding(errors: dict[str, float], scales: dict[str, float]) -> str | None:
    total = math.hypot(*scales.values())
    # NaN is no fault of the capture; it is told where scores and gradients are used.
    return next((name for name in errors if errors[name] > COMPLETE * scales[name] + NEGLIGIBLE * total), None)


def _widened(tree: Any) -> Any:
    """Every floating-point tensor in float64."""
    return each(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tree)


def _one(batch: Batch, unit: int) -> Batch:
    return each(lambda leaf: leaf[unit : unit + 1], batch)


def _empty_factors(name: str, part: Factors, units: Units, dtype: torch.dtype) -> FactorGradients:
    rows = part.rows.new_empty(units.count, *part.rows.shape[1:], dtype=dtype)
    columns = part.columns.new_empty(units.count, *part.columns.shape[1:], dtype=dtype)
    return FactorGradients(Factors(rows, columns), lambda unit: f"{units.label(unit)} with respect to {name!r}")
