"""One batched forward that records every use of a parameter, and one backward to the outputs of these uses.

Parameters are recognised by identity among the arguments of each torch operation, so that tied weights, weights
used by functions and modules reached by two names are all seen. The backward goes to GRADIENT EDGES, not output
tensors: an in-place operation after the layer would otherwise drop its part. Weight gradients are never computed.

Row i of an output is taken to be unit i's. A forward that reorders units in between (texts sorted by length, experts
that take those of a mask) would make that wrong; such operations are recognised.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from tracin_func.gradients.engines.ghost.derived import pull_back
from tracin_func.gradients.engines.ghost.kernels import Convolved, Form, usual_form
from tracin_func.gradients.engines.ghost.recorder import Recorder, Use
from tracin_func.gradients.engines.vmap import differentiate as differentiate_vmapped
from tracin_func.gradients.engines.vmap import outside_transforms
from tracin_func.gradients.factors import Contribution, grouped, joined, scaled
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Sketch, Units, UnsuitableError, whole
from tracin_func.task.items import Batch, each

ALIKE = (3, 5, 7, 11, 13)  # of an item, to see which axis has as many


class ReorderedError(UnsuitableError):
    """An operation may have reordered the units: along an axis that has as many elements as there are units."""


@dataclass(frozen=True)
class Captured:
    """The result of one batch.

    Args:
        parts: per-unit gradients by parameter; one that no operation used is missing, with gradient 0.
        opaque: the parameters whose gradients are unknown.
        values: the objectives [units].
        operations: names of the operations that each parameter entered.
        seconds: for each use, whether items are its second axis.
    """

    parts: dict[str, Contribution]
    opaque: set[str]
    values: Tensor
    operations: dict[str, list[str]]
    seconds: Sequence[bool]


def capture_units(
    units: Units,
    state: State,
    batch: Batch,
    size: int,
    sketch: Sketch = whole,
    form: Form = usual_form,
    seconds: Sequence[bool] = (),
) -> Captured:
    """Sketched gradients of the `size` units in `batch` by the batched objective.

    The uses of one parameter are summed, and so are the `units.width` neighbouring rows per unit of a use. The linear
    map `sketch` is applied to the gradients of each use; those of convolutions come in `form`. `seconds` are those of
    an earlier batch, if known.
    """
    assert units.batched is not None
    found: dict[str, Contribution] = {}
    of_derived: dict[str, Contribution] = {}
    operations: dict[str, list[str]] = {}
    with units.holding(state) as leaves:
        width = units.width(batch)
        rows = size * width
        with torch.enable_grad(), Recorder(leaves, batch, rows) as capture:
            values = units.batched(batch)
        recorded = _uses(capture, seconds, lambda: _seconds(units, leaves, batch))
        if capture.reordered is not None:
            raise ReorderedError(f"the scorer may put items in another order inside, by {capture.reordered}")
        opaque = capture.opaque

        def keep(name: str, part: Contribution) -> None:
            own = sketch(name, scaled({name: part}, state.scale)[name])
            found[name] = own if name not in found else joined(found[name], own)

        def formed(key: str, use: Convolved) -> Contribution:
            return use.built() if key in capture.derived else form(key, use)

        def add(use: Use, gradient: Tensor) -> None:
            sources = capture.sources(use.parameters.values())
            of_use = use.contributions(gradient, rows, formed)
            if of_use is None:
                opaque.update(sources)
                return
            for key, part in of_use.items():
                by_unit = _by_unit(part, rows, width)
                if key not in capture.derived:
                    keep(key, by_unit)
                else:
                    of_derived[key] = joined(of_derived[key], by_unit) if key in of_derived else by_unit
            for name in sources:
                operations.setdefault(name, []).append(use.operation)

        uses = [use for use in recorded if not opaque.issuperset(capture.sources(use.parameters.values()))]
        if uses and values.requires_grad:
            _backward(values.sum(), uses, add)
        clear = {name: leaf for name, leaf in leaves.items() if name not in opaque}
        for name, part in pull_back(of_derived, capture.derived, clear).items():
            keep(name, part)
    parts = {name: part for name, part in found.items() if name not in opaque}
    return Captured(parts, opaque, values.detach(), operations, [use.second for use in recorded])


def _uses(capture: Recorder, seconds: Sequence[bool], find: Callable[[], Sequence[bool]]) -> list[Use]:
    """The uses, with the axis of the items where sizes do not show it: as in `seconds` if it fits, else as found."""
    uses = capture.uses
    if not capture.ambiguous:
        return uses
    known = seconds if len(seconds) == len(uses) else find()
    if len(known) != len(uses):
        return uses
    return [replace(use, second=second) for use, second in zip(uses, known, strict=True)]


def _seconds(units: Units, leaves: Mapping[str, Tensor], batch: Batch) -> Sequence[bool]:
    """For each use, whether items are its second axis, by a number of items that does not divide another axis."""
    assert units.batched is not None
    for copies in ALIKE:
        alike = each(partial(_repeated, copies), batch)
        with torch.enable_grad(), Recorder(leaves, alike, copies * units.width(alike)) as capture:
            units.batched(alike)
        if not capture.ambiguous:
            return [use.second for use in capture.uses]
    return ()


def _repeated(copies: int, leaf: Tensor) -> Tensor:
    return leaf[:1].expand(copies, *leaf.shape[1:]).clone()


def channels_last(state: State) -> State:
    """The same with the weights of convolutions in that layout, which activations then follow."""
    four = {name: tensor for name, tensor in state.parameters.items() if tensor.ndim == 4}
    laid = {name: tensor.clone(memory_format=torch.channels_last) for name, tensor in four.items()}
    return replace(state, parameters=state.parameters | laid)


def with_opaque(
    captured: Captured, units: Units, state: State, batch: Batch, sketch: Sketch = whole
) -> dict[str, Contribution]:
    """The captured gradients, and those of the parameters without a rule by vmap(grad) over just these."""
    if not captured.opaque:
        return captured.parts
    others = {name: tensor for name, tensor in state.parameters.items() if name not in captured.opaque}

    def objective(parameters: dict[str, Tensor], constants: dict[str, Tensor], unit: Batch) -> Tensor:
        return units.objective(others | parameters, constants, unit)

    opaque = {name: tensor for name, tensor in state.parameters.items() if name in captured.opaque}
    outside_transforms(units, state, batch)
    gradients, _ = differentiate_vmapped(replace(units, objective=objective), replace(state, parameters=opaque), batch)
    return captured.parts | {name: sketch(name, part) for name, part in gradients.items()}


def _backward(total: Tensor, uses: Sequence[Use], receive: Callable[[Use, Tensor], None]) -> None:
    """Call `receive` with ∂total/∂output of every use as soon as it is computed, so that none has to be kept."""
    lowest = _lowest({use.edge.node for use in uses})
    ends = [use for use in uses if use.edge.node in lowest]

    def on_the_way(use: Use) -> RemovableHandle:
        def hook(gradients: Sequence[Tensor | None]) -> None:
            if (gradient := gradients[use.edge.output_nr]) is not None:
                with torch.no_grad():
                    receive(use, gradient)

        return use.edge.node.register_prehook(hook)

    handles = [on_the_way(use) for use in uses if use.edge.node not in lowest]
    try:
        of_ends = torch.autograd.grad(total, [use.edge for use in ends], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        for use, gradient in zip(ends, of_ends, strict=True):
            if gradient is not None:  # else this output does not reach the score
                receive(use, gradient)


def _lowest(nodes: set[Node]) -> set[Node]:
    """The nodes from which no other of them is reached; every other one is on a path to one of these."""
    above: dict[Node, bool] = {}  # whether one of `nodes` is reached from a node, itself not counted
    for start in nodes:
        stack = [start]
        while stack:
            node = stack[-1]
            below = [child for child, _ in node.next_functions if child is not None]
            unknown = [child for child in below if child not in above]
            if unknown and node not in above:
                stack += unknown
                continue
            above[node] = any(child in nodes or above[child] for child in below)
            stack.pop()
    return {node for node in nodes if not above[node]}


def _by_unit(part: Contribution, rows: int, width: int) -> Contribution:
    """The sum over what each of `rows` has on the first axis, and over every `width` neighbouring rows."""
    positions = len(part if isinstance(part, Tensor) else part.rows) // rows
    part = part if positions == 1 else grouped(part, positions)
    if width == 1:
        return part
    return grouped(part, width) if isinstance(part, Tensor) else part.paired()
