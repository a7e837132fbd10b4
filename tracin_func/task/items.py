"""Items: what a scorer scores. A tensor, a pytree of tensors with a common first axis, or a dataset."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

# The pytree module is private by name only: torch.func's own in_dims are defined by it.
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from tracin_func.errors import InputError

Batch = Any  # a tensor, or a pytree of tensors, with the items on the first axis


class RaggedItemsError(InputError):
    """Units that cannot share a batch, such as items of different shapes; each can still be taken alone."""


class Items(Protocol):
    """Random access to items by position."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Batch:
        """The items at positions `index` [n], stacked on a first axis [n, ...]."""
        ...


class StackedItems:
    """Items already stacked: one pytree whose tensors share their first axis."""

    def __init__(self, tree: Batch) -> None:
        leaves = pytree.tree_leaves(tree)
        wrong = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]
        if wrong or not leaves:
            raise InputError(
                f"`items` should hold tensors only. Got {', '.join(wrong) or 'nothing'}. "
                "A list is read as a dataset of single items; stack what belongs to one input in a dict or tuple."
            )
        lengths = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in leaves})
        if len(lengths) > 1:
            raise InputError(f"`items` should share their first axis, [items]. Got lengths {lengths}.")
        self._tree = tree
        self._length = lengths[0]

    def __len__(self) -> int:
        return self._length

    @property
    def content(self) -> Batch:
        """All of them, as they were given."""
        return self._tree

    def take(self, index: Tensor) -> Batch:
        return pytree.tree_map(lambda leaf: leaf[index.to(leaf.device)], self._tree)


class DatasetItems:
    """Items of a map-style dataset, loaded and collated when they are asked for."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def content(self) -> Any:
        """The dataset."""
        return self._dataset

    def take(self, index: Tensor) -> Batch:
        items = [self._dataset[position] for position in index.tolist()]
        # A TensorDataset of one tensor gives tuples of one: the item is what is in them.
        items = [item[0] if isinstance(item, tuple) and len(item) == 1 else item for item in items]
        try:
            return default_collate(items)
        except (RuntimeError, TypeError, ValueError) as error:
            raise RaggedItemsError(f"items {index.tolist()[:4]} cannot be stacked: {error}") from None


def as_items(items: Any) -> Items:
    """Read `items` as what it is.

    A tensor [items, ...], or a dict or tuple of tensors with a common first axis, is stacked already; a list
    or anything else with `__len__` and `__getitem__` is a map-style dataset of single items.

    Raises:
        InputError: none of these, or tensors of different lengths.
    """
    if isinstance(items, StackedItems | DatasetItems):
        return items
    if isinstance(items, Tensor | Mapping | tuple):
        return StackedItems(items)
    if isinstance(items, Sequence) or (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
        return DatasetItems(items)
    raise InputError(
        f"`items` should be a tensor, a dict or tuple of tensors, or a map-style dataset. Got {type(items).__name__}."
    )


def place(batch: Batch, device: torch.device, dtype: torch.dtype | None, casts: Sequence[bool] | None = None) -> Batch:
    """`batch` on `device`; its floating-point tensors as `dtype`, or of all tensors those that `casts` marks."""
    leaves, structure = pytree.tree_flatten(batch)
    chosen = [leaf.is_floating_point() for leaf in leaves] if casts is None else casts

    def move(leaf: Tensor, cast: bool) -> Tensor:
        leaf = leaf.clone() if leaf.is_inference() else leaf  # made in inference mode: no graph may hold it
        return leaf.to(device, dtype if cast else None)

    return pytree.tree_unflatten([move(*each) for each in zip(leaves, chosen, strict=True)], structure)


def have_one_shape(first: Batch, second: Batch) -> bool:
    """Whether two batches of as many items could be one."""
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
