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

# What lays one tensor out for every item.
SPREADING = (Tensor.expand, Tensor.expand_as, Tensor.broadcast_to, torch.broadcast_to, Tensor.repeat, torch.tile)

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


@rule(torch.addmm, Tensor.addmm, names=("input", "mat1", "mat2"), parameters=("input", "mat2"))
def addmm(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = b + x W on [items, d_in]: ∂W_i = x_iᵀ D_i."""
    if call.get("alpha", 1) != 1 or call.get("beta", 1) != 1:
        return None
    return _shared({"input": gradient}, call) | {"mat2": Factors(call["mat1"].detach()[:, None], gradient[:, None])}


@rule(
    torch.matmul,
    torch.mm,
    torch.mv,
    Tensor.matmul,
    Tensor.mm,
    Tensor.mv,
    Tensor.__matmul__,
    names=("input", "other"),
    parameters=("input", "other"),
)
def matmul(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x W on [items, ..., d_in]: ∂W_i = Σ_τ x_iτᵀ D_iτ; y = x w: Σ_τ D_iτ x_iτ; y = W x: Σ_τ D_iτ x_iτᵀ."""
    left, right = call["input"].detach(), call["other"].detach()
    found: dict[str, Contribution] = {}
    if right.ndim == 2 and left.ndim > 1 and len(left) == len(gradient):
        x, rows = (part.reshape(len(gradient), -1, part.shape[-1]) for part in (left, gradient))
        found["other"] = Factors(x, rows)
    elif right.ndim == 1 and left.ndim > 1:
        x = left.reshape(len(gradient), -1, left.shape[-1])
        found["other"] = torch.bmm(gradient.reshape(len(gradient), 1, -1), x)[:, 0]
    if left.ndim == 2 and right.ndim > 2:
        x, rows = (rearrange(part, "items ... d tau -> items (... tau) d") for part in (right, gradient))
        found["input"] = Factors(rows, x)
    return found


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
    if call.get("alpha", 1) != 1:
        return None
    return _shared(dict.fromkeys(("input", "other"), gradient), call)


@rule(
    torch.mul,
    torch.multiply,
    Tensor.mul,
    Tensor.multiply,
    Tensor.__mul__,
    Tensor.__rmul__,
    names=("input", "other"),
    parameters=("input", "other"),
)
def multiplication(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y = x w, w broadcast over the items and any other axes: ∂w_i is the sum of D_i x_i over these axes."""
    left, right = call["input"], call["other"]
    shared = {}
    if _is_shared(left, gradient):
        shared["input"] = gradient * right.detach()
    if _is_shared(right, gradient):
        shared["other"] = gradient * left.detach()
    return _shared(shared, call)


@rule(*SPREADING, names=("input",), parameters=("input",), reads=False)
def spread(call: Mapping[str, Any], gradient: Tensor) -> dict[str, Contribution] | None:
    """y repeats w along axes, the first among them, for the items: ∂w is the sum of D over the repetitions."""
    own = call["input"].shape
    aligned = (1,) * (gradient.ndim - len(own)) + tuple(own)
    tiles = [side for size, part in zip(gradient.shape, aligned, strict=True) for side in (size // part, part)]
    part = gradient.reshape(tiles).sum(dim=tuple(range(2, 2 * gradient.ndim, 2)))
    return {"input": part.reshape(-1, *own)}


def _is_shared(value: Any, gradient: Tensor) -> bool:
    """Whether an argument of an elementwise operation is the same for all items."""
    return isinstance(value, Tensor) and (
        value.ndim < gradient.ndim or (value.ndim == gradient.ndim and len(value) == 1)
    )


def _shared(products: Mapping[str, Tensor], call: Mapping[str, Any]) -> dict[str, Contribution]:
    """Each of `products` [items, ...] summed over the axes along which that argument was broadcast."""
    found: dict[str, Contribution] = {}
    for name, product in products.items():
        if _is_shared(value := call[name], product):
            aligned = (1,) * (product.ndim - value.ndim) + tuple(value.shape)
            axes = [axis for axis in range(1, product.ndim) if aligned[axis] == 1 and product.shape[axis] != 1]
            part = product.sum(dim=axes) if axes else product
            found[name] = part.reshape(len(product), *value.shape)
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


# Operations whose positions may come before the items.
_BY_POSITION = (linear, embedding, layer_norm, rms_norm, addition, multiplication, matmul)
BY_POSITION = frozenset(operation for operation, registered in RULES.items() if registered.rule in _BY_POSITION)
