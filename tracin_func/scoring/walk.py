"""From checkpoints to gradients: the only module that knows engines AND checkpoints.

Everything costly is per unit and checkpoint and happens here; what pairs make of it is algebra, in `scoring`.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tracin_func.errors import InputError, NumericalError
from tracin_func.gradients.compute import Compute
from tracin_func.gradients.device import exact_products, resolve_device
from tracin_func.gradients.model import Scorer, State
from tracin_func.gradients.projection.registry import require_known
from tracin_func.gradients.protocol import Gradients, UnsuitableError
from tracin_func.gradients.representations.keep import fill
from tracin_func.gradients.store.store import Store
from tracin_func.gradients.working import random_numbers_kept, uncompiled
from tracin_func.losses.custom import as_loss
from tracin_func.scoring.checks import Change, change_of, probed, runs
from tracin_func.scoring.combinations import (
    PairScores,
    PairTable,
    over_differences,
    over_items,
    over_pairs,
    pair_scores,
    reporting,
    terms_of,
    without_gradients,
)
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.plan import Prepared, needed, prepare
from tracin_func.scoring.steps import Filled, Opened, Reading, Traced
from tracin_func.scoring.stored_rows import (
    admit,
    open_for,
    record_of,
    require_items_in,
    require_rows,
    shared,
    stored,
    unit_in,
)
from tracin_func.scoring.units import UnitMaker
from tracin_func.task.checkpoints import (
    Checkpoint,
    LearningRate,
    LoadedCheckpoint,
    description,
    load,
)
from tracin_func.task.learning_rates import learning_rates, root_rates
from tracin_func.task.method import Method
from tracin_func.task.optimizer_state import adam_preconditioner, holds_second_moments
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task

SAMPLED = 16  # units that a measurement differentiates, or a whole chunk

ADAM_NOTICE = "the checkpoints hold Adam's second moments; --preconditioner adam scores the steps Adam would take."


class Walk:
    """Opens each checkpoint of a task once, in order, and hands it to the visitors of a run.

    `prepared` (device, units, engine and sizes) is decided once, at the first.

    Args:
        norms: whether norms of pairs will be asked for, and not products with test pairs alone.
        every: every item is a unit, to serve pairs beyond those of the task.

    Raises:
        InputError: a checkpoint file is missing; raised before any is scored.
    """

    def __init__(
        self,
        task: Task,
        method: Method,
        compute: Compute,
        observer: Observer,
        *,
        norms: bool = True,
        every: bool = False,
    ) -> None:
        for checkpoint in task.checkpoints:
            if isinstance(checkpoint.source, str | Path) and not Path(checkpoint.source).exists():
                raise InputError(f"{checkpoint.source}: no such checkpoint file.")
        require_known(method.projection)
        self.task = task
        self._method, self._compute, self._observer = method, compute, observer
        self._norms = norms
        self._every = every
        self._scorer = Scorer(task.scorer, joint=task.joint, params=method.params)
        self._device = resolve_device(compute.device)
        self._dtype = compute.dtype or self._scorer.wider_dtype()
        self.prepared: Prepared | None = None
        self._opened = ExitStack()  # the store
        self._store: Store | None = None
        self._values = torch.float32  # dtype of the scores of units, as a store records it
        self._adam_notice_shown = False
        self._rated = False  # whether any checkpoint has a learning rate above 0
        self._report = Reading(self._scorer.canonical(), observer.notice)

    def __enter__(self) -> "Walk":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def visit(self, *visitors: Callable[[Opened], None]) -> None:
        """Call the visitors in turn at each checkpoint.

        Products are exact on the device meanwhile, and random numbers are our own; all is as before afterwards.

        Raises:
            InputError: no checkpoint has a learning rate above 0. NumericalError: naming the checkpoint.
        """
        cuda = [self._device] if self._device.type == "cuda" else []
        with self._scorer.session(), random_numbers_kept(cuda), exact_products(self._device), uncompiled():
            for position, checkpoint in enumerate(self.task.checkpoints, start=1):
                loaded = load(checkpoint, position)
                self._observer.opened(loaded.name, loaded.args)
                try:
                    opened = self._open(position, checkpoint, loaded)
                    for visitor in visitors:
                        visitor(opened)
                except NumericalError as error:
                    raise NumericalError(f"{loaded.name}: {error}") from None
        self._require_a_rate()

    def trace(self, opened: Opened) -> Traced:
        """The gradients of the units at a checkpoint, and the pairs of both tables as combinations of them."""
        prepared, loaded, state = self._ready, opened.loaded, opened.state
        start = time.perf_counter()
        try:
            gradients, values, tables = self._gradients(prepared, state, opened.scales)
        except UnsuitableError as error:
            self.prepared = self._other_engine(prepared, state, loaded, error)
            self._observer.planned(self.prepared.describe())
            state = self._state(loaded)  # its device may be another one
            gradients, values, tables = self._gradients(self.prepared, state, opened.scales)
        if any(opened.scales.values()):
            while change := change_of(self._ready, state, values, tables[0]):
                state = self._changed(change, state, loaded)
                gradients, values, tables = self._gradients(self._ready, state, opened.scales)
        seconds = time.perf_counter() - start
        return Traced(loaded.name, values, gradients, tables[0], tables[1] if len(tables) > 1 else None, seconds)

    def fill(self, opened: Opened) -> Filled:
        """Add to the store what this process has to make of a checkpoint."""
        prepared = self._ready
        state, store = opened.state, self._store
        assert store is not None
        made = 0
        if any(opened.scales.values()):
            units, done = reporting(prepared.scored, self._observer)
            made = fill(prepared.work(units, state, opened.scales), prepared.keeping)
            done()
        return Filled(state.name, made, len(store.missing(state.name)), store.manifest.blocks)

    def scores(self, opened: Opened, pairs: Pairs) -> PairScores:
        """s_a and s_b of any pairs of the items by a forward pass, each [pairs]; Δ and 0 of a pairwise scorer."""
        task = replace(self.task, train=pairs, test=None)
        prepared = replace(self._ready, make=replace(self._ready.make, task=task, every=False))
        values = prepared.choice.engine.values(prepared.scored, opened.state, prepared.plan.chunk)
        return pair_scores(prepared, values)[0]

    def sample(self, opened: Opened) -> tuple[int, int, float]:
        """The number of units that were differentiated for a measurement, that of all units, and the seconds taken."""
        prepared = self._ready
        make, unit = prepared.make, prepared.choice.unit
        every = torch.arange(sum(map(len, make.tables)))
        units = make.pairs(torch.ones(len(every)), every[: len(make.tables[0])]) if unit == "pairs" else make.singles()
        few = min(units.count, max(SAMPLED, prepared.plan.chunk))
        asked = needed(make, unit, self._norms)
        asked = replace(asked, right=torch.arange(min(few, len(asked.right))))
        prepared = replace(prepared, plan=replace(prepared.plan, block=few))
        for _ in range(2):  # libraries prepare themselves at the first
            start = time.perf_counter()
            gradients = prepared.keep(replace(units, count=few), opened.state, opened.scales, asked)
            gradients.values.sum().item()  # reading a number waits for the device
            seconds = time.perf_counter() - start
        return few, units.count, seconds

    def _open(self, position: int, checkpoint: Checkpoint, loaded: LoadedCheckpoint) -> Opened:
        state = self._state(loaded)
        if self._method.preconditioner == "none" and not self._adam_notice_shown and holds_second_moments(loaded):
            self._adam_notice_shown = True
            self._observer.notice(ADAM_NOTICE)
        rate, source = self._rate(checkpoint, loaded)
        scales = root_rates(rate, self._scorer.canonical())
        self._rated = self._rated or any(scales.values())
        if self.prepared is None:
            self.prepared = self._prepare(state, loaded)
            self._observer.planned(self.prepared.describe())
            state = state if self.prepared.make.device == self._device else self._state(loaded)
        if self._store is not None:
            admit(self._store, record_of(state, rate, self._values), self._compute.world)
        self._report(loaded)
        return Opened(position, loaded, state, scales, description(checkpoint, loaded, rate, source))

    def _rate(self, checkpoint: Checkpoint, loaded: LoadedCheckpoint) -> tuple[LearningRate, str]:
        if self._method.checkpoint_weights == "uniform":
            return 1.0, "uniform"
        return learning_rates(loaded, self._scorer.trained(), checkpoint.learning_rate)

    def _require_a_rate(self) -> None:
        if not self._rated:
            names = ", ".join(each.known_as(place) for place, each in enumerate(self.task.checkpoints, start=1))
            raise InputError(
                f"the learning rate is 0 at every checkpoint ({names}), so every score would be 0; a schedule may end "
                "there. Give one with --learning-rate, or use none: --checkpoint-weights uniform."
            )

    @property
    def _ready(self) -> Prepared:
        assert self.prepared is not None
        return self.prepared

    def _gradients(
        self, prepared: Prepared, state: State, scales: dict[str, float]
    ) -> tuple[Gradients | None, Tensor, list[PairTable]]:
        if not any(scales.values()):
            self._observer.notice(f"{state.name}: its learning rate is 0, so it adds nothing to any score.")
            values = prepared.choice.engine.values(prepared.scored, state, prepared.plan.chunk)
            return None, values, without_gradients(terms_of(prepared, self._observer, values), self._observer)
        over = over_differences if prepared.make.by_difference else over_items
        over = over_pairs if prepared.choice.unit == "pairs" else over
        asked = needed(prepared.make, prepared.choice.unit, self._norms)
        gradients, tables = over(prepared, self._observer, state, scales, asked)
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
        self._observer.notice(f"{loaded.name}: engine {name} cannot go on: {error}; another engine does.")
        visits = len(self.task.checkpoints)
        again = prepare(
            prepared.make, state, loaded.weights, self._compute, self._observer, visits, self._norms, without=[name]
        )
        return self._with_rows(again, state)

    def _changed(self, change: Change, state: State, loaded: LoadedCheckpoint) -> State:
        """Go on with units made otherwise, said; where that cannot be, raise."""
        compute, observer, prepared = self._compute, self._observer, self._ready
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
        observer.notice(f"{loaded.name}: {change.reason}; {change.remedy}.")
        visits = len(self.task.checkpoints)
        self.prepared = prepare(change.make, state, loaded.weights, compute, observer, visits, self._norms)
        observer.planned(self.prepared.describe())
        return state if self.prepared.make.device == prepared.make.device else self._state(loaded)

    def _state(self, loaded: LoadedCheckpoint) -> State:
        device = self._device if self.prepared is None else self.prepared.make.device
        scale = {}
        if self._method.preconditioner == "adam":
            every = dict(self._scorer.module.named_parameters())
            found = adam_preconditioner(loaded, every, self._scorer.canonical())
            scale = {name: preconditioner.sqrt() for name, preconditioner in found.items()}
        return self._scorer.state(loaded.name, loaded.weights, device, self._dtype, scale)

    def _prepare(self, state: State, loaded: LoadedCheckpoint) -> Prepared:
        task, compute, notice = self.task, self._compute, self._observer.notice
        loss = as_loss(task.loss)
        if self._every:
            require_items_in(compute.store)
        every = self._every or compute.store is not None
        by_items = self._every or unit_in(compute.store) == "items"
        make = UnitMaker(
            *(task, self._scorer, loss, self._method, self._device, self._dtype),
            every=every,
            by_items=by_items,
        )
        make = probed(make, state, notice, alone=compute.batch_size == 1)
        if self._dtype is not None and compute.dtype is None:
            half = self._scorer.current_dtype()
            if not runs(make, state):
                self._dtype, make = None, replace(make, dtype=None, probed=False)
                state = self._state(loaded)
                make = probed(make, state, notice, alone=compute.batch_size == 1)
                notice(
                    f"the model is {half} and does not run in float32: its gradients are {half}, and small ones "
                    "underflow to 0."
                )
            else:
                notice(f"the model is {half}: its gradients are computed in float32, from weights as saved.")
        prepared = prepare(make, state, loaded.weights, compute, self._observer, len(task.checkpoints), self._norms)
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
            visits = len(self.task.checkpoints)
            self._store = open_for(prepared, state, compute, self._observer, visits, self._opened)
            self._values = prepared.choice.engine.values(replace(prepared.scored, count=1), state, 1).dtype
        return stored(prepared, self._store, compute.world, compute.shard)
