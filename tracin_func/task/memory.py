"""Which tensors share memory."""

from typing import Any

from torch import Tensor


def address_of(value: Any) -> int:
    """The address of a tensor's storage; 0 for meta, sparse and lazy tensors, and other values."""
    try:
        return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else 0
    except (RuntimeError, ValueError, NotImplementedError):
        return 0
