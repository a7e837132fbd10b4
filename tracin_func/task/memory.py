"""Which tensors share memory."""

from typing import Any

from torch import Tensor


def address_of(value: Any) -> int:
    """Where the storage of a tensor begins; 0 where there is none: meta, sparse and lazy tensors, other values."""
    try:
        return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else 0
    except (RuntimeError, ValueError, NotImplementedError):
        return 0
