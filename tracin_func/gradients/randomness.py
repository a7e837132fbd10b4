"""Does a scorer or a dataset give different values each time?"""

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from tracin_func.gradients.coupling import place_of_call
from tracin_func.task.items import Batch


def random_items(take: Callable[[], Batch]) -> bool:
    """Whether two readings of the same items differ."""
    first, second = pytree.tree_leaves(take()), pytree.tree_leaves(take())
    return any(
        left.shape != right.shape or not torch.equal(left.nan_to_num(), right.nan_to_num())
        for left, right in zip(first, second, strict=True)
    )


def random_operation(forward: Callable[[], Tensor], first: Tensor) -> str | None:
    """The first operation of `forward` that draws random numbers, as "name (file:line)"; None where none does.

    It is random if its scores differ from the `first` ones or a generator of torch, numpy or Python advances.
    """
    before, others = torch.get_rng_state(), _other_generators()
    second = forward()
    drawn = not torch.equal(torch.get_rng_state(), before) or _other_generators() != others
    if not drawn and torch.equal(first.nan_to_num(), second.nan_to_num()):
        return None
    with _Draws() as draws:
        forward()
    return draws.operation or "an operation outside torch, or a state that it keeps between calls"


def _other_generators() -> tuple[Any, ...]:
    _, keys, *rest = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), *rest


class _Draws(TorchFunctionMode):
    """Names the first operation after which torch's generator has another state."""

    def __init__(self) -> None:
        super().__init__()
        self.operation: str | None = None

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = torch.get_rng_state() if self.operation is None else None
        result = func(*args, **(kwargs or {}))
        if before is not None and not torch.equal(torch.get_rng_state(), before):
            self.operation = f"{func.__name__} ({place_of_call()})"
        return result
