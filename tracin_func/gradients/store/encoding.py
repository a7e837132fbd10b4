"""Stored rows: float32 as it is, half precision with its own power of two for each row."""

import torch
from torch import Tensor

ROW_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# The largest magnitude of a stored row is in [2^lift, 2^(lift+1)). Half floats have 15 powers of two above 1 and 14
# below it: near the top of that range the small entries of a row keep their digits too.
_LIFT = {torch.float16: 14, torch.bfloat16: 0}
_LOWEST = -126  # the exponent of the smallest normal float32: a smaller scale could be rounded to zero on the way


def unfit(rows: Tensor, dtype: torch.dtype) -> tuple[int, str] | None:
    """The first of the rows [n, ...] that is not finite as `dtype`, and why; None where all are finite."""
    bad = ~torch.isfinite(rows.to(dtype)).reshape(len(rows), -1).all(dim=1)
    if not bool(bad.any()):
        return None
    first = int(torch.nonzero(bad)[0])
    too_large = bool(torch.isfinite(rows[first]).all())
    return first, f"is too large for {str(dtype).removeprefix('torch.')}" if too_large else "is NaN or infinite"


def encode(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Rows [n, width] float32 as they are stored, and their scales [n] float32 (None for float32 rows).

    A scale is a power of two, so that dividing by it does not round; for a row of zeros it is 0. Stored rows cannot
    overflow, and each entry is rounded as the half type rounds at its size.
    """
    if dtype == torch.float32:
        return rows, None
    largest = rows.abs().amax(dim=1)
    exponent = (torch.frexp(largest).exponent - 1 - _LIFT[dtype]).clamp(min=_LOWEST)
    scale = ((exponent + 127) << 23).to(torch.int32).view(torch.float32)  # 2^exponent, exactly: the bits of a float32
    return (rows / scale[:, None]).to(dtype), torch.where(largest > 0, scale, 0.0)


def decode(stored: Tensor, scales: Tensor, out: Tensor) -> Tensor:
    """The rows that `encode` stored in half precision [n, width] as float32, written into `out` and returned."""
    rows = out.copy_(stored).mul_(scales[:, None])
    if bool((scales >= 2.0 ** (127 - _LIFT[stored.dtype])).any()):
        # What is within a rounding of the largest float32 is stored as 2^128, which float32 does not have.
        limit = torch.finfo(torch.float32).max
        rows.clamp_(-limit, limit)
    return rows
