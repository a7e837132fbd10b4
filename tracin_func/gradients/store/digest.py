"""Digests of weights and items: whether two runs speak of the same."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.gradients.store.disk import bytes_of

LARGEST_SPREAD = 256  # items of a dataset that are looked at


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all weights, in any order of the names."""
    digest = hashlib.sha256()
    _feed(digest, weights, "weights")
    return digest.hexdigest()


def items_digest(items: Any, ids: Sequence[str] | None = None) -> str:
    """SHA-256 of the items and their ids.

    A tensor, or a mapping or tuple of tensors, is read whole. Of a map-style dataset (a list too) its length and
    at most 256 items, evenly spread from the first to the last, are read: a change between them is not seen.
    An item that is drawn anew on every access has no digest that lasts.

    Raises:
        InputError: an item holds something that is neither a tensor, an array, text nor a number.
    """
    digest = hashlib.sha256()
    _feed(digest, None if ids is None else list(ids), "ids")
    if isinstance(items, Tensor | Mapping | tuple):
        _feed(digest, items, "items")
        return digest.hexdigest()
    length = len(items)
    _feed(digest, length, "items")
    for position in _spread(length):
        _feed(digest, position, "items")
        _feed(digest, items[position], f"items[{position}]")
    return digest.hexdigest()


def _spread(length: int) -> list[int]:
    """At most 256 positions of `length`, evenly spread, the first and the last among them."""
    if length <= LARGEST_SPREAD:
        return list(range(length))
    return [step * (length - 1) // (LARGEST_SPREAD - 1) for step in range(LARGEST_SPREAD)]


def _feed(digest: Any, value: Any, where: str) -> None:
    """Add a tree of tensors, arrays, texts and numbers to a digest, so that no two trees give the same bytes."""
    if isinstance(value, Tensor):
        _head(digest, "tensor", str(value.dtype), str(tuple(value.shape)))
        digest.update(bytes_of(value))
    elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        array = np.ascontiguousarray(value)
        _head(digest, "array", array.dtype.str, str(np.shape(value)))
        digest.update(array.tobytes())
    elif isinstance(value, Mapping):
        _head(digest, "mapping", str(len(value)))
        for key in sorted(value, key=str):
            _head(digest, "key", str(key))
            _feed(digest, value[key], f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        _head(digest, "sequence", str(len(value)))
        for position, member in enumerate(value):
            _feed(digest, member, f"{where}[{position}]")
    elif value is None or isinstance(value, str | int | float | bool):
        _head(digest, type(value).__name__, repr(value))
    elif isinstance(value, bytes):
        _head(digest, "bytes", value.hex())
    else:
        raise InputError(
            f"`{where}` holds {type(value).__name__}. Expected tensors, arrays, texts and numbers, by which a store "
            "can tell whether it was made from these items. Fix: let the dataset give such items."
        )


def _head(digest: Any, *words: str) -> None:
    for word in words:
        data = word.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
