"""Decided before the first checkpoint is scored and kept for all: device, units, engine and sizes."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tracin_func.errors import InputError
from tracin_func.gradients.batches import Work
from tracin_func.gradients.budget import available_bytes, row_bytes
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.engines.registry import Choice, UnitKind, choose
from tracin_func.gradients.model import State
from tracin_func.gradients.projection.registry import row_dimension
from tracin_func.gradients.protocol import Gradients, Kernels, Need, Plan, Units, UnsuitableError
from tracin_func.gradients.representations.keep import EXACT, Keeping, cpu_deviation, keep, plan_for
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.repeats import Repeats, differences_are_cheaper, repeats, report_often
from tracin_func.scoring.units import UnitMaker
from tracin_func.task.method import Projection

MPS_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Prepared:
    """The decisions of a run."""

    make: UnitMaker
    choice: Choice
    plan: Plan
    budget: int
    repeats: Repeats
    keeping: Keeping = EXACT

    @property
    def projection(self) -> Projection:
        """The projection that was taken."""
        return self.keeping.projection

    def work(self, units: Units, state: State, root_rate: dict[str, float]) -> Work:
        """`units` to be differentiated at one checkpoint."""
        return Work(self.choice.engine, units, state, root_rate, self.plan)

    def keep(self, units: Units, state: State, root_rate: dict[str, float], need: Need) -> Gradients:
        """The gradients of `units` as they are planned to be kept."""
        return keep(self.work(units, state, root_rate), need, self.keeping)

    @property
    def scored(self) -> Units:
        """The units whose values are scores: items, or joint pairs."""
        return self.make.joint() if self.make.task.joint else self.make.singles()

    @property
    def over(self) -> str:
        """What is differentiated: items, pairs or score differences."""
        return "score differences" if self.choice.unit == "items" and self.make.by_difference else self.choice.unit

    def describe(self) -> dict[str, Any]:
        """The record for provenance."""
        how, store = self.choice.engine.name + self.keeping.words, self.keeping.store
        return {
            "engine": self.choice.name,
            "gradients": f"{how}{',' if ',' in how else ''} over {self.over}",
            "reason": self.choice.reason,
            "device": str(self.make.device),
            "dtype": str(self.make.dtype or "the model's own"),
            "threads": torch.get_num_threads(),
            "batch_size": self.plan.chunk,
            "batch_size_reason": self.plan.reason,
            "channels_last": self.plan.kernels.channels_last,
            "kernels": self.plan.kernels.describe(),
            "rows_held": self.plan.block,
            "differentiations": self.repeats.describe(),
            "memory_budget": self.budget,
            "projection": self.projection.describe(),
            "store": None if store is None else {"path": str(store.path), "dtype": store.manifest.dtype},
            "expected_bytes": self.plan.bytes_held + self.plan.chunk_bytes,
            "parts": [asdict(part) for part in self.plan.parts],
            "scored_alone_because_of": self.make.coupled,
        }


def prepare(
    make: UnitMaker,
    state: State,
    weights: Mapping[str, Tensor],
    compute: Compute,
    observer: Observer,
    visits: int,
    norms: bool,
    without: Collection[str] = (),
) -> Prepared:
    """Choose the engine and fix the sizes for units that were probed, at `state`, which is of the state dict `weights`.

    `visits` is the number of checkpoints, `norms` whether self-influence is asked for, `without` lists engines that
    failed before. A device that computes wrong gradients is left for the CPU.

    Raises:
        InputError: no engine that was allowed can run the scorer.
    """
    if state.left:
        observer.notice(f"{state.name} lacks {len(state.left)} frozen parameters; the model's own are used.")
    kinds = _units(make)
    choice = choose(compute.engine, kinds, state, without)
    if make.device.type == "mps":
        deviation = _mps_deviation(make, choice, state, weights)
        if deviation > MPS_TOLERANCE:
            observer.notice(f"mps: gradients differ from the CPU's by {deviation:.1e}; continuing on the CPU.")
            make = replace(make, device=torch.device("cpu"))
            state = make.scorer.state(state.name, weights, make.device, make.dtype, state.scale)
            return prepare(make, state, weights, compute, observer, visits, norms, without)
        observer.notice(f"mps: gradients of two units agree with the CPU's float64 to {deviation:.1e}.")
    if choice.name == "loop" and compute.engine == "auto":
        observer.notice(f"note: engine loop, the slowest, was chosen: {choice.reason}.")
    budget = compute.memory_budget or available_bytes(make.device)
    need = replace(needed(make, choice.unit, norms), batch_size=compute.batch_size, budget=budget, visits=visits)
    if compute.kernels is not None:
        need = replace(need, kernels=Kernels.read(compute.kernels))
    choice, projection = _projected(make.method.projection, compute, observer, choice, kinds[choice.unit], state, need)
    try:
        plan = plan_for(choice.engine, choice.plan, kinds[choice.unit], state, need, projection)
    except UnsuitableError as error:  # found while it was measured
        if compute.engine != "auto":
            raise engine_refused(state.name, choice.name, error) from None
        observer.notice(engine_failed(state.name, choice.name, error))
        return prepare(make, state, weights, compute, observer, visits, norms, [*without, choice.name])
    if plan.chunk_bytes > budget // 2:
        takes, have = plan.chunk_bytes / 1e9, budget / 2e9
        observer.notice(
            f"note: a batch of {plan.chunk} is expected to take {takes:.2f} GB; {have:.2f} GB are planned for it. If "
            "memory runs out, choose a smaller `batch_size`."
        )
    found = _counted(make, kinds[choice.unit], state, compute, need, plan, projected=projection.kind != "none")
    if choice.unit == "items" and differences_are_cheaper(make, state, need, found):
        observer.notice(
            f"note: gradients of {found.units:,} items do not fit in half of the memory budget and would be "
            f"recomputed ({found.total:,} per checkpoint). Score differences of pairs are differentiated instead."
        )
        return prepare(replace(make, apart=True), state, weights, compute, observer, visits, norms, without)
    prepared = Prepared(make, choice, plan, budget, found, Keeping(projection))
    report_often(found, prepared.over, observer.notice, in_blocks=make.every and norms)
    return prepared


def _counted(
    make: UnitMaker, units: Units, state: State, compute: Compute, need: Need, plan: Plan, *, projected: bool
) -> Repeats:
    """How often units are differentiated; once if their rows go to a store or to other processes."""
    if compute.store is not None or compute.world.started:
        return Repeats(units.count, units.count)
    return repeats(make, units.count, state, need, plan, kept=need.held or projected)


def engine_refused(checkpoint: str, engine: str, reason: object) -> InputError:
    """The error about an engine that was asked for and cannot be used."""
    return InputError(
        f'`engine="{engine}"` cannot differentiate this scorer: {checkpoint}: {reason}. Use `engine="auto"`.'
    )


def engine_failed(checkpoint: str, engine: str, reason: object) -> str:
    """The notice about an engine that `auto` has left."""
    return f"{checkpoint}: engine {engine} failed ({reason}); continuing with another engine."


def _projected(
    asked: Projection,
    compute: Compute,
    observer: Observer,
    choice: Choice,
    units: Units,
    state: State,
    need: Need,
) -> tuple[Choice, Projection]:
    """`choice` with its gradients projected as asked; all processes as the first one.

    `auto` keeps gradients exact where no row has to stay (in a store or with torchrun all do), where a gradient is no
    longer than a projected row, and where the rows of all units fit the budget and there are no more units than
    dimensions of a projected row: their kernel then takes fewer multiply-adds than a dense projection, and has no
    error. Otherwise it projects, from factors where these are captured.
    """
    if asked.kind != "auto":
        return choice, asked
    exact = replace(asked, kind="none", dim=None)
    if not (need.held or compute.store is not None or compute.world.started):
        observer.notice('`projection="auto"`: keeping exact gradients (each is used as soon as it is computed).')
        return choice, exact
    projected = replace(asked, kind="kronecker" if choice.engine.factored else "sjlt")
    width, parameters = row_dimension(projected), sum(tensor.numel() for tensor in state.parameters.values())
    fits = units.count * row_bytes(state) <= need.budget // 2
    small = fits and units.count <= width
    taken = exact if small or parameters <= width else projected
    if compute.world.size > 1:  # memory, which it depends on, may differ by host
        taken = replace(asked, kind=compute.world.agree(taken.kind))
    if taken.kind != "none":
        cause = f"they are more than the {width:,} numbers of a row" if fits else "they do not fit the memory"
        return replace(choice, reason=f"{choice.reason}; {units.count:,} gradients are projected, as {cause}"), taken
    why = f"{units.count:,} gradients fit in memory and" if small else f"{parameters:,} parameters"
    observer.notice(
        f'`projection="auto"`: keeping exact gradients ({why} are no more than {width:,} projected dimensions).'
    )
    return choice, exact


def needed(make: UnitMaker, unit: UnitKind, norms: bool) -> Need:
    """The dot products and norms of `unit` that all pairs need, before any pair is known to be inactive."""
    train = len(make.task.train_pairs)
    if unit == "pairs" or make.by_difference:
        return Need(norms, combined=False, right=torch.arange(train, sum(map(len, make.tables))))
    if norms:
        return Need(combinations=None if make.by_items else train)
    test = make.tables[1]
    right = torch.searchsorted(make.used_items, torch.cat([test.first, test.second]).unique())
    return Need(norms=False, right=right)


def _units(make: UnitMaker) -> dict[UnitKind, Units]:
    every = torch.arange(sum(map(len, make.tables)))
    pairs = make.pairs(torch.ones(len(every)), every)
    return {"pairs": pairs} if make.task.joint or make.whole_pairs else {"items": make.singles(), "pairs": pairs}


def _mps_deviation(make: UnitMaker, choice: Choice, state: State, weights: Mapping[str, Tensor]) -> float:
    exact_make = replace(make, device=torch.device("cpu"), dtype=torch.float64)
    exact = exact_make.scorer.state(state.name, weights, exact_make.device, exact_make.dtype, state.scale)
    here, there = _units(make)[choice.unit], _units(exact_make)[choice.unit]
    return cpu_deviation(choice.engine, (here, state), (there, exact))
