"""The places of a module's tensors, and how a state dict fits into them.

A SLOT is one attribute of one module object. Parameters are keyed by their first name in `named_parameters()`
(the canonical name); a tied parameter fills several slots from one tensor, so its uses add up in the gradient.
A module reachable under two paths is swapped under one of them: with both,
torch.func.functional_call(tie_weights=True) would write over the real weights (pytorch#164759).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from tracin_func.errors import InputError, UsageError
from tracin_func.task.weight_names import renamed


@dataclass(frozen=True, eq=False)
class Slots:
    """The slots of a module.

    Args:
        own: slot path -> the module's own tensor in it.
        names: every name that a state dict has, or could have, for a slot -> its path.
        trainable: slot path -> canonical name, of slots that hold a trainable parameter.
        persistent: paths of the slots that a state dict holds.
    """

    own: dict[str, Tensor]
    names: dict[str, str]
    trainable: dict[str, str]
    persistent: frozenset[str]


def read_slots(module: nn.Module) -> Slots:
    """The slots of `module`.

    Raises:
        UsageError: a parameter has no shape yet (lazy modules), or is complex.
    """
    canonical = {parameter: name for name, parameter in module.named_parameters()}
    for parameter, name in canonical.items():
        if is_lazy(parameter):
            raise UsageError(f"`scorer` has a parameter {name!r} without a shape. Run it once on a batch of items.")
        if parameter.is_complex():
            raise UsageError(f"`scorer` should have real parameters. Got {name!r}, which is complex.")
    own: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    trainable: dict[str, str] = {}
    first_paths: dict[int, str] = {}
    for path, submodule in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        first_path = first_paths.setdefault(id(submodule), prefix)
        for local, tensor in [*submodule._parameters.items(), *submodule._buffers.items()]:
            if tensor is None:
                continue
            slot = names[prefix + local] = first_path + local
            # The same without the wrapper that torch.compile puts around a submodule.
            names.setdefault((prefix + local).replace("_orig_mod.", ""), slot)
            own[slot] = tensor
            if tensor in canonical and tensor.requires_grad:
                trainable[slot] = canonical[tensor]
    held = [key for key in module.state_dict(keep_vars=True) if key in names]
    return Slots(own, names, trainable, frozenset(names[key] for key in held))


def fit(slots: Slots, weights: Mapping[str, Tensor], name: str, model: str) -> tuple[dict[str, Tensor], list[str]]:
    """`weights` by slot path, and the frozen slots that they lack (adapter checkpoints).

    Prefixes of wrappers are stripped if the names do not fit otherwise. A tied weight needs one of its names.

    Raises:
        InputError: a trainable weight is missing, a name is unexpected, a shape is wrong, tied weights differ, or
            a weight is NaN or Inf.
    """
    read_as, change = renamed(weights, slots.names)
    weights = {read_as[former]: value for former, value in weights.items() if former in read_as}
    given: dict[int, tuple[str, Tensor]] = {}  # by the module's own tensor, which several names may share
    unexpected, shapes = [], []
    misshapen: set[int] = set()
    for key, tensor in weights.items():
        slot = slots.names.get(key)
        if slot is None:
            unexpected.append(key)
        elif tensor.shape != (own := slots.own[slot]).shape:
            misshapen.add(id(own))
            shapes.append(f"{key}: {list(tensor.shape)} in the file, {list(own.shape)} in the model")
        elif slot not in slots.persistent:  # old files contain tables that the model computes; both must agree
            if not torch.equal(tensor.to(own), own):
                unexpected.append(key)
        else:
            other, value = given.setdefault(id(own), (key, tensor))
            if value is not tensor and not torch.equal(value, tensor):
                raise InputError(f"{name}: {other!r} and {key!r} are one weight of the model; their values differ.")
            # A finite sum has finite terms only, and takes a tenth of the time.
            if tensor.is_floating_point() and not (bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())):
                raise InputError(f"{name}: weight {key!r} holds NaN or Inf. Leave this checkpoint out.")
    result: dict[str, Tensor] = {}
    missing, left = [], []
    for slot, own in slots.own.items():
        if id(own) in given:
            result[slot] = given[id(own)][1]
            continue
        result[slot] = own
        if id(own) in misshapen:
            continue
        if own.requires_grad:
            missing.append(slot)
        elif slot in slots.persistent and not slot.endswith("num_batches_tracked"):
            left.append(slot)
    # Frozen PARAMETERS may be left out, as adapters do; running statistics belong to the training.
    missing += [slot for slot in left if not isinstance(slots.own[slot], nn.Parameter)]
    left = [slot for slot in left if isinstance(slots.own[slot], nn.Parameter)]
    _require_fit(name, model, {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}, change)
    return result, left


def _require_fit(name: str, model: str, faults: Mapping[str, list[str]], change: str) -> None:
    words = [
        f"{label} {', '.join(found[:4])}{f' and {len(found) - 4} more' if len(found) > 4 else ''}"
        for label, found in faults.items()
        if found
    ]
    if words:
        raise InputError(
            f"{name}: its weights{f', their names read {change},' if change else ''} do not fit the model {model}: "
            f"{'; '.join(words)}. Give the class it was trained with (`model` FILE.py:Class, `model_arg` name=value)."
        )


def require_no_views(module: nn.Module, slots: Slots) -> None:
    """Refuse attributes that are views of parameters: their gradients lead to the former weights."""
    own = {id(tensor) for tensor in slots.own.values()}
    for path, submodule in module.named_modules():
        for name, value in vars(submodule).items():
            tensors = (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor) and leaf.requires_grad)
            if any(tensor._is_view() and id(tensor._base) in own for tensor in tensors):
                raise UsageError(
                    f"`scorer` {type(module).__qualname__} has an attribute '{'.'.join(filter(None, (path, name)))}' "
                    "that is a view of a parameter, made before the forward. Gradients with respect to new weights do "
                    "not pass it. Take the view in the forward."
                )


def only_named(slots: Slots, pattern: str) -> Slots:
    """`slots` whose trainable ones are those in whose canonical name `pattern` is found."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"`params` should be a regular expression. Got {pattern!r}: {error}.") from None
    chosen = {slot: name for slot, name in slots.trainable.items() if expression.search(name)}
    if not chosen:
        some = ", ".join(list(dict.fromkeys(slots.trainable.values()))[:6])
        raise UsageError(f"`params` {pattern!r} is not found in any name of a trainable parameter. Available: {some}.")
    return replace(slots, trainable=chosen)
