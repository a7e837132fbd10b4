"""Which engine runs a job, on which units, and why."""

from dataclasses import dataclass
from typing import Literal

from tracin_func.engines.loop import LoopEngine
from tracin_func.engines.vmapped import VmappedEngine
from tracin_func.errors import InputError, UsageError
from tracin_func.gradients import Engine, Units
from tracin_func.scorer import State

UnitKind = Literal["items", "pairs"]

# name -> engine and the units it differentiates. A new engine is one line here.
ENGINES: dict[str, tuple[Engine, UnitKind]] = {
    "loop": (LoopEngine(), "pairs"),
    "pair": (VmappedEngine(), "pairs"),
    "item": (VmappedEngine(), "items"),
}
NAMES = ("auto", *ENGINES)


@dataclass(frozen=True)
class Choice:
    """The engine of a run. `name` is the word for it, `reason` why it was taken."""

    name: str
    engine: Engine
    unit: UnitKind
    reason: str


def choose(name: str, joint: bool, units: dict[UnitKind, Units], state: State) -> Choice:
    """The engine called `name`, or for `auto` the cheapest that can run these units.

    `units` maps a kind to what the engine would differentiate; each candidate is tried on two of them.

    Raises:
        UsageError: no engine of that name, or `item` for a joint scorer.
        InputError: the named engine cannot run the scorer (the message says why and what to use), or none can.
    """
    if name not in NAMES:
        raise UsageError(f"`engine` should be one of {', '.join(NAMES)}. Got {name!r}.")
    if name == "auto":
        return _cheapest("pairs" if joint else "items", units, state)
    engine, unit = ENGINES[name]
    if joint and unit == "items":
        raise UsageError(
            f"engine {name!r} needs a scorer of single items, and this one takes both items of a pair. "
            "Use 'pair', 'loop' or 'auto'."
        )
    cause = engine.refusal(units[unit], state)
    if cause is None:
        return Choice(name, engine, unit, "as asked")
    if isinstance(engine, LoopEngine):
        raise _unscorable(cause)
    raise InputError(f"engine {name!r} cannot differentiate this scorer: {cause}. Use 'loop' or 'auto'.")


def _cheapest(unit: UnitKind, units: dict[UnitKind, Units], state: State) -> Choice:
    vmapped = VmappedEngine()
    cause = vmapped.refusal(units[unit], state)
    if cause is None:
        name = "item" if unit == "items" else "pair"
        reason = "one gradient an item serves all its pairs" if unit == "items" else "the scorer takes whole pairs"
        return Choice(name, vmapped, unit, reason)
    loop = LoopEngine()
    failure = loop.refusal(units[unit], state)
    if failure is not None:
        raise _unscorable(failure)
    return Choice(
        "loop", loop, unit, f"vmap(grad) cannot run this scorer: {cause}; one autograd call for each of the {unit}"
    )


def _unscorable(cause: str) -> InputError:
    return InputError(
        f"the scorer cannot be run on a single item in eval mode: {cause}. "
        "Expected f(x) for a batch of one; mend the model, or wrap it in a module that can."
    )
