"""Per-item gradients of an operation without a rule: vmap of its vector-Jacobian product, not of the whole scorer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from tracin_func.gradients.engines.vmap import quiet_fallbacks
from tracin_func.gradients.factors import Contribution


def by_item(
    operation: Any,
    positional: int,
    parameters: Sequence[str],
    of_items: Sequence[str],
    call: Mapping[str, Any],
    gradient: Tensor,
) -> dict[str, Contribution] | None:
    """Gradients of the tensors `parameters` in `call`, from D = `gradient` [items, ...] of the operation's output.

    `call` has the first `positional` arguments by place, the others by name. Its tensors `of_items` have items on their
    first axis. None where vmap cannot run the operation.
    """

    def one(of_one: Tensor, *items: Tensor) -> tuple[Tensor, ...]:
        own = dict(call) | {name: item[None] for name, item in zip(of_items, items, strict=True)}

        def output(*values: Tensor) -> Tensor:
            given = own | dict(zip(parameters, values, strict=True))
            args = [given.pop(str(place)) for place in range(positional)]
            result: Tensor = operation(*args, **given)
            return result

        back: Callable[[Tensor], tuple[Tensor, ...]] = vjp(output, *(call[name].detach() for name in parameters))[1]
        return back(of_one[None])

    try:
        with torch.no_grad(), quiet_fallbacks():
            found = vmap(one)(gradient, *(call[name].detach() for name in of_items))
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):  # it does not go item by item
        return None
    return dict(zip(parameters, found, strict=True))
