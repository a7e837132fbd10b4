"""How often units are differentiated at a checkpoint, where their gradients do not all fit into memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tracin_func.gradients.budget import block_size, row_bytes
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Need, Plan
from tracin_func.gradients.representations.rows import are_exact, for_any_norms, for_columns, for_norms
from tracin_func.scoring.units import LITTLE_SHARED, UnitMaker

PAIR_RUN = 1 << 18  # pairs scored at a time
OFTEN = 2.0  # times per checkpoint, from which a run reports it


@dataclass(frozen=True)
class Repeats:
    """The units of a run, and how many are differentiated at a checkpoint if no pair is inactive.

    For pairs that are read in blocks, the most for one of them.

    Args:
        units: their number.
        total: differentiations, of some units several times.
    """

    units: int
    total: int

    @property
    def mean(self) -> float:
        """How often a unit is differentiated."""
        return self.total / max(1, self.units)

    def describe(self) -> dict[str, Any]:
        """The record, ready for JSON."""
        return {"units": self.units, "total": self.total, "mean": round(self.mean, 3)}


def repeats(make: UnitMaker, units: int, state: State, need: Need, plan: Plan, *, kept: bool) -> Repeats:
    """The count for `units` that are planned so; `kept`: as rows or factors, all of them or a block.

    Other gradients are computed once for each block of right-hand sides. Factors are computed once for all units, and
    rows with them where all fit.
    """
    if not kept:
        return Repeats(units, units * max(1, -(-len(need.right) // plan.block)))
    if plan.block >= units:
        return Repeats(units, units)
    if make.every and need.norms:  # only some of the pairs are known
        return Repeats(units, min(for_any_norms(units, plan.block), 2 * PAIR_RUN))
    train, *test = _combined(make)
    total = units * any(part.form == "factors" for part in plan.parts)
    if need.norms:
        total += sum(for_norms(part, units, plan.block) for part in train.split(PAIR_RUN))
    for part in test:
        total += for_columns(part, units, plan.block, exact=are_exact(state))
        total += for_norms(part, units, plan.block) if make.method.normalize == "cosine" else 0
    return Repeats(units, total)


def report_often(found: Repeats, over: str, notice: Callable[[str], None], *, in_blocks: bool) -> None:
    """Report units that are differentiated often, or for every block of pairs."""
    if found.mean > OFTEN or (in_blocks and found.total > found.units):
        times = f"{found.mean:.1f} times on average"
        times = f"up to {times} for each {PAIR_RUN:,} pairs" if in_blocks else times
        notice(
            f"note: not all gradients fit in half of the memory budget, so each of {found.units:,} {over} is "
            f"differentiated {times} at every checkpoint. More memory (`memory_budget`) or a `projection` avoids this."
        )


def differences_are_cheaper(make: UnitMaker, state: State, need: Need, items: Repeats) -> bool:
    """Whether score differences of all pairs, each with two forwards and kept nowhere, are less work than `items`.

    As where all fit, half as many gradients are worth some more forwards.
    """
    if not need.held or make.by_items or make.every or items.total == items.units or not make.loss.of_difference:
        return False
    test = sum(map(len, make.tables[1:]))
    passes = -(-test // block_size(test, row_bytes(state), need.budget)) if test else 1
    return 2 * passes * (len(make.tables[0]) + test) <= LITTLE_SHARED * items.total


def _combined(make: UnitMaker) -> list[Tensor]:
    """The units that are combined for each pair, per table [pairs, 1 or 2]."""
    if make.by_difference:
        return list(torch.arange(sum(map(len, make.tables)))[:, None].split([len(pairs) for pairs in make.tables]))
    used = make.used_items
    return [torch.searchsorted(used, torch.stack([pairs.first, pairs.second], dim=1)) for pairs in make.tables]
