"""The engines by name. A new one is a class with the methods of `Engine`, and an entry here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tracin_func.gradients.engines.ghost.engine import GhostEngine
from tracin_func.gradients.engines.loop import LoopEngine
from tracin_func.gradients.engines.vmap import VmappedEngine
from tracin_func.gradients.protocol import Engine

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
    """The allowed values of `engine`."""
    return "auto", *ENGINES
