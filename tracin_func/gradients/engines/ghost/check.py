"""Are captured gradients complete? Compares those of single units with autograd's."""

import math
from dataclasses import replace
from typing import Any

from torch import Tensor

from tracin_func.gradients.coupling import FORWARD_FAULTS
from tracin_func.gradients.device import wide_type
from tracin_func.gradients.engines.ghost.capture import capture_units, channels_last, with_opaque
from tracin_func.gradients.engines.ghost.kernels import chosen_form
from tracin_func.gradients.engines.loop import differentiate as differentiate_alone
from tracin_func.gradients.factors import Contribution, dense, flat
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Kernels, Sketch, Units, UnsuitableError, whole
from tracin_func.task.items import Batch, each

COMPLETE = 1e-3  # relative deviation of one unit's gradient from autograd's that is rounding
USUAL = Kernels()
NEGLIGIBLE = 1e-5  # the same, relative to the gradient of all parameters, for parts that are 0 up to rounding


def require_complete(
    units: Units,
    state: State,
    batch: Batch,
    size: int,
    found: dict[str, Contribution],
    checked: range,
    kernels: Kernels = USUAL,
    sketch: Sketch = whole,
) -> None:
    """Compare the sketched gradients of the units `checked` of `size` with autograd's of each unit alone."""
    if state.example.is_meta:
        return
    fault = _incomplete(units, state, batch, checked, found, sketch)
    if fault is not None and state.example.dtype != wide_type(state.example):
        # Rounding may flip a ReLU in another batch or layout, and few channels may depend on it.
        wide = replace(state, parameters=_widened(state.parameters), constants=_widened(state.constants))
        exact = _widened(batch)
        try:
            laid = channels_last(wide) if kernels.channels_last else wide
            captured = capture_units(units, laid, exact, size, form=chosen_form(kernels.convolutions))
            fault = _incomplete(units, wide, exact, checked, with_opaque(captured, units, wide, exact))
        except FORWARD_FAULTS:  # the scorer requires a type
            pass
    if fault is not None:
        raise UnsuitableError(fault)


def _incomplete(
    units: Units,
    state: State,
    batch: Batch,
    checked: range,
    found: dict[str, Contribution],
    sketch: Sketch = whole,
) -> str | None:
    """The first parameter whose gradient is not autograd's, and by how much."""

    for unit in checked:
        exact, errors, scales = _one(batch, unit), {}, {}
        built = {name: flat(_of_unit(part, unit)) for name, part in found.items()}
        for name, part in differentiate_alone(units, state, exact)[0].items():
            right = flat(sketch(name, part))
            errors[name] = float((built[name] - right if name in built else right).norm())
            scales[name] = float(right.norm())
        beyond = _beyond_rounding(errors, scales)
        if beyond is not None and units.minuend is not None:
            # A difference may be small beside the minuend, which its rounding is relative to.
            of_scale, _ = differentiate_alone(replace(units, alone=units.minuend), state, exact)
            scales = {name: float(dense(sketch(name, part)).norm()) for name, part in of_scale.items()}
            beyond = _beyond_rounding(errors, scales)
        if beyond is not None:
            return f"the captured gradient of {beyond!r} is not autograd's (off by {errors[beyond]:.1e})"
    return None


def _beyond_rounding(errors: dict[str, float], scales: dict[str, float]) -> str | None:
    total = math.hypot(*scales.values())
    # NaN is not an error of the capture; it is reported where scores and gradients are used.
    return next((name for name in errors if errors[name] > COMPLETE * scales[name] + NEGLIGIBLE * total), None)


def _widened(tree: Any) -> Any:
    return each(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tree)


def _of_unit(part: Contribution, unit: int) -> Contribution:
    only = slice(unit, unit + 1)
    return part[only] if isinstance(part, Tensor) else part.select(only)


def _one(batch: Batch, unit: int) -> Batch:
    return each(lambda leaf: leaf[unit : unit + 1], batch)
