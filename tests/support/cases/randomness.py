"""Scorers and data sets that stay random in eval mode."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.support.cases.reference import noise


class Dropping(nn.Module):
    """`F.dropout` is active by default, whatever the mode of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Linear(5, 16), nn.Linear(16, 1)

    def forward(self, items: Tensor) -> Tensor:
        return self.out(F.dropout(self.body(items).tanh(), 0.5))[:, 0]


class Attending(nn.Module):
    """Attention with dropout that no mode turns off; items [items, positions, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(8, 24), nn.Linear(8, 1)

    def forward(self, items: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(*self.project(items).chunk(3, dim=-1), dropout_p=0.3)
        return self.out(attended.mean(dim=1))[:, 0]


class Jittering(nn.Module):
    """Noise on the hidden state, drawn in every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, items: Tensor) -> Tensor:
        hidden = self.body(items).tanh()
        return self.out(hidden + 0.3 * torch.randn_like(hidden))[:, 0]


class Augmented:
    """A map-style data set that adds noise to each item whenever it is read."""

    def __init__(self) -> None:
        self.items = noise(6, 5)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Tensor:
        return self.items[position] + 0.3 * torch.randn(5)
