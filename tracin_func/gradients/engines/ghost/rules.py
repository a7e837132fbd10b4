"""How one operation turns its input and the gradient of its output into per-item parameter gradients.

A rule is a small pure function registered for an operation. It is given the operation's arguments by name and
D = ∂ Σ_i s_i / ∂output, whose first axis is the items (each item's score reaches only its own slice), and
returns for each parameter that entered either

- a tensor [items, *parameter.shape]: the gradient of every item, or
- `Factors(D, A)`: [items, positions, rows] and [items, positions, columns], whose products D_iᵀ A_i are the
  gradients; dot products of these need no gradient, or
- `Convolved`, which the plan turns into one or the other.

A rule returns None where it does not hold (another layout than items first); the parameter is then left to vmap.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from torch import Tensor

from tracin_func.gradients.engines.ghost.kernels import Convolved
from tracin_func.gradients.factors import Contribution, Factors, Lookup

Found = dict[str, Contribution] | dict[str, Contribution | Convolved]
Rule = Callable[[Mapping[str, Any], Tensor], Found | None]


@dataclass(frozen=True)
class Registered:
    """A rule, its operation's argument names, which of them may be parameters, and whether it reads the others."""

    arguments: tuple[str, ...]
    rule: Rule
    parameters: frozenset[str]
    reads: bool


RULES: dict[Any, Registered] = {}  # by operation


def rule(
    *operations: Any,
    names: tuple[str, ...] | None = None,
    parameters: tuple[str, ...] = ("weight", "bias"),
    reads: bool = True,
) -> Callable[[Rule], Rule]:
    """Register a rule; `names` are the arguments of a builtin, which has no signature."""

    def register(function: Rule) -> Rule:
        for operation in operations:
            arguments = names or tuple(inspect.signature(operation).parameters)
            RULES[operation] = Registered(arguments, function, frozenset(parameters), reads)
        return function

    return register


def bind(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(RULES[operation].arguments, args, strict=False)) | dict(kwargs)


@rule(F.linear, names=("input", "weight", "bias"))
def linear(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x Wᵀ + b on [items, ..., d_in]: ∂W_i = Σ_τ D_iτᵀ x_iτ over the positions τ between items and d_in."""
    x = call["input"].detach()
    if x.ndim < 2:
        return None
    rows = gradient.reshape(len(x), -1, gradient.shape[-1])
    return {"weight": Factors(rows, x.reshape(len(x), -1, x.shape[-1])), "bias": rows.sum(dim=1)}


@rule(F.conv1d, F.conv2d, F.conv3d, names=("input", "weight", "bias", "stride", "padding", "dilation", "groups"))
def convolution(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution | Convolved] | None:
    """The weight gradient of every item of a convolution in any of its forms: see `kernels`."""
    x, weight = call["input"].detach(), call["weight"]
    spatial = weight.ndim - 2
    if x.ndim != weight.ndim:
        return None
    bias = gradient.flatten(2).sum(dim=2)
    if not weight.requires_grad:  # frozen
        return {"bias": bias}
    stride, dilation = (_each(call.get(name, 1), spatial) for name in ("stride", "dilation"))
    x, padding = _padded(x, call.get("padding", 0), weight, dilation)
    return {"weight": Convolved(x, gradient, weight, stride, padding, dilation, call.get("groups", 1)), "bias": bias}


@rule(F.embedding)
def embedding(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = W[x] on [items, ...]: row x_τ of ∂W_i receives D_iτ; the padding row none."""
    index, weight = call["input"], call["weight"]
    if call.get("scale_grad_by_freq") or call.get("max_norm") is not None or index.ndim < 1:
        return None
    index, rows = index.reshape(len(index), -1), gradient.reshape(len(index), -1, weight.shape[1])
    padding = call.get("padding_idx")
    if padding is not None:
        rows = rows * (index != padding % len(weight))[..., None]
    return {"weight": Lookup(index, rows, len(weight))}


@rule(F.layer_norm)
def layer_norm(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x̂ w + b over the last axes."""
    x, shape = call["input"], call["normalized_shape"]
    if x.ndim <= len(shape):
        return None
    return _affine(gradient, F.layer_norm(x, shape, eps=call.get("eps", 1e-5)), x.ndim - len(shape))


@rule(F.rms_norm)
def rms_norm(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x / rms(x) · w over the last axes."""
    x, shape = call["input"], call["normalized_shape"]
    if x.ndim <= len(shape):
        return None
    return _affine(gradient, F.rms_norm(x, shape, eps=call.get("eps")), x.ndim - len(shape))


@rule(F.group_norm)
def group_norm(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x̂ w + b by channel, normalised within an item."""
    x = call["input"]
    return dict(_by_channel(gradient, F.group_norm(x, call["num_groups"], eps=call.get("eps", 1e-5))))


@rule(F.instance_norm)
def instance_norm(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x̂ w + b by channel, normalised within an item, or by the running statistics."""
    plain = {name: value for name, value in call.items() if name not in ("weight", "bias")}
    return dict(_by_channel(gradient, F.instance_norm(**plain)))


@rule(F.batch_norm)
def batch_norm(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x̂ w + b by channel with the running statistics; batch statistics mix items."""
    if call.get("training"):
        return None
    # Σ D x̂ = (Σ D x − μ Σ D) / σ: x̂ itself need not be recomputed.
    plain = _by_channel(gradient, call["input"])
    root = torch.rsqrt(call["running_var"] + call.get("eps", 1e-5))
    return {"weight": (plain["weight"] - call["running_mean"] * plain["bias"]) * root, "bias": plain["bias"]}


@rule(
    torch.add,
    Tensor.add,
    Tensor.__add__,
    Tensor.__radd__,
    Tensor.add_,
    Tensor.__iadd__,
    names=("input", "other"),
    parameters=("input", "other"),
    reads=False,
)
def addition(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x + b, b broadcast over the items and any other axes: ∂b_i is the sum of D_i over these axes."""
    found: dict[str, Contribution] = {}
    for name in ("input", "other"):
        value = call[name]
        if not isinstance(value, Tensor) or value.ndim > gradient.ndim or call.get("alpha", 1) != 1:
            return None
        if value.ndim == gradient.ndim and value.shape[0] != 1:  # has one row per item
            continue
        aligned = (1,) * (gradient.ndim - value.ndim) + tuple(value.shape)
        axes = [axis for axis in range(1, gradient.ndim) if aligned[axis] == 1 and gradient.shape[axis] != 1]
        part = gradient.sum(dim=axes) if axes else gradient
        found[name] = part.reshape(len(gradient), *value.shape)
    return found


def _affine(gradient: Tensor, normalised: Tensor, leading: int) -> dict[str, Contribution]:
    """Weight and bias gradients of y = x̂ w + b, summed over positions: the axes between items and the last ones."""
    positions = tuple(range(1, leading))
    product = gradient * normalised
    if not positions:
        return {"weight": product, "bias": gradient}
    return {"weight": product.sum(dim=positions), "bias": gradient.sum(dim=positions)}


def _by_channel(gradient: Tensor, normalised: Tensor) -> dict[str, Tensor]:
    flat = rearrange(gradient, "items channels ... -> items channels (...)")
    # vecdot, not a product and a sum: one pass over both, no third tensor.
    weight = torch.linalg.vecdot(flat, normalised.reshape(flat.shape))
    return {"weight": weight, "bias": flat.sum(dim=2)}


def _each(value: int | tuple[int, ...], spatial: int) -> list[int]:
    return [value] * spatial if isinstance(value, int) else list(value) * (spatial if len(value) == 1 else 1)


def _padded(x: Tensor, padding: Any, weight: Tensor, dilation: list[int]) -> tuple[Tensor, list[int]]:
    """`x`, padded where that is asymmetric, and the symmetric padding that remains."""
    spatial = weight.ndim - 2
    if padding == "valid":
        return x, [0] * spatial
    if padding != "same":
        return x, _each(padding, spatial)
    totals = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
    if all(total % 2 == 0 for total in totals):
        return x, [total // 2 for total in totals]
    # An even kernel is padded by one more at the end, as in torch.
    sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return F.pad(x, sides), [0] * spatial
