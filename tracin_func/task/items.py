"""Items, the inputs of a scorer: a tensor, a pytree of tensors with a common first axis, or a dataset."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

# The pytree module is private by name only: torch.func's own in_dims are defined by it.
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from tracin_func.errors import InputError

Batch = Any  # a tensor, or a pytree of tensors, with the items on the first axis


class RaggedItemsError(InputError):
    """Units that cannot share a batch, such as items of different shapes; each can be taken alone."""


class Items(Protocol):
    """Random access to items by position."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Batch:
        """The items at positions `index` [n], stacked on a first axis [n, ...]."""


class StackedItems:
    """Stacked items: one pytree whose tensors share their first axis."""

    def __init__(self, tree: Batch) -> None:
        tree = _stacked(tree, "items")
        lengths = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in pytree.tree_leaves(tree)})
        if not lengths:
            raise InputError("`items` contains no tensor. Expected a tensor, or a dict or tuple of tensors.")
        if len(lengths) > 1:
            raise InputError(f"`items` should share their first axis, [items]. Got lengths {lengths}.")
        self._tree = tree
        self._length = lengths[0]

    def __len__(self) -> int:
        return self._length

    @property
    def content(self) -> Batch:
        return self._tree

    def take(self, index: Tensor) -> Batch:
        return each(lambda leaf: _rows(leaf, index.to(leaf.device)), self._tree)


class DatasetItems:
    """Items of a map-style dataset, loaded and collated when they are needed."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def content(self) -> Any:
        return self._dataset

    def take(self, index: Tensor) -> Batch:
        items = [self._item(position) for position in index.tolist()]
        try:
            batch = default_collate(items)
        except (RuntimeError, TypeError, ValueError) as error:
            raise RaggedItemsError(f"`items` {index.tolist()[:4]} cannot be stacked: {error}") from None
        if wrong := {type(leaf).__name__ for leaf in pytree.tree_leaves(batch) if not isinstance(leaf, Tensor)}:
            raise InputError(
                f"`items[{int(index[0])}]` contains {', '.join(sorted(wrong))}. Expected tensors or numbers. Tokenize "
                "texts first."
            )
        return batch

    def _item(self, position: int) -> Any:
        try:
            item = self._dataset[position]
        except InputError:
            raise
        except Exception as error:  # of the user's code
            words = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"`items[{position}]` of {type(self._dataset).__name__} failed: {words}. Expected a map-style dataset "
                f"whose items are at 0 to {len(self) - 1}."
            ) from error
        # A TensorDataset of one tensor gives tuples of one: the item is what is in them.
        return _plain(item[0] if isinstance(item, tuple) and len(item) == 1 else item)


def as_items(items: Any) -> Items:
    """Items from stacked tensors or a map-style dataset; InputError for anything else, or different lengths.

    A tensor [items, ...], or a mapping or tuple of tensors with a common first axis, is stacked already; a list or
    anything else with `__len__` and `__getitem__` is a map-style dataset of single items. The scorer gets mappings of
    other kinds, as tokenizers return, as dicts, and sparse tensors as dense ones. Lists of whole numbers within
    mappings become tensors.
    """
    if isinstance(items, StackedItems | DatasetItems):
        return items
    if isinstance(items, Tensor | Mapping | tuple):
        return StackedItems(items)
    if hasattr(items, "__dataframe__"):
        raise InputError(
            f"`items` is a data frame ({type(items).__name__}). Expected a tensor [items, ...]: "
            "torch.tensor(items.to_numpy(), dtype=torch.float32)."
        )
    if isinstance(items, str | bytes) or not (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
        raise InputError(
            "`items` should be a tensor, a dict or tuple of tensors, or a map-style dataset. Got "
            f"{type(items).__name__}."
        )
    try:
        len(items)
    except TypeError as error:  # such as the sparse matrices of scipy
        raise InputError(f"`items` ({type(items).__name__}) has no length: {error}. Expected a tensor.") from error
    return DatasetItems(items)


def _stacked(tree: Any, name: str) -> Batch:
    """`tree`, whose mappings are dicts and whose leaves are tensors; arrays and lists of numbers become tensors."""
    if isinstance(tree, Tensor):
        if tree.is_nested:
            raise InputError(
                f"`{name}` is a nested tensor. Expected one tensor per item, list(items.unbind()), or padded ones: "
                "torch.nested.to_padded_tensor(items, 0)."
            )
        # Rows are read from the layout COO alone.
        return tree if tree.layout is torch.strided else tree.to_sparse().coalesce()
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "biufc":
        return torch.from_numpy(np.require(tree, tree.dtype.newbyteorder("="), ["C", "W"]))
    if _is_mapping(tree):
        return {key: _stacked(value, f"{name}[{key!r}]") for key, value in tree.items()}
    if isinstance(tree, list) and not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(tree)):
        try:
            return torch.tensor(tree)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"`{name}` contains lists of different lengths: {error}. Pad them to one length; tokenizers do so with "
                'padding=True, return_tensors="pt".'
            ) from None
    children, structure = pytree.tree_flatten(tree, is_leaf=lambda node: node is not tree)
    if children == [tree] or tree is None:
        raise InputError(f"`{name}` should be a tensor. Got {type(tree).__name__}.")
    return pytree.tree_unflatten([_stacked(child, f"{name}[{n}]") for n, child in enumerate(children)], structure)


def _plain(item: Any) -> Any:
    """A single item for `default_collate`: dense, mappings as dicts, lists of whole numbers in them as tensors."""
    if isinstance(item, Tensor):
        return _dense(item)
    if _is_mapping(item):
        return {key: _plain(torch.tensor(value) if _is_numbers(value) else value) for key, value in item.items()}
    if type(item) is tuple:
        return tuple(_plain(part) for part in item)
    return item


def _is_mapping(value: Any) -> bool:
    """Whether it has to become a dict: a mapping of a type unknown to pytrees, or a dict."""
    return isinstance(value, Mapping) and (type(value) is dict or type(value) not in pytree.SUPPORTED_NODES)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def _rows(leaf: Tensor, index: Tensor) -> Tensor:
    return leaf.index_select(0, index).to_dense() if leaf.is_sparse else leaf[index]


def _dense(leaf: Tensor) -> Tensor:
    return leaf if leaf.layout is torch.strided else leaf.to_dense()


def place(batch: Batch, device: torch.device, dtype: torch.dtype | None, casts: Sequence[bool] | None = None) -> Batch:
    """`batch` on `device`; its floating-point tensors, or those marked by `casts`, as `dtype`."""
    leaves, structure = pytree.tree_flatten(batch)
    chosen = [leaf.is_floating_point() for leaf in leaves] if casts is None else casts

    def move(leaf: Tensor, cast: bool) -> Tensor:
        leaf = leaf.clone() if leaf.is_inference() else leaf  # made in inference mode: no graph may hold it
        return leaf.to(device, dtype if cast else None)

    return pytree.tree_unflatten([move(*each) for each in zip(leaves, chosen, strict=True)], structure)


def have_one_shape(first: Batch, second: Batch) -> bool:
    """Whether items of two batches of one size could share a batch."""
    left, right = pytree.tree_leaves(first), pytree.tree_leaves(second)
    return [leaf.shape for leaf in left] == [leaf.shape for leaf in right]


def interleave(first: Batch, second: Batch) -> Batch:
    """The items first_0, second_0, first_1, ... as one batch; they have one shape."""
    left, right = pytree.tree_leaves(first), pytree.tree_leaves(second)
    both = [torch.stack(two, dim=1).flatten(0, 1) for two in zip(left, right, strict=True)]
    return pytree.tree_unflatten(both, pytree.tree_structure(first))


def each(function: Callable[[Tensor], Any], batch: Batch) -> Batch:
    """`function` applied to every tensor of a batch."""
    return pytree.tree_map(function, batch)


def address_of(value: Any) -> int:
    """The address of a tensor's storage; 0 for meta, sparse and lazy tensors, and other values."""
    try:
        return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else 0
    except (RuntimeError, ValueError, NotImplementedError):
        return 0
