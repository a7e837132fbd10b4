"""A task: a scorer, its items, the pairs and the checkpoints, as returned by every source of data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tracin_func.errors import InputError
from tracin_func.task.checkpoints import Checkpoint, copied, named_apart
from tracin_func.task.ids import as_texts, require_distinct
from tracin_func.task.items import address_of, as_items
from tracin_func.task.loss import PairLoss, instance_of
from tracin_func.task.pair_table import PairTable
from tracin_func.task.pairs import Pairs, numbered, require_items


@dataclass(frozen=True, repr=False)
class Task:
    """All that is scored.

    Args:
        scorer: batch of items [items, ...] -> scores [items] or [items, 1]; with `joint`, two batches -> score
            differences Δ [pairs].
        items: a tensor [items, ...], a dict or tuple of tensors with a common first axis, or a map-style dataset.
        train: the pairs to score; a `PairTable` if they should be read in blocks.
        checkpoints: the saved states to sum over, in the order of training, each a `Checkpoint` or its `source`, such
            as a path; a state dict that shares the memory of `scorer` is copied.
        test: the pairs whose loss is explained; needed for `influence` only.
        loss: a loss of the package or its class, or any element-wise torch callable ℓ(s_a, s_b, y[, margin]). The
            margin ranking loss with margin 1 when None.
        item_ids: one name per item, kept as text; "0", "1", ... by default.
        joint: the scorer takes both items of a pair at once.
        item_classes: the class of each item, kept as text, for tables by class; such as the angle of a recording.
        held_out: the pairs on which the model is evaluated; `test` when None.
        trained_loss: the recorded loss of the training, if it is not `loss`.
        describe: what provenance records about the source.
        show_item: position of an item -> what a report shows of it: a text, a mapping (a row of a table), the bytes or
            the path of a picture, or an `ItemView`.

    Raises:
        InputError: a pair has an unknown item, ids are missing or repeated, or there are no pairs or checkpoints.
    """

    scorer: nn.Module
    items: Any
    train: Pairs | PairTable
    checkpoints: Sequence[Checkpoint]
    test: Pairs | None = None
    loss: PairLoss | Callable[..., Tensor] | None = None
    item_ids: Sequence[str] | None = None
    joint: bool = False
    item_classes: Sequence[str] | None = None
    held_out: Pairs | None = None
    trained_loss: PairLoss | Callable[..., Tensor] | None = None
    describe: Mapping[str, Any] = field(default_factory=dict)
    show_item: Callable[[int], Any] | None = None

    def __post_init__(self) -> None:
        items = as_items(self.items)
        object.__setattr__(self, "items", items)
        if isinstance(self.checkpoints, str | Path | Mapping | nn.Module):
            raise InputError(
                f"`checkpoints` should be a list of Checkpoint, path or state dict. Got one "
                f"{type(self.checkpoints).__name__}. For a folder use find_checkpoints(folder)."
            )
        if not self.checkpoints:
            raise InputError("`checkpoints` is empty. Give at least one.")
        for name in ("loss", "trained_loss"):
            object.__setattr__(self, name, instance_of(getattr(self, name)))
        checkpoints = [each if isinstance(each, Checkpoint) else Checkpoint(each) for each in self.checkpoints]
        _check_memory(checkpoints)
        apart = [_apart_from(self.scorer, each) for each in named_apart(checkpoints)]
        object.__setattr__(self, "checkpoints", apart)
        for name in ("item_ids", "item_classes"):
            if (given := getattr(self, name)) is not None:
                texts = as_texts(given, name)
                if len(texts) != len(items):
                    raise InputError(
                        f"`{name}` has {len(texts)} entries for {len(items)} items. Expected one per item."
                    )
                object.__setattr__(self, name, texts)
        if self.item_ids is not None:
            require_distinct(list(self.item_ids), "item_ids")
        if isinstance(self.train, PairTable):
            object.__setattr__(self, "train", self.train.over(self.all_item_ids))
        for role, pairs in (("train", self.train), ("test", self.test), ("held-out", self.held_out)):
            if pairs is not None:
                _check_pairs(role, pairs, len(items))

    @cached_property
    def train_pairs(self) -> Pairs:
        """The training pairs in memory; a `PairTable` is read whole."""
        return self.train if isinstance(self.train, Pairs) else self.train.pairs()

    @property
    def all_item_ids(self) -> list[str]:
        return [str(row) for row in range(len(self.items))] if self.item_ids is None else list(self.item_ids)

    def __repr__(self) -> str:
        train = repr(self.train) if isinstance(self.train, PairTable) else f"{len(self.train)} training pairs"
        test = "no" if self.test is None else len(self.test)
        return (
            f"Task({type(self.scorer).__qualname__}: {len(self.items)} items, {train}, {test} test pairs, "
            f"{len(self.checkpoints)} checkpoints)"
        )

    def item_id(self, position: int) -> str:
        return str(position) if self.item_ids is None else self.item_ids[position]

    def pair_ids(self, pairs: Pairs) -> list[str]:
        """The ids of pairs: their own, or `first_second` by item id."""
        if pairs.ids is not None:
            return list(pairs.ids)
        return [f"{first}_{second}" for first, second in self.item_names(pairs)]

    def item_names(self, pairs: Pairs) -> list[tuple[str, str]]:
        """The ids of the two items of each pair."""
        both = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
        if (ids := self.item_ids) is None:
            return [(str(first), str(second)) for first, second in both]
        return [(ids[first], ids[second]) for first, second in both]


def _check_memory(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse state dicts that share memory: collected in a training loop without a copy, all are the last one."""
    seen: dict[tuple[int, ...], int] = {}
    for position, checkpoint in enumerate(checkpoints, start=1):
        if isinstance(checkpoint.source, Mapping):
            address = tuple(filter(None, map(address_of, _tensors(checkpoint.source))))
            if address and seen.setdefault(address, position) != position:
                raise InputError(
                    f"`checkpoints` {seen[address]} and {position} share memory, so both contain the last state. Use "
                    "copies, copy.deepcopy(model.state_dict()), or files."
                )


def _apart_from(scorer: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, copied if it shares memory with the scorer, into which other weights may be put."""
    source = checkpoint.source
    if not isinstance(source, Mapping) or not isinstance(scorer, nn.Module):
        return checkpoint
    own = {address_of(tensor) for tensor in (*scorer.parameters(), *scorer.buffers())} - {0}
    if own.isdisjoint(map(address_of, _tensors(source))):
        return checkpoint
    return replace(checkpoint, source=pytree.tree_map(copied, dict(source)))


def _tensors(source: Mapping[str, Any]) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(dict(source)) if isinstance(leaf, Tensor)]


def _check_pairs(role: str, pairs: Pairs | PairTable, items: int) -> None:
    if not len(pairs):
        raise InputError(f"`{role.replace('-', '_')}` has no pairs. Give at least one.")
    if isinstance(pairs, Pairs):  # a table is checked when it is read
        require_items(pairs, items, numbered(0, f"{role} pair"))
