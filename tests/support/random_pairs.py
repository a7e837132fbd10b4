"""Random pairs over a few items with names."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

import tracin_func as ti

ITEMS = 40
NAMES = [f"item_{position:02d}" for position in range(ITEMS)]


def table(pairs: int, seed: int = 0, **columns: bool) -> ti.Pairs:
    """Random pairs, with a weight, margin or count of their own where it is asked for."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, ITEMS, pairs)
    second = (first + rng.integers(1, ITEMS, pairs)) % ITEMS
    own: dict[str, Any] = {
        "weight": rng.choice([0.0, 0.5, 2.0, 0.3], pairs),
        "margin": rng.normal(size=pairs),
        "count": rng.integers(1, 9, pairs),
    }
    chosen = {name: own[name] for name, asked in columns.items() if asked}
    return ti.Pairs(first, second, rng.choice([-1, 1], pairs), **chosen)


def write(path: Path, pairs: ti.Pairs, *, ids: bool = True, rows: int = 100, **more: Any) -> Path:
    """A Parquet file of pairs."""
    names = pyarrow.array(NAMES)
    content: dict[str, Any] = {
        "first": names.take(pyarrow.array(pairs.first.numpy())) if ids else pairs.first.int().numpy(),
        "second": names.take(pyarrow.array(pairs.second.numpy())) if ids else pairs.second.numpy().astype(np.uint16),
        "target": pairs.target.numpy(),
    }
    for name in ("weight", "margin", "count"):
        if (own := getattr(pairs, name)) is not None:
            content[name] = own.numpy()
    content |= more
    pyarrow.parquet.write_table(pyarrow.table(content), path, row_group_size=rows)
    return path
