"""From checkpoints to gradients: the only module that knows engines AND checkpoints.

Everything costly is per unit and checkpoint and happens here; what pairs make of it is algebra, in `scoring`.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.device import exact_products, resolve_device
from tracin_func.gradients.model import Scorer, State
from tracin_func.gradients.protocol import Gradients, UnsuitableError
from tracin_func.gradients.representations.stored import StoredEngine
from tracin_func.gradients.store.blocks import CheckpointRecord
from tracin_func.gradients.store.store import Store
from tracin_func.gradients.working import random_numbers_kept, uncompiled
from tracin_func.losses.registry import as_loss
from tracin_func.scoring.checks import Change, change_of, probed, runs
from tracin_func.scoring.combinations import (
    PairTable,
    over_differences,
    over_items,
    over_pairs,
    reporting,
    terms_of,
    without_gradients,
)
from tracin_func.scoring.plan import Prepared, needed, prepare
from tracin_func.scoring.steps import Evaluated, Filled, Opened, Reading, Traced
from tracin_func.scoring.stored_rows import open_for, record_of, require_items_in, require_rows, shared, stored, unit_in
from tracin_func.scoring.units import UnitMaker
from tracin_func.task.checkpoints import (
    Checkpoint,
    LearningRate,
    LoadedCheckpoint,
    description,
    file_digest,
    load,
)
from tracin_func.task.learning_rates import learning_rates, root_rates
from tracin_func.task.optimizer_state import adam_preconditioner, holds_second_moments
from tracin_func.task.task import Task

SAMPLED = 16  # units that a measurement differentiates, or a whole chunk

ADAM_NOTICE = "the checkpoints hold Adam's second moments; --preconditioner adam scores the steps Adam would take."

Step = TypeVar("Step")


class Tracer:
    """Walks the checkpoints of a task, each loaded when it is its turn and dropped; `prepared` once, at the first.

    `norms` tells whether norms of pairs will be asked for, and not products with test pairs alone; `every`, that
    every item is a unit, to serve pairs beyond those of the task.

    Raises:
        InputError: a checkpoint file is missing: told before any is scored.
    """

    def __init__(self, task: Task, compute: Compute, *, norms: bool = True, every: bool = False) -> None:
        for checkpoint in task.checkpoints:
            if isinstance(checkpoint.source, str | Path) and not Path(checkpoint.source).exists():
                raise InputError(f"{checkpoint.source}: no such checkpoint file.")
        self._task = task
        self._compute = compute
        self._norms = norms
        self._every = every
        self._scorer = Scorer(task.scorer, joint=task.joint, params=compute.params)
        self._device = resolve_device(compute.device)
        self._dtype = compute.dtype or self._scorer.wider_dtype()
        self.prepared: Prepared | None = None
        self._opened = ExitStack()  # the store
        self._store: Store | None = None
        self._told = False  # of second moments that are not used
        self._rated = False  # whether any checkpoint has a learning rate above 0
        self._report = Reading(self._scorer.canonical(), compute.notice)
        self._scores: dict[str, Tensor] = {}  # of all units by checkpoint, where a pass before this one made them

    def __enter__(self) -> "Tracer":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[Traced]:
        return self._walk(self._step)

    def filled(self) -> Iterator[Filled]:
        """What this process added to the store, checkpoint by checkpoint."""
        return self._walk(self._filled)

    def evaluations(self, pairs: int) -> Iterator[Evaluated]:
        """The terms of at most so many training and held-out pairs each, chosen at random; no gradients."""
        return self._walk(lambda opened: self._evaluated(opened, pairs))

    def sample(self) -> tuple[int, int, float]:
        """How many units were differentiated at the first checkpoint, of how many, and the seconds it took."""
        with closing(self._walk(self._sampled)) as walk:
            return next(walk)

    def _walk(self, step: Callable[[Opened], Step]) -> Generator[Step, None, None]:
        with closing(visited(self._task, self._scorer, self._device)) as checkpoints:
            for checkpoint, loaded in checkpoints:
                try:
                    yield step(self._open(checkpoint, loaded))
                except NumericalError as error:
                    raise NumericalError(f"{loaded.name}: {error}") from None
        self._require_a_rate()

    def _require_a_rate(self) -> None:
        if not self._rated:
            names = ", ".join(each.known_as(place) for place, each in enumerate(self._task.checkpoints, start=1))
            raise InputError(
                f"the learning rate is 0 at every checkpoint ({names}), so every score would be 0; a schedule may end "
                "there. Give one with --learning-rate, or use none: --checkpoint-weights uniform."
            )

    def _open(self, checkpoint: Checkpoint, loaded: LoadedCheckpoint) -> Opened:
        state = self._state(loaded)
        if self._compute.preconditioner == "none" and not self._told and holds_second_moments(loaded):
            self._told = True
            self._compute.notice(ADAM_NOTICE)
        rate, source = self._rate(checkpoint, loaded)
        scales = root_rates(rate, self._scorer.canonical())
        self._rated = self._rated or any(scales.values())
        if self.prepared is None:
            self.prepared = self._prepare(state, loaded)
            self._compute.planned(self.prepared.describe())
            state = state if self.prepared.make.device == self._device else self._state(loaded)
        return Opened(loaded, state, scales, description(checkpoint, loaded, rate, source))

    def _rate(self, checkpoint: Checkpoint, loaded: LoadedCheckpoint) -> tuple[LearningRate, str]:
        if self._compute.checkpoint_weights == "uniform":
            return 1.0, "uniform"
        return learning_rates(loaded, self._scorer.trained(), checkpoint.learning_rate)

    def _step(self, opened: Opened) -> Traced:
        self._report(opened.loaded)
        prepared, loaded, state = self._ready, opened.loaded, opened.state
        start = time.perf_counter()
        try:
            gradients, values, tables = self._gradients(prepared, state, opened.scales)
        except UnsuitableError as error:
            self.prepared = self._other_engine(prepared, state, loaded, error)
            self._compute.planned(self.prepared.describe())
            state = self._state(loaded)  # its device may be another one
            gradients, values, tables = self._gradients(self.prepared, state, opened.scales)
        if self.prepared is not None and any(opened.scales.values()):
            earlier = self._scores.pop(loaded.name, None)
            while change := change_of(self._ready, state, values, tables[0], earlier):
                state, earlier = self._changed(change, state, loaded), None
                gradients, values, tables = self._gradients(self._ready, state, opened.scales)
        seconds = time.perf_counter() - start
        test = tables[1] if len(tables) > 1 else None
        describe = {**opened.describe, "sha256": file_digest(opened.describe["path"])}
        return Traced(loaded.name, values, gradients, tables[0], test, describe, seconds)

    def _filled(self, opened: Opened) -> Filled:
        self._report(opened.loaded)
        prepared = self._ready
        engine, state = prepared.choice.engine, opened.state
        assert isinstance(engine, StoredEngine)
        made = 0
        if any(opened.scales.values()):
            units, done = reporting(prepared.scored, self._compute)
            made = engine.fill(units, state, opened.scales, prepared.plan)
            done()
        return Filled(state.name, made, len(engine.store.missing(state.name)), engine.store.blocks)

    def _evaluated(self, opened: Opened, pairs: int) -> Evaluated:
        prepared = self._ready.sampled(pairs)
        units = prepared.scored
        # In another order than for gradients, so that scores that depend on companions differ.
        order = torch.randperm(units.count, generator=torch.Generator().manual_seed(0))
        shuffled = replace(units, take=lambda index: units.take(order[index]))
        found = prepared.choice.engine.values(shuffled, opened.state, prepared.plan.chunk)
        values = found[torch.argsort(order).to(found.device)]
        if units.count == self._ready.scored.count:
            self._scores[opened.loaded.name] = values
        plain = replace(self._compute, test_functional="loss", weight_test_pairs=False)
        tables = terms_of(prepared, plain, values)
        as_trained = None
        if self._task.trained_loss is not None:
            make = replace(prepared.make, loss=as_loss(self._task.trained_loss))
            as_trained = terms_of(replace(prepared, make=make), plain, values)[0]
        test = tables[1] if len(tables) > 1 else None
        return Evaluated(opened.loaded.name, prepared.make.tables, tables[0], test, as_trained, opened.describe)

    def _sampled(self, opened: Opened) -> tuple[int, int, float]:
        prepared = self._ready
        make, unit = prepared.make, prepared.choice.unit
        every = torch.arange(sum(map(len, make.tables)))
        units = make.pairs(torch.ones(len(every)), every[: len(make.tables[0])]) if unit == "pairs" else make.singles()
        few = min(units.count, max(SAMPLED, prepared.plan.chunk))
        asked = needed(make, unit, self._norms)
        asked = replace(asked, right=torch.arange(min(few, len(asked.right))))
        plan = replace(prepared.plan, block=few)
        for _ in range(2):  # libraries prepare themselves at the first
            start = time.perf_counter()
            gradients = prepared.choice.engine.gradients(
                replace(units, count=few), opened.state, opened.scales, plan, asked
            )
            gradients.values.sum().item()  # reading a number waits for the device
            seconds = time.perf_counter() - start
        return few, units.count, seconds

    @property
    def _ready(self) -> Prepared:
        assert self.prepared is not None
        return self.prepared

    def _gradients(
        self, prepared: Prepared, state: State, scales: dict[str, float]
    ) -> tuple[Gradients | None, Tensor, list[PairTable]]:
        if not any(scales.values()):
            self._compute.notice(f"{state.name}: its learning rate is 0, so it adds nothing to any score.")
            values = prepared.choice.engine.values(prepared.scored, state, prepared.plan.chunk)
            return None, values, without_gradients(terms_of(prepared, self._compute, values), self._compute)
        over = over_differences if prepared.make.by_difference else over_items
        over = over_pairs if prepared.choice.unit == "pairs" else over
        asked = needed(prepared.make, prepared.choice.unit, self._norms)
        gradients, tables = over(prepared, self._compute, state, scales, asked)
        return gradients, torch.empty(0) if gradients is None else gradients.values, tables

    def _other_engine(
        self, prepared: Prepared, state: State, loaded: LoadedCheckpoint, error: UnsuitableError
    ) -> Prepared:
        """The next engine of `auto`, said; one that was asked for is not exchanged."""
        name = prepared.choice.name
        if self._compute.world.size > 1:  # the others do not know, and wait elsewhere
            raise InputError(
                f"{loaded.name}: engine {name} cannot go on: {error}; processes that share a run cannot take "
                "another on the way. Fix: name one, such as --engine item, or run one process alone."
            )
        if self._compute.engine != "auto":
            raise InputError(f"{loaded.name}: engine {name!r} cannot differentiate this scorer: {error}. Use 'auto'.")
        self._compute.notice(f"{loaded.name}: engine {name} cannot go on: {error}; another engine does.")
        visits = len(self._task.checkpoints)
        again = prepare(prepared.make, state, loaded.weights, self._compute, visits, self._norms, without=[name])
        return self._with_rows(again, state)

    def _changed(self, change: Change, state: State, loaded: LoadedCheckpoint) -> State:
        """Go on with units made otherwise, said; where that cannot be, raise."""
        compute, prepared = self._compute, self._ready
        if compute.engine != "auto":
            raise InputError(
                f"{loaded.name}: engine {compute.engine!r} cannot differentiate this scorer: {change.reason}. "
                "Use 'auto'."
            )
        if compute.world.started or compute.store is not None or self._every:
            raise InputError(
                f"{loaded.name}: {change.reason}, so rows of items cannot serve the pairs. Score without --store, "
                "--keep and torchrun."
            )
        compute.notice(f"{loaded.name}: {change.reason}; {change.remedy}.")
        visits = len(self._task.checkpoints)
        self.prepared = prepare(change.make, state, loaded.weights, compute, visits, self._norms)
        compute.planned(self.prepared.describe())
        return state if self.prepared.make.device == prepared.make.device else self._state(loaded)

    def _state(self, loaded: LoadedCheckpoint) -> State:
        device = self._device if self.prepared is None else self.prepared.make.device
        scale = {}
        if self._compute.preconditioner == "adam":
            every = dict(self._scorer.module.named_parameters())
            found = adam_preconditioner(loaded, every, self._scorer.canonical())
            scale = {name: preconditioner.sqrt() for name, preconditioner in found.items()}
        return self._scorer.state(loaded.name, loaded.weights, device, self._dtype, scale)

    def _prepare(self, state: State, loaded: LoadedCheckpoint) -> Prepared:
        task, compute = self._task, self._compute
        loss = as_loss(task.loss)
        if self._every:
            require_items_in(compute.store)
        every = self._every or compute.store is not None
        by_items = self._every or unit_in(compute.store) == "items"
        make = UnitMaker(
            *(task, self._scorer, loss, compute.test_functional, self._device, self._dtype),
            every=every,
            by_items=by_items,
        )
        make = probed(make, state, compute.notice, alone=compute.batch_size == 1)
        if self._dtype is not None and compute.dtype is None:
            half = self._scorer.current_dtype()
            if not runs(make, state):
                self._dtype, make = None, replace(make, dtype=None, probed=False)
                state = self._state(loaded)
                make = probed(make, state, compute.notice, alone=compute.batch_size == 1)
                compute.notice(
                    f"the model is {half} and does not run in float32: its gradients are {half}, and small ones "
                    "underflow to 0."
                )
            else:
                compute.notice(f"the model is {half}: its gradients are computed in float32, from weights as saved.")
        prepared = prepare(make, state, loaded.weights, compute, len(task.checkpoints), self._norms)
        return self._with_rows(prepared, state)

    def _with_rows(self, prepared: Prepared, state: State) -> Prepared:
        """`prepared`, with rows in the store or shared by all processes, where there is one or are some."""
        compute = self._compute
        if self._every:
            require_rows(prepared, "what serves pairs read in blocks")
        if compute.store is None:
            if not compute.world.started:
                return prepared
            require_rows(prepared, "torchrun")
            return shared(prepared, state, compute.world)
        require_rows(prepared, "--store")
        if self._store is None:
            values = prepared.choice.engine.values(replace(prepared.scored, count=1), state, 1).dtype
            records = list(self._records(values))
            self._store = open_for(prepared, state, compute, records, self._opened)
        return stored(prepared, self._store, compute.world, compute.shard)

    def _records(self, values: torch.dtype) -> Iterator[CheckpointRecord]:
        """Of every checkpoint; each is read for this alone."""
        for position, checkpoint in enumerate(self._task.checkpoints, start=1):
            loaded = load(checkpoint, position)
            yield record_of(self._state(loaded), self._rate(checkpoint, loaded)[0], values)


def visited(
    task: Task, scorer: Scorer, device: torch.device
) -> Generator[tuple[Checkpoint, LoadedCheckpoint], None, None]:
    """The checkpoints in turn, each loaded once and dropped. Close it, and all is as before.

    Meanwhile products are exact on `device`, and random numbers are our own.
    """
    cuda = [device] if device.type == "cuda" else []
    with scorer.session(), random_numbers_kept(cuda), exact_products(device), uncompiled():
        for position, checkpoint in enumerate(task.checkpoints, start=1):
            yield checkpoint, load(checkpoint, position)
