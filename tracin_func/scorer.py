"""The user's module as a pure function of parameters, buffers and items; the module itself is never written.

Parameters are keyed by their first name in `named_parameters()` (the canonical name). A SLOT is one attribute
of one module object; every slot is replaced under exactly one path. A tied parameter fills several slots from
one tensor, so its uses add up in the gradient, and a module reachable under two paths is swapped once: with
both paths, torch.func.functional_call(tie_weights=True) would write over the real weights (pytorch#164759).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tracin_func.checkpoints import unwrapped
from tracin_func.errors import InputError, UsageError
from tracin_func.items import Batch, each

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class State:
    """The tensors of one checkpoint on the device: `parameters` by canonical name, `constants` by slot path."""

    name: str
    parameters: Parameters
    constants: dict[str, Tensor]


class Scorer:
    """A module f(x; θ) -> score, called with any θ.

    Args:
        module: batch of items [items, ...] -> [items] or [items, 1]; with `joint`, two batches -> [pairs].
        joint: the module takes both items of a pair and returns the score difference Δ.

    Raises:
        UsageError: not an nn.Module, a ScriptModule, or every parameter is frozen.
    """

    def __init__(self, module: nn.Module, *, joint: bool = False) -> None:
        module = getattr(module, "_orig_mod", module)  # what torch.compile wrapped; vmap cannot enter the wrapper
        if not isinstance(module, nn.Module):
            raise UsageError(f"`scorer` should be a torch.nn.Module. Got {type(module).__name__}.")
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                "`scorer` is a ScriptModule, whose weights cannot be replaced in a call. Pass the eager module."
            )
        self.module = module
        self.joint = joint
        self._slots: dict[str, str] = {}  # slot path -> canonical name of the trainable parameter in it
        self._own: dict[str, Tensor] = {}  # slot path -> the module's parameter or buffer in it
        self._canonical: dict[str, str] = {}  # every state-dict name of a slot -> its slot path
        self._read_slots()
        self.trainable = list(dict.fromkeys(self._slots.values()))
        if not self.trainable:
            raise UsageError(
                f"every parameter of {self.class_name} is frozen, so no gradient exists. "
                "Set requires_grad on the parameters to score."
            )

    @property
    def class_name(self) -> str:
        return type(self.module).__qualname__

    def current(self) -> Parameters:
        """The module's own trainable tensors, by canonical name; for shapes and names, never written."""
        return {name: self.module.get_parameter(name).detach() for name in self.trainable}

    def state(self, name: str, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype | None) -> State:
        """The state dict `weights` as detached tensors of our own on `device`.

        Raises:
            InputError: keys or shapes do not fit the module, tied weights differ, or a weight is NaN or Inf.
        """
        parameters: Parameters = {}
        constants: dict[str, Tensor] = {}
        for slot, tensor in self._fit(name, unwrapped(weights, self._canonical)).items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise InputError(f"{name}: weight {slot!r} holds NaN or Inf. Leave this checkpoint out.")
            own = self._own[slot]
            target = dtype if dtype is not None and own.is_floating_point() else own.dtype
            canonical = self._slots.get(slot)
            if canonical is None:
                constants[slot] = tensor.detach().to(device, target, copy=True)
            elif canonical not in parameters:
                parameters[canonical] = tensor.detach().to(device, target, copy=True)
        return State(name, {name: parameters[name] for name in self.trainable}, constants)

    def within(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor], work: Callable[[], Any]) -> Any:
        """work(), while the module holds these tensors: a backward that runs parts of the forward again needs it."""
        tensors = {slot: parameters[name] for slot, name in self._slots.items()} | dict(constants)
        held = {f"module.{slot}": tensor for slot, tensor in tensors.items()}
        return functional_call(_Holder(self.module), held, (work,), tie_weights=False)

    def score(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor], *batch: Batch) -> Tensor:
        """f of one batch (two for a joint scorer), [items]; [items, 1] is flattened."""
        tensors = {slot: parameters[name] for slot, name in self._slots.items()} | dict(constants)
        output = functional_call(self.module, tensors, batch, tie_weights=False)
        expected = "[pairs] or [pairs, 1]" if self.joint else "[items] or [items, 1]"
        if not isinstance(output, Tensor):
            raise InputError(f"{self.class_name} returned a {type(output).__name__}. Expected one tensor {expected}.")
        if output.ndim == 2 and output.shape[1] == 1:
            output = output[:, 0]
        if output.ndim != 1 or not output.is_floating_point():
            raise InputError(
                f"{self.class_name} returned {output.dtype} of shape {tuple(output.shape)}. "
                f"Expected floating-point scores {expected}."
            )
        return output

    def score_one(self, parameters: Mapping[str, Tensor], constants: Mapping[str, Tensor], *items: Batch) -> Tensor:
        """f of one item (of one pair for a joint scorer), scored alone in a batch of one; a scalar."""
        return self.score(parameters, constants, *(each(lambda leaf: leaf.unsqueeze(0), item) for item in items))[0]

    def _read_slots(self) -> None:
        names = {parameter: name for name, parameter in self.module.named_parameters()}
        first_paths: dict[int, str] = {}
        for path, module in self.module.named_modules(remove_duplicate=False):
            prefix = f"{path}." if path else ""
            first_path = first_paths.setdefault(id(module), prefix)
            for local, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is None:
                    continue
                slot = self._canonical[prefix + local] = first_path + local
                self._own[slot] = tensor
                if tensor.requires_grad:
                    self._slots[slot] = names[tensor]

    def _fit(self, name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` by slot path, non-persistent buffers from the module, every key and shape checked."""
        expected: dict[str, Tensor] = self.module.state_dict(keep_vars=True)
        persistent = {self._canonical[key] for key in expected if key in self._canonical}
        shapes = [
            f"{key}: {list(weights[key].shape)} in the file, {list(tensor.shape)} in the model"
            for key, tensor in expected.items()
            if key in weights and weights[key].shape != tensor.shape
        ]
        given: dict[int, tuple[str, Tensor]] = {}  # by the module's own tensor, which several names may share
        for key, tensor in weights.items():
            if key in self._canonical:
                other, value = given.setdefault(id(self._own[self._canonical[key]]), (key, tensor))
                if value is not tensor and not torch.equal(value, tensor):
                    raise InputError(f"{name}: {other!r} and {key!r} are one weight of the model; their values differ.")
        result: dict[str, Tensor] = {}
        missing = []
        for slot, own in self._own.items():
            if id(own) in given:  # safetensors keeps one name of a tied weight
                result[slot] = given[id(own)][1]
            elif slot in persistent and not slot.endswith("num_batches_tracked"):
                missing.append(slot)
            else:
                result[slot] = own
        unexpected = [key for key in weights if key not in self._canonical]
        faults = [
            f"{label} {', '.join(found[:4])}{f' and {len(found) - 4} more' if len(found) > 4 else ''}"
            for label, found in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
            if found
        ]
        if faults:
            raise InputError(
                f"{name}: its weights do not fit the model {self.class_name}: {'; '.join(faults)}. "
                "Give the class it was trained with (--model FILE.py:Class, --model-arg name=value)."
            )
        return result


class _Holder(nn.Module):
    """Runs any work where functional_call has replaced the tensors of `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode; afterwards every submodule is put back as it was, attribute by attribute.

    A forward may keep things of its own on the module (RNNs a list of weights, the old weight_norm the product):
    left there, these would be tensors of ours.
    """
    before = {submodule: dict(vars(submodule)) for submodule in module.modules()}
    lists = [(value, list(value)) for own in before.values() for value in own.values() if isinstance(value, list)]
    module.eval()
    try:
        yield
    finally:
        for submodule, own in before.items():
            vars(submodule).clear()
            vars(submodule).update(own)
        for value, content in lists:
            value[:] = content
