"""Scorers with buffers, sparse gradients, half precision or an unusual forward."""

import torch
from torch import Tensor, nn

TOKENS = torch.tensor([[1, 2, 2], [3, 4, 5], [2, 2, 6], [5, 1, 1], [6, 1, 1], [4, 6, 3]])


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))


class Running(nn.Module):
    """Subtracts a running mean, which each forward updates in place."""

    def __init__(self, *, update: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(5))
        self.body, self.out, self.update = nn.Linear(5, 4), nn.Linear(4, 1), update

    def forward(self, items: Tensor) -> Tensor:
        scores = self.out(self.body(items - self.mean).tanh())[:, 0]
        if self.update:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * items.mean(dim=0))
        return scores


class Counting(nn.Module):
    """Adds the number of forwards so far, a buffer, to every score."""

    def __init__(self, *, update: bool = True) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.body, self.out, self.update = nn.Linear(5, 4), nn.Linear(4, 1), update

    def forward(self, items: Tensor) -> Tensor:
        scores = self.out((self.body(items) + 0.1 * self.calls).tanh())[:, 0]
        if self.update:
            self.calls += 1
        return scores


# Embeddings with sparse gradients


class Factors(nn.Module):
    """The product of a user's and an item's factors, and a bias; tokens [items, 3]."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        self.factors, self.bias = nn.Embedding(7, 3, sparse=sparse), nn.Embedding(7, 1, sparse=sparse)

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.factors(tokens[:, 0]) * self.factors(tokens[:, 1])).sum(dim=1) + self.bias(tokens[:, 2])[:, 0]


class Bag(nn.Module):
    """A sum of embeddings."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        self.embed, self.out = nn.EmbeddingBag(7, 3, mode="sum", sparse=sparse), nn.Linear(3, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens).tanh())[:, 0]


class Session(nn.Module):
    """A recurrence over the items of a session."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(7, 3, sparse=sparse), nn.GRU(3, 4, batch_first=True)
        self.out = nn.Linear(4, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.gru(self.embed(tokens))[0][:, -1])[:, 0]


# Half precision


def deep_sigmoid() -> nn.Module:
    """Four layers with small weights: gradients of the first underflow in half precision."""
    module = nn.Sequential(
        *(nn.Linear(5, 32), nn.Sigmoid(), nn.Linear(32, 32), nn.Sigmoid()),
        *(nn.Linear(32, 32), nn.Sigmoid(), nn.Linear(32, 1)),
    )
    for parameter in module.parameters():
        parameter.data *= 0.05
    return module


class Quantised(nn.Module):
    """A frozen int8 weight beside an adapter."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randint(-90, 90, (4, 5), dtype=torch.int8)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(torch.rand(4, 1) * 0.02, requires_grad=False)
        self.down, self.up, self.out = nn.Linear(5, 2, bias=False), nn.Linear(2, 4, bias=False), nn.Linear(4, 1)

    def forward(self, items: Tensor) -> Tensor:
        frozen = items @ (self.weight.to(items.dtype) * self.scale).T
        return self.out((frozen + self.up(self.down(items))).tanh())[:, 0]


# Unusual forwards


class Clamped(nn.Module):
    """Keeps a weight positive: in place, or by assigning `.data`."""

    def __init__(self, *, assign: bool) -> None:
        super().__init__()
        self.body, self.out, self.assign = nn.Linear(5, 4), nn.Linear(4, 1), assign

    def forward(self, items: Tensor) -> Tensor:
        if self.assign:
            self.body.weight.data = self.body.weight.data.clamp(min=0)
        else:
            self.body.weight.data.clamp_(min=0)
        return self.out(self.body(items).tanh())[:, 0]


class Spectral(nn.Module):
    """A Fourier transform with a learnt window and filters; waveforms [items, samples]."""

    def __init__(self) -> None:
        super().__init__()
        self.window, self.filters = nn.Parameter(torch.hann_window(32) + 0.1), nn.Parameter(torch.rand(17, 6))
        self.out = nn.Linear(6, 1)

    def forward(self, waves: Tensor) -> Tensor:
        spectrum = torch.stft(waves, 32, 16, window=self.window, return_complex=True, center=False)
        return self.out(torch.log1p(spectrum.abs().square().transpose(1, 2) @ self.filters).mean(dim=1))[:, 0]


class Radial(nn.Module):
    """Distances to learnt centres."""

    def __init__(self) -> None:
        super().__init__()
        self.centres, self.out = nn.Parameter(torch.randn(7, 5)), nn.Linear(7, 1)

    def forward(self, items: Tensor) -> Tensor:
        return self.out(torch.exp(-torch.cdist(items, self.centres)))[:, 0]


class Packed(nn.Module):
    """An LSTM over packed sequences; items are a dict of `steps` and `lengths`."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            batch["steps"], batch["lengths"], batch_first=True, enforce_sorted=False
        )
        return self.out(self.lstm(packed)[1][0][-1])[:, 0]


class Parallel(nn.Module):
    """`DataParallel` around a part."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.DataParallel(nn.Linear(5, 4)), nn.Linear(4, 1)

    def forward(self, items: Tensor) -> Tensor:
        return self.out(self.body(items).tanh())[:, 0]


class Energy(nn.Module):
    """The score is the squared gradient of an energy by its input."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, items: Tensor) -> Tensor:
        with torch.enable_grad():
            items = items.detach().requires_grad_()
            energy = self.out(self.body(items).tanh()).sum()
            (slope,) = torch.autograd.grad(energy, items, create_graph=True)
        return slope.square().sum(dim=1)


class Pool(nn.Module):
    """A mean of embeddings with the options of `nn.Embedding`."""

    def __init__(self, **options: float) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 3, **options), nn.Linear(3, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens).tanh().mean(dim=1))[:, 0]


class Compiled(nn.Module):
    """`torch.compile` around a part; `wrap` is the identity for the reference."""

    def __init__(self, *, compiled: bool) -> None:
        super().__init__()
        body = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
        self.body = torch.compile(body, backend="eager") if compiled else body
        self.head = nn.Linear(4, 1)

    def forward(self, items: Tensor) -> Tensor:
        return self.head(self.body(items))


# A large attribute


class CountingDict(dict[str, int]):
    """A dict that counts how often its content is copied or walked through."""

    walks = 0

    def copy(self) -> "CountingDict":
        self.walks += 1
        return CountingDict(self)

    def __iter__(self):
        self.walks += 1
        return super().__iter__()

    def keys(self):
        self.walks += 1
        return super().keys()

    def items(self):
        self.walks += 1
        return super().items()


class Vocabulary(nn.Module):
    """Keeps its vocabulary on the module and scores by a recurrence over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.word_ids = CountingDict({f"word {number}": number for number in range(50)})
        self.embed, self.gru, self.out = nn.Embedding(50, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.gru(self.embed(tokens))[0][:, -1])[:, 0]
