"""Ids of items and pairs, and names of classes, always as text."""

import os
from collections.abc import Iterable, Set
from typing import Any

from tracin_func.errors import InputError

NAMES, POSITIONS = IDS = "names", "positions"  # meanings of `first` and `second` in a table of pairs


def as_texts(values: Iterable[Any], name: str) -> list[str]:
    """Ids as text: `1`, `np.int64(1)`, `torch.tensor(1)` and `b"1"` are "1", a path is its text.

    InputError, with the `name` of the ids, for a single text, a set, or an id that is neither text nor a whole number.
    """
    unordered = isinstance(values, str | bytes | Set) or not isinstance(values, Iterable)
    if unordered or getattr(values, "ndim", 1) == 0:
        raise InputError(f"`{name}` should be a list of texts. Got {values!r}.")
    return [value if type(value) is str else _as_text(value, name, row) for row, value in enumerate(values)]


def require_distinct(ids: list[str], name: str) -> None:
    """Raise InputError for two equal ids, with both positions."""
    seen: dict[str, int] = {}
    for row, value in enumerate(ids):
        if (first := seen.setdefault(value, row)) != row:
            raise InputError(
                f"two items have the id {value!r}: `{name}` {first} and {row}, compared as text. Rename one of them."
            )


def _as_text(value: Any, name: str, row: int) -> str:
    plain = value
    for scalar in ("as_py", "item"):  # of Arrow; of numpy and torch
        if hasattr(plain, scalar) and getattr(plain, "ndim", 0) == 0:
            plain = getattr(plain, scalar)()
    if isinstance(plain, os.PathLike):
        plain = os.fspath(plain)
    if isinstance(plain, bytes):
        try:
            plain = plain.decode()
        except UnicodeDecodeError:
            raise InputError(f"`{name}` {row} is {plain!r}, which is not UTF-8. Decode it to text.") from None
    if not isinstance(plain, str | int):
        raise InputError(
            f"`{name}` {row} is {value!r} ({type(value).__name__}). Expected text or a whole number; convert them, "
            f"[str(each) for each in {name}]."
        )
    return str(plain)
