"""How a job is computed: device, precision, engine, sizes, and whom to tell."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tracin_func.errors import UsageError
from tracin_func.terms import TEST_FUNCTIONALS

_log = logging.getLogger("tracin_func")


def _ignore(told: Any) -> None:
    pass


@dataclass(frozen=True)
class Compute:
    """How to compute; none of it changes a score beyond rounding, the two about test pairs apart.

    Args:
        engine: `loop`, `pair`, `item`, `ghost` or `auto`.
        device: a torch device; the first there is of cuda, mps and cpu when None.
        dtype: floating-point type of weights and items; their own when None.
        batch_size: units differentiated together, or "auto" for a measurement within the memory budget.
        memory_budget: bytes; half of what is free when None.
        test_functional: `loss` or `score-margin`.
        weight_test_pairs: test pairs get the loss's population weights too (GHM); `score-margin` has none.
        progress: called with the share of one checkpoint that is begun.
        notice: called with each sentence that the user should read; a warning of the logger `tracin_func`.
        planned: called with what was decided (the `engine` of provenance) before the first checkpoint is scored.

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
    progress: Callable[[float], None] = _ignore
    notice: Callable[[str], None] = _log.warning
    planned: Callable[[Mapping[str, Any]], None] = _ignore

    def __post_init__(self) -> None:
        if self.test_functional not in TEST_FUNCTIONALS:
            allowed = ", ".join(TEST_FUNCTIONALS)
            raise UsageError(f"`test_functional` should be one of {allowed}. Got {self.test_functional!r}.")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise UsageError(f"`batch_size` should be at least 1, or 'auto'. Got {self.batch_size}.")
        if self.memory_budget is not None and self.memory_budget < 1:
            raise UsageError(f"`memory_budget` should be a number of bytes. Got {self.memory_budget}.")
