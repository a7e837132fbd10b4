"""Ways in which a module keeps or reaches its weights, each as small as it can be; items are [items, 5].

Each names the route that a run takes: which module runs (a `private` copy or the user's `own`), and how transforms get
weights into it: in its own slots for one `call`, in a `copy` wherever it refers to them, or not at all (`none`).
"""

import threading
import types
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

Build = Callable[[], nn.Module]
KINDS: dict[str, tuple[str, str, Build]] = {}  # name -> which module runs, how transforms substitute, the module


class Kind(nn.Module):
    """A scorer of any parts and a function of them."""

    def __init__(self, function: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, items: Tensor) -> Tensor:
        return self.function(self, items)


def kind(name: str, module: str, substitution: str) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        KINDS[name] = module, substitution, build
        return build

    return add


def body(self: Any, items: Tensor) -> Tensor:
    hidden: Tensor = self.layer(items).tanh()
    return hidden.sum(dim=1)


def layered(**parts: Any) -> Kind:
    return Kind(body, layer=nn.Linear(5, 4), **parts)


@kind("plain layers", "private", "call")
def _() -> nn.Module:
    return layered()


@kind("a list", "private", "copy")
def _() -> nn.Module:
    module = Kind(lambda self, x: (x @ self.kept[0].T).tanh().sum(1), layer=nn.Linear(5, 4))
    module.kept = [module.layer.weight]
    return module


@kind("a dict of lists", "private", "copy")
def _() -> nn.Module:
    module = Kind(lambda self, x: (x @ self.kept["a"][0].T).tanh().sum(1), layer=nn.Linear(5, 4))
    module.kept = {"a": [module.layer.weight]}
    return module


@kind("a tuple", "private", "copy")
def _() -> nn.Module:
    module = Kind(lambda self, x: F.linear(x, *self.kept).tanh().sum(1), layer=nn.Linear(5, 4))
    module.kept = module.layer.weight, module.layer.bias
    return module


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight


@kind("an object with slots", "private", "copy")
def _() -> nn.Module:
    module = Kind(lambda self, x: (x @ self.kept.weight.T).tanh().sum(1), layer=nn.Linear(5, 4))
    module.kept = Slotted(module.layer.weight)
    return module


@kind("a partial", "private", "copy")
def _() -> nn.Module:
    module = Kind(lambda self, x: self.apply_layer(x).tanh().sum(1), layer=nn.Linear(5, 4))
    module.apply_layer = partial(F.linear, weight=module.layer.weight, bias=module.layer.bias)
    return module


class Described(nn.Module):
    """A property that reads a private reference."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)
        self._kept = [self.layer.weight]

    @property
    def weight(self) -> Tensor:
        return self._kept[0]

    def forward(self, items: Tensor) -> Tensor:
        return (items @ self.weight.T).tanh().sum(dim=1)


@kind("a property", "private", "copy")
def _() -> nn.Module:
    return Described()


class Helper:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, items: Tensor) -> Tensor:
        return F.linear(items, self.module.layer.weight)


@kind("a helper object that holds the module", "private", "call")
def _() -> nn.Module:
    module = Kind(lambda self, x: self.help(x).tanh().sum(1), layer=nn.Linear(5, 4))
    module.help = Helper(module)
    return module


@kind("a closure", "own", "none")
def _() -> nn.Module:
    module = Kind(lambda self, x: self.project(x).tanh().sum(1), layer=nn.Linear(5, 4))
    weight = module.layer.weight
    module.project = lambda x: x @ weight.T
    return module


@kind("a default argument", "own", "none")
def _() -> nn.Module:
    module = Kind(lambda self, x: self.project(x).tanh().sum(1), layer=nn.Linear(5, 4))
    module.project = lambda x, weight=module.layer.weight: x @ weight.T
    return module


@kind("a weak reference", "own", "call")
def _() -> nn.Module:
    module = Kind(lambda self, x: self.parent().layer(x).tanh().sum(1), layer=nn.Linear(5, 4))
    module.parent = weakref.ref(module)
    return module


@kind("a forward replaced by a bound method", "private", "call")
def _() -> nn.Module:
    module = layered()
    module.layer.forward = types.MethodType(lambda self, x: F.linear(x, 2 * self.weight, self.bias), module.layer)
    return module


@kind("a forward replaced by a closure", "own", "call")
def _() -> nn.Module:
    module = layered()
    layer = module.layer
    layer.forward = lambda x: F.linear(x, 2 * layer.weight, layer.bias)
    return module


@kind("a `.data` alias", "own", "none")
def _() -> nn.Module:
    module = Kind(lambda self, x: self.layer(x).tanh().sum(1) * self.scale.sum(), layer=nn.Linear(5, 4))
    module.scale = module.layer.bias.data
    return module


@kind("a view of one flat parameter, made in forward", "private", "call")
def _() -> nn.Module:
    return Kind(lambda self, x: (x @ self.flat.view(5, 4)).tanh().sum(1), flat=nn.Parameter(torch.randn(20)))


@kind("the old weight_norm", "own", "call")
def _() -> nn.Module:
    return Kind(body, layer=torch.nn.utils.weight_norm(nn.Linear(5, 4)))


@kind("weight_norm by parametrisation", "private", "call")
def _() -> nn.Module:
    return Kind(body, layer=parametrizations.weight_norm(nn.Linear(5, 4)))


@kind("spectral norm by parametrisation", "private", "call")
def _() -> nn.Module:
    return Kind(body, layer=parametrizations.spectral_norm(nn.Linear(5, 4)))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@kind("a parametrisation of one's own", "private", "call")
def _() -> nn.Module:
    module = layered()
    parametrize.register_parametrization(module.layer, "weight", Doubled())
    return module


@kind("a pruned layer", "own", "call")
def _() -> nn.Module:
    module = layered()
    prune.l1_unstructured(module.layer, "weight", 0.3)
    return module


@kind("tied weights", "private", "call")
def _() -> nn.Module:
    module = Kind(lambda self, x: self.out(self.layer(x).tanh()).sum(1), layer=nn.Linear(5, 5), out=nn.Linear(5, 5))
    module.out.weight = module.layer.weight
    return module


@kind("one module under two names", "private", "call")
def _() -> nn.Module:
    layer = nn.Linear(5, 5)
    return Kind(lambda self, x: self.second(self.layer(x).tanh()).sum(1), layer=layer, second=layer)


class Folding(nn.Linear):
    """Adds its adapter to the frozen weight in eval mode, and takes it off in train mode."""

    def __init__(self) -> None:
        super().__init__(5, 4)
        self.weight.requires_grad_(False)
        self.adapter, self.folded = nn.Parameter(torch.randn(4, 5)), False

    def train(self, mode: bool = True) -> "Folding":
        if self.folded == mode:
            self.weight.data += -self.adapter.data if mode else self.adapter.data
            self.folded = not mode
        super().train(mode)
        return self

    def forward(self, items: Tensor) -> Tensor:
        return super().forward(items) + (0 if self.folded else F.linear(items, self.adapter))


@kind("adapters that fold themselves", "private", "call")
def _() -> nn.Module:
    return Kind(body, layer=Folding())


class Running(nn.Module):
    """A buffer that every forward updates in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)
        self.register_buffer("mean", torch.ones(5))

    def forward(self, items: Tensor) -> Tensor:
        scores = self.layer(items - self.mean).tanh().sum(dim=1)
        with torch.no_grad():
            self.mean.mul_(0.5)
        return scores


@kind("a buffer that forward updates", "private", "call")
def _() -> nn.Module:
    return Running()


@kind("a weight that forward keeps", "private", "call")
def _() -> nn.Module:
    def keeping(self: Any, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = 2 * self.layer.weight
        return (x @ self.kept.T).tanh().sum(1)

    return Kind(keeping, layer=nn.Linear(5, 4), kept=None)


@kind("an LSTM", "private", "call")
def _() -> nn.Module:
    return Kind(lambda self, x: self.cell(x[:, :, None])[0].sum((1, 2)), cell=nn.LSTM(1, 3, batch_first=True))


@kind("a GRU", "private", "call")
def _() -> nn.Module:
    return Kind(lambda self, x: self.cell(x[:, :, None])[0].sum((1, 2)), cell=nn.GRU(1, 3, batch_first=True))


@kind("attention", "private", "call")
def _() -> nn.Module:
    def attend(self: Any, x: Tensor) -> Tensor:
        steps = x[:, :, None] * self.widen
        return self.attend(steps, steps, steps)[0].sum((1, 2))

    return Kind(attend, widen=nn.Parameter(torch.randn(4)), attend=nn.MultiheadAttention(4, 2, batch_first=True))


@kind("batch normalisation", "private", "call")
def _() -> nn.Module:
    return Kind(lambda self, x: self.norm(self.layer(x)).tanh().sum(1), layer=nn.Linear(5, 4), norm=nn.BatchNorm1d(4))


@kind("a hook that reads a weight", "own", "call")
def _() -> nn.Module:
    module = layered()
    module.layer.register_forward_hook(lambda _, __, output: output * module.layer.bias)
    return module


@kind("a lock, which cannot be copied", "own", "call")
def _() -> nn.Module:
    return layered(lock=threading.Lock())


@kind("frozen parts", "private", "call")
def _() -> nn.Module:
    module = Kind(lambda self, x: self.out(self.layer(x).tanh())[:, 0], layer=nn.Linear(5, 4), out=nn.Linear(4, 1))
    module.layer.requires_grad_(False)
    return module


@kind("the module itself in a closure", "own", "call")
def _() -> nn.Module:
    module = Kind(lambda self, x: F.linear(x, self.kept().layer.weight).tanh().sum(1), layer=nn.Linear(5, 4))
    module.kept = lambda: module
    return module


@kind("a hook on a parameter", "own", "none")
def _() -> nn.Module:
    module = layered()
    module.layer.weight.register_hook(lambda gradient: 2 * gradient)
    return module


@kind("a hook that clamps what few items get", "private", "call")
def _() -> nn.Module:
    def clamped(self: Any, x: Tensor) -> Tensor:
        hidden: Tensor = self.layer(x).tanh()
        few = (x[:, :1] + 0.3).abs() < 0.1
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: torch.where(few, gradient.clamp(-0.1, 0.1), gradient))
        return hidden.sum(dim=1)

    return Kind(clamped, layer=nn.Linear(5, 4))


class Clamped(torch.autograd.Function):
    """Passes gradients of at most 0.1, also below a transform."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp(-0.1, 0.1)


@kind("an autograd function that clamps", "private", "call")
def _() -> nn.Module:
    return Kind(lambda self, x: Clamped.apply(self.layer(x).tanh()).sum(1), layer=nn.Linear(5, 4))


@kind("a hook that takes the mean over the batch", "private", "call")
def _() -> nn.Module:
    def averaged(self: Any, x: Tensor) -> Tensor:
        hidden: Tensor = self.layer(x)
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: gradient.mean(0, keepdim=True).expand_as(gradient))
        return hidden.tanh().sum(dim=1)

    return Kind(averaged, layer=nn.Linear(5, 4))
