"""The engines by name, and their choice. A new one is a class with the methods of `Engine`, and an entry here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from tracin_func.errors import InputError, UsageError
from tracin_func.gradients.engines.ghost.engine import GhostEngine
from tracin_func.gradients.engines.loop import LoopEngine
from tracin_func.gradients.engines.vmap import VmappedEngine
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Engine, Planner, Units, UnsuitableError

UnitKind = Literal["items", "pairs"]


@dataclass(frozen=True)
class Registered:
    """An engine, its `unit` when it is chosen by name, and the units for which `auto` may choose it, with reasons."""

    engine: Engine
    unit: UnitKind
    automatic: Mapping[UnitKind, str]


# The slowest first: `auto` tries them from the end.
ENGINES = {
    "loop": Registered(
        LoopEngine(), "pairs", {"items": "one autograd call an item", "pairs": "one autograd call a pair"}
    ),
    "pair": Registered(VmappedEngine(), "pairs", {"pairs": "the scorer takes whole pairs"}),
    "item": Registered(VmappedEngine(), "items", {"items": "one gradient per item serves all its pairs"}),
    "ghost": Registered(
        GhostEngine(), "items", {"items": "one forward and backward of all items gives each item's gradient"}
    ),
}


def engine_names() -> tuple[str, ...]:
    return "auto", *ENGINES


@dataclass(frozen=True)
class Choice:
    """The chosen engine, the units it differentiates, the reason of the choice, and its planner."""

    name: str
    engine: Engine
    unit: UnitKind
    reason: str
    plan: Planner


def choose(name: str, units: Mapping[UnitKind, Units], state: State, without: Collection[str] = ()) -> Choice:
    """The engine called `name`, or for `auto` the cheapest that can run these units.

    `units` maps a kind to what the engine would differentiate (a joint scorer has no items); each candidate is
    tried on a few of them. `auto` skips the engines `without`, which failed on others.

    Raises:
        UsageError: no engine of that name, or `item` for a joint scorer.
        InputError: the named engine, or every one, cannot run the scorer.
    """
    if name not in engine_names():
        raise UsageError(f"`engine` should be one of {', '.join(engine_names())}. Got {name!r}.")
    if name == "auto":
        return _cheapest(units, state, without)
    found = ENGINES[name]
    if found.unit not in units:
        raise UsageError(
            f'`engine="{name}"` needs a scorer of single items. Got one that takes both items of a pair. Use '
            '`engine="pair"`, `engine="loop"` or `engine="auto"`.'
        )
    try:
        return Choice(name, found.engine, found.unit, "as asked", found.engine.tried(units[found.unit], state))
    except UnsuitableError as cause:
        if isinstance(found.engine, LoopEngine):
            raise _unscorable(str(cause)) from None
        raise InputError(f'`engine="{name}"` cannot differentiate this scorer: {cause}. Use `engine="auto"`.') from None


def _cheapest(units: Mapping[UnitKind, Units], state: State, without: Collection[str]) -> Choice:
    unit: UnitKind = "items" if "items" in units else "pairs"
    refusals: dict[str, str] = {}  # engine -> why not
    for name, found in reversed(ENGINES.items()):
        if name in without or unit not in found.automatic:
            continue
        try:
            plan = found.engine.tried(units[unit], state)
        except UnsuitableError as cause:
            refusals[found.engine.name] = str(cause)
            continue
        why = [f"{engine} cannot run this scorer: {refusal}" for engine, refusal in refusals.items()]
        return Choice(name, found.engine, unit, "; ".join([*why, found.automatic[unit]]), plan)
    raise _unscorable(refusals[LoopEngine.name])


def _unscorable(cause: str) -> InputError:
    return InputError(
        f"`scorer` cannot be run on a single item in eval mode: {cause}. Expected f(x) for a batch of one. Fix the "
        "model, or wrap it in a module that can."
    )
