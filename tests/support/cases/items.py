"""What people hand in as items, scores and losses."""

import collections
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Encoding(collections.UserDict[str, Any]):
    """What a tokenizer returns: a mapping that is no dict."""


class Output(collections.OrderedDict[str, Any]):
    """What a language model returns: a subclass of OrderedDict."""


class Frame:
    """A data frame: columns by name, so that `frame[0]` is a KeyError."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, name: Any) -> Any:
        raise KeyError(name)


class PandasFrame(Frame):
    """A data frame as libraries mark it; its columns may be numbers."""

    def __getitem__(self, name: Any) -> Any:
        return torch.zeros(5)

    def __dataframe__(self) -> None: ...


class Failing:
    """A dataset that cannot load its items."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, position: int) -> Any:
        raise ValueError("no such file:\n  x.png")


class Unsized:
    """A sparse matrix of scipy: its length is refused."""

    def __len__(self) -> int:
        raise TypeError("sparse array length is ambiguous; use getnnz()")

    def __getitem__(self, position: int) -> Any:
        return torch.zeros(5)


class Text(nn.Module):
    """Scores a dict of token ids and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 1)

    def forward(self, batch: Any) -> Tensor:
        return self.out((self.embed(batch["input_ids"]) * batch["attention_mask"][..., None]).sum(dim=1))[:, 0]


class Returning(nn.Module):
    """A linear scorer that returns `pack` of its scores [items, 1]."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.pack = nn.Linear(5, 1), pack

    def forward(self, items: Tensor) -> Any:
        return self.pack(self.body(items))


def encoded() -> dict[str, Tensor]:
    """Six texts of three tokens."""
    tokens = torch.randint(0, 9, (6, 3), generator=torch.Generator().manual_seed(2))
    return {"input_ids": tokens, "attention_mask": torch.ones(6, 3, dtype=torch.long)}


def branching(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """A loss of one pair, with an `if` on its scores."""
    if first > second:
        return 1 - target * (first - second)
    return first - second


class Scaled:
    """A loss whose class needs an argument."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, first: Tensor, second: Tensor, target: Tensor) -> Tensor:
        return self.scale * target * (second - first)
