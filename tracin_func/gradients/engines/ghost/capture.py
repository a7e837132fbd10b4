"""One batched forward that records every use of a parameter, and one backward to the outputs of these uses.

Parameters are recognised by identity among the arguments of each torch operation, so that tied weights, weights
used by functions and modules reached by two names are all seen. The backward goes to GRADIENT EDGES, not output
tensors: an in-place operation after the layer would otherwise drop its part. Weight gradients are never computed.

Row i of an output is taken to be unit i's. A forward that reorders units in between (texts sorted by length, experts
that take those of a mask) would make that wrong; such operations are recognised.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.profiler import record_function
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from tracin_func.gradients.engines.ghost.kernels import Convolved, Form, usual_form
from tracin_func.gradients.engines.ghost.order import reorders
from tracin_func.gradients.engines.ghost.rules import RULES, bind
from tracin_func.gradients.engines.vmap import differentiate as differentiate_vmapped
from tracin_func.gradients.factors import Contribution, Factors, Lookup, dense, scaled
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Sketch, Units, UnsuitableError, whole
from tracin_func.task.items import Batch


@dataclass(frozen=True)
class Use:
    """One operation that parameters entered: its arguments by name, and which argument is which parameter."""

    operation: Any
    call: dict[str, Any]
    parameters: dict[str, str]  # argument -> parameter
    edge: GradientEdge
    versions: dict[str, int]  # of the other tensors among the arguments, when they were used

    def contributions(self, gradient: Tensor, form: Form) -> dict[str, Contribution] | None:
        """Per-item gradients by parameter name, those of convolutions in `form`; None where the rule does not hold."""
        registered = RULES[self.operation]
        changed = any(self.call[name]._version != version for name, version in self.versions.items())
        if changed and registered.reads:  # overwritten after it was used: the rule would read other values
            return None
        with record_function(f"use: {', '.join(self.parameters.values())}"):
            found = registered.rule(self.call, gradient) or {}
            if not found.keys() >= self.parameters.keys():
                return None
            parts = {name: found[argument] for argument, name in self.parameters.items()}
            return {name: form(name, part) if isinstance(part, Convolved) else part for name, part in parts.items()}


@dataclass(frozen=True)
class Captured:
    """The result of one batch.

    Args:
        parts: per-unit gradients by parameter; one that no operation used is missing, with gradient 0.
        opaque: the parameters whose gradients are unknown.
        values: the objectives [units].
        operations: names of the operations that each parameter entered.
    """

    parts: dict[str, Contribution]
    opaque: set[str]
    values: Tensor
    operations: dict[str, list[str]]


def capture_units(
    units: Units, state: State, batch: Batch, size: int, sketch: Sketch = whole, form: Form = usual_form
) -> Captured:
    """Sketched gradients of the `size` units in `batch` by the batched objective.

    The uses of one parameter are summed, and so are the `units.width` neighbouring rows per unit of a use. The linear
    map `sketch` is applied to the gradients of each use; those of convolutions come in `form`.
    """
    assert units.batched is not None
    found: dict[str, Contribution] = {}
    operations: dict[str, list[str]] = {}
    with units.holding(state) as leaves:
        width = units.width(batch)
        rows = size * width
        with torch.enable_grad(), _Recorder({id(leaf): name for name, leaf in leaves.items()}, rows) as capture:
            values = units.batched(batch)
        if capture.reordered is not None:
            raise UnsuitableError(f"the scorer may put items in another order inside, by {capture.reordered}")
        opaque = capture.opaque

        def add(use: Use, gradient: Tensor) -> None:
            of_use = use.contributions(gradient, form) if gradient.ndim and len(gradient) == rows else None
            if of_use is None:
                opaque.update(use.parameters.values())
                return
            for name, part in of_use.items():
                by_unit = part if width == 1 else _by_unit(part)
                own = sketch(name, scaled({name: by_unit}, state.scale)[name])
                found[name] = own if name not in found else _sum(found[name], own)
                operations.setdefault(name, []).append(getattr(use.operation, "__name__", str(use.operation)))

        uses = [use for use in capture.uses if not opaque.issuperset(use.parameters.values())]
        if uses and values.requires_grad:
            _backward(values.sum(), uses, add)
    parts = {name: part for name, part in found.items() if name not in opaque}
    return Captured(parts, opaque, values.detach(), operations)


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
    gradients, _ = differentiate_vmapped(replace(units, objective=objective), replace(state, parameters=opaque), batch)
    return captured.parts | {name: sketch(name, part) for name, part in gradients.items()}


class _Recorder(TorchFunctionMode):
    """Records what a forward uses: `uses` with a rule, and `opaque` parameters that entered anything else.

    `reordered` is the name of the first operation that reordered rows.
    """

    def __init__(self, names: dict[int, str], rows: int) -> None:
        super().__init__()
        self._names = names
        self._rows = rows
        self.uses: list[Use] = []
        self.opaque: set[str] = set()
        self.reordered: str | None = None

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.reordered is None:
            self.reordered = reorders(func, args, kwargs, self._rows)
        result = func(*args, **kwargs)
        leaves: Iterable[Any] = (*args, *kwargs.values())
        if any(isinstance(leaf, list | tuple | dict) for leaf in leaves):  # nested
            leaves = pytree.tree_leaves((args, kwargs))
        entered = [self._names[id(leaf)] for leaf in leaves if isinstance(leaf, Tensor) and id(leaf) in self._names]
        if not entered:
            return result
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            return result  # reading a shape or dtype is no use
        use = self._use(func, args, kwargs, result) if func in RULES else None
        if use is None or sorted(use.parameters.values()) != sorted(entered):
            self.opaque.update(entered)
        else:
            self.uses.append(use)
        return result

    def _use(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Use | None:
        call = bind(func, args, kwargs)
        tensors = {name: value for name, value in call.items() if isinstance(value, Tensor)}
        parameters = {name: self._names[id(value)] for name, value in tensors.items() if id(value) in self._names}
        if set(parameters) - RULES[func].parameters or not isinstance(result, Tensor) or not result.requires_grad:
            return None
        versions = {name: value._version for name, value in tensors.items() if name not in parameters}
        return Use(func, call, parameters, get_gradient_edge(result), versions)


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


def _by_unit(part: Contribution) -> Contribution:
    """The sum of every two rows."""
    return part.unflatten(0, (-1, 2)).sum(dim=1) if isinstance(part, Tensor) else part.paired()


def _sum(left: Contribution, right: Contribution) -> Contribution:
    if isinstance(left, Factors) and isinstance(right, Factors):
        return left.join(right)
    if isinstance(left, Lookup) and isinstance(right, Lookup):
        return left.join(right)
    return dense(left) + dense(right)
