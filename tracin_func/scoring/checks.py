"""Checks of the scorer: once per run on a few items, and at every checkpoint on a sample.

Every check compares the scorer with itself under conditions that must not matter: another reading, other companions in
the batch, another scale of the incoming gradient, no padding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tracin_func.errors import InputError
from tracin_func.gradients.companions import SAMPLE, differ, rank_correlation, sample_of
from tracin_func.gradients.coupling import FORWARD_FAULTS, cause, mixing_operation
from tracin_func.gradients.linearity import deviation, is_linear
from tracin_func.gradients.model import State
from tracin_func.gradients.padding import effect_of_padding
from tracin_func.gradients.protocol import Units
from tracin_func.gradients.randomness import random_items, random_operation
from tracin_func.scoring.combinations import TracedPairs
from tracin_func.scoring.plan import Prepared
from tracin_func.scoring.units import UnitMaker
from tracin_func.task.items import Batch, RaggedItemsError, each

PADDING = 1e-3  # effect of padding on a score, relative to the largest score tried, above which it is reported
COMPARED = 64  # items whose scores are compared: alone with in company, with padding and without
FEW = 3  # items of a probe


@dataclass(frozen=True)
class Change:
    """Another way to make the units: the reason for it, and what follows."""

    make: UnitMaker
    reason: str
    remedy: str


def probed(make: UnitMaker, state: State, notice: Callable[[str], None], *, alone: bool) -> UnitMaker:
    """`make` after the checks that need to run once; `alone`: whether the user asked for batches of one.

    Raises:
        InputError: the scores depend on no parameter, the items are of another type than the model takes, or the
            scorer fails on a batch though not on one item.
    """
    if make.probed or any(tensor.is_meta for tensor in state.parameters.values()):
        return make
    make = replace(make, probed=True, casts=_needed_casts(make, state))
    one = _positions(make, 1)
    try:
        make.scorer.adopt(state, *_taken(make, one))
        scores = _with_gradient(make, state, one)
    except InputError:
        raise
    except FORWARD_FAULTS as error:
        _require_fitting_items(make, state, error)
        return make  # what else fails on one item is reported by the engines
    hooked = make.scorer.has_parameter_hooks
    if hooked:  # before all that may return: only the gradient of one unit alone runs them
        notice("a hook changes the gradient of a parameter: each item is differentiated alone, in a batch of one.")
        make = replace(make, coupled="a hook on a parameter")
    if random_items(lambda: _taken(make, one)):
        notice(
            "warning: the dataset is random: it returns another item each time it is read, so scores differ between "
            "runs. Turn augmentation off for scoring."
        )
        return replace(make, random=True)
    forward = _forward(make, state)
    if operation := random_operation(lambda: forward(one), scores):
        notice(
            f"warning: the scorer is random in eval mode, through {operation}, so scores differ between runs. Use "
            "nn.Dropout, or pass training=self.training, so that eval mode turns it off."
        )
        return replace(make, random=True)
    _report_padding(make, state, notice)
    return make if hooked else _coupled(make, forward, notice, alone=alone)


def runs(make: UnitMaker, state: State) -> bool:
    """Whether the scorer takes one unit."""
    try:
        with torch.no_grad():
            _forward(make, state)(_positions(make, 1))
    except FORWARD_FAULTS:
        return False
    return True


def change_of(prepared: Prepared, state: State, values: Tensor, train: TracedPairs) -> Change | None:
    """The change to the units that one checkpoint shows to be necessary; None where none is."""
    make, units = prepared.make, prepared.scored
    unchecked = make.random or any(tensor.is_meta for tensor in state.parameters.values())
    if prepared.choice.unit != "items" or unchecked:
        return None
    if prepared.choice.name == "ghost":

        def again(sample: Tensor) -> Tensor:
            few = replace(units, count=len(sample), take=lambda index: units.take(sample[index]))
            return prepared.choice.engine.values(few, state, replace(prepared.plan, chunk=len(sample)))

        if differ(values, again, sample_of(values, make.outstanding, seed=0), _scale(units, state)):
            coupled = replace(make, coupled="an operation that depends on rare companions")
            reason = "the scores of some items depend on the other items in the batch"
            return Change(coupled, reason, "each item is scored alone, in a batch of one")
    return _nonlinear(units, make, state, train) if make.scorer.is_foreign else None


def _nonlinear(units: Units, make: UnitMaker, state: State, train: TracedPairs) -> Change | None:
    """The change that hooks and autograd functions in the backward make necessary."""
    scale = max(float(slope.abs().max()) for slope in (train.terms.first_slope, train.terms.second_slope))
    alone, together = deviation(units, state, (-scale, 1e-3 * scale) if scale > 0 else ())
    if not is_linear(alone, state):
        reason = (
            f"the backward of the scorer is not linear in the incoming gradient (off by {alone:.1e}): a hook or an "
            "autograd function changes it"
        )
        return Change(replace(make, whole_pairs=True), reason, "each pair is differentiated with its own loss")
    if not is_linear(together, state):
        coupled = replace(make, coupled="a hook or an autograd function in the backward")
        reason = f"the gradient of a batch is not the sum of those of its items (off by {together:.1e})"
        return Change(coupled, reason, "each item is differentiated alone, in a batch of one")
    return None


def _coupled(
    make: UnitMaker, forward: Callable[[Tensor], Tensor], notice: Callable[[str], None], *, alone: bool
) -> UnitMaker:
    """`make` with the operation through which a batch mixes items; how much that matters is reported."""
    unit, count = ("pair", len(make.task.train_pairs)) if make.task.joint else ("item", len(make.used_items))
    try:
        operation = mixing_operation(forward, count)
    except FORWARD_FAULTS as error:
        if alone:
            return replace(make, coupled=f"a forward that fails on a batch: {cause(error)}")
        raise InputError(
            f"the scorer scores one {unit} but fails on a batch: {cause(error)}. Fix the model (a padding token that "
            f"is not set?), or score every {unit} alone: `batch_size=1`."
        ) from error
    if operation is None:
        return make
    notice(
        f"warning: the score of one {unit} depends on the others in its batch, first through {operation}. Each {unit} "
        f"is scored alone, in a batch of one.{_in_company(forward, count)}"
    )
    return replace(make, coupled=operation)


def _in_company(forward: Callable[[Tensor], Tensor], count: int) -> str:
    """The difference between scores in batches and scores alone, in a sentence."""
    some = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:COMPARED]
    try:
        with torch.no_grad():
            together, alone = (torch.cat([forward(part) for part in some.split(size)]) for size in (SAMPLE, 1))
    except FORWARD_FAULTS:
        return ""
    largest = float((together - alone).abs().max())
    ranks = f"; their rank correlation is {rank_correlation(together, alone):.2f}" if len(some) > 2 else ""
    return (
        f" In batches of {min(SAMPLE, len(some))} scores differ from these by up to {largest:.3g} "
        f"(they range over {float(alone.max() - alone.min()):.3g}){ranks}."
    )


def _scale(units: Units, state: State) -> float:
    """The size of the scores to which the rounding of score differences is relative; 0 for units that are scores."""
    if units.minuend is None:
        return 0.0
    first = units.take(torch.arange(1))
    with torch.no_grad(), units.holding(state):
        return float(units.minuend(each(lambda leaf: leaf.squeeze(0), first)).abs())


def _with_gradient(make: UnitMaker, state: State, one: Tensor) -> Tensor:
    with torch.enable_grad():
        value = _forward(make, state)(one)
    if not value.requires_grad:
        raise InputError(
            f"the scores of {make.scorer.class_name} depend on none of the parameters to differentiate, so every score "
            "would be 0. Remove `detach()`, `.data` or `torch.no_grad()` from its forward."
        )
    return value.detach()


def _require_fitting_items(make: UnitMaker, state: State, error: Exception) -> None:
    """Raise where the scorer failed on an item because it is a list of numbers, or of another dtype than the model."""
    position = make.task.train_pairs.first[0] if make.task.joint else make.used_items[0]
    try:
        item = _taken(make, _positions(make, 1))[0]
    except FORWARD_FAULTS:
        return
    label, leaves = f"`items`: item {make.task.item_id(int(position))!r}", pytree.tree_leaves(item)
    if isinstance(item, list | tuple) and all(leaf.ndim == 1 for leaf in leaves):
        raise InputError(
            f"{label} holds {len(leaves)} numbers in lists, which {make.scorer.class_name} cannot score. Expected a "
            "tensor. Convert all items: torch.tensor(items)."
        ) from error
    wanted = state.example.dtype
    wrong = [leaf.dtype != wanted for leaf in leaves]
    floating = [other and leaf.is_floating_point() for leaf, other in zip(leaves, wrong, strict=True)]
    for casts in (floating, wrong):
        if any(casts) and runs(replace(make, dtype=wanted, casts=tuple(casts)), state):
            found = leaves[casts.index(True)].dtype
            raise InputError(
                f"{label} is {found}. Expected {wanted}, the dtype of the parameters of {make.scorer.class_name}. "
                f"Convert the items with .to({wanted}){', or set `dtype`' if found.is_floating_point else ''}."
            ) from error


def _report_padding(make: UnitMaker, state: State, notice: Callable[[str], None]) -> None:
    if make.task.joint:
        return
    used = make.used_items
    some = used[torch.linspace(0, len(used) - 1, min(COMPARED, len(used))).long()]

    def score(batch: Batch) -> Tensor:
        with make.scorer.holding(state):
            return make.scorer.run(batch)

    try:
        found = effect_of_padding(make.take_items(some), score)
        if found is None:
            return
        with torch.no_grad():
            largest = float(score(make.take_items(some[:FEW])).abs().max())
    except (RaggedItemsError, *FORWARD_FAULTS):  # no items of another length, or no batch; reported elsewhere
        return
    difference, name = found
    if difference > PADDING * largest:
        notice(
            f"warning: padding changes scores by up to {difference:.3g} (scores are up to {largest:.3g}): items cut to "
            f"the positions that {name!r} keeps have other scores. Pad on the other side, or pass position ids."
        )


def _needed_casts(make: UnitMaker, state: State) -> tuple[bool, ...] | None:
    """The leaves of the items that have to be of the run's dtype for the forward to work: as few as possible."""
    if make.dtype is None:
        return None
    leaves = pytree.tree_leaves(make.task.items.take(make.used_items[:1]))
    floating = [leaf.is_floating_point() and leaf.dtype != make.dtype for leaf in leaves]
    choices = [(False, True) if own else (False,) for own in floating]
    for casts in sorted(product(*choices), key=sum) if 0 < sum(floating) <= 4 else ():
        if runs(replace(make, casts=casts), state):
            return casts
    return tuple(floating)


def _positions(make: UnitMaker, count: int) -> Tensor:
    return torch.arange(min(count, len(make.task.train_pairs) if make.task.joint else len(make.used_items)))


def _taken(make: UnitMaker, index: Tensor) -> tuple[Batch, ...]:
    """The arguments of the scorer for units at `index`: a batch of items, or for a pairwise scorer two."""
    train = make.task.train_pairs
    columns = (train.first[index], train.second[index]) if make.task.joint else (make.used_items[index],)
    return tuple(make.take_items(column) for column in columns)


def _forward(make: UnitMaker, state: State) -> Callable[[Tensor], Tensor]:
    def forward(index: Tensor) -> Tensor:
        with make.scorer.holding(state):
            return make.scorer.run(*_taken(make, index))

    return forward
