"""Tensors computed from parameters alone, such as W = g v/‖v‖, masked weights and slices, as parameters of their own.

An operation with parameters but no input that depends on an item gives the same tensor to every item. Rules find the
gradient of each item with respect to it; the vector-Jacobian product of what computed it leads on to the parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tracin_func.gradients.engines.vmap import quiet_fallbacks
from tracin_func.gradients.factors import Contribution, Factors, Lookup, dense, joined

Back = Callable[[Contribution], Contribution | None]

_PROPERTIES = (getattr(Tensor, name).__get__ for name in ("T", "mT"))
_TRANSPOSES = {torch.t, Tensor.t, torch.transpose, Tensor.transpose, *_PROPERTIES}


@dataclass(frozen=True)
class Derived:
    """A tensor computed from the parameters `sources`.

    `back` takes gradients to what is called `parent`, a parameter or another derived tensor, without building them;
    None where only autograd can.
    """

    tensor: Tensor
    sources: frozenset[str]
    parent: str
    back: Back | None


def short_way(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> Back | None:
    """The backward of one operation on factors, where it has one."""
    if operation in _TRANSPOSES and result.ndim == 2:
        axes = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, int)]
        return _transposed if not axes or (axes[0] - axes[1]) % 2 else None
    if operation is F.embedding and not kwargs.get("scale_grad_by_freq") and kwargs.get("max_norm") is None:
        given = dict(zip(("input", "weight", "padding_idx"), args, strict=False)) | dict(kwargs)
        if len(args) <= 3:  # the others, by position, are rare
            return _looked_up(given["input"], len(given["weight"]), given.get("padding_idx"))
    return None


def pull_back(
    found: Mapping[str, Contribution], derived: Mapping[str, Derived], leaves: Mapping[str, Tensor]
) -> dict[str, Contribution]:
    """Gradients of the parameters `leaves` from those of derived tensors, `found` by key [units, *shape]."""
    waiting, result = dict(found), dict[str, Contribution]()
    for key, one in reversed(list(derived.items())):  # the last computed first
        moved = one.back(waiting[key]) if key in waiting and one.back is not None else None
        if moved is None:
            continue
        del waiting[key]
        into = waiting if one.parent in derived else result
        into[one.parent] = joined(into[one.parent], moved) if one.parent in into else moved
    for name, part in _through_autograd(waiting, derived, leaves).items():
        result[name] = joined(result[name], part) if name in result else part
    return {name: part for name, part in result.items() if name in leaves}


def _through_autograd(
    found: Mapping[str, Contribution], derived: Mapping[str, Derived], leaves: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    wanted = [name for name in leaves if any(name in derived[key].sources for key in found)]
    if not wanted:
        return {}
    outputs, inputs = [derived[key].tensor for key in found], [leaves[name] for name in wanted]
    incoming = [dense(part).to(derived[key].tensor.dtype) for key, part in found.items()]

    def vjp(gradients: Sequence[Tensor], batched: bool) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(
            outputs, inputs, gradients, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )

    try:
        with quiet_fallbacks():
            parts: Sequence[Tensor | None] = vjp(incoming, batched=True)
    except RuntimeError:  # an operation that vmap cannot run
        of_units = [vjp(one, batched=False) for one in zip(*incoming, strict=True)]
        parts = [None if column[0] is None else torch.stack(column) for column in zip(*of_units, strict=True)]
    return {name: part.detach() for name, part in zip(wanted, parts, strict=True) if part is not None}


def _transposed(part: Contribution) -> Contribution | None:
    """Of W from Wᵀ: AᵀD from DᵀA."""
    if isinstance(part, Factors):
        return replace(part, rows=part.columns, columns=part.rows)
    return part.transpose(1, 2) if isinstance(part, Tensor) else None


def _looked_up(index: Tensor, size: int, padding: int | None) -> Back:
    """Of a table from its rows at positions that all items share."""

    def back(part: Contribution) -> Contribution:
        rows = dense(part).flatten(1, index.ndim)
        places = index.reshape(1, -1).expand(len(rows), -1)
        if padding is not None:
            rows = rows * (places != padding % size)[..., None]
        found = Lookup(places, rows, size)
        return found if places.shape[1] <= size else found.dense()

    return back
