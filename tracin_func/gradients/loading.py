"""Does `load_state_dict` do more than copy tensors?

Hooks, methods of the module and extra state may convert a weight or set an attribute. Such a checkpoint is refused.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tracin_func.errors import InputError
from tracin_func.gradients.slots import Slots
from tracin_func.gradients.working import private_copy
from tracin_func.task.weight_names import unwrapped

METHODS = ("load_state_dict", "_load_from_state_dict", "set_extra_state")


def require_plain(
    module: nn.Module, slots: Slots, weights: Mapping[str, Tensor], fitted: Mapping[str, Tensor], name: str
) -> None:
    """Raise InputError if a copy of the module holds other tensors than `fitted` after `load_state_dict`, or a new
    value of another attribute."""
    copied = private_copy(module) if any(map(_has_own_way, module.modules())) else None
    if copied is None:
        return
    before = _attributes(copied)
    copied.load_state_dict(dict(unwrapped(weights, slots.names)), strict=False)
    where = f"{name}: `load_state_dict` of {type(module).__qualname__}"
    for key, tensor in copied.state_dict().items():
        slot = slots.names.get(key)
        if slot is not None and slot in fitted and isinstance(tensor, Tensor):
            expected = fitted[slot].to(tensor)
            if not torch.equal(tensor.nan_to_num(), expected.nan_to_num()):
                raise InputError(
                    f"{where} changes the weight {key!r}. Convert the checkpoint once, and score a model that loads "
                    "it unchanged."
                )
    if changed := [key for key, value in _attributes(copied).items() if before.get(key, before) != value]:
        raise InputError(
            f"{where} sets the attribute '{changed[0]}', which is no weight, so scores would use another value. Make "
            "it a buffer."
        )


def _has_own_way(module: nn.Module) -> bool:
    hooks = module._load_state_dict_pre_hooks or module._load_state_dict_post_hooks
    methods = (getattr(type(module), method) for method in METHODS)
    return bool(hooks) or any(not method.__module__.startswith("torch.") for method in methods)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """The plain values among the attributes of all submodules, by path."""
    return {
        f"{path}.{name}" if path else name: value
        for path, submodule in module.named_modules()
        for name, value in vars(submodule).items()
        if isinstance(value, bool | int | float | complex | str | tuple) or value is None
    }
