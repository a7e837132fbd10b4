"""Do padded items score the same without their padding? Position ids, for example, may depend on it."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tracin_func.task.items import Batch

KEEP = ("attention_mask", "mask")  # names of masks of the positions that count
TRIED = 4  # items


def effect_of_padding(items: Batch, score: Callable[[Batch], Tensor]) -> tuple[float, str] | None:
    """The largest difference between scores of items with and without padding, and the name of their mask.

    `items` is a mapping with a mask [items, positions] of 0 and 1. Every tensor whose second axis has as many positions
    is cut to those that count. None where there is no such mask, or nothing is padded.
    """
    name = _mask_of(items)
    if name is None:
        return None
    mask, worst = items[name] != 0, None
    padded = (~mask.all(dim=1) & mask.any(dim=1)).nonzero()[:TRIED, 0].tolist()
    for item in padded:
        kept = mask[item].nonzero()[:, 0]
        one = {key: leaf[item : item + 1] for key, leaf in items.items()}
        along = {key for key, leaf in items.items() if leaf.ndim >= 2 and leaf.shape[1] == mask.shape[1]}
        cut = {key: leaf[:, kept] if key in along else leaf for key, leaf in one.items()}
        with torch.no_grad():
            difference = float((score(one) - score(cut)).abs().max())
        worst = max(difference, worst or 0.0)
    return None if worst is None else (worst, name)


def _mask_of(items: Batch) -> str | None:
    if not isinstance(items, Mapping) or not all(isinstance(leaf, Tensor) for leaf in items.values()):
        return None
    for name in KEEP:
        leaf = items.get(name)
        if leaf is not None and leaf.ndim == 2 and bool(((leaf == 0) | (leaf == 1)).all()):
            return name
    return None
