"""From checkpoints to gradients: the only module that knows engines AND checkpoints.

Everything costly is per unit and checkpoint and happens here; what pairs make of it is algebra, in `scoring`.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tracin_func.checkpoints import Checkpoint, LearningRate, LoadedCheckpoint, learning_rates, load
from tracin_func.compute import Compute
from tracin_func.devices import resolve_device
from tracin_func.errors import InputError, NumericalError
from tracin_func.gradients import Combination, Gradients, Need, Units, UnsuitableError
from tracin_func.items import Batch
from tracin_func.losses import BinWeights, as_loss, unit_weight
from tracin_func.metric import root_rates
from tracin_func.pairs import Pairs
from tracin_func.precision import exact_products
from tracin_func.prepare import Prepared, needed, prepare
from tracin_func.scorer import Scorer, State, evaluating
from tracin_func.task import Task
from tracin_func.terms import Terms, functional_terms, loss_terms
from tracin_func.units import UnitMaker, loss_type

SAMPLED = 16  # units that a measurement differentiates, or a whole chunk

Step = TypeVar("Step")


@dataclass(frozen=True, eq=False)
class PairTable:
    """The pairs of one table at one checkpoint: their terms, and each as a combination of unit gradients."""

    terms: Terms
    combination: Combination


@dataclass(frozen=True, eq=False)
class Traced:
    """One checkpoint. `gradients` is None where no pair is active or the rate is 0; `seconds` is what they took.

    `describe` is what provenance records of the checkpoint.
    """

    name: str
    gradients: Gradients | None
    train: PairTable
    test: PairTable | None
    describe: dict[str, Any]
    seconds: float


@dataclass(frozen=True, eq=False)
class Evaluated:
    """How the model of one checkpoint does on pairs, by a forward pass alone.

    `pairs` are the tables of which `train` and `test` are terms; `as_trained` are the terms of the training pairs
    under `Task.trained_loss`, `describe` is as of `Traced`.
    """

    name: str
    pairs: list[Pairs]
    train: Terms
    test: Terms | None
    as_trained: Terms | None
    describe: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Opened:
    """A checkpoint that was read: its state on the device, and its rate by parameter as √η."""

    loaded: LoadedCheckpoint
    state: State
    scales: dict[str, float]
    describe: dict[str, Any]


class Tracer:
    """Walks the checkpoints of a task, each loaded when it is its turn and dropped; `prepared` once, at the first.

    `norms` tells whether norms of pairs will be asked for, and not products with test pairs alone.

    Raises:
        InputError: a checkpoint file is missing: told before any is scored.
    """

    def __init__(self, task: Task, compute: Compute, *, norms: bool = True) -> None:
        for checkpoint in task.checkpoints:
            if isinstance(checkpoint.source, str | Path) and not Path(checkpoint.source).is_file():
                raise InputError(f"{checkpoint.source}: no such checkpoint file.")
        self._task = task
        self._compute = compute
        self._norms = norms
        self._scorer = Scorer(task.scorer, joint=task.joint, params=compute.params)
        self._device = resolve_device(compute.device)
        self.prepared: Prepared | None = None

    def __iter__(self) -> Iterator[Traced]:
        return self._walk(self._step)

    def evaluations(self, pairs: int) -> Iterator[Evaluated]:
        """The terms of at most so many training and held-out pairs each, chosen at random; no gradients."""
        return self._walk(lambda opened: self._evaluated(opened, pairs))

    def sample(self) -> tuple[int, int, float]:
        """How many units were differentiated at the first checkpoint, of how many, and the seconds it took."""
        with closing(self._walk(self._sampled)) as walk:
            return next(walk)

    def _walk(self, step: Callable[[_Opened], Step]) -> Generator[Step, None, None]:
        with closing(visited(self._task, self._scorer, self._device)) as checkpoints:
            for checkpoint, loaded in checkpoints:
                try:
                    yield step(self._open(checkpoint, loaded))
                except NumericalError as error:
                    raise NumericalError(f"{loaded.name}: {error}") from None

    def _open(self, checkpoint: Checkpoint, loaded: LoadedCheckpoint) -> _Opened:
        state = self._state(loaded)
        rate, source = self._rate(checkpoint, loaded)
        scales = root_rates(rate, self._scorer.canonical())
        if self.prepared is None:
            self.prepared = self._prepare(state, loaded)
            self._compute.planned(self.prepared.describe())
            state = state if self.prepared.make.device == self._device else self._state(loaded)
        return _Opened(loaded, state, scales, _describe(checkpoint, loaded, rate, source))

    def _rate(self, checkpoint: Checkpoint, loaded: LoadedCheckpoint) -> tuple[LearningRate, str]:
        if self._compute.checkpoint_weights == "uniform":
            return 1.0, "uniform"
        return learning_rates(loaded, self._scorer.trained(), checkpoint.learning_rate)

    def _step(self, opened: _Opened) -> Traced:
        prepared, loaded, state = self._ready, opened.loaded, opened.state
        start = time.perf_counter()
        try:
            gradients, tables = self._gradients(prepared, state, opened.scales)
        except UnsuitableError as error:
            self.prepared = self._other_engine(prepared, state, loaded, error)
            self._compute.planned(self.prepared.describe())
            state = self._state(loaded)  # its device may be another one
            gradients, tables = self._gradients(self.prepared, state, opened.scales)
        seconds = time.perf_counter() - start
        test = tables[1] if len(tables) > 1 else None
        describe = {**opened.describe, "sha256": _digest(opened.describe["path"])}
        return Traced(loaded.name, gradients, tables[0], test, describe, seconds)

    def _evaluated(self, opened: _Opened, pairs: int) -> Evaluated:
        prepared = self._ready.sampled(pairs)
        values = prepared.choice.engine.values(prepared.scored, opened.state, prepared.plan.chunk)
        plain = replace(self._compute, test_functional="loss", weight_test_pairs=False)
        tables = _terms(prepared, plain, values)
        as_trained = None
        if self._task.trained_loss is not None:
            make = replace(prepared.make, loss=as_loss(self._task.trained_loss))
            as_trained = _terms(replace(prepared, make=make), plain, values)[0]
        test = tables[1] if len(tables) > 1 else None
        return Evaluated(opened.loaded.name, prepared.make.tables, tables[0], test, as_trained, opened.describe)

    def _sampled(self, opened: _Opened) -> tuple[int, int, float]:
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
    ) -> tuple[Gradients | None, list[PairTable]]:
        if not any(scales.values()):
            self._compute.notice(f"{state.name}: its learning rate is 0, so it adds nothing to any score.")
            values = prepared.choice.engine.values(prepared.scored, state, prepared.plan.chunk)
            return None, _without_gradients(_terms(prepared, self._compute, values), self._compute)
        over = _over_differences if prepared.make.by_difference else _over_items
        over = _over_pairs if prepared.choice.unit == "pairs" else over
        return over(prepared, self._compute, state, scales, needed(prepared.make, prepared.choice.unit, self._norms))

    def _other_engine(
        self, prepared: Prepared, state: State, loaded: LoadedCheckpoint, error: UnsuitableError
    ) -> Prepared:
        """The next engine of `auto`, said; one that was asked for is not exchanged."""
        name = prepared.choice.name
        if self._compute.engine != "auto":
            raise InputError(f"{loaded.name}: engine {name!r} cannot differentiate this scorer: {error}. Use 'auto'.")
        self._compute.notice(f"{loaded.name}: engine {name} cannot go on: {error}; another engine does.")
        visits = len(self._task.checkpoints)
        return prepare(prepared.make, state, loaded.weights, self._compute, visits, self._norms, without=[name])

    def _state(self, loaded: LoadedCheckpoint) -> State:
        device = self._device if self.prepared is None else self.prepared.make.device
        return self._scorer.state(loaded.name, loaded.weights, device, self._compute.dtype)

    def _prepare(self, state: State, loaded: LoadedCheckpoint) -> Prepared:
        task, compute = self._task, self._compute
        loss = as_loss(task.loss)
        make = UnitMaker(task, self._scorer, loss, compute.test_functional, self._device, compute.dtype)
        return prepare(make, state, loaded.weights, compute, len(task.checkpoints), self._norms)


def visited(
    task: Task, scorer: Scorer, device: torch.device
) -> Generator[tuple[Checkpoint, LoadedCheckpoint], None, None]:
    """The checkpoints in turn, each loaded once and dropped. Close it, and all is as before.

    Meanwhile the module is in eval mode, products are exact on `device`, and random numbers are our own.
    """
    cuda = [device] if device.type == "cuda" else []
    with evaluating(scorer.module), torch.random.fork_rng(devices=cuda), exact_products(device):
        for position, checkpoint in enumerate(task.checkpoints, start=1):
            yield checkpoint, load(checkpoint, position)


def _over_items(
    prepared: Prepared, compute: Compute, state: State, scales: dict[str, float], asked: Need
) -> tuple[Gradients | None, list[PairTable]]:
    """Item gradients; ∇ℓ_p = u g_a + v g_b."""
    units = _reporting(prepared.scored, compute)
    gradients = prepared.choice.engine.gradients(units, state, scales, prepared.plan, asked)
    used = prepared.make.used_items
    tables = []
    for pairs, terms in zip(prepared.make.tables, _terms(prepared, compute, gradients.values), strict=True):
        index = torch.searchsorted(used, torch.stack([pairs.first, pairs.second], dim=1))
        slopes = torch.stack([terms.first_slope, terms.second_slope], dim=1)
        tables.append(PairTable(terms, Combination(index, slopes)))
    return gradients, tables


def _over_differences(
    prepared: Prepared, compute: Compute, state: State, scales: dict[str, float], asked: Need
) -> tuple[Gradients | None, list[PairTable]]:
    """Gradients of score differences; ∇ℓ_p = u (g_a − g_b), as u + v = 0."""
    units = _reporting(prepared.scored, compute)
    gradients = prepared.choice.engine.gradients(units, state, scales, prepared.plan, asked)
    tables, start = [], 0
    for terms in _terms(prepared, compute, gradients.values):
        index = torch.arange(start, start + len(terms.active))[:, None]
        tables.append(PairTable(terms, Combination(index, terms.first_slope[:, None])))
        start += len(index)
    return gradients, tables


def _over_pairs(
    prepared: Prepared, compute: Compute, state: State, scales: dict[str, float], asked: Need
) -> tuple[Gradients | None, list[PairTable]]:
    """Gradients of whole weighted pair losses, of active pairs only; every such pair is a unit of its own."""
    engine, plan = prepared.choice.engine, prepared.plan
    tables = _terms(prepared, compute, engine.values(prepared.scored, state, plan.chunk))
    active = torch.cat([terms.active for terms in tables])
    if not bool(active.any()):
        return None, _without_gradients(tables, compute)
    units = prepared.make.pairs(torch.cat([terms.weight for terms in tables]), active.nonzero()[:, 0])
    rows = active.nonzero()[:, 0]
    asked = replace(asked, right=(rows >= len(tables[0].active)).nonzero()[:, 0])
    gradients = engine.gradients(_reporting(units, compute), state, scales, plan, asked)
    unit = (active.cumsum(0) - 1).clamp(min=0)[:, None]
    sizes = [len(terms.active) for terms in tables]
    combined = zip(tables, unit.split(sizes), active[:, None].double().split(sizes), strict=True)
    return gradients, [PairTable(terms, Combination(index, ones)) for terms, index, ones in combined]


def _without_gradients(tables: list[Terms], compute: Compute) -> list[PairTable]:
    """Terms alone, where no gradient is worth computing."""
    compute.progress(1.0)
    zeros = [torch.zeros(len(terms.active), 1, dtype=torch.int64) for terms in tables]
    return [PairTable(terms, Combination(zero, zero.double())) for terms, zero in zip(tables, zeros, strict=True)]


def _terms(prepared: Prepared, compute: Compute, values: Tensor) -> list[Terms]:
    """Bind the loss to the training population, then take the terms of both tables."""
    finite = values.isfinite()
    if not bool(finite.all()):
        label = prepared.scored.label(int((~finite).nonzero()[0]))
        raise NumericalError(f"the score of {label} is NaN or infinite.")
    make = prepared.make
    scores = _pair_scores(prepared, values.to(loss_type(values)))
    weigh = make.loss.bind(*scores[0], make.tables[0])
    tables = [loss_terms(make.loss, weigh, *scores[0], make.tables[0])]
    if len(scores) > 1:
        test_weigh = weigh if compute.weight_test_pairs else unit_weight
        tables.append(functional_terms(compute.test_functional, make.loss, test_weigh, *scores[1], make.tables[1]))
        if isinstance(test_weigh, BinWeights) and (borrowed := test_weigh.borrowed(*scores[1], make.tables[1])):
            compute.notice(f"{borrowed} test pairs fall in a GHM bin without training pairs; the nearest bin's weighs.")
    for terms, offset in zip(tables, (0, len(make.tables[0])), strict=False):
        if (row := terms.not_finite()) is not None:
            raise NumericalError(f"the loss of {make.pair_label(offset + row)}, or its slope, is NaN or infinite.")
    return tables


def _pair_scores(prepared: Prepared, values: Tensor) -> list[tuple[Tensor, Tensor]]:
    """s_a and s_b of each table's pairs; Δ and 0 where the units have a Δ."""
    tables: list[Pairs] = prepared.make.tables
    if prepared.make.task.joint or prepared.make.by_difference:
        return [(part, torch.zeros_like(part)) for part in values.split([len(pairs) for pairs in tables])]
    used = prepared.make.used_items

    def scores(column: Tensor) -> Tensor:
        return values[torch.searchsorted(used, column).to(values.device)]

    return [(scores(pairs.first), scores(pairs.second)) for pairs in tables]


def _reporting(units: Units, compute: Compute) -> Units:
    """`units` that tell how many of them are begun; units taken again are not told again."""
    left = 1.0

    def take(index: Tensor) -> Batch:
        nonlocal left
        batch = units.take(index)
        share = min(len(index) / units.count, left)
        left -= share
        compute.progress(share)
        return batch

    return replace(units, take=take)


def _digest(path: str | None) -> str | None:
    """What the file of a checkpoint holds, in 64 signs."""
    if path is None:
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(checkpoint: Checkpoint, loaded: LoadedCheckpoint, rate: LearningRate, source: str) -> dict[str, Any]:
    path = None if not isinstance(checkpoint.source, str | Path) else str(Path(checkpoint.source).absolute())
    recorded = dict(loaded.recorded)
    return {
        "name": loaded.name,
        "path": path,
        "learning_rate": rate,
        "learning_rate_from": source,
        "recorded": recorded,
    }
