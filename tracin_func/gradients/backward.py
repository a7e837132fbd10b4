"""The gradient of one value with respect to held leaves, also where only `.backward()` runs.

Reentrant activation checkpointing calls `.backward()` inside the backward and refuses `torch.autograd.grad`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

REFUSED = "heckpoint"  # in the error that torch, and code in its style, raises for autograd.grad


def by_leaves(
    value: Callable[[], Tensor], leaves: Sequence[Tensor], incoming: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The value, detached, and `incoming` · ∂value/∂leaf, dense; 0 for leaves that the value does not depend on.

    `value` is called again where autograd.grad is refused. `leaves` keep their `grad`. `incoming` has the size of the
    value; 1 when None, for a scalar.
    """
    with torch.enable_grad():
        found = value()
    if not found.requires_grad:  # a constant
        return found.detach(), tuple(torch.zeros_like(leaf) for leaf in leaves)
    incoming = None if incoming is None else incoming.to(found)
    try:
        gradients = torch.autograd.grad(found, leaves, incoming, materialize_grads=True)
    except RuntimeError as error:
        if REFUSED not in str(error):
            raise
        gradients = _backward(value, leaves, incoming)
    # Detached: torch 2.6 gives an unused parameter zeros that require a gradient themselves.
    return found.detach(), tuple((part.to_dense() if part.is_sparse else part).detach() for part in gradients)


def _backward(value: Callable[[], Tensor], leaves: Sequence[Tensor], incoming: Tensor | None) -> tuple[Tensor, ...]:
    before = [leaf.grad for leaf in leaves]
    try:
        for leaf in leaves:
            leaf.grad = None
        with torch.enable_grad():
            torch.autograd.backward(value(), incoming)
        return tuple(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)
    finally:
        for leaf, gradient in zip(leaves, before, strict=True):
            leaf.grad = gradient
