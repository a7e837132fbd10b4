"""From checkpoints to gradients: the only module that knows engines AND checkpoints.

Everything costly is per unit and checkpoint and happens here; scores of pairs are algebra on it.
"""

import time
from collections.abc import Callable, Sequence
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
    TracedPairs,
    over_pairs,
    over_units,
    pair_scores,
    reporting,
    terms_of,
    without_gradients,
)
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.plan import Prepared, engine_failed, engine_refused, needed, prepare
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
from tracin_func.task.checkpoint_ends import require_complete
from tracin_func.task.checkpoints import Checkpoint, LearningRate, LoadedCheckpoint, description, load
from tracin_func.task.learning_rates import learning_rates, root_rates
from tracin_func.task.method import Method
from tracin_func.task.optimizer_state import adam_preconditioner, holds_second_moments
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task

SAMPLED = 16  # units that a measurement differentiates, or a whole chunk

ADAM_NOTICE = "the checkpoints hold Adam's second moments. To score Adam's steps, use `preconditioner=\"adam\"`."


class Walk:
    """Opens each checkpoint of a task once, in order, and hands it to the visitors of a run.

    Device, units, engine and sizes are decided once, at the first checkpoint.

    Args:
        norms: whether norms of pairs will be asked for, besides dot products with test pairs.
        every: every item is a unit, to serve pairs beyond those of the task.

    Raises:
        InputError: a checkpoint file is missing or cut short; raised before any is scored.
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
        require_known(method.projection)
        for checkpoint in task.checkpoints:
            if isinstance(checkpoint.source, str | Path):
                require_complete(Path(checkpoint.source))
        self.task = task
        self._method, self._compute, self._observer = method, compute, observer
        self._norms, self._every = norms, every
        self._scorer = Scorer(task.scorer, joint=task.joint, params=method.params)
        self._device = resolve_device(compute.device)
        self._dtype = compute.dtype or self._scorer.wider_dtype()
        self._prepared: Prepared | None = None
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

    @property
    def prepared(self) -> Prepared:
        """The decisions of the run, once the first checkpoint was opened."""
        assert self._prepared is not None
        return self._prepared

    def visit(self, *visitors: Callable[[Opened], None]) -> None:
        """Call the visitors in turn at each checkpoint.

        Meanwhile dot products are exact on the device and random numbers are the run's own; all is restored afterwards.

        Raises:
            InputError: no checkpoint has a learning rate above 0. NumericalError: naming the checkpoint.
        """
        cuda = [self._device] if self._device.type == "cuda" else []
        with self._scorer.session(), random_numbers_kept(cuda), exact_products(self._device), uncompiled():
            for position, checkpoint in enumerate(self.task.checkpoints, start=1):
                loaded = load(checkpoint, position)
                self._observer.opened(loaded.name, loaded.args)
                try:
                    opened = self._open(checkpoint, loaded)
                    for visitor in visitors:
                        visitor(opened)
                except NumericalError as error:
                    raise NumericalError(f"{loaded.name}: {error}") from None
        self._require_a_rate()

    def trace(self, opened: Opened) -> Traced:
        """The gradients of the units at a checkpoint, and the pairs of both tables as combinations of them."""
        loaded, state, rated = opened.loaded, opened.state, any(opened.scales.values())
        while True:
            try:
                gradients, values, tables = self._gradients(state, opened.scales)
            except UnsuitableError as error:
                state = self._other_engine(state, loaded, error)
                continue
            change = change_of(self.prepared, state, values, tables[0]) if rated else None
            if change is None:
                break
            state = self._changed(change, state, loaded)
        return Traced(loaded.name, values, gradients, tables[0], tables[1] if len(tables) > 1 else None)

    def fill(self, opened: Opened) -> Filled:
        """Add to the store this process's share of a checkpoint."""
        prepared, state, store = self.prepared, opened.state, self._store
        assert store is not None
        made = 0
        if any(opened.scales.values()):
            units, done = reporting(prepared.scored, self._observer)
            made = fill(prepared.work(units, state, opened.scales), prepared.keeping)
            done()
        return Filled(state.name, made, len(store.missing(state.name)), store.manifest.blocks)

    def scores(self, opened: Opened, pairs: Pairs, *, apart: bool = False) -> PairScores:
        """s_a and s_b of any pairs of the items by a forward pass, each [pairs].

        Δ and 0 of a pairwise scorer, and unless items are scored `apart` where score differences are fewer than items.
        """
        make = self.prepared.make
        task, by_items = replace(self.task, train=pairs, test=None), apart or make.by_items
        prepared = replace(self.prepared, make=replace(make, task=task, every=False, by_items=by_items))
        values = prepared.choice.engine.values(prepared.scored, opened.state, prepared.plan)
        return pair_scores(prepared, values)[0]

    def sample(self, opened: Opened) -> tuple[int, int, float]:
        """The number of units that were differentiated for a measurement, that of all units, and the seconds taken."""
        prepared = self.prepared
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

    def _open(self, checkpoint: Checkpoint, loaded: LoadedCheckpoint) -> Opened:
        state = self._state(loaded)
        if self._method.preconditioner == "none" and not self._adam_notice_shown and holds_second_moments(loaded):
            self._adam_notice_shown = True
            self._observer.notice(ADAM_NOTICE)
        rate, source = self._rate(checkpoint, loaded)
        scales = root_rates(rate, self._scorer.canonical())
        self._rated = self._rated or any(scales.values())
        if self._prepared is None:
            make, state = self._probed(state, loaded)
            state = self._prepare(make, state, loaded)
        if self._store is not None:
            admit(self._store, record_of(state, rate, self._values), self._compute.world)
        self._report(loaded)
        return Opened(loaded, state, scales, description(checkpoint, loaded, rate, source))

    def _rate(self, checkpoint: Checkpoint, loaded: LoadedCheckpoint) -> tuple[LearningRate, str]:
        if self._method.checkpoint_weights == "uniform":
            return 1.0, "uniform"
        return learning_rates(loaded, self._scorer.parameters(), checkpoint.learning_rate)

    def _require_a_rate(self) -> None:
        if not self._rated:
            names = ", ".join(each.known_as(place) for place, each in enumerate(self.task.checkpoints, start=1))
            raise InputError(
                f"`learning_rate` is 0 at every checkpoint ({names}), so every score would be 0. A schedule may end at "
                'learning rate 0. Give `learning_rate`, or use none: `checkpoint_weights="uniform"`.'
            )

    def _gradients(self, state: State, scales: dict[str, float]) -> tuple[Gradients | None, Tensor, list[TracedPairs]]:
        prepared = self.prepared
        if not any(scales.values()):
            self._observer.notice(
                f"warning: {state.name} adds nothing to any score, as its learning rate is 0. A schedule may end at "
                "learning rate 0; give the one of its last steps with `learning_rate`."
            )
            values = prepared.choice.engine.values(prepared.scored, state, prepared.plan)
            return None, values, without_gradients(terms_of(prepared, self._observer, values), self._observer)
        over = over_pairs if prepared.choice.unit == "pairs" else over_units
        asked = needed(prepared.make, prepared.choice.unit, self._norms)
        gradients, tables = over(prepared, self._observer, state, scales, asked)
        return gradients, torch.empty(0) if gradients is None else gradients.values, tables

    def _other_engine(self, state: State, loaded: LoadedCheckpoint, error: UnsuitableError) -> State:
        """Plan for the next engine of `auto`, reported; one that was asked for is not exchanged."""
        name = self.prepared.choice.name
        if self._compute.world.size > 1:  # the others do not know, and wait elsewhere
            raise InputError(
                f"{loaded.name}: engine {name} failed ({error}), and processes that share a run cannot change the "
                'engine. Choose one, such as `engine="item"`, or run one process alone.'
            )
        if self._compute.engine != "auto":
            raise engine_refused(loaded.name, name, error)
        self._observer.notice(engine_failed(loaded.name, name, error))
        return self._prepare(self.prepared.make, state, loaded, [name])

    def _changed(self, change: Change, state: State, loaded: LoadedCheckpoint) -> State:
        """Plan for other units, reported; raise where that cannot be."""
        compute = self._compute
        if compute.engine != "auto":
            raise engine_refused(loaded.name, compute.engine, change.reason)
        if compute.world.started or compute.store is not None or self._every:
            raise InputError(
                f"{loaded.name}: {change.reason}, so gradients of items cannot serve the pairs. Score without `store` "
                "and torchrun, with pairs that are held in memory."
            )
        self._observer.notice(f"{loaded.name}: {change.reason}; {change.remedy}.")
        return self._prepare(change.make, state, loaded)

    def _state(self, loaded: LoadedCheckpoint) -> State:
        device = self._device if self._prepared is None else self._prepared.make.device
        scale = {}
        if self._method.preconditioner == "adam":
            found = adam_preconditioner(loaded, self._scorer.parameters(), self._scorer.canonical())
            scale = {name: preconditioner.sqrt() for name, preconditioner in found.items()}
        return self._scorer.state(loaded.name, loaded.weights, device, self._dtype, scale)

    def _probed(self, state: State, loaded: LoadedCheckpoint) -> tuple[UnitMaker, State]:
        """What makes the units, once it is checked; in float32 for a half-precision model that allows it."""
        task, compute, notice = self.task, self._compute, self._observer.notice
        if self._every:
            require_items_in(compute.store)
        every = self._every or compute.store is not None
        by_items = self._every or unit_in(compute.store) == "items"
        loss, alone = as_loss(task.loss), compute.batch_size == 1
        make = UnitMaker(
            *(task, self._scorer, loss, self._method, self._device, self._dtype), every=every, by_items=by_items
        )
        made = probed(make, state, notice, alone=alone)
        if self._dtype is None or compute.dtype is not None:
            return made, state
        half = self._scorer.current_dtype()
        if runs(made, state):
            notice(f"the model is {half}: its gradients are computed in float32, from the weights as saved.")
            return made, state
        self._dtype = None
        state = self._state(loaded)
        notice(
            f"warning: the model is {half} and fails in float32. Its gradients are {half}, and small ones underflow."
        )
        return probed(replace(make, dtype=None), state, notice, alone=alone), state

    def _prepare(self, make: UnitMaker, state: State, loaded: LoadedCheckpoint, without: Sequence[str] = ()) -> State:
        """Decide all for these units; the state on the device that was chosen."""
        visits = len(self.task.checkpoints)
        prepared = prepare(
            *(make, state, loaded.weights, self._compute, self._observer, visits, self._norms), without=without
        )
        self._prepared = self._with_rows(prepared, state)
        self._observer.planned(self._prepared.describe())
        device = state.example.device
        return state if self._prepared.make.device.type == device.type else self._state(loaded)

    def _with_rows(self, prepared: Prepared, state: State) -> Prepared:
        """`prepared`, with its rows in the store or shared by all processes, where these are used."""
        compute = self._compute
        if self._every:
            require_rows(prepared, "pairs in blocks")
        if compute.store is None:
            if not compute.world.started:
                return prepared
            require_rows(prepared, "torchrun")
            return shared(prepared, state, compute.world)
        require_rows(prepared, "`store`")
        if self._store is None:
            visits = len(self.task.checkpoints)
            self._store = open_for(prepared, state, compute, self._observer, visits, self._opened)
            self._values = prepared.choice.engine.values(replace(prepared.scored, count=1), state, prepared.plan).dtype
        return stored(prepared, self._store, compute.world, compute.shard)
