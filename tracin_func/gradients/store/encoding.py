"""Rows as they are stored: float32 as it is, half precision with a power of two of its own for each row."""

import torch
from torch import Tensor

ROW_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# The largest magnitude of a stored row is in [2^lift, 2^(lift+1)). Half floats have 15 powers of two above 1 and 14
# below it: near the top of that range the small entries of a row keep their digits too.
_LIFT = {torch.float16: 14, torch.bfloat16: 0}
_LOWEST = -126  # the exponent of the smallest normal float32: a smaller scale could be rounded to zero on the way


def unfit(rows: Tensor, dtype: torch.dtype) -> tuple[int, str] | None:
    """The first of the rows [n, ...] that is not finite as `dtype`, and why; None where all are fit."""
    bad = ~torch.isfinite(rows.to(dtype)).reshape(len(rows), -1).all(dim=1)
    if not bool(bad.any()):
        return None
    first = int(torch.nonzero(bad)[0])
    row = rows[first]
    if bool(torch.isnan(row).any()):
        return first, "is NaN"
    return first, "is infinite" if bool(torch.isinf(row).any()) else f"is too large for {dtype}".replace("torch.", "")


def encode(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Rows [n, width] float32 as they are stored, and their scales [n] float32 (None for float32 rows).

    A scale is a power of two, so that the division by it rounds nothing; that of a row of zeros is 0. Stored rows
    cannot overflow, whatever the magnitudes, and the rounding is that of the half type at the size of each entry.
    """
    if dtype == torch.float32:
        return rows, None
    largest = rows.abs().amax(dim=1)
    exponent = (torch.frexp(largest).exponent - 1 - _LIFT[dtype]).clamp(min=_LOWEST)
    scale = ((exponent + 127) << 23).to(torch.int32).view(torch.float32)  # 2^exponent, exactly: the bits of a float32
    return (rows / scale[:, None]).to(dtype), torch.where(largest > 0, scale, 0.0)


def decode(stored: Tensor, scales: Tensor, out: Tensor) -> Tensor:
    """Rows of half precision [n, width] as float32, from what `encode` gave; written into `out` and returned."""
    rows = out.copy_(stored).mul_(scales[:, None])
    if bool((scales >= 2.0 ** (127 - _LIFT[stored.dtype])).any()):
        # What is within a rounding of the largest float32 is stored as 2^128, which float32 does not have.
        limit = torch.finfo(torch.float32).max
        rows.clamp_(-limit, limit)
    return rows
