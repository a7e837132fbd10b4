"""Kernels for the weight gradients of convolutions and the memory layout, measured on the real shapes.

A choice is measured once for an operation, its shapes, type, device, threads and version of torch, and remembered. It
changes scores by rounding only; a run that is repeated or resumed takes the recorded choice.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from tracin_func.gradients.batches import batches
from tracin_func.gradients.budget import MEASURING
from tracin_func.gradients.device import clock
from tracin_func.gradients.engines.ghost.capture import capture_units, channels_last
from tracin_func.gradients.engines.ghost.kernels import KERNELS, Convolved, Form, Shape, chosen_form, kernels_for, usual
from tracin_func.gradients.factors import Contribution
from tracin_func.gradients.model import State
from tracin_func.gradients.protocol import Kernels, Need, Plan, Units
from tracin_func.gradients.remembered import machine, recall, remember

ENOUGH = 0.01  # seconds for which the kernels of one convolution are timed, once each was
LEAST_TIMES, MOST_TIMES = 3, 7  # another process may take the processor for some milliseconds
HOPELESS = 3.0  # times the fastest, beyond which a kernel is not timed again
CLEARLY_FASTER = 0.9  # of the usual choice's seconds, from which another is taken
MOST_ITEMS = 4  # in the batch that is measured
LAYOUT_TIMES = 3  # interleaved runs of both layouts
RUNS = 16  # of the batch, that measuring all its convolutions in both layouts takes about as long as
SHORT = 1.0  # seconds that measuring may take in any run


def with_kernels(
    plan: Plan, units: Units, state: State, need: Need, shapes: Mapping[str, list[Shape]], layouts: tuple[bool, ...]
) -> Plan:
    """`plan` with the kernels of its convolutions, as recorded or else measured, and words on them."""
    factors = {part.parameter: "factors" for part in plan.parts if part.form == "factors" and part.parameter in shapes}
    built = {name: each for name, each in shapes.items() if name not in factors}
    if need.kernels is not None:
        known = {name: kernel for name, kernel in need.kernels.convolutions.items() if name in built}
        known = {name: kernel for name, kernel in known.items() if kernel in KERNELS}
        kernels = Kernels(need.kernels.channels_last and layouts[0], {**factors, **known})
        words = {name: f"kernel {kernel}, as recorded" for name, kernel in known.items()}
    else:
        size = min(plan.chunk, units.count, MOST_ITEMS)
        bench = Bench(units, state, built, layouts, size, units.count * need.visits)
        kernels, words = bench.choose(factors)
    parts = [
        replace(part, reason=f"{part.reason}; {words[part.parameter]}") if part.parameter in words else part
        for part in plan.parts
    ]
    return replace(plan, kernels=kernels, parts=tuple(parts))


@dataclass(frozen=True)
class Bench:
    """What is measured: convolutions of a batch of `size` units, with the shapes that each parameter sees.

    Args:
        layouts: those that the scorer allows, True for channels as the last axis in memory; the usual one first.
        work: units that the run differentiates, at all checkpoints.
    """

    units: Units
    state: State
    shapes: Mapping[str, Sequence[Shape]]
    layouts: tuple[bool, ...]
    size: int
    work: int

    def choose(self, form: Mapping[str, str]) -> tuple[Kernels, dict[str, str]]:
        """The fastest layout and kernels, beside the choices `form` for other parameters; words on the times."""
        usual = Kernels(self.layouts[0], dict(form))
        if not self.shapes or self.state.example.is_meta:
            return usual, {}
        whole = self._key("layout", [self.layouts, *self.shapes.values()])
        every = [whole, *(self._key(last, shape) for last in self.layouts for shape in self._distinct())]
        known = recall(every)
        if len(known) < len(set(every)):
            found = self._measured(form)
            if found is None:
                return usual, {}
            remember(found)
            known = recall(every)
        last = bool(known[whole]["channels_last"])
        own = self._fastest(known, last)
        return Kernels(last, {**form, **own}), self._words(known, last, own)

    def _distinct(self) -> list[Shape]:
        return list(dict.fromkeys(shape for shapes in self.shapes.values() for shape in shapes))

    def _key(self, *what: object) -> str:
        return json.dumps([*what, self.size, str(self.state.example.dtype), machine(self.state.example.device)])

    def _measured(self, form: Mapping[str, str]) -> dict[str, Any] | None:
        """Seconds by key; None where measuring costs more than it may save."""
        batch, index = next(batches(self.units, torch.arange(self.size), self.size))
        if len(index) < self.size:  # items of different shapes, for which one batch does not speak
            return None

        def run(last: bool, form: Form) -> float:
            laid = channels_last(self.state) if last else self.state
            return self._seconds(lambda: capture_units(self.units, laid, batch, self.size, form=form))

        for last in self.layouts:  # libraries prepare themselves at the first
            run(last, chosen_form(form))
        one = run(self.layouts[0], chosen_form(form))
        if RUNS * one > max(SHORT, MEASURING * one * self.work / self.size):
            return None
        found: dict[str, Any] = {}
        for last in self.layouts:
            run(last, self._timing(found, last, chosen_form(form)))
        seconds = dict.fromkeys(self.layouts, math.inf)
        for _ in range(LAYOUT_TIMES if len(self.layouts) > 1 else 0):
            for last in self.layouts:
                chosen = chosen_form({**form, **self._fastest(found, last)})
                seconds[last] = min(seconds[last], run(last, chosen))
        best = min(self.layouts, key=lambda last: seconds[last])
        faster = seconds[best] < CLEARLY_FASTER * seconds[self.layouts[0]]
        whole = self._key("layout", [self.layouts, *self.shapes.values()])
        return found | {whole: {"channels_last": best if faster else self.layouts[0]}}

    def _timing(self, found: dict[str, Any], last: bool, form: Form) -> Form:
        """A form that times every kernel of the convolutions in `shapes`, and adds the seconds to `found`."""

        def timed(name: str, use: Convolved) -> Contribution:
            key = self._key(last, use.shape)
            if name in self.shapes and key not in found:
                found[key] = {"usual": usual(use), "seconds": self._times(use)}
            return form(name, use)

        return timed

    def _times(self, use: Convolved) -> dict[str, float]:
        """Seconds of each kernel, the least of some that alternate; the result is read as a row."""
        names = kernels_for(use)
        runs = {name: partial(lambda name: use.built(name).flatten(1), name) for name in names}
        seconds = dict.fromkeys(names, math.inf)
        for run in runs.values():
            run()
        start = time.perf_counter()
        for times in range(MOST_TIMES):
            hopeless = HOPELESS * min(seconds.values()) if times >= LEAST_TIMES else math.inf
            for name, run in runs.items():
                if seconds[name] <= hopeless:
                    seconds[name] = min(seconds[name], self._seconds(run))
            if times >= LEAST_TIMES and time.perf_counter() - start > ENOUGH:
                break
        return seconds

    def _fastest(self, known: Mapping[str, Any], last: bool) -> dict[str, str]:
        """The kernel of every parameter: the usual one, or another that is clearly faster over all its uses."""
        result = {}
        for name, shapes in self.shapes.items():
            of_uses = [known[self._key(last, shape)] for shape in shapes]
            shared = set.intersection(*(set(each["seconds"]) for each in of_uses))
            total = {kernel: sum(each["seconds"][kernel] for each in of_uses) for kernel in sorted(shared)}
            best, own = min(total, key=lambda kernel: total[kernel]), of_uses[0]["usual"]
            result[name] = best if total[best] < CLEARLY_FASTER * total.get(own, math.inf) else own
        return result

    def _words(self, known: Mapping[str, Any], last: bool, own: Mapping[str, str]) -> dict[str, str]:
        """For each parameter its kernel and the milliseconds of all, per unit."""
        words = {}
        for name, shapes in self.shapes.items():
            seconds = known[self._key(last, shapes[0])]["seconds"]
            times = ", ".join(f"{kernel} {1e3 * each / self.size:.3f}" for kernel, each in seconds.items())
            words[name] = f"kernel {own[name]}, measured ({times} ms per item)"
        return words

    def _seconds(self, run: Callable[[], object]) -> float:
        start = clock(self.state.example.device)
        run()
        return clock(self.state.example.device) - start
