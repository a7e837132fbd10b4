"""What the benchmarks score: models, items and pairs, each a task with one or more checkpoints in memory."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks import texts
from tracin_func import Checkpoint, LogisticLoss, MarginRankingLoss, Pairs, Task

EVERY_PAIR_ACTIVE = MarginRankingLoss(1e4)


class ConvRanker(nn.Module):
    """Blocks of 3×3 convolution, BatchNorm, ReLU and pooling, the mean over space, two linear layers.

    Channels 32, 64, 128, 256 and hidden 128 make 421,825 parameters; 8, 16, 24 and 24 make 5,713.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128, 256), hidden: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((1, *channels), channels, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(channels[-1], hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, items: Tensor) -> Tensor:
        """Scores [items] of spectrograms [items, 1, height, width]."""
        scores: Tensor = self.head(self.blocks(items).mean(dim=(2, 3)))
        return scores.squeeze(-1)


class StridedRanker(nn.Module):
    """Four strided convolutions with BatchNorm, ReLU and pooling, the mean over space, two linear layers.

    422,337 parameters. Of items 1×129×126 its convolutions have 2,080, 128, 8 and 2 positions.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        shapes = ((1, 32, 5, (2, 4)), (32, 64, 3, 2), (64, 128, 3, 2), (128, 256, 3, 1))
        for inputs, outputs, size, stride in shapes:
            layers += [nn.Conv2d(inputs, outputs, size, stride, size // 2), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if outputs < 256 else []
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, items: Tensor) -> Tensor:
        """Scores [items] of spectrograms [items, 1, height, width]."""
        scores: Tensor = self.head(self.blocks(items).mean(dim=(2, 3)))
        return scores.squeeze(-1)


class Block(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[items, tokens, width] -> the same."""
        items, tokens, width = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(items, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(items, tokens, width)
        x = x + self.out(mixed)
        return x + self.mlp(self.norms[1](x))


class TransformerScorer(nn.Module):
    """Token ids [items, 64] -> scores [items]; 929,665 parameters."""

    def __init__(self, vocabulary: int = 1000, width: int = 128, depth: int = 4, tokens: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(self, items: Tensor) -> Tensor:
        """Scores [items]."""
        x = self.blocks(self.embedding(items) + self.position)
        scores: Tensor = self.head(self.norm(x).mean(dim=1))
        return scores.squeeze(-1)


def conv(items: int, shape: tuple[int, int], checkpoints: int = 1, model: nn.Module | None = None) -> Task:
    """All pairs of `items` spectrogram-like items of `shape`, scored by the 0.42M convolutional ranker."""
    torch.manual_seed(0)
    model = model or ConvRanker()
    coarse = torch.rand(items, 1, 9, 9)
    data = F.interpolate(coarse, size=shape, mode="bilinear") + 0.1 * torch.randn(items, 1, *shape)
    with torch.no_grad():
        model.train()(data[:16])  # running statistics that fit the items
    first, second = torch.triu_indices(items, items, 1)
    target = torch.where(torch.rand(len(first)) < 0.5, 1, -1)
    pairs = Pairs(first, second, target)
    test = pairs.select(torch.arange(min(5, len(pairs))))
    return Task(model.eval(), data, pairs, _states(model, checkpoints), test, EVERY_PAIR_ACTIVE)


def small(items: int, shape: tuple[int, int]) -> Task:
    """The same with 5,713 parameters, about as many as in a small convolutional ranker."""
    return conv(items, shape, model=ConvRanker((8, 16, 24), 12))


def sparse(items: int, shape: tuple[int, int], pairs: int, checkpoints: int, model: nn.Module) -> Task:
    """`pairs` random pairs of `items` items."""
    task = conv(items, shape, checkpoints, model)
    train = _drawn(0, items, pairs)
    return replace(task, train=train, test=train.select(torch.arange(min(5, pairs))))


def lab(shape: tuple[int, int], model: nn.Module | None = None, checkpoints: int = 6) -> Task:
    """A full job on recordings: 37 training and 17 test items, 566 drawn training pairs, 120 drawn test pairs."""
    task = conv(54, shape, checkpoints, model)
    train, test = (_drawn(first, last, count) for first, last, count in ((0, 37, 566), (37, 54, 120)))
    return replace(task, train=train, test=test)


def _drawn(first: int, last: int, count: int) -> Pairs:
    """`count` draws of two of the items first, ..., last − 1."""
    left = torch.randint(first, last, (count,))
    right = first + (left - first + torch.randint(1, last - first, (count,))) % (last - first)
    return Pairs(
        left, right, torch.where(left > right, 1, -1), ids=[f"draw {row} from {first}" for row in range(count)]
    )


def transformer(pairs: int) -> Task:
    """Chosen and rejected texts of 64 tokens, each in one pair, and five test pairs."""
    torch.manual_seed(0)
    model = TransformerScorer().eval()
    items = torch.randint(0, 1000, (2 * (pairs + 5), 64))
    first = torch.arange(0, len(items), 2)
    every = Pairs(first, first + 1, torch.ones(len(first)))
    train, test = every.select(torch.arange(pairs)), every.select(torch.arange(pairs, pairs + 5))
    return Task(model, items, train, _states(model, 1), test, LogisticLoss())


def mlp(items: int, checkpoints: int = 1) -> Task:
    """A table of 64 columns, two random pairs an item."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)).eval()
    first = torch.arange(items).repeat(2)
    second = (first + torch.randint(1, items, (2 * items,))) % items
    pairs = Pairs(first, second, torch.ones(len(first)))
    states = _states(model, checkpoints)
    return Task(model, torch.randn(items, 64), pairs, states, pairs.select(torch.arange(5)), LogisticLoss())


# name -> (the task, a tiny one for a smoke run, rounds)
WORKLOADS: dict[str, tuple[Callable[[], Task], Callable[[], Task], int]] = {
    "conv 54 × 129×126": (lambda: conv(54, (129, 126)), lambda: conv(7, (33, 30)), 9),
    "conv 200 × 129×126": (lambda: conv(200, (129, 126)), lambda: conv(7, (33, 30)), 9),
    "conv 54 × 1025×126": (lambda: conv(54, (1025, 126)), lambda: conv(6, (65, 30)), 3),
    "small conv 54 × 129×126": (lambda: small(54, (129, 126)), lambda: small(6, (33, 30)), 9),
    "lab, six checkpoints": (lambda: lab((129, 126)), lambda: lab((17, 18), checkpoints=2), 5),
    "lab, small ranker": (
        lambda: lab((129, 126), ConvRanker((8, 16, 24), 12)),
        lambda: lab((17, 18), ConvRanker((8, 16, 24), 12), checkpoints=2),
        9,
    ),
    "lab at 1025×188": (lambda: lab((1025, 188), checkpoints=1), lambda: lab((33, 30), checkpoints=1), 1),
    "transformer, chosen and rejected": (lambda: transformer(128), lambda: transformer(3), 9),
    "mlp 10,000": (lambda: mlp(10_000), lambda: mlp(40), 9),
}

# What a user calls, everything in it: name -> (the task, a tiny one, what is asked, rounds)
END_TO_END: dict[str, tuple[Callable[[], Task], Callable[[], Task], str, int]] = {
    f"strided {name}": (full, tiny, asked, rounds)
    for name, asked, rounds, full, tiny in (
        ("54, all pairs", "self", 9, lambda: _strided(54), lambda: _strided(7)),
        ("54, all pairs, six checkpoints", "self", 5, lambda: _strided(54, 6), lambda: _strided(7, 2)),
        ("200, all pairs", "self", 5, lambda: _strided(200), lambda: _strided(8)),
        ("1,000, 5,000 pairs, two checkpoints", "self", 3, lambda: _strided(1000, 2, 5000), lambda: _strided(9, 2, 20)),
        ("1,000, five test pairs", "influence", 3, lambda: _strided(1000, 2, 5000), lambda: _strided(9, 2, 20)),
        ("54 × 1025×126", "self", 3, lambda: _strided(54, shape=(1025, 126)), lambda: _strided(5)),
    )
}


END_TO_END |= {
    f"encoder, 300 texts, {asked}": (lambda: texts.encoder(300), lambda: texts.encoder(6), asked, 3)
    for asked in ("influence", "self")
}
END_TO_END |= {
    f"{name}, 300 texts": (partial(texts.family, name, 300), partial(texts.family, name, 6), "influence", 3)
    for name in (texts.FAMILIES if texts.has_transformers() else ())
}


def _strided(items: int, checkpoints: int = 1, pairs: int = 0, shape: tuple[int, int] = (129, 126)) -> Task:
    """All pairs, or `pairs` random ones, of items scored by the strided ranker."""
    torch.manual_seed(0)
    model = StridedRanker()
    return sparse(items, shape, pairs, checkpoints, model) if pairs else conv(items, shape, checkpoints, model)


def _states(model: nn.Module, checkpoints: int) -> list[Checkpoint]:
    """The model's state, and others a step of noise away."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = []
    for _ in range(checkpoints):
        states.append(Checkpoint({name: tensor.clone() for name, tensor in state.items()}, learning_rate=0.1))
        state = {
            name: tensor + 0.01 * tensor.std() * torch.randn_like(tensor) if tensor.ndim > 1 else tensor
            for name, tensor in state.items()
        }
    return states
