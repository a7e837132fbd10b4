"""The module that runs: a private copy of the user's if it is faithful, else the user's own, restored afterwards.

Weights are put into the `Parameter` objects themselves, so that every route to them (an attribute, a list, a closure, a
helper object) sees them. A copy is faithful if its forward reads nothing of the user's module and gives the same
scores. Closures, weak references and `.data` aliases do not survive a copy: then the user's module runs.
"""

import copy
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tracin_func.gradients.slots import Slots, read_slots
from tracin_func.gradients.snapshot import COPYABLE, Snapshot
from tracin_func.task.items import address_of


class OnePath(TorchFunctionMode):
    """Turns off torch's inference-only paths, which change the scores of padded items, and notes hooks on tensors.

    `nn.TransformerEncoder` leaves its fast path while any torch function mode is active. `foreign`: a tensor got a
    hook, or a transform used a custom autograd function.
    """

    def __init__(self) -> None:
        super().__init__()
        self.foreign = False

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.register_hook or getattr(func, "__name__", "") == "custom_function_call":
            self.foreign = True
        return func(*args, **(kwargs or {}))


class Working:
    """A module that holds the tensors of one checkpoint at a time.

    Args:
        module: what runs.
        private: it is a private copy; else it is restored when a session ends.

    Attributes:
        slots: of `module`; `slots.own` are its tensors, whose identity never changes.
        written: slots that a forward writes to, which are reset before every forward.
        foreign: any backward so far used more than torch's own operations: hooks, autograd functions.
    """

    def __init__(self, module: nn.Module, *, private: bool) -> None:
        self.module = module
        self.private = private
        self.slots: Slots = read_slots(module)
        self.written: frozenset[str] = frozenset()
        self.foreign = _has_hooks(module)
        self.holds: object = None  # the state of its tensors
        self._tensors: Mapping[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._snapshot: Snapshot | None = None
        self._put_back: Callable[[], None] | None = None  # restores the user's module
        self._sessions = 0
        self._large: dict[int, Any] | None = None
        if private:
            for parameter in module.parameters():
                parameter.grad = None
            self._evaluate()

    @contextmanager
    def session(self) -> Iterator[None]:
        """The user's module is restored at the end of the outermost session, whatever happens."""
        self._sessions += 1
        try:
            if self._sessions == 1 and not self.private:
                self._borrow()
            yield
        finally:
            self._sessions -= 1
            if self._sessions == 0 and self._put_back is not None:
                self._put_back()
                self._put_back, self.holds, self._tensors = None, None, {}

    def hold(self, of: object, tensors: Mapping[str, Tensor], trainable: frozenset[str]) -> None:
        """Put `tensors` by slot in place; those of the slots `trainable` require a gradient, no others."""
        self.holds, self._tensors = of, tensors
        self._follow(next(iter(tensors.values())))
        for slot, own in self.slots.own.items():
            self._put(slot, own)
            if isinstance(own, nn.Parameter) and own.requires_grad != (slot in trainable):
                own.requires_grad_(slot in trainable)
        self._versions = {slot: own._version for slot, own in self.slots.own.items()}

    def forward(self, *batch: Any) -> Any:
        """The module's output with the held tensors; whatever the forward changes is restored."""
        for slot in self.written:
            self._put(slot, self.slots.own[slot])
        assert self._snapshot is not None
        with OnePath() as path:
            try:
                output = self.module(*batch)
            finally:
                self._snapshot.restore()
                self._reset()
        self.foreign = self.foreign or path.foreign or _has_foreign_functions(output)
        return output

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """The same for substituted forwards."""
        assert self._snapshot is not None
        with OnePath() as path:
            try:
                yield
            finally:
                self._snapshot.restore()
                self.foreign = self.foreign or path.foreign

    def substituted(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """A copy that refers to `tensors` by slot instead of the module's own; large containers are shared."""
        if self._large is None:
            self._large = _large_containers(self.module)
        memo = {id(own): tensors[slot] for slot, own in self.slots.own.items()}
        return copy.deepcopy(self.module, {**memo, **self._large})

    def note_written(self) -> None:
        """Find the tensors that the last forward has written to, by their values."""
        changed = {slot for slot, own in self.slots.own.items() if not _same(own.detach(), self._tensors[slot])}
        self.written = self.written | changed
        for slot in changed:
            self._put(slot, self.slots.own[slot])

    def _put(self, slot: str, own: Tensor) -> None:
        tensor = self._tensors[slot]
        alike = own.dtype == tensor.dtype and own.device == tensor.device and own.shape == tensor.shape
        if not self.private and alike:
            own.data.copy_(tensor)
        elif isinstance(own, nn.Parameter) and slot not in self.written and self.private:
            own.data = tensor  # nothing writes to it
        else:
            own.data = tensor.clone()

    def _follow(self, tensor: Tensor) -> None:
        """Move the module to the device of `tensor`, where `.data` of its parameters cannot (meta tensors)."""
        own = next(iter(self.slots.own.values()))
        if self.private and not torch._has_compatible_shallow_copy_type(own, tensor):
            self.module.to(tensor.device)
            self.slots = read_slots(self.module)
            self._evaluate()

    def _reset(self) -> None:
        """Restore what was written to, as far as torch counts it; the rest is known from `note_written`."""
        for slot, own in self.slots.own.items():
            if own._version != self._versions.get(slot):
                self._versions[slot] = own._version
                if slot not in self.written and slot in self._tensors:
                    self.written = self.written | {slot}
                    self._put(slot, own)

    def _evaluate(self) -> None:
        # Not `eval()`: adapters fold their weights when the mode is set.
        for submodule in self.module.modules():
            submodule.training = False
            if isinstance(submodule, nn.TransformerEncoder):  # its test of the mask, for a path not taken, stops vmap
                submodule.use_nested_tensor = False
        self._snapshot = Snapshot(self.module)

    def _borrow(self) -> None:
        before = Snapshot(self.module)
        unique = {id(own): own for own in self.slots.own.values()}.values()  # a tied weight has several slots
        tensors = [(own, own.data, own.data.clone(), own.requires_grad) for own in unique]

        def put_back() -> None:
            for own, data, content, requires_grad in tensors:
                own.data = data
                own.data.copy_(content)
                if own.requires_grad != requires_grad:
                    own.requires_grad_(requires_grad)
            before.restore()

        self._put_back = put_back
        self._evaluate()


def private_copy(module: nn.Module) -> nn.Module | None:
    """A deep copy, or None if the module cannot be copied: locks, generators, tensors with a history."""
    try:
        with random_numbers_kept():
            return copy.deepcopy(module)
    except Exception:  # anything, by a class of the user's; the module itself can still run
        return None


@contextmanager
def random_numbers_kept(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Restore the global states of torch's, numpy's and Python's random numbers after the block."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Modules wrapped by torch.compile run eagerly; every transform would compile them anew."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and the import takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def seeded() -> Iterator[None]:
    """Random numbers of the CPU as after seed 0 in the block; the global states are restored."""
    with random_numbers_kept():
        torch.default_generator.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        yield


def storages_of(tensors: Iterable[Tensor]) -> frozenset[int]:
    """Addresses of the storages of tensors; empty and meta tensors have none."""
    return frozenset(filter(None, map(address_of, tensors)))


class Touching(TorchDispatchMode):
    """Collects in `found` those of `storages` that operations of the block read or write."""

    def __init__(self, storages: frozenset[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages = storages
        self.found: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: `uncompiled` keeps Dynamo out already, and torch would load all of Dynamo for this."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        self.found |= self._storages & {address_of(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        return func(*args, **(kwargs or {}))


def _large_containers(module: nn.Module) -> dict[int, Any]:
    """Attributes that are expensive to copy and contain only plain values, such as a vocabulary, by identity."""
    values = [value for submodule in module.modules() for value in vars(submodule).values()]
    large = [value for value in values if isinstance(value, dict | list | set | tuple) and len(value) > COPYABLE]
    return {id(value): value for value in large if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, list | set | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bytes | int | float | complex)


def _has_hooks(module: nn.Module) -> bool:
    """Whether a submodule or a parameter has backward hooks."""
    waiting = any(each._backward_hooks or each._backward_pre_hooks for each in module.modules())
    return waiting or any(parameter._backward_hooks for parameter in module.parameters())


def _has_foreign_functions(output: Any) -> bool:
    """Whether the graph of an output has custom autograd functions; module hooks count as such."""
    stack: list[Any] = [output.grad_fn] if isinstance(output, Tensor) else []
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, BackwardCFunction):
            return True
        seen.add(node)
        stack += [child for child, _ in node.next_functions]
    return False


def _same(left: Tensor, right: Tensor) -> bool:
    if left.is_meta or right.is_meta:
        return True
    return left.shape == right.shape and left.dtype == right.dtype and bool((left == right).all())
