"""From checkpoints to gradients: the only module that knows engines AND checkpoints.

Everything costly is per unit and checkpoint and happens here; what pairs make of it is algebra, in `scoring`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from tracin_func.budget import available_bytes, make_plan
from tracin_func.checkpoints import LearningRate, LoadedCheckpoint, learning_rates, load
from tracin_func.coupling import mixing_operation
from tracin_func.devices import resolve_device
from tracin_func.engines.choose import Choice, UnitKind, choose
from tracin_func.errors import NumericalError, UsageError
from tracin_func.gradients import Combination, Gradients, Plan, Units
from tracin_func.items import Batch
from tracin_func.losses import as_loss, unit_weight
from tracin_func.metric import root_rates
from tracin_func.pairs import Pairs
from tracin_func.precision import exact_products
from tracin_func.scorer import Scorer, State, evaluating
from tracin_func.spot import cpu_deviation
from tracin_func.task import Task
from tracin_func.terms import TEST_FUNCTIONALS, Terms, functional_terms, loss_terms
from tracin_func.units import UnitMaker

MPS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Compute:
    """How to compute; none of it changes a score beyond rounding, the two about test pairs apart.

    Args:
        engine: `loop`, `pair`, `item` or `auto`.
        device: a torch device; the first there is of cuda, mps and cpu when None.
        dtype: floating-point type of weights and items; their own when None.
        batch_size: units differentiated together, or "auto" for a measurement within the memory budget.
        memory_budget: bytes; half of what is free when None.
        test_functional: `loss` or `score-margin`.
        weight_test_pairs: test pairs get the loss's population weights too (GHM); `score-margin` has none.
        progress: called with the share of one checkpoint that was just finished.
        notice: called with each sentence that the user should read.
    """

    engine: str = "auto"
    device: str | torch.device | None = None
    dtype: torch.dtype | None = None
    batch_size: int | Literal["auto"] = "auto"
    memory_budget: int | None = None
    test_functional: str = "loss"
    weight_test_pairs: bool = False
    progress: Callable[[float], None] = lambda share: None
    notice: Callable[[str], None] = lambda sentence: None

    def __post_init__(self) -> None:
        if self.test_functional not in TEST_FUNCTIONALS:
            allowed = ", ".join(TEST_FUNCTIONALS)
            raise UsageError(f"`test_functional` should be one of {allowed}. Got {self.test_functional!r}.")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise UsageError(f"`batch_size` should be at least 1, or 'auto'. Got {self.batch_size}.")


@dataclass(frozen=True)
class PairTable:
    """The pairs of one table at one checkpoint: their terms, and each as a combination of unit gradients."""

    terms: Terms
    combination: Combination


@dataclass(frozen=True)
class Traced:
    """One checkpoint. `gradients` is None where no pair is active; `seconds` is the time they took."""

    loaded: LoadedCheckpoint
    learning_rate: LearningRate
    rate_source: str
    gradients: Gradients | None
    train: PairTable
    test: PairTable | None
    seconds: float

    def describe(self) -> dict[str, Any]:
        """What provenance records of the checkpoint."""
        return {
            "name": self.loaded.name,
            "learning_rate": self.learning_rate,
            "learning_rate_from": self.rate_source,
            "recorded": dict(self.loaded.recorded),
        }


@dataclass(frozen=True)
class Setup:
    """What is decided at the first checkpoint and kept for all: device, engine and sizes."""

    device: torch.device
    choice: Choice
    plan: Plan

    def describe(self) -> dict[str, Any]:
        """What provenance records."""
        return {
            "engine": self.choice.name,
            "gradients": f"{self.choice.engine.name} over {self.choice.unit}",
            "reason": self.choice.reason,
            "device": str(self.device),
            "batch_size": self.plan.chunk,
            "batch_size_reason": self.plan.reason,
            "rows_held": self.plan.block,
        }


class Tracer:
    """Walks the checkpoints of a task, each loaded once and dropped; `setup` is there after the first step."""

    def __init__(self, task: Task, compute: Compute) -> None:
        self._task = task
        self._compute = compute
        scorer = Scorer(task.scorer, joint=task.joint)
        device = resolve_device(compute.device)
        self._make = UnitMaker(task, scorer, as_loss(task.loss), compute.test_functional, device, compute.dtype)
        self._scored = self._make.joint() if task.joint else self._make.items()
        self.setup: Setup | None = None

    def __iter__(self) -> Iterator[Traced]:
        scorer = self._make.scorer
        device = self._make.device
        cuda = [device] if device.type == "cuda" else []
        with evaluating(scorer.module), torch.random.fork_rng(devices=cuda), exact_products(device):
            for position, checkpoint in enumerate(self._task.checkpoints, start=1):
                loaded = load(checkpoint, position)
                rate, source = learning_rates(loaded, scorer.current(), checkpoint.learning_rate)
                try:
                    yield self._step(loaded, rate, source)
                except NumericalError as error:
                    raise NumericalError(f"{loaded.name}: {error}") from None

    def _step(self, loaded: LoadedCheckpoint, rate: LearningRate, source: str) -> Traced:
        scales = root_rates(rate, self._make.scorer.trainable)
        if not any(scales.values()):
            self._compute.notice(f"{loaded.name}: its learning rate is 0, so it adds nothing to any score.")
        state = self._make.scorer.state(loaded.name, loaded.weights, self._make.device, self._make.dtype)
        if self.setup is None:
            self.setup, state = self._set_up(state, loaded.weights)
        start = time.perf_counter()
        over = self._over_items if self.setup.choice.unit == "items" else self._over_pairs
        gradients, train, test = over(state, scales, self.setup)
        return Traced(loaded, rate, source, gradients, train, test, time.perf_counter() - start)

    def _set_up(self, state: State, weights: Mapping[str, Tensor]) -> tuple[Setup, State]:
        """Probe the scorer, choose the engine and fix the sizes; a device that computes wrongly is left."""
        task, compute, make = self._task, self._compute, self._make
        every = torch.arange(sum(map(len, make.tables)))
        kinds: dict[UnitKind, Units] = {"pairs": make.pairs(torch.ones(len(every)), every)}
        if not task.joint:
            kinds["items"] = make.items()
        choice = choose(compute.engine, task.joint, kinds, state)
        if make.device.type == "mps":
            deviation = cpu_deviation(choice.engine, make, choice.unit, state, weights)
            if deviation > MPS_TOLERANCE:
                compute.notice(f"mps: gradients deviate by {deviation:.1e} from the CPU's; the run goes on on the CPU.")
                self._make = replace(make, device=torch.device("cpu"))
                self._scored = self._make.joint() if task.joint else self._make.items()
                return self._set_up(
                    self._make.scorer.state(state.name, weights, self._make.device, make.dtype), weights
                )
            compute.notice(f"mps: gradients of two units agree with the CPU's float64 to {deviation:.1e}.")
        if choice.name == "loop" and compute.engine == "auto":
            compute.notice(f"engine loop: {choice.reason}.")
        self._notice_coupling(state)
        budget = compute.memory_budget or available_bytes(make.device)
        units, visits = kinds[choice.unit], len(task.checkpoints)
        plan = make_plan(choice.engine, units, state, batch_size=compute.batch_size, budget=budget, visits=visits)
        if plan.chunk_bytes > budget // 2:
            need, have = plan.chunk_bytes / 1e9, budget / 2e9
            compute.notice(
                f"a batch of {plan.chunk} is expected to take {need:.2f} GB, and {have:.2f} GB are meant for it."
            )
        return Setup(make.device, choice, plan), state

    def _notice_coupling(self, state: State) -> None:
        make, train, used = self._make, self._task.train_pairs, self._make.used_items()

        def forward(index: Tensor) -> Tensor:
            columns = (train.first[index], train.second[index]) if self._task.joint else (used[index],)
            batches: list[Batch] = [make.take_items(column) for column in columns]
            return make.scorer.score(state.parameters, state.constants, *batches)

        unit = "pair" if self._task.joint else "item"
        operation = mixing_operation(forward, len(train) if self._task.joint else len(used))
        if operation is not None:
            self._compute.notice(
                f"the score of one {unit} depends on the others in its batch, first through {operation}; "
                f"every {unit} is therefore scored alone, in a batch of one."
            )

    def _over_items(
        self, state: State, scales: dict[str, float], setup: Setup
    ) -> tuple[Gradients | None, PairTable, PairTable | None]:
        """Item gradients; ∇ℓ_p = u g_a + v g_b."""
        gradients = setup.choice.engine.gradients(self._reporting(self._scored), state, scales, setup.plan)
        used = self._make.used_items()

        def table(pairs: Pairs, terms: Terms) -> PairTable:
            index = torch.searchsorted(used, torch.stack([pairs.first, pairs.second], dim=1))
            return PairTable(terms, Combination(index, torch.stack([terms.first_slope, terms.second_slope], dim=1)))

        tables = [table(*both) for both in zip(self._make.tables, self._terms(gradients.values), strict=True)]
        return gradients, tables[0], tables[1] if len(tables) > 1 else None

    def _over_pairs(
        self, state: State, scales: dict[str, float], setup: Setup
    ) -> tuple[Gradients | None, PairTable, PairTable | None]:
        """Gradients of whole weighted pair losses, of active pairs only; every such pair is a unit of its own."""
        engine, plan = setup.choice.engine, setup.plan
        terms = self._terms(engine.values(self._scored, state, plan.chunk))
        active = torch.cat([table.active for table in terms])
        chosen = active.nonzero()[:, 0]
        gradients = None
        if len(chosen):
            units = self._make.pairs(torch.cat([table.weight for table in terms]), chosen)
            gradients = engine.gradients(self._reporting(units), state, scales, plan)
        else:
            self._compute.progress(1.0)
        unit = (active.cumsum(0) - 1).clamp(min=0)[:, None]
        combination = Combination(unit, active[:, None].double())
        sizes = [len(table.active) for table in terms]
        tables = [
            PairTable(table, Combination(index, coefficient))
            for table, index, coefficient in zip(
                terms, unit.split(sizes), combination.coefficient.split(sizes), strict=True
            )
        ]
        return gradients, tables[0], tables[1] if len(tables) > 1 else None

    def _terms(self, values: Tensor) -> list[Terms]:
        """Bind the loss to the training population, then take the terms of both tables."""
        finite = values.isfinite()
        if not bool(finite.all()):
            label = self._scored.label(int((~finite).nonzero()[0]))
            raise NumericalError(f"the score of {label} is NaN or infinite.")
        make, compute = self._make, self._compute
        scores = self._pair_scores(values)
        weigh = make.loss.bind(*scores[0], make.tables[0])
        terms = [loss_terms(make.loss, weigh, *scores[0], make.tables[0])]
        if len(scores) > 1:
            test_weigh = weigh if compute.weight_test_pairs else unit_weight
            terms.append(functional_terms(compute.test_functional, make.loss, test_weigh, *scores[1], make.tables[1]))
        for table, offset in zip(terms, (0, len(make.tables[0])), strict=False):
            if (row := table.not_finite()) is not None:
                raise NumericalError(f"the loss of {make.pair_label(offset + row)}, or its slope, is NaN or infinite.")
        return terms

    def _pair_scores(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """s_a and s_b of each table's pairs; Δ and 0 of joint ones."""
        tables = self._make.tables
        if self._task.joint:
            return [(part, torch.zeros_like(part)) for part in values.split([len(pairs) for pairs in tables])]
        used = self._make.used_items()

        def scores(column: Tensor) -> Tensor:
            return values[torch.searchsorted(used, column).to(values.device)]

        return [(scores(pairs.first), scores(pairs.second)) for pairs in tables]

    def _reporting(self, units: Units) -> Units:
        """`units` that tell the progress as they are taken."""

        def take(index: Tensor) -> Batch:
            self._compute.progress(len(index) / units.count)
            return units.take(index)

        return replace(units, take=take)
