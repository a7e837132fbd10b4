"""Scorers whose backward pass is unusual: hooks, functions of one's own, activation checkpointing, folded weights."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Hook = Callable[[Tensor], Tensor]


class Hooked(nn.Module):
    """A hook changes the gradient of the hidden state, as recurrences do against explosions."""

    def __init__(self, hook: Hook) -> None:
        super().__init__()
        self.body, self.out, self.hook = nn.Linear(5, 4), nn.Linear(4, 1), hook

    def forward(self, items: Tensor) -> Tensor:
        hidden = self.body(items).tanh()
        if hidden.requires_grad:
            hidden.register_hook(self.hook)
        return self.out(hidden)[:, 0]


def clamped(gradient: Tensor) -> Tensor:
    return gradient.clamp(-0.05, 0.05)


def normalised(gradient: Tensor) -> Tensor:
    return gradient / (gradient.norm() + 1e-6)


def halved(gradient: Tensor) -> Tensor:
    return gradient / 2


class Clamp(torch.autograd.Function):
    """The identity; its gradient is clamped."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values * 1.0

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return clamped(gradient)


class Reverse(torch.autograd.Function):
    """The identity; its gradient is turned and halved, as for domain adaptation."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -0.5 * gradient


class Product(torch.autograd.Function):
    """A linear layer with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, items: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(items, weight)
        return items @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        items, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ items, gradient.sum(dim=0)


class ThroughFunction(nn.Module):
    """`function` stands between the first layer and its activation."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.body, self.out, self.function = nn.Linear(5, 4), nn.Linear(4, 1), function

    def forward(self, items: Tensor) -> Tensor:
        return self.out(self.function.apply(self.body(items)).tanh())[:, 0]


class OwnLinear(nn.Module):
    """A function of one's own multiplies by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias, self.out = (
            nn.Parameter(torch.randn(4, 5)),
            nn.Parameter(torch.zeros(4)),
            nn.Linear(4, 1),
        )

    def forward(self, items: Tensor) -> Tensor:
        return self.out(Product.apply(items, self.weight, self.bias).tanh())[:, 0]


def with_module_hook() -> nn.Module:
    """A full backward hook on a module halves the gradient."""
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    module[1].register_full_backward_hook(lambda _, inward, __: (inward[0] * 0.5,))
    return module


class Checkpointed(nn.Module):
    """Activations are recomputed in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.out, self.reentrant = nn.Linear(5, 4), nn.Linear(4, 1), reentrant
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, items: Tensor) -> Tensor:
        return self.out(checkpoint(self.body, self.first(items), use_reentrant=self.reentrant))[:, 0]


class Folding(nn.Linear):
    """A low-rank update of a frozen weight, added to it in eval mode and taken out in train mode."""

    def __init__(self, inputs: int, outputs: int, *, fold: bool = True) -> None:
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)
        self.down, self.up = nn.Parameter(0.3 * torch.randn(2, inputs)), nn.Parameter(0.3 * torch.randn(outputs, 2))
        self.fold, self.folded = fold, False

    def train(self, mode: bool = True) -> "Folding":
        super().train(mode)
        if mode and self.folded:
            self.weight.data -= self.up.data @ self.down.data
            self.folded = False
        elif not mode and self.fold and not self.folded:
            self.weight.data += self.up.data @ self.down.data
            self.folded = True
        return self

    def forward(self, items: Tensor) -> Tensor:
        output = F.linear(items, self.weight, self.bias)
        return output if self.folded else output + items @ self.down.T @ self.up.T


def folding(*, fold: bool = True) -> nn.Module:
    return nn.Sequential(Folding(5, 4, fold=fold), nn.Tanh(), nn.Linear(4, 1))


class Detached(nn.Module):
    """Only the head receives a gradient; with `whole`, nothing does."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.body, self.head, self.whole = nn.Linear(5, 4), nn.Linear(4, 1), whole

    def forward(self, items: Tensor) -> Tensor:
        scores = self.head(self.body(items).tanh().detach())[:, 0]
        return scores.detach() if self.whole else scores


class WithoutGradient(nn.Module):
    """A forward that was only ever meant for inference."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 1)

    @torch.no_grad()
    def forward(self, items: Tensor) -> Tensor:
        return self.body(items)[:, 0]
