"""How a job is computed: device, precision, engine, sizes, and whom to tell."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tracin_func.errors import UsageError
from tracin_func.gradients.processes import ALONE, World
from tracin_func.task.method import (
    AGGREGATES,
    CHECKPOINT_WEIGHTS,
    NONE,
    NORMALIZATIONS,
    PRECONDITIONERS,
    TEST_FUNCTIONALS,
    Projection,
)

_log = logging.getLogger("tracin_func")

STORE_DTYPES = ("float32", "float16", "bfloat16")
CHOICES: dict[str, tuple[str | None, ...]] = {
    "test_functional": TEST_FUNCTIONALS,
    "aggregate": (None, *AGGREGATES),
    "normalize": NORMALIZATIONS,
    "checkpoint_weights": CHECKPOINT_WEIGHTS,
    "store_dtype": STORE_DTYPES,
    "preconditioner": PRECONDITIONERS,
}


def _ignore(told: Any) -> None:
    pass


@dataclass(frozen=True)
class Compute:
    """How to compute. What changes a score beyond rounding: those from `test_functional` to `projection`.

    Args:
        engine: `loop`, `pair`, `item`, `ghost` or `auto`.
        device: a torch device; the first there is of cuda, mps and cpu when None.
        dtype: floating-point type of weights and items; their own when None.
        batch_size: units differentiated together, or "auto" for a measurement within the memory budget.
        memory_budget: bytes; half of what is free when None.
        test_functional: `loss` or `score-margin`.
        weight_test_pairs: test pairs get the loss's population weights too (GHM); `score-margin` has none.
        aggregate: `mean`: one column, of the mean of the test pairs' functionals, repeats counted; None: a column each.
        normalize: `cosine`: influence divided by √(self(p) self(q)), the cosine of the gradients of all checkpoints
            as one vector, in [-1, 1].
        checkpoint_weights: `lr`, or `uniform`: every checkpoint weighs 1, whatever its learning rate.
        preconditioner: `adam`: gradients meet as Adam's steps take them, M_t = diag(η / (√v̂ + ε)), by the second
            moments that checkpoints hold; `none`: as those of SGD, M_t = diag η.
        params: regular expression; only parameters in whose name it is found are differentiated.
        projection: how gradients are projected to short rows; scores are then estimates with a standard error.
        store: folder that keeps the gradient rows of all items, for later runs and to go on after an end; None: none.
        store_dtype: `float32`, or `float16` or `bfloat16`, half the size, each row scaled by itself.
        shard: (i, n): only the i-th of n shares of the store's rows are made, and nothing is scored.
        world: the processes that work together.
        progress: called with the share of one checkpoint that is begun.
        notice: called with each sentence that the user should read; a warning of the logger `tracin_func`.
        planned: called with what was decided (the `engine` of provenance) before the first checkpoint is scored.
        evaluated: called with how the model of each checkpoint does on its pairs (`evaluation.Evaluation`), before the
            first is scored; None saves the forward passes.

    Raises:
        UsageError: a value outside what is listed.
    """

    engine: str = "auto"
    device: str | torch.device | None = None
    dtype: torch.dtype | None = None
    batch_size: int | Literal["auto"] = "auto"
    memory_budget: int | None = None
    test_functional: str = "loss"
    weight_test_pairs: bool = False
    aggregate: str | None = None
    normalize: str = "none"
    checkpoint_weights: str = "lr"
    preconditioner: Literal["none", "adam"] = "none"
    params: str | None = None
    projection: Projection = NONE
    store: Path | None = None
    store_dtype: str = "float32"
    shard: tuple[int, int] | None = None
    world: World = ALONE
    progress: Callable[[float], None] = _ignore
    notice: Callable[[str], None] = _log.warning
    planned: Callable[[Mapping[str, Any]], None] = _ignore
    evaluated: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                words = ", ".join(word for word in allowed if word is not None)
                raise UsageError(f"`{name}` should be one of {words}. Got {value!r}.")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise UsageError(f"`batch_size` should be at least 1, or 'auto'. Got {self.batch_size}.")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(f"`shard` should be (i, n) with i from 1 to n. Got {self.shard}.")
        if self.shard is not None and self.store is None:
            raise UsageError("`shard` was given without `store`. Expected the folder that all shards fill.")
        if self.memory_budget is not None and self.memory_budget < 1:
            raise UsageError(f"`memory_budget` should be a number of bytes. Got {self.memory_budget}.")
