"""Does an operation reorder the rows of a batch, or select some of them?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_INDEXED = ("index_select", "gather", "index_add", "index_copy", "index_fill", "scatter", "scatter_add")
_BY_INDEX = {  # operations that take an index, and the place of (axis, index) among their arguments
    **{
        getattr(kind, name + end): (1, 2)
        for kind in (torch, Tensor)
        for name in _INDEXED
        for end in ("", "_")
        if hasattr(kind, name + end)
    },
    torch.take_along_dim: (2, 1),
    Tensor.take_along_dim: (2, 1),
}
_SUBSCRIPTS = {Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put, Tensor.index_put_, torch.index_put}
_BY_MASK = {torch.masked_select, Tensor.masked_select, Tensor.masked_scatter, Tensor.masked_scatter_}
_MOVING = {"sort": -1, "flip": None, "roll": None, "topk": -1}  # operations along axes, and their default
_ALONG = {getattr(kind, name): axis for kind in (torch, Tensor) for name, axis in _MOVING.items()}
_AXES = ("dim", "dims", "axis")


def reorders(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], rows: int) -> str | None:
    """The name of the operation if it moves or selects some of the `rows` of a tensor, None otherwise.

    An index of every row in its place moves none: `hidden[torch.arange(len(hidden)), last]`. Rows that are cut and
    joined (`torch.cat` of slices) are not recognised.
    """
    subject = args[0] if args else None
    if rows < 2 or not isinstance(subject, Tensor) or subject.ndim == 0 or len(subject) != rows:
        return None
    moved = False
    if func in _SUBSCRIPTS:
        moved = _subscript_moves(args[1] if len(args) > 1 else kwargs.get("indices"), rows)
    elif func in _BY_INDEX:
        axis_place, index_place = _BY_INDEX[func]
        axis = _argument(args, kwargs, axis_place, _AXES)
        index = _argument(args, kwargs, index_place, ("index", "indices"))
        moved = axis in (0, -subject.ndim) and isinstance(index, Tensor) and not _in_place(index, rows)
    elif func in _BY_MASK:
        moved = True
    elif func in _ALONG:
        place = 2 if func in (torch.topk, Tensor.topk, torch.roll, Tensor.roll) else 1
        spread = func is Tensor.flip and len(args) > 2  # x.flip(0, 1)
        axes = args[1:] if spread else _argument(args, kwargs, place, _AXES)
        axes = _ALONG[func] if axes is None else axes
        axes = tuple(range(subject.ndim)) if axes is None else axes if isinstance(axes, list | tuple) else (axes,)
        moved = any(axis in (0, -subject.ndim) for axis in axes)
    return getattr(func, "__name__", str(func)) if moved else None


def _subscript_moves(subscript: Any, rows: int) -> bool:
    first = subscript[0] if isinstance(subscript, tuple) and subscript else subscript
    if isinstance(first, slice):
        return first.step is not None and first.step != 1
    if isinstance(first, list):
        return first != list(range(rows))
    return isinstance(first, Tensor) and not _in_place(first, rows)


def _in_place(index: Tensor, rows: int) -> bool:
    """Whether an index along the first axis has each row in its place."""
    if index.is_meta or index.ndim == 0 or len(index) != rows:
        return index.is_meta
    if index.dtype == torch.bool:  # as many places of every row, in order of the rows
        chosen = index.reshape(rows, -1).sum(dim=1)
        return index.ndim > 1 and bool((chosen == chosen[0]).all()) and bool(chosen[0] > 0)
    own = torch.arange(rows, device=index.device).view(-1, *(1 for _ in index.shape[1:]))
    return bool((index.detach() == own).all())


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, names: Sequence[str]) -> Any:
    if len(args) > place:
        return args[place]
    return next((kwargs[name] for name in names if name in kwargs), None)
