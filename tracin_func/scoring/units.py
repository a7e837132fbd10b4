"""The units of a task: what is differentiated, as data and a scalar objective.

Items with their score, pairs with their score difference Δ, and pairs with their weighted loss. Every objective
scores an item alone, in a batch of one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tracin_func.gradients.companions import outstanding
from tracin_func.gradients.model import Scorer
from tracin_func.gradients.protocol import Units
from tracin_func.task.items import Batch, RaggedItemsError, StackedItems, have_one_shape, interleave, place
from tracin_func.task.loss import PairLoss
from tracin_func.task.method import Method
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task

MOST_OUTSTANDING = 8  # units that are scored again because they are extreme
LITTLE_SHARED = 1.25  # uses per item, up to which half as many rows are worth as many more forwards


def loss_type(scores: Tensor) -> torch.dtype:
    """The dtype of losses: float32 at least, as trainers do with half-precision scores."""
    return torch.promote_types(scores.dtype, torch.float32)


@dataclass(frozen=True)
class UnitMaker:
    """Makes the units of one task on one device: the items that some pair compares, or `every` item.

    With `by_items` never score differences, as the gradients serve pairs that are not known yet.
    """

    task: Task
    scorer: Scorer
    loss: PairLoss
    method: Method
    device: torch.device
    dtype: torch.dtype | None
    coupled: str | None = None  # the operation through which a batched forward mixes items
    every: bool = False
    by_items: bool = False
    whole_pairs: bool = False  # the backward is not linear: u g_a + v g_b is no gradient of a pair
    probed: bool = False
    random: bool = False  # scores are random, so that two cannot be compared
    apart: bool = False  # score differences although items are shared, as gradients of items do not fit
    casts: tuple[bool, ...] | None = None  # tensors of an item that become `dtype`; all floating-point ones when None

    @property
    def tables(self) -> list[Pairs]:
        """The training pairs, then the test pairs where there are some."""
        return [pairs for pairs in (self.task.train_pairs, self.task.test) if pairs is not None]

    @cached_property
    def by_difference(self) -> bool:
        """Whether gradients of score differences Δ = s_a − s_b are fewer than those of items.

        This is so where few items occur in two pairs (chosen and rejected texts) and the loss is a function of Δ.
        """
        if self.by_items or self.apart:
            return self.apart
        pairs = sum(map(len, self.tables))
        shared = 2 * pairs > LITTLE_SHARED * len(self.compared)
        return not self.task.joint and self.loss.of_difference and not shared

    @cached_property
    def compared(self) -> Tensor:
        """Positions of the items that pairs compare, ascending [items]."""
        found: Tensor = torch.cat([torch.cat([pairs.first, pairs.second]) for pairs in self.tables]).unique()
        return found

    @property
    def used_items(self) -> Tensor:
        """Positions of the items that are units, ascending [items]."""
        return torch.arange(len(self.task.items)) if self.every else self.compared

    def items(self) -> Units:
        """One unit per used item; its objective is the score."""
        used, scorer = self.used_items, self.scorer
        return Units(
            len(used),
            lambda index: self.take_items(used[index]),
            scorer.holding,
            scorer.run_one,
            scorer.score_one,
            lambda unit: f"item {self.task.item_id(int(used[unit]))}",
            None if self.coupled else scorer.run,
            self.coupled,
        )

    def singles(self) -> Units:
        """The units that serve all pairs: items, or the score differences of all pairs."""
        return self.differences() if self.by_difference else self.items()

    def differences(self) -> Units:
        """One unit per pair of either table; its objective is the score difference Δ of two items scored apart."""
        scorer = self.scorer

        def alone(pair: Batch) -> Tensor:
            return scorer.run_one(pair[0]) - scorer.run_one(pair[1])

        def objective(parameters: Any, constants: Any, pair: Batch) -> Tensor:
            return scorer.score_one(parameters, constants, pair[0]) - scorer.score_one(parameters, constants, pair[1])

        def batched(pair: Batch) -> Tensor:
            if not have_one_shape(*pair):
                return scorer.run(pair[0]) - scorer.run(pair[1])
            first, second = scorer.run(interleave(*pair)).unflatten(0, (-1, 2)).unbind(1)
            difference: Tensor = first - second
            return difference

        return replace(
            self._of_pairs(alone, objective),
            batched=None if self.coupled else batched,
            coupled=self.coupled,
            width=lambda pair: 2 if have_one_shape(*pair) else 1,
            minuend=lambda pair: scorer.run_one(pair[0]),
        )

    def joint(self) -> Units:
        """One unit per pair of either table; its objective is the score difference Δ of a scorer of whole pairs."""
        scorer = self.scorer
        return self._of_pairs(
            lambda pair: scorer.run_one(*pair),
            lambda parameters, constants, pair: scorer.score_one(parameters, constants, *pair),
        )

    def _of_pairs(self, alone: Callable[[Batch], Tensor], objective: Callable[[Any, Any, Batch], Tensor]) -> Units:
        first, second = self._both()

        def take(index: Tensor) -> Batch:
            return self.take_items(first[index]), self.take_items(second[index])

        return Units(len(first), take, self.scorer.holding, alone, objective, self.pair_label)

    def pairs(self, weight: Tensor, chosen: Tensor) -> Units:
        """One unit for each of the rows `chosen` of both tables; its objective is `weight` times its loss.

        `weight` [train + test pairs] is a constant; test pairs have the test functional as their loss.
        """
        first, second = self._both()
        train = len(self.task.train_pairs)

        def take(index: Tensor) -> Batch:
            rows = chosen[index]
            of_test = rows >= train
            if bool(of_test.any()) and not bool(of_test.all()):
                raise RaggedItemsError("training and test pairs have different objectives")
            table = int(of_test[0])
            pairs, own = self.tables[table], rows - train * table
            constants = {"weight": weight[rows], "target": pairs.target[own].double()}
            if pairs.margin is not None:
                constants["margin"] = pairs.margin[own]
            return {
                "first": self.take_items(first[rows]),
                "second": self.take_items(second[rows]),
                # The key decides the objective, so that no value is computed in vain.
                "test" if table else "train": place(constants, self.device, self.float_dtype),
            }

        def objective(parameters: Any, constants: Any, pair: Batch) -> Tensor:
            return self._weighted_loss(pair, lambda *items: self.scorer.score_one(parameters, constants, *items))

        return Units(
            len(chosen),
            take,
            self.scorer.holding,
            lambda pair: self._weighted_loss(pair, self.scorer.run_one),
            objective,
            lambda unit: self.pair_label(int(chosen[unit])),
        )

    def take_items(self, index: Tensor) -> Batch:
        """Items by position, on the device."""
        return place(self.task.items.take(index), self.device, self.dtype, self.casts)

    @cached_property
    def outstanding(self) -> Tensor:
        """Units with extreme items by norm or length, where all items are stacked; see `companions.outstanding`."""
        items = self.task.items
        if not isinstance(items, StackedItems):
            return torch.arange(0)
        positions = outstanding(items.content)
        first = self._both()[0] if self.by_difference else self.used_items
        found: Tensor = (first[:, None] == positions).nonzero()[:, 0].unique()[:MOST_OUTSTANDING]
        return found

    @property
    def float_dtype(self) -> torch.dtype:
        """The dtype of a pair's constants: float64 with double parameters, else float32."""
        dtypes = {self.dtype} if self.dtype else {tensor.dtype for tensor in self.scorer.current().values()}
        return torch.float64 if torch.float64 in dtypes else torch.float32

    def _weighted_loss(self, pair: Batch, score: Callable[..., Tensor]) -> Tensor:
        if self.task.joint:
            first = score(pair["first"], pair["second"])
            second = torch.zeros_like(first)
        else:
            first, second = score(pair["first"]), score(pair["second"])
        row = pair["test" if "test" in pair else "train"]
        wide = loss_type(first)
        first, second, target = first.to(wide), second.to(wide), row["target"].to(wide)
        if "test" in pair and self.method.test_functional == "score-margin":
            loss = -target * (first - second)
        else:
            loss = self.loss(first, second, target, row["margin"].to(wide) if "margin" in row else None)
        weighted: Tensor = loss * row["weight"].to(wide)
        return weighted

    def _both(self) -> tuple[Tensor, Tensor]:
        return torch.cat([p.first for p in self.tables]), torch.cat([p.second for p in self.tables])

    def pair_label(self, row: int) -> str:
        """The name of a row of both tables in errors."""
        train = len(self.task.train_pairs)
        role, pairs, row = ("test", self.tables[1], row - train) if row >= train else ("train", self.tables[0], row)
        first, second = int(pairs.first[row]), int(pairs.second[row])
        return f"{role} pair {self.task.item_id(first)}_{self.task.item_id(second)}"
