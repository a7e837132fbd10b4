"""How a job is computed: settings that change no score beyond rounding."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tracin_func.errors import UsageError
from tracin_func.gradients.processes import ALONE, World
from tracin_func.gradients.protocol import Kernels

STORE_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Compute:
    """How to compute.

    Args:
        engine: `loop`, `pair`, `item`, `ghost` or `auto`.
        device: a torch device; the first available of cuda, mps and cpu when None.
        dtype: floating-point type of weights and items; their own when None.
        batch_size: units differentiated together, or "auto" for a measurement within the memory budget.
        memory_budget: bytes; half of the free memory when None.
        store: folder in which the gradient rows of all items are cached for later runs; no cache when None.
        store_dtype: `float32`, or `float16` or `bfloat16`, half the size, each row scaled by itself.
        shard: (i, n): compute only part i of n of the store's rows, without scoring.
        world: the processes that work together.
        kernels: the `run.engine["kernels"]` of an earlier result, to compute convolutions as it did; chosen for this
            machine when None.

    Raises:
        UsageError: a value that is not listed.
    """

    engine: str = "auto"
    device: str | torch.device | None = None
    dtype: torch.dtype | None = None
    batch_size: int | Literal["auto"] = "auto"
    memory_budget: int | None = None
    store: Path | None = None
    store_dtype: str = "float32"
    shard: tuple[int, int] | None = None
    world: World = ALONE
    kernels: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.store is not None:
            object.__setattr__(self, "store", Path(self.store))  # it may be a text
        if self.kernels is not None:
            object.__setattr__(self, "kernels", Kernels.read(self.kernels).describe())
        if self.store_dtype not in STORE_DTYPES:
            raise UsageError(f"`store_dtype` should be one of {', '.join(STORE_DTYPES)}. Got {self.store_dtype!r}.")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise UsageError(f'`batch_size` should be at least 1, or "auto". Got {self.batch_size}.')
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(f"`shard` should be (i, n) with i from 1 to n. Got {self.shard}.")
        if self.shard is not None and self.store is None:
            raise UsageError("`shard` needs `store`, the folder that all shards fill. Add it.")
        if self.memory_budget is not None and self.memory_budget < 1:
            raise UsageError(f"`memory_budget` should be a number of bytes. Got {self.memory_budget}.")
