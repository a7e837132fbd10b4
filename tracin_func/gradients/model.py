"""The user's module as a pure function of parameters, buffers and items; the module itself is never written."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tracin_func.errors import InputError, UsageError
from tracin_func.gradients.slots import Slots, fit, read_slots
from tracin_func.task.items import Batch, each

Parameters = dict[str, Tensor]

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(frozen=True, eq=False)
class State:
    """The tensors of one checkpoint on the device: `parameters` by canonical name, `constants` by slot path.

    `left` names the frozen parameters that the checkpoint does not hold and that are the module's own. `scale` is √P
    by canonical name, which gradients are multiplied by: an optimiser's part of the metric; empty for none.
    """

    name: str
    parameters: Parameters
    constants: dict[str, Tensor]
    left: tuple[str, ...] = ()
    scale: Mapping[str, Tensor] = field(default_factory=dict)


class Scorer:
    """A module f(x; θ) -> score, called with any θ.

    Args:
        module: batch of items [items, ...] -> [items] or [items, 1]; with `joint`, two batches -> [pairs].
        joint: the module takes both items of a pair and returns the score difference Δ.
        params: regular expression; only trainable parameters in whose name it is found are differentiated.

    Raises:
        UsageError: not an nn.Module, a ScriptModule, every parameter is frozen, none is named like `params`, or see
            `read_slots`.
    """

    def __init__(self, module: nn.Module, *, joint: bool = False, params: str | None = None) -> None:
        module = getattr(module, "_orig_mod", module)  # what torch.compile wrapped; vmap cannot enter the wrapper
        if isinstance(module, _WRAPPERS):
            module = module.module
        if not isinstance(module, nn.Module):
            raise UsageError(f"`scorer` should be a torch.nn.Module. Got {type(module).__name__}.")
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                "`scorer` is a ScriptModule, whose weights cannot be replaced in a call. Pass the eager module."
            )
        self.module = module
        self._guarded = False
        self.joint = joint
        self._slots = read_slots(module)
        self._trained = list(dict.fromkeys(self._slots.trainable.values()))
        if not self._trained:
            raise UsageError(
                f"every parameter of {self.class_name} is frozen, so no gradient exists. "
                "Set requires_grad on the parameters to score."
            )
        if params is not None:
            self._slots = _only_named(self._slots, params)
        self.trainable = list(dict.fromkeys(self._slots.trainable.values()))

    @property
    def class_name(self) -> str:
        return type(self.module).__qualname__

    def current(self) -> Parameters:
        """The module's own trainable tensors, by canonical name; for shapes and names, never written."""
        return {name: self.module.get_parameter(name).detach() for name in self.trainable}

    def trained(self) -> Parameters:
        """As `current`, with the trainable tensors that are not differentiated: what an optimiser held."""
        return {name: self.module.get_parameter(name).detach() for name in self._trained}

    def canonical(self) -> dict[str, str | None]:
        """Every name of a parameter -> its canonical one, None for what is not trained."""
        return {name: self._slots.trainable.get(slot) for name, slot in self._slots.names.items()}

    def state(
        self,
        name: str,
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype | None,
        scale: Mapping[str, Tensor] | None = None,
    ) -> State:
        """The state dict `weights` as detached tensors of our own on `device`, in the module's types or `dtype`.

        `scale` goes there too, in float64 where any parameter is, else in float32: half precision has not its range.

        Raises:
            InputError: keys or shapes do not fit the module, tied weights differ, or a weight is NaN or Inf.
        """
        tensors, left = fit(self._slots, weights, name, self.class_name)
        parameters: Parameters = {}
        constants: dict[str, Tensor] = {}
        for slot, tensor in tensors.items():
            own = self._slots.own[slot]
            target = dtype if dtype is not None and own.is_floating_point() else own.dtype
            canonical = self._slots.trainable.get(slot)
            if canonical is None:
                constants[slot] = tensor.detach().to(device, target, copy=True)
            elif canonical not in parameters:
                parameters[canonical] = tensor.detach().to(device, target, copy=True)
        trainable = {name: parameters[name] for name in self.trainable}
        double = any(tensor.dtype == torch.float64 for tensor in trainable.values())
        wide = torch.float64 if double else torch.float32
        scales = {name: tensor.to(device, wide) for name, tensor in (scale or {}).items()}
        return State(name, trainable, constants, tuple(left), scales)

    def within(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor], work: Callable[[], Any]) -> Any:
        """work(), while the module holds these tensors: a backward that runs parts of the forward again needs it."""
        held = {f"module.{slot}": tensor for slot, tensor in self._tensors(parameters, constants).items()}
        with unchanged(self.module):
            self._guarded = True  # a forward in here need not put the module back once more
            try:
                return functional_call(_Holder(self.module), held, (work,), tie_weights=False)
            finally:
                self._guarded = False

    def score(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor], *batch: Batch) -> Tensor:
        """f of one batch (two for a joint scorer), [items]; [items, 1] is flattened."""
        with nullcontext() if self._guarded else unchanged(self.module):
            output = functional_call(self.module, self._tensors(parameters, constants), batch, tie_weights=False)
        expected = "[pairs] or [pairs, 1]" if self.joint else "[items] or [items, 1]"
        if not isinstance(output, Tensor):
            raise InputError(f"{self.class_name} returned a {type(output).__name__}. Expected one tensor {expected}.")
        if output.ndim == 2 and output.shape[1] == 1:
            output = output[:, 0]
        if output.ndim == 0:  # a squeeze() takes the axis of a batch of one, too
            output = output.reshape(1)
        if output.ndim != 1 or not output.is_floating_point():
            raise InputError(
                f"{self.class_name} returned {output.dtype} of shape {tuple(output.shape)}. "
                f"Expected floating-point scores {expected}."
            )
        return output

    def score_one(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor], *items: Batch) -> Tensor:
        """f of one item (of one pair for a joint scorer), scored alone in a batch of one; a scalar."""
        return self.score(parameters, constants, *(each(lambda leaf: leaf.unsqueeze(0), item) for item in items))[0]

    def _tensors(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {slot: parameters[name] for slot, name in self._slots.trainable.items()} | dict(constants)


def _only_named(slots: Slots, pattern: str) -> Slots:
    """`slots` whose trainable ones are those in whose canonical name `pattern` is found."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"`params` should be a regular expression. Got {pattern!r}: {error}.") from None
    chosen = {slot: name for slot, name in slots.trainable.items() if expression.search(name)}
    if not chosen:
        some = ", ".join(list(dict.fromkeys(slots.trainable.values()))[:6])
        raise UsageError(f"`params` {pattern!r} is found in the name of no trainable parameter. There are: {some}.")
    return replace(slots, trainable=chosen)


class _Holder(nn.Module):
    """Runs any work where functional_call has replaced the tensors of `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Every submodule is put back as it was, attribute by attribute, afterwards.

    A forward may keep things on the module: RNNs a list of weights, the old weight_norm their product, others a
    cache. Left there, these would be tensors of ours, and one checkpoint's cache would serve the next.
    """
    before = {submodule: dict(vars(submodule)) for submodule in module.modules()}
    kept = [(v, v.copy()) for own in before.values() for v in own.values() if isinstance(v, dict | list | set)]
    try:
        yield
    finally:
        for submodule, own in before.items():
            vars(submodule).clear()
            vars(submodule).update(own)
        for container, content in kept:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode; every submodule's own mode is put back afterwards."""
    with unchanged(module):
        module.eval()
        yield
