"""The batch size that is fastest here, measured on the units of the run and remembered.

A measurement may be disturbed by other processes, so sizes are timed in two rounds, and the least time of each counts.
"""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tracin_func.gradients.budget import MEASURED_CHUNKS, MEASURING
from tracin_func.gradients.device import clock
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Differentiate, Engine, Need, Plan, Planner, Sketch, Units, whole
from tracin_func.gradients.remembered import machine, recall, remember
from tracin_func.task.items import Batch

BATCHES = 3  # in one round of a size; the first is a cold start, and engines check it
WORSE = 1.1  # times the least seconds per unit, from which sizes further away are not tried
CLOSE = 1.3  # up to which a size is timed in the second round
FASTER = 0.97  # of the seconds at the size that is not measured, from which another is taken

LITTLE = 0.5  # seconds that measuring may take in a run that it may speed up: of LEAST_WORK units and LEAST_SECONDS
LEAST_WORK, LEAST_SECONDS = 100, 0.3

Run = Callable[[Engine, Units, Plan, Need], object]  # the gradients of all units, as they are kept


class Clocked:
    """An engine that notes when it is given each batch of `size` units."""

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine, self._size = engine, size
        self.name, self.factored = engine.name, engine.factored
        self.times: list[float] = []

    def tried(self, units: Units, state: State) -> Planner:
        return self._engine.tried(units, state)

    def values(self, units: Units, state: State, plan: Plan) -> Tensor:
        return self._engine.values(units, state, plan)

    def differentiate(self, units: Units, state: State, plan: Plan, sketch: Sketch = whole) -> Differentiate:
        differentiate = self._engine.differentiate(units, state, plan, sketch)

        def clocked(batch: Batch, index: Tensor) -> Any:
            if len(index) == self._size:
                self.times.append(clock(state.example.device))
            return differentiate(batch, index)

        return clocked


@dataclass
class Measurement:
    """Seconds per unit by batch size.

    Args:
        run: what is timed.
        work: units that the run differentiates, at all checkpoints.
    """

    engine: Engine
    units: Units
    state: State
    need: Need
    plan: Plan
    run: Run
    work: int
    seconds: dict[int, float] = field(default_factory=dict)
    spent: float = 0.0

    def fastest(self) -> Plan:
        """The plan with the fastest chunk, as remembered, or measured if that takes a small share of the run."""
        guess, key = self.plan.chunk, self._key()
        if (found := recall([key]).get(key)) is None:
            if not self._is_worth_it():
                return replace(self.plan, reason="short run, not measured", largest=0)
            self._climb(guess)
            if not self.seconds:
                return replace(self.plan, reason="items of several shapes, not measured", largest=0)
            if len(self.seconds) == 1:
                return replace(self.plan, reason="short run, not measured", largest=0)
            found = {"batch_size": self._best(guess), "seconds": {str(size): s for size, s in self.seconds.items()}}
            remember({key: found})
            found = recall([key])[key]
        size = min(int(found["batch_size"]), self.plan.largest)
        times = ", ".join(f"{size} {1e3 * seconds:.2f}" for size, seconds in found["seconds"].items())
        return replace(
            self.plan,
            chunk=size,
            chunk_bytes=size * self.plan.chunk_bytes // guess,
            reason=f"measured: {times} ms per unit",
            largest=0,
        )

    def _is_worth_it(self) -> bool:
        """Whether a round of the guess and of its double is a small share of the work, or takes little time."""
        least = 3 * BATCHES * self.plan.chunk
        short = self.work >= LEAST_WORK and BATCHES * self.plan.chunk * self.plan.trial <= LITTLE
        return not self.state.example.is_meta and (least <= MEASURING * self.work or short)

    def _climb(self, guess: int) -> None:
        """Time the guess and the sizes on both sides of it, until they are worse; then the close ones again."""
        sizes = [size for size in MEASURED_CHUNKS if size <= self.plan.largest]
        self._time(guess)
        if not self.seconds or self.seconds[guess] * self.work < LEAST_SECONDS:
            return
        for step in (1, -1):
            at = sizes.index(guess) + step
            while 0 <= at < len(sizes) and self._affords(sizes[at]):
                self._time(sizes[at])
                if self.seconds[sizes[at]] > WORSE * min(self.seconds.values()):
                    break
                at += step
        for size, seconds in sorted(self.seconds.items()):
            if seconds < CLOSE * min(self.seconds.values()) and self._affords(size):
                self._time(size)

    def _affords(self, size: int) -> bool:
        unit = min(self.seconds.values())
        return self.spent + BATCHES * size * unit <= max(LITTLE, MEASURING * self.work * unit)

    def _time(self, size: int) -> None:
        few = min(size, len(self.need.right))
        count, own = few + BATCHES * size, self.units.count
        take = self.units.take
        again = replace(self.units, count=count, take=lambda index: take(index % own))
        engine = Clocked(self.engine, size)
        plan = replace(self.plan, chunk=size, block=count)
        start = clock(self.state.example.device)
        self.run(engine, again, plan, replace(self.need, right=torch.arange(few)))
        end = clock(self.state.example.device)
        self.spent += end - start
        times = [*engine.times, end]
        taken = [later - sooner for sooner, later in itertools.pairwise(times[1:])]
        if taken:
            self.seconds[size] = min(self.seconds.get(size, math.inf), min(taken) / size)

    def _best(self, guess: int) -> int:
        best = min(self.seconds, key=lambda size: self.seconds[size])
        return best if self.seconds[best] < FASTER * self.seconds[guess] else guess

    def _key(self) -> str:
        """What the choice depends on: the engine, what is kept of gradients, the sizes of the model and of an item."""
        item = pytree.tree_leaves(self.units.take(torch.arange(1)))
        forms = [[part.form, list(self.state.parameters[part.parameter].shape)] for part in self.plan.parts]
        shapes: Sequence[Any] = forms or [list(tensor.shape) for tensor in self.state.parameters.values()]
        of_item = [[list(leaf.shape[1:]), str(leaf.dtype)] for leaf in item]
        device = self.state.example.device
        some = len(self.need.right).bit_length()
        kept = [self.engine.name, self.need.held, some, self.need.row, self.plan.kernels.channels_last]
        return json.dumps(["batch size", *kept, shapes, of_item, str(self.state.example.dtype), machine(device)])
