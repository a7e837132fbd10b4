"""Which engine runs a job, on which units, and why."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from tracin_func.errors import InputError, UsageError
from tracin_func.gradients.engines.ghost.engine import GhostEngine
from tracin_func.gradients.engines.loop import LoopEngine
from tracin_func.gradients.engines.vmap import VmappedEngine
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Engine, Units

UnitKind = Literal["items", "pairs"]


@dataclass(frozen=True)
class Choice:
    """An engine and the units it differentiates. `name` is the word for it, `reason` why it is taken."""

    name: str
    engine: Engine
    unit: UnitKind
    reason: str


# What can be asked for. A new engine is a line here and, if `auto` may take it, one below.
ENGINES = {
    choice.name: choice
    for choice in (
        Choice("loop", LoopEngine(), "pairs", "as asked"),
        Choice("pair", VmappedEngine(), "pairs", "as asked"),
        Choice("item", VmappedEngine(), "items", "as asked"),
        Choice("ghost", GhostEngine(), "items", "as asked"),
    )
}
NAMES = ("auto", *ENGINES)

# What `auto` tries, the cheapest first; units that a job does not have are passed over.
AUTOMATIC = (
    Choice("ghost", GhostEngine(), "items", "one forward and backward of all items gives each item's gradient"),
    Choice("item", VmappedEngine(), "items", "one gradient per item serves all its pairs"),
    Choice("pair", VmappedEngine(), "pairs", "the scorer takes whole pairs"),
    Choice("loop", LoopEngine(), "items", "one autograd call an item"),
    Choice("loop", LoopEngine(), "pairs", "one autograd call a pair"),
)


def choose(name: str, units: Mapping[UnitKind, Units], state: State, without: Collection[str] = ()) -> Choice:
    """The engine called `name`, or for `auto` the cheapest that can run these units.

    `units` maps a kind to what the engine would differentiate (a joint scorer has no items); each candidate is
    tried on a few of them. `auto` passes over the engines `without`, which failed on others.

    Raises:
        UsageError: no engine of that name, or `item` for a joint scorer.
        InputError: the named engine cannot run the scorer (the message says why and what to use), or none can.
    """
    if name not in NAMES:
        raise UsageError(f"`engine` should be one of {', '.join(NAMES)}. Got {name!r}.")
    if name == "auto":
        return _cheapest(units, state, without)
    choice = ENGINES[name]
    if choice.unit not in units:
        raise UsageError(
            f"engine {name!r} needs a scorer of single items, and this one takes both items of a pair. "
            "Use 'pair', 'loop' or 'auto'."
        )
    cause = choice.engine.refusal(units[choice.unit], state)
    if cause is None:
        return choice
    if isinstance(choice.engine, LoopEngine):
        raise _unscorable(cause)
    raise InputError(f"engine {name!r} cannot differentiate this scorer: {cause}. Use 'auto'.")


def _cheapest(units: Mapping[UnitKind, Units], state: State, without: Collection[str]) -> Choice:
    refusals: dict[str, str] = {}  # engine -> why not
    for choice in AUTOMATIC:
        if choice.name in without or choice.unit not in units or ("items" in units and choice.unit == "pairs"):
            continue
        cause = choice.engine.refusal(units[choice.unit], state)
        if cause is None:
            why = [f"{engine} cannot run this scorer: {refusal}" for engine, refusal in refusals.items()]
            return Choice(choice.name, choice.engine, choice.unit, "; ".join([*why, choice.reason]))
        refusals[choice.engine.name] = cause
    raise _unscorable(refusals[LoopEngine.name])


def _unscorable(cause: str) -> InputError:
    return InputError(
        f"the scorer cannot be run on a single item in eval mode: {cause}. "
        "Expected f(x) for a batch of one; mend the model, or wrap it in a module that can."
    )
