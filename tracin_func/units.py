"""The units of a job: what there is to differentiate, as data and a scalar objective.

Three kinds: items with their score, joint pairs with their score difference Δ, and pairs with their weighted
loss. Every objective scores an item alone, in a batch of one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tracin_func.gradients import Units
from tracin_func.items import Batch, place
from tracin_func.losses import PairLoss
from tracin_func.pairs import Pairs
from tracin_func.scorer import Scorer
from tracin_func.task import Task


@dataclass(frozen=True)
class UnitMaker:
    """Makes the units of one task on one device. Only items that some pair compares are units."""

    task: Task
    scorer: Scorer
    loss: PairLoss
    test_functional: str
    device: torch.device
    dtype: torch.dtype | None

    @property
    def tables(self) -> list[Pairs]:
        """The training pairs, then the test pairs where there are some."""
        return [pairs for pairs in (self.task.train_pairs, self.task.test_pairs) if pairs is not None]

    def used_items(self) -> Tensor:
        """Positions of the items that pairs compare, ascending [items]."""
        used: Tensor = torch.cat([torch.cat([pairs.first, pairs.second]) for pairs in self.tables]).unique()
        return used

    def items(self) -> Units:
        """One unit a used item; its objective is the score."""
        used = self.used_items()

        def objective(parameters: Any, constants: Any, item: Batch) -> Tensor:
            return self.scorer.score_one(parameters, constants, item)

        return Units(
            len(used),
            lambda index: self.take_items(used[index]),
            objective,
            lambda unit: f"item {self.task.item_id(int(used[unit]))}",
            self.scorer.within,
        )

    def joint(self) -> Units:
        """One unit a pair of either table; its objective is the score difference Δ."""
        first, second = self._both()

        def objective(parameters: Any, constants: Any, pair: Batch) -> Tensor:
            return self.scorer.score_one(parameters, constants, *pair)

        def take(index: Tensor) -> Batch:
            return self.take_items(first[index]), self.take_items(second[index])

        return Units(len(first), take, objective, self.pair_label, self.scorer.within)

    def pairs(self, weight: Tensor, chosen: Tensor) -> Units:
        """One unit for each of the rows `chosen` of both tables; its objective is `weight` times its loss.

        `weight` [train + test pairs] is a constant; test pairs have the test functional as their loss.
        """
        first, second = self._both()
        columns = {"weight": weight} | self._loss_columns()

        def take(index: Tensor) -> Batch:
            rows = chosen[index]
            constants = {name: column[rows] for name, column in columns.items()}
            return {
                "first": self.take_items(first[rows]),
                "second": self.take_items(second[rows]),
                "constants": place(constants, self.device, self.float_dtype),
            }

        def label(unit: int) -> str:
            return self.pair_label(int(chosen[unit]))

        return Units(len(chosen), take, self._pair_objective, label, self.scorer.within)

    def take_items(self, index: Tensor) -> Batch:
        """Items by position, on the device."""
        return place(self.task.items.take(index), self.device, self.dtype)

    @property
    def float_dtype(self) -> torch.dtype:
        """The type of a pair's constants: float64 with double parameters, else float32."""
        dtypes = {self.dtype} if self.dtype else {tensor.dtype for tensor in self.scorer.current().values()}
        return torch.float64 if torch.float64 in dtypes else torch.float32

    def _pair_objective(self, parameters: Any, constants: Any, pair: Batch) -> Tensor:
        if self.task.joint:
            first = self.scorer.score_one(parameters, constants, pair["first"], pair["second"])
            second = torch.zeros_like(first)
        else:
            first = self.scorer.score_one(parameters, constants, pair["first"])
            second = self.scorer.score_one(parameters, constants, pair["second"])
        row = pair["constants"]
        target = row["target"].to(first.dtype)
        if "margin" in row:
            loss = self.loss(first, second, target, row["margin"].to(first.dtype))
        if "margin" not in row or "has_margin" in row:
            plain = self.loss(first, second, target)
            loss = torch.where(row["has_margin"], loss, plain) if "margin" in row else plain
        if self.test_functional == "score-margin":
            loss = torch.where(row["is_test"], -target * (first - second), loss)
        weighted: Tensor = loss * row["weight"]
        return weighted

    def _loss_columns(self) -> dict[str, Tensor]:
        columns = {
            "target": torch.cat([pairs.target.double() for pairs in self.tables]),
            "is_test": torch.cat([torch.full((len(pairs),), table == 1) for table, pairs in enumerate(self.tables)]),
        }
        if any(pairs.margin is not None for pairs in self.tables):
            zeros = [torch.zeros(len(pairs), dtype=torch.float64) for pairs in self.tables]
            owns = [pairs.margin is not None for pairs in self.tables]
            margins = [zero if p.margin is None else p.margin for p, zero in zip(self.tables, zeros, strict=True)]
            columns["margin"] = torch.cat(margins)
            if not all(owns):
                columns["has_margin"] = torch.cat(
                    [torch.full((len(pairs),), own) for pairs, own in zip(self.tables, owns, strict=True)]
                )
        return columns

    def _both(self) -> tuple[Tensor, Tensor]:
        return torch.cat([p.first for p in self.tables]), torch.cat([p.second for p in self.tables])

    def pair_label(self, row: int) -> str:
        """The name that errors call a row of both tables."""
        train = len(self.task.train_pairs)
        role, pairs, row = ("test", self.tables[1], row - train) if row >= train else ("train", self.tables[0], row)
        first, second = int(pairs.first[row]), int(pairs.second[row])
        return f"{role} pair {self.task.item_id(first)}_{self.task.item_id(second)}"
