"""Pairs of twenty-four items, by what they connect; the items are numbered at random."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

UNITS = 24


def _numbered(pairs: Iterable[tuple[int, int]]) -> Tensor:
    """[pairs, 2], in a random order and numbering."""
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor(list(pairs))
    numbers = torch.randperm(int(index.max()) + 1, generator=generator)
    return numbers[index][torch.randperm(len(index), generator=generator)]


def _random(pairs: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    every = torch.combinations(torch.arange(UNITS))
    return every[torch.randperm(len(every), generator=generator)[:pairs]]


def _clique(units: Iterable[int]) -> list[tuple[int, int]]:
    numbers = list(units)
    return [(one, two) for one in numbers for two in numbers if one < two]


GRAPHS: dict[str, Callable[[], Tensor]] = {
    "star": lambda: _numbered((0, leaf) for leaf in range(1, UNITS)),
    "path": lambda: _numbered((unit, unit + 1) for unit in range(UNITS - 1)),
    "bipartite with a side of six": lambda: _numbered((one, two) for one in range(6) for two in range(6, UNITS)),
    "random": lambda: _random(72),
    "complete": lambda: _numbered(_clique(range(UNITS))),
    "cliques of six": lambda: _numbered(
        pair for start in range(0, UNITS, 6) for pair in _clique(range(start, start + 6))
    ),
    "pairs of their own": lambda: _numbered((unit, unit + 1) for unit in range(0, UNITS, 2)),
}
