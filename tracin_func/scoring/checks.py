"""What is tried before scores are trusted: once per run on a few items, and at every checkpoint on a sample.

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
    """How the units have to be made instead: why, and what follows."""

    make: UnitMaker
    reason: str
    remedy: str


def probed(make: UnitMaker, state: State, notice: Callable[[str], None], *, alone: bool) -> UnitMaker:
    """`make` after the checks that need to run once; `alone`: whether the user asked for batches of one.

    Raises:
        InputError: the scores depend on no parameter, or the scorer fails on a batch though not on one item.
    """
    if make.probed or any(tensor.is_meta for tensor in state.parameters.values()):
        return make
    make = replace(make, probed=True, casts=_needed_casts(make, state))
    one = _positions(make, 1)
    try:
        make.scorer.adopt(state, *_taken(make, one))
        _require_gradient(make, state, one)
    except FORWARD_FAULTS as error:
        if isinstance(error, InputError):
            raise
        return make  # what fails on one item is reported by the engines
    hooked = make.scorer.has_parameter_hooks
    if hooked:  # before all that may return: only the gradient of one unit alone runs them
        notice("a hook changes the gradient of a parameter; every item is differentiated alone, in a batch of one.")
        make = replace(make, coupled="a hook on a parameter")
    if random_items(lambda: _taken(make, one)):
        notice(
            "the dataset is random: it gives another item each time it is read. Scores are those of single readings, "
            "and differ between runs. Turn augmentation off for scoring."
        )
        return replace(make, random=True)
    forward = _forward(make, state)
    if operation := random_operation(lambda: forward(one)):
        notice(
            f"the scorer is random in eval mode, through {operation}. Scores are one random draw and differ between "
            "runs. Use nn.Dropout, or pass training=self.training, so that eval mode turns it off."
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
    """What one checkpoint shows to be wrong with how the units are made; None where nothing is."""
    make = prepared.make
    unchecked = make.random or any(tensor.is_meta for tensor in state.parameters.values())
    if prepared.choice.unit != "items" or unchecked:
        return None
    units = prepared.scored
    if prepared.choice.name == "ghost" and units.batched is not None:
        batched = units.batched

        def again(sample: Tensor) -> Tensor:
            with units.holding(state):
                return batched(units.take(sample))

        if differ(values, again, sample_of(values, make.outstanding, seed=0), _scale(prepared, state)):
            coupled = replace(make, coupled="an operation that depends on rare companions")
            return Change(
                coupled,
                "the scores of some items depend on their company in the batch",
                "every item is scored alone, in a batch of one",
            )
    return _nonlinear(prepared, state, train) if make.scorer.is_foreign else None


def _nonlinear(prepared: Prepared, state: State, train: TracedPairs) -> Change | None:
    """What hooks and autograd functions in the backward ask for."""
    make, units = prepared.make, prepared.scored
    scale = max(float(slope.abs().max()) for slope in (train.terms.first_slope, train.terms.second_slope))
    alone, together = deviation(units, state, (-scale, 1e-3 * scale) if scale > 0 else ())
    if not is_linear(alone, state):
        reason = (
            f"the backward of the scorer is not linear in the incoming gradient (off by {alone:.1e}): a hook or an "
            "autograd function changes it"
        )
        return Change(replace(make, whole_pairs=True), reason, "every pair is differentiated with its own loss")
    if not is_linear(together, state):
        coupled = replace(make, coupled="a hook or an autograd function in the backward")
        reason = f"the gradient of a batch is not the sum of those of its items (off by {together:.1e})"
        return Change(coupled, reason, "every item is differentiated alone, in a batch of one")
    return None


def _coupled(
    make: UnitMaker, forward: Callable[[Tensor], Tensor], notice: Callable[[str], None], *, alone: bool
) -> UnitMaker:
    """`make` with the operation through which a batch mixes items, after saying how much that matters."""
    unit, count = ("pair", len(make.task.train_pairs)) if make.task.joint else ("item", len(make.used_items))
    try:
        operation = mixing_operation(forward, count)
    except FORWARD_FAULTS as error:
        if alone:
            return replace(make, coupled=f"a forward that fails on a batch: {cause(error)}")
        raise InputError(
            f"the scorer scores one {unit} but fails on a batch: {cause(error)}. Fix the model (a padding token that "
            f"is not set?), or score every {unit} alone with --batch-size 1 (`batch_size=1` in Python)."
        ) from error
    if operation is None:
        return make
    notice(
        f"the score of one {unit} depends on the others in its batch, first through {operation}; "
        f"every {unit} is therefore scored alone, in a batch of one.{_in_company(make, forward, count)}"
    )
    return replace(make, coupled=operation)


def _in_company(make: UnitMaker, forward: Callable[[Tensor], Tensor], count: int) -> str:
    """How scores in company differ from those alone, in a sentence."""
    some = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:COMPARED]
    try:
        with torch.no_grad():
            together = torch.cat([forward(part) for part in some.split(SAMPLE)])
            alone = torch.cat([forward(part) for part in some.split(1)])
    except FORWARD_FAULTS:
        return ""
    largest = float((together - alone).abs().max())
    ranks = f"; their rank correlation is {rank_correlation(together, alone):.2f}" if len(some) > 2 else ""
    return (
        f" In batches of {min(SAMPLE, len(some))} scores differ from those alone by up to {largest:.3g} "
        f"(they range over {float(alone.max() - alone.min()):.3g}){ranks}."
    )


def _scale(prepared: Prepared, state: State) -> float:
    """What the rounding of score differences is relative to: scores. 0 for units that are scores themselves."""
    minuend, units = prepared.scored.minuend, prepared.scored
    if minuend is None:
        return 0.0
    first = units.take(torch.arange(1))
    with torch.no_grad(), units.holding(state):
        return float(minuend(each(lambda leaf: leaf.squeeze(0), first)).abs())


def _require_gradient(make: UnitMaker, state: State, one: Tensor) -> None:
    batch = _taken(make, one)
    with make.scorer.holding(state), torch.enable_grad():
        value = make.scorer.run(*batch)
    if not value.requires_grad:
        raise InputError(
            f"the scores of {make.scorer.class_name} depend on none of the parameters to differentiate, so every score "
            "would be 0. Remove `detach()`, `.data` or `torch.no_grad()` from its forward."
        )


def _report_padding(make: UnitMaker, state: State, notice: Callable[[str], None]) -> None:
    if make.task.joint:
        return
    used = make.used_items
    some = used[torch.linspace(0, len(used) - 1, min(COMPARED, len(used))).long()]
    try:
        items = make.take_items(some)
    except RaggedItemsError:
        return

    def score(batch: Batch) -> Tensor:
        with make.scorer.holding(state):
            return make.scorer.run(batch)

    try:
        found = effect_of_padding(items, score)
        if found is None:
            return
        with torch.no_grad():
            largest = float(score(make.take_items(some[:FEW])).abs().max())
    except FORWARD_FAULTS:  # the scorer does not take items of another length, or no batch; reported elsewhere
        return
    difference, name = found
    if difference > PADDING * largest:
        notice(
            f"padding changes scores, by up to {difference:.3g} where scores are up to {largest:.3g}: items cut to "
            f"the positions that `{name}` keeps score otherwise. Pad on the other side, or pass position ids."
        )


def _needed_casts(make: UnitMaker, state: State) -> tuple[bool, ...] | None:
    """Which leaves of the items have to be of the run's dtype for the forward to work: as few as possible."""
    if make.dtype is None:
        return None
    leaves = pytree.tree_leaves(make.task.items.take(make.used_items[:1]))
    floating = [leaf.is_floating_point() and leaf.dtype != make.dtype for leaf in leaves]
    if not any(floating):
        return tuple(floating)
    choices = [(False, True) if own else (False,) for own in floating]
    for casts in sorted(product(*choices), key=sum) if sum(floating) <= 4 else ():
        trial = replace(make, casts=casts)
        try:
            with torch.no_grad(), make.scorer.holding(state):
                make.scorer.run(*_taken(trial, _positions(trial, 1)))
        except FORWARD_FAULTS:
            continue
        return casts
    return tuple(floating)


def _positions(make: UnitMaker, count: int) -> Tensor:
    return torch.arange(min(count, len(make.task.train_pairs) if make.task.joint else len(make.used_items)))


def _taken(make: UnitMaker, index: Tensor) -> tuple[Batch, ...]:
    """What the scorer gets for units at `index`: a batch of items, or for a pairwise scorer two."""
    train = make.task.train_pairs
    columns = (train.first[index], train.second[index]) if make.task.joint else (make.used_items[index],)
    return tuple(make.take_items(column) for column in columns)


def _forward(make: UnitMaker, state: State) -> Callable[[Tensor], Tensor]:
    def forward(index: Tensor) -> Tensor:
        with make.scorer.holding(state):
            return make.scorer.run(*_taken(make, index))

    return forward
