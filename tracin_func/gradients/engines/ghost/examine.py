"""What a few units show before all are differentiated: whether capture serves them, and the shapes it sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tracin_func.gradients.batches import batches
from tracin_func.gradients.coupling import FORWARD_FAULTS
from tracin_func.gradients.engines.ghost.capture import (
    Captured,
    ReorderedError,
    capture_units,
    channels_last,
    with_opaque,
)
from tracin_func.gradients.engines.ghost.check import require_complete
from tracin_func.gradients.engines.ghost.kernels import MOST_PATCHES, Convolved, Shape
from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Kernels, Need, Units, UnsuitableError
from tracin_func.task.items import Batch

MOST_WITHOUT_RULE = 0.5  # of the parameter elements; beyond, vmap over all of them is less work than both


@dataclass(frozen=True)
class Evidence:
    """What was captured of a few units.

    Args:
        captured: of one batch of them.
        shapes: what the convolutions with each parameter see.
        layouts: those that the scorer allows, True for channels as the last axis in memory; the usual one first.
        tried: how many units were differentiated.
    """

    captured: Captured
    shapes: Mapping[str, list[Shape]]
    layouts: tuple[bool, ...]
    tried: int

    def parts_for(self, need: Need) -> Captured:
        """`captured`, with built gradients of convolutions that are projected, or that an earlier run built."""
        recorded = None if need.kernels is None else need.kernels.convolutions
        built = {
            name: torch.empty(0, device="meta")
            for name in self.shapes
            if need.row is not None or (recorded is not None and recorded.get(name, "usual") != "factors")
        }
        parts = {name: built.get(name, part) for name, part in self.captured.parts.items()}
        return replace(self.captured, parts=parts)


@dataclass
class _Shapes:
    """Collects what convolutions see. Parameters that are `scaled` entry by entry have no factors."""

    scaled: frozenset[str]
    found: dict[str, list[Shape]] = field(default_factory=dict)

    def form(self, name: str, use: Convolved) -> Contribution:
        self.found.setdefault(name, []).append(use.shape)
        few = use.positions * use.weight[0].numel() <= MOST_PATCHES
        return use.factors() if use.groups == 1 and few and name not in self.scaled else use.built()


def examine(units: Units, state: State) -> Evidence:
    """Capture the first, the middle, the last and again the middle unit; compare the first and the last with autograd.

    Whatever order a scorer sorts or turns these four to, one of the two compared is then in another place.

    Raises:
        UnsuitableError: capture does not pay or is not complete. Errors of the forward are raised, too.
    """
    spread = torch.tensor(sorted({0, units.count // 2, units.count - 1}))
    again = spread[(len(spread) - 1) // 2].expand(2) if len(spread) > 1 else spread[:0]
    try:
        return _in_batches(units, state, torch.cat([spread, again[:1]]))
    except ReorderedError:  # unless another axis has as many elements as this batch
        return _in_batches(units, state, torch.cat([spread, again]))


def _in_batches(units: Units, state: State, tried: Tensor) -> Evidence:
    found = []
    for batch, index in batches(units, tried, len(tried)):
        checked = range(0, len(index), max(1, len(index) // 2))[:2]
        found.append(_examined(units, state, batch, len(index), checked))
    return replace(found[0], tried=len(tried))


def _examined(units: Units, state: State, batch: Batch, size: int, checked: range) -> Evidence:
    """Of one batch; with the channels last where it can and should, which is faster on CPUs, but not for a `view`."""
    last: Evidence | None = None
    if state.example.device.type == "cpu" and any(tensor.ndim == 4 for tensor in state.parameters.values()):
        try:
            last = _captured(units, state, batch, size, checked, Kernels(channels_last=True))
        except FORWARD_FAULTS:
            pass
        else:
            if not _convolves(last.captured):
                last = None
            elif not last.captured.opaque:
                return last
    usual = _captured(units, state, batch, size, checked, Kernels())
    same = last is not None and last.captured.parts.keys() == usual.captured.parts.keys()
    return replace(usual, layouts=(True, False)) if same else usual


def _convolves(captured: Captured) -> bool:
    return any(F.conv2d.__name__ in used for used in captured.operations.values())


def _captured(units: Units, state: State, batch: Batch, size: int, checked: range, kernels: Kernels) -> Evidence:
    shapes = _Shapes(frozenset(state.scale))
    laid = channels_last(state) if kernels.channels_last else state
    captured = capture_units(units, laid, batch, size, form=shapes.form)
    _require_rules(captured, state)
    found = with_opaque(captured, units, state, batch)
    require_complete(units, state, batch, size, found, checked, kernels)
    layouts = (True, False) if kernels.channels_last else (False,)
    return Evidence(captured, shapes.found, layouts, size)


def _require_rules(captured: Captured, state: State) -> None:
    """Raise where capture does not pay: vmap, for the parameters without a rule, repeats all the work."""
    missing = sum(state.parameters[name].numel() for name in captured.opaque)
    if missing > MOST_WITHOUT_RULE * sum(tensor.numel() for tensor in state.parameters.values()):
        names = ", ".join(sorted(captured.opaque)[:4])
        raise UnsuitableError(f"no rule for an operation that {names} enters, and most parameters are of this kind")
