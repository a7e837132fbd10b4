"""Scorers whose items interact only next to a rare companion."""

import torch
from torch import Tensor, nn

from tests.support.cases.reference import Table, noise


class Trimming(nn.Module):
    """Cuts its batch to the longest text in it and averages what is left, padding included."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.out = nn.Embedding(30, 6, padding_idx=0), nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        longest = int((tokens != 0).sum(dim=1).max())
        return self.out(self.body(self.embed(tokens[:, :longest])).tanh().mean(dim=1))[:, 0]


class Limiting(nn.Module):
    """Scales its whole batch down where any feature in it exceeds 10."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, items: Tensor) -> Tensor:
        return self.out(self.body(items / (items.abs().amax() / 10).clamp(min=1)).tanh())[:, 0]


def short_texts_and_a_long_one(count: int, long: int) -> Tensor:
    """Texts of 5 tokens, and one of 20 at position `long`, [count, 20]."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.zeros(count, 20, dtype=torch.long)
    tokens[:, :5] = torch.randint(1, 30, (count, 5), generator=generator)
    tokens[long] = torch.randint(1, 30, (20,), generator=generator)
    return tokens


def small_items_and_a_large_one(count: int, large: int) -> Tensor:
    items = noise(count, 5)
    items[large] *= 40
    return items


def neighbours(count: int) -> Table:
    """Each item with the next."""
    return Table(range(count - 1), range(1, count), [1 if row % 2 else -1 for row in range(count - 1)])
