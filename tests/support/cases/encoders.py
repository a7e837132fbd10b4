"""Text rankers of `nn.TransformerEncoder`: without gradients torch may take a path that cuts padding off."""

from typing import Literal

import torch
from torch import Tensor, nn

Pool = Literal["first", "masked", "mean", "max"]
POOLS: tuple[Pool, ...] = ("first", "masked", "mean", "max")


class Encoder(nn.Module):
    """A padded text [items, positions] -> a score; `mean` and `max` also see padded positions."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head, self.pool = nn.Linear(8, 1), pool

    def forward(self, tokens: Tensor) -> Tensor:
        padded = tokens == 0
        hidden = self.encoder(self.embed(tokens), src_key_padding_mask=padded)
        return self.head(self.pooled(hidden, ~padded))[:, 0]

    def pooled(self, hidden: Tensor, kept: Tensor) -> Tensor:
        if self.pool == "first":
            return hidden[:, 0]
        if self.pool == "mean":
            return hidden.mean(dim=1)
        if self.pool == "max":
            return hidden.amax(dim=1)
        kept = kept[:, : hidden.shape[1], None]
        return (hidden * kept).sum(dim=1) / kept.sum(dim=1)


class Reward(nn.Module):
    """A small reward model, normalised first, no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(16, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.encoder(self.embed(tokens)).mean(dim=1))[:, 0]


def texts(count: int = 6, width: int = 7, seed: int = 3) -> Tensor:
    """Texts of 2 to `width` − 2 tokens, right-padded with 0, [count, width]."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(count, width, dtype=torch.long)
    for row, length in zip(tokens, torch.randint(2, width - 1, (count,), generator=generator).tolist(), strict=True):
        row[:length] = torch.randint(1, 11, (length,), generator=generator)
    return tokens


def nearly_equal_texts(count: int = 8) -> Tensor:
    """Texts 2k and 2k + 1 share all tokens but the last two, [2 · count, 22]."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, 50, (count, 20), generator=generator).repeat_interleave(2, dim=0)
    return torch.cat([prompts, torch.randint(0, 50, (2 * count, 2), generator=generator)], dim=1)
