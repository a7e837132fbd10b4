"""Scorers whose forward reaches a registered parameter by another route than its registered name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.support.cases.reference import noise


class Listed(nn.Module):
    """`forward` reads a plain list of the registered weights."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = []
        for layer, shape in enumerate([(4, 5), (1, 4)]):
            weight = nn.Parameter(0.5 * torch.randn(shape))
            self.register_parameter(f"weight_{layer}", weight)
            self.kept.append(weight)

    def forward(self, items: Tensor) -> Tensor:
        first, second = self.kept
        return ((items @ first.T).tanh() @ second.T)[:, 0]


class Keyed(nn.Module):
    """One of several parameters comes from a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 1)
        self.scale = nn.Parameter(torch.rand(6) + 0.5)
        self.extras = {"scale": self.scale}

    def forward(self, items: Tensor) -> Tensor:
        return self.head(self.body(items).tanh() * self.extras["scale"])


class Flat(NamedTuple):
    inward: Tensor
    onward: Tensor


class Recurrent(nn.Module):
    """A recurrence written out, its weights in a named tuple; items [items, steps, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.onward, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.flat = Flat(self.inward.weight, self.onward.weight)

    def forward(self, items: Tensor) -> Tensor:
        hidden = items.new_zeros(len(items), 4)
        for step in items.unbind(dim=1):
            inward = step @ self.flat.inward.T + self.inward.bias
            hidden = torch.tanh(inward + hidden @ self.flat.onward.T + self.onward.bias)
        return self.out(hidden)[:, 0]


class Closed(nn.Module):
    """The output is tied to the input by a function that captured the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 5, bias=False)
        weight = self.embed.weight
        self.project: Callable[[Tensor], Tensor] = lambda hidden: hidden @ weight

    def forward(self, items: Tensor) -> Tensor:
        return self.project(self.embed(items).tanh()).sum(dim=1)


class Described(nn.Module):
    """A property returns the weight from a private list."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 4), nn.Linear(4, 1)
        self.kept = [self.head.weight]

    @property
    def direction(self) -> Tensor:
        return self.kept[0][0]

    def forward(self, items: Tensor) -> Tensor:
        return self.body(items).tanh() @ self.direction + self.head.bias


class Readout:
    """A helper that is no module and holds a weight."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, hidden: Tensor) -> Tensor:
        return hidden @ self.weight.T


class Helped(nn.Module):
    """A helper object applies the last weight."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 4), nn.Linear(4, 1, bias=False)
        self.readout = Readout(self.head.weight)

    def forward(self, items: Tensor) -> Tensor:
        return self.readout(self.body(items).tanh())[:, 0]


class Nested(nn.Module):
    """A module in a plain list, hidden from `modules()`, shares its weight with a registered one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 4), nn.Linear(4, 1)
        hidden = nn.Linear(4, 1)
        hidden.weight, hidden.bias = self.head.weight, self.head.bias
        self.hidden = [hidden]

    def forward(self, items: Tensor) -> Tensor:
        return self.hidden[0](self.body(items).tanh())[:, 0]


class ByName(nn.Module):
    """A dict of names, not of tensors: `getattr` finds the registered weight, as is right."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 4), nn.Linear(4, 1)
        self.layers = ["body", "head"]

    def forward(self, items: Tensor) -> Tensor:
        first, second = (getattr(self, name) for name in self.layers)
        return second(first(items).tanh())[:, 0]


# Each with the parameters that a refusal may name.
ALIASES: dict[type[nn.Module], tuple[str, ...]] = {
    Listed: ("weight_0", "weight_1"),
    Keyed: ("scale",),
    Recurrent: ("inward.weight", "onward.weight"),
    Closed: ("embed.weight",),
    Described: ("head.weight",),
    Helped: ("head.weight",),
    Nested: ("head.weight", "head.bias"),
}


def items_of(kind: type[nn.Module]) -> Any:
    return noise(6, 4, 3) if kind is Recurrent else noise(6, 5)
