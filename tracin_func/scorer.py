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
        self._fixed: dict[str, Tensor] = {}  # slot path -> frozen parameter or buffer
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
        by_slot = self._fit(name, weights)

        def ours(tensor: Tensor) -> Tensor:
            target = dtype if tensor.is_floating_point() else None
            return tensor.detach().to(device, target, copy=True)

        parameters: Parameters = {}
        read: Parameters = {}  # as it was read, to compare tied weights before any rounding
        constants: dict[str, Tensor] = {}
        for slot, tensor in by_slot.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise InputError(f"{name}: weight {slot!r} holds NaN or Inf. Leave this checkpoint out.")
            canonical = self._slots.get(slot)
            if canonical is None:
                constants[slot] = ours(tensor)
            elif canonical not in parameters:
                parameters[canonical], read[canonical] = ours(tensor), tensor
            elif not torch.equal(read[canonical], tensor):
                raise InputError(f"{name}: {slot!r} and {canonical!r} are one tied parameter, and their values differ.")
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
        owners: dict[int, str] = {}
        for path, module in self.module.named_modules(remove_duplicate=False):
            prefix = f"{path}." if path else ""
            first_path = owners.setdefault(id(module), prefix)
            for local, parameter in module._parameters.items():
                if parameter is None:
                    continue
                slot = self._canonical[prefix + local] = first_path + local
                if parameter.requires_grad:
                    self._slots[slot] = names[parameter]
                else:
                    self._fixed[slot] = parameter
            for local, buffer in module._buffers.items():
                if buffer is not None:
                    slot = self._canonical[prefix + local] = first_path + local
                    self._fixed[slot] = buffer

    def _fit(self, name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` by slot path, non-persistent buffers from the module, every key and shape checked."""
        expected: dict[str, Tensor] = self.module.state_dict(keep_vars=True)
        unexpected = [key for key in weights if key not in self._canonical]
        shapes = [
            f"{key}: {list(weights[key].shape)} in the file, {list(tensor.shape)} in the model"
            for key, tensor in expected.items()
            if key in weights and weights[key].shape != tensor.shape
        ]
        given = {self._canonical[key]: tensor for key, tensor in weights.items() if key in self._canonical}
        tied = {canonical: given[slot] for slot, canonical in self._slots.items() if slot in given}
        result: dict[str, Tensor] = {}
        missing = []
        persistent = {self._canonical[key] for key in expected if key in self._canonical}
        for slot in [*self._slots, *self._fixed]:
            if slot in given:
                result[slot] = given[slot]
            elif self._slots.get(slot) in tied:  # safetensors keeps one name of a tied weight
                result[slot] = tied[self._slots[slot]]
            elif slot in persistent and not slot.endswith("num_batches_tracked"):
                missing.append(slot)
            else:
                result[slot] = self._fixed[slot]
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
    """The module in eval mode; every submodule's own mode is put back afterwards."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for submodule, mode in modes.items():
            submodule.training = mode
