"""Records what a forward does with parameters: which operation uses them on items, and what is derived from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.profiler import record_function
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from tracin_func.gradients.engines.ghost.by_item import by_item
from tracin_func.gradients.engines.ghost.derived import Derived, short_way
from tracin_func.gradients.engines.ghost.kernels import Convolved, Form
from tracin_func.gradients.engines.ghost.order import reorders
from tracin_func.gradients.engines.ghost.rewrites import REWRITES
from tracin_func.gradients.engines.ghost.rules import BY_POSITION, RULES, SPREADING, Rule, bind
from tracin_func.gradients.factors import Contribution, dense
from tracin_func.task.items import Batch


@dataclass(frozen=True)
class Use:
    """One operation in which items met parameters: its arguments by name, and which argument is which parameter."""

    operation: str
    rule: Rule
    reads: bool  # whether the rule reads the other arguments
    call: dict[str, Any]
    parameters: dict[str, str]  # argument -> parameter, or derived tensor
    edge: GradientEdge
    versions: dict[str, int]  # of the other tensors among the arguments, when they were used
    second: bool = False  # the items are the second axis, after the positions

    def contributions(self, gradient: Tensor, rows: int, form: Form) -> dict[str, Contribution] | None:
        """Gradients by parameter name, each of the `rows` in one or more parts; None where the rule does not hold.

        Those of convolutions come in `form`.
        """
        if gradient.ndim == 0 or gradient.shape[self.second] % rows:
            return None
        changed = any(self.call[name]._version != version for name, version in self.versions.items())
        if changed and self.reads:  # overwritten after it was used: the rule would read other values
            return None
        # Of an elementwise operation a parameter has the axes of the output.
        turned = [name for name in self.parameters if self.second and self.call[name].ndim == gradient.ndim]
        call = self.call
        if self.second:
            call = call | {name: call[name].transpose(0, 1) for name in (*self.versions, *turned)}
            gradient = gradient.transpose(0, 1)
        with record_function(f"use: {', '.join(self.parameters.values())}"):
            found = self.rule(call, gradient) or {}
            if not found.keys() >= self.parameters.keys():
                return None
            parts: dict[str, Contribution] = {}
            for argument, name in self.parameters.items():
                part = found[argument]
                built = form(name, part) if isinstance(part, Convolved) else part
                parts[name] = dense(built).transpose(1, 2) if argument in turned else built
            return parts


class Recorder(TorchFunctionMode):
    """Records `uses`, `derived` tensors by key, and `opaque` parameters that entered anything without a rule.

    `reordered` is the name of the first operation that reordered rows. `ambiguous`: either of two axes of a use may be
    that of the items; it is taken to be the first.
    """

    def __init__(self, leaves: Mapping[str, Tensor], batch: Batch, rows: int) -> None:
        super().__init__()
        self._names = {id(leaf): name for name, leaf in leaves.items()}
        self._sources = {name: frozenset({name}) for name in leaves}
        self._rows = rows
        self._data: Any = WeakTensorKeyDictionary()  # tensors of items without a gradient
        self._note(batch)
        self.uses: list[Use] = []
        self.derived: dict[str, Derived] = {}
        self.opaque: set[str] = set()
        self.reordered: str | None = None
        self.ambiguous = False

    def sources(self, keys: Iterable[str]) -> frozenset[str]:
        """The parameters from which what has these keys is computed."""
        return frozenset().union(*(self._sources[key] for key in keys))

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves: Iterable[Any] = (*args, *kwargs.values())
        if any(isinstance(leaf, list | tuple | dict) for leaf in leaves):  # nested
            leaves = pytree.tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        of_items = any(map(self._is_of_items, tensors))
        if of_items and self.reordered is None:
            self.reordered = reorders(func, args, kwargs, self._rows)
        entered = [self._names[id(tensor)] for tensor in tensors if id(tensor) in self._names]
        if entered and func in REWRITES:
            with self:
                written_out = REWRITES[func](*args, **kwargs)
            if written_out is not None:
                return written_out
        result = func(*args, **kwargs)
        of_items = of_items or self._spreads(func, args, result)
        if of_items:
            self._note(args[0] if func is Tensor.__setitem__ else result)
        if entered and func is Tensor.__setitem__:
            self.opaque |= self.sources(entered)
        # Reading a shape or dtype is no use, and what has no gradient gives none.
        outputs = [leaf for leaf in _leaves(result) if isinstance(leaf, Tensor) and leaf.requires_grad]
        if not entered or not outputs:
            return result
        if not of_items:
            self._derive(func, args, kwargs, entered, outputs)
            return result
        use = self._use(func, args, kwargs, result)
        if use is None or sorted(use.parameters.values()) != sorted(entered):
            self.opaque |= self.sources(entered)
        else:
            self.uses.append(use)
        return result

    def _spreads(self, func: Any, args: Sequence[Any], result: Any) -> bool:
        """Whether an operation repeats a tensor for every item."""
        if func not in SPREADING or result.ndim == 0:
            return False
        own = len(args[0]) if args[0].ndim == result.ndim else 1
        return own > 0 and len(result) // own % self._rows == 0

    def _is_of_items(self, tensor: Tensor) -> bool:
        return id(tensor) not in self._names and (tensor.requires_grad or tensor in self._data)

    def _note(self, tree: Any) -> None:
        for leaf in _leaves(tree):
            if isinstance(leaf, Tensor) and not leaf.requires_grad:
                self._data[leaf] = None

    def _derive(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], entered: list[str], outputs: list[Tensor]
    ) -> None:
        sources = self.sources(entered)
        for tensor in outputs:
            if id(tensor) in self._names:  # `.float()` of what is float
                continue
            key = f"{entered[0]}, derived ({len(self.derived)})"
            back = short_way(func, args, kwargs, tensor) if len(entered) == len(outputs) == 1 else None
            self._names[id(tensor)], self._sources[key] = key, sources
            self.derived[key] = Derived(tensor, sources, entered[0], back)

    def _use(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Use | None:
        if not isinstance(result, Tensor):
            return None
        registered = RULES.get(func)
        if registered is None:
            return self._use_by_item(func, args, kwargs, result)
        call = bind(func, args, kwargs)
        tensors = {name: value for name, value in call.items() if isinstance(value, Tensor)}
        parameters = {name: self._names[id(value)] for name, value in tensors.items() if id(value) in self._names}
        if set(parameters) - registered.parameters:
            return self._use_by_item(func, args, kwargs, result)
        return self._made(func, registered.rule, registered.reads, call, parameters, result)

    def _use_by_item(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Use | None:
        """A use without a rule: vmap over the items of this operation alone."""
        if any(result is value for value in args):  # in place: its input is gone
            return None
        call = {str(place): value for place, value in enumerate(args)} | kwargs
        tensors = {name: value for name, value in call.items() if isinstance(value, Tensor)}
        parameters = {name: self._names[id(value)] for name, value in tensors.items() if id(value) in self._names}
        of_items = [name for name, value in tensors.items() if self._is_of_items(value)]
        if not all(len(call[name]) == len(result) for name in of_items if call[name].ndim):
            return None
        rule = partial(by_item, func, len(args), tuple(parameters), tuple(of_items))
        return self._made(func, rule, True, call, parameters, result)

    def _made(
        self, func: Any, rule: Rule, reads: bool, call: dict[str, Any], parameters: dict[str, str], result: Tensor
    ) -> Use:
        others = {name: value for name, value in call.items() if isinstance(value, Tensor) and name not in parameters}
        versions = {name: value._version for name, value in others.items()}
        second = func in BY_POSITION and self._is_second(result, others.values())
        name = getattr(func, "__name__", str(func))
        return Use(name, rule, reads, call, parameters, get_gradient_edge(result), versions, second)

    def _is_second(self, result: Tensor, others: Iterable[Tensor]) -> bool:
        """Whether the second axis is that of the items, as in models that take positions first."""
        if (
            result.ndim < 3
            or result.shape[1] != self._rows
            or any(value.shape[:2] != result.shape[:2] for value in others)
        ):
            return False
        certain = len(result) % self._rows != 0
        self.ambiguous |= not certain and self._rows > 1
        return certain


def _leaves(tree: Any) -> list[Any]:
    """Those of a nested structure; most results are one tensor, for which a walk would take longer than the rest."""
    return [tree] if isinstance(tree, Tensor) else pytree.tree_leaves(tree)
