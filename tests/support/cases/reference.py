"""Self-influence and influence by one autograd call per pair in float64, for comparison.

    self(p) = Σ_t η_t ‖∇ℓ_p‖²        influence(p, q) = Σ_t η_t ⟨∇ℓ_p, ∇ℓ_q⟩

Eval mode, batches of one item, weights by `load_state_dict`. Nothing here is imported from the package.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

State = dict[str, Any]
Make = Callable[[], nn.Module]
Loss = Callable[[Tensor, Tensor, int], Tensor]
Alone = Callable[[Any, int], Any]  # (items, position) -> a float64 batch of one


@dataclass(frozen=True)
class Table:
    """Ranking pairs as plain lists: item `first` should score above item `second` where `target` is 1."""

    first: Sequence[int]
    second: Sequence[int]
    target: Sequence[int]

    def rows(self) -> list[tuple[int, int, int]]:
        return list(zip(self.first, self.second, self.target, strict=True))


@dataclass(frozen=True)
class Right:
    """The right scores: `own` [train_pairs], `cross` [train_pairs, test_pairs]."""

    own: Tensor
    cross: Tensor


TRAIN = Table([0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5], [1, -1, 1, 1, -1, 1, -1, 1])
TEST = Table([0, 1, 4], [4, 5, 2], [1, -1, 1])
RATES = (0.1, 0.2)


def logistic(first: Tensor, second: Tensor, target: int) -> Tensor:
    return F.softplus(-target * (first - second))


def hinge(margin: float) -> Loss:
    return lambda first, second, target: torch.relu(margin - target * (first - second))


def single(items: Any, position: int) -> Any:
    """Item `position` as a batch of one, floating-point tensors in float64."""
    if isinstance(items, Tensor):
        item = items[position : position + 1]
        return item.double() if item.is_floating_point() else item
    if isinstance(items, Mapping):
        return {name: single(column, position) for name, column in items.items()}
    return tuple(single(column, position) for column in items)


def reference(
    make: Make,
    items: Any,
    states: Sequence[State],
    *,
    rates: Sequence[float] = RATES,
    loss: Loss = logistic,
    train: Table = TRAIN,
    test: Table = TEST,
    alone: Alone = single,
    backward: bool = False,
) -> Right:
    """The right scores of `make()` at each of `states`; `backward` takes gradients by `.backward()`."""
    own, cross = torch.zeros(()), torch.zeros(())
    for state, rate in zip(states, rates, strict=True):
        module = make().double().eval()
        module.load_state_dict({name: _double(value) for name, value in state.items()})
        of_train, of_test = (
            torch.stack([_gradient(module, alone(items, a), alone(items, b), y, loss, backward) for a, b, y in rows])
            for rows in (train.rows(), test.rows())
        )
        own = own + rate * of_train.square().sum(dim=1)
        cross = cross + rate * of_train @ of_test.T
    return Right(own, cross)


def seeded(make: Make, seed: int = 0) -> nn.Module:
    """`make()` with weights that depend on `seed` alone; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def copied(state: Mapping[str, Any]) -> State:
    """A state dict with memory of its own."""
    return {name: value.clone() if isinstance(value, Tensor) else copy.deepcopy(value) for name, value in state.items()}


def two_states(module: nn.Module) -> list[State]:
    """The state of a module, and a second one with other weights."""
    first = copied(module.state_dict())
    second = {
        name: value * 0.7 + 0.01 if isinstance(value, Tensor) and value.is_floating_point() else copy.deepcopy(value)
        for name, value in first.items()
    }
    return [first, second]


def _gradient(module: nn.Module, first: Any, second: Any, target: int, loss: Loss, backward: bool) -> Tensor:
    """∇ℓ of one pair, flat over the trainable parameters, [parameters]."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    value = loss(module(first).reshape(()), module(second).reshape(()), target)
    if not value.requires_grad:
        gradients: Sequence[Tensor | None] = [None] * len(parameters)
    elif backward:
        module.zero_grad()
        value.backward()
        gradients = [parameter.grad for parameter in parameters]
    else:
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    flat = [
        torch.zeros_like(parameter) if gradient is None else gradient.to_dense()
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    return torch.cat([part.flatten() for part in flat]).detach()


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
