"""Every engine against the reference loop: every architecture, loss, precision and size of working memory."""

import copy
import pickle
import random
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.architectures import ARCHITECTURES, BY_NAME, ITEMS, WITHOUT_RULE, Architecture, JointGRU, JointScorer
from tests.support.jobs import DEVICES, PRECISIONS, RICH_TRAIN, TEST, TRAIN, RootOfSquare, check, job_of, scores
from tests.support.reference import Job, Trace, assert_same, one_step_change, reference
from tests.support.rows import cross
from tracin_func.gradients.batches import Work
from tracin_func.gradients.engines.registry import ENGINES, engine_names
from tracin_func.gradients.model import Scorer
from tracin_func.gradients.protocol import Need, UnsuitableError
from tracin_func.gradients.representations.held import RowsAndFactors
from tracin_func.gradients.representations.keep import keep
from tracin_func.losses.custom import as_loss
from tracin_func.scoring.units import UnitMaker

_KNOWN: dict[tuple[str, torch.dtype], tuple[Job, Trace]] = {}


def known(architecture: Architecture, dtype: torch.dtype) -> tuple[Job, Trace]:
    """A job and its reference scores: those of the SAME rounded weights, in float64."""
    key = architecture.name, dtype
    if key not in _KNOWN:
        job = job_of(*architecture())
        _KNOWN[key] = job, reference(job.at(dtype))
    return _KNOWN[key]


BOTH = (torch.float64, torch.float32)


def usual(architecture: int, engine: int, dtype: int) -> bool:
    """Of a plain run: all architectures by what captures, stacks and chooses; every fifth by all engines and dtypes."""
    kept = ("auto", "ghost", "item") if BOTH[dtype] == torch.float64 else ("ghost",)
    return engine_names()[engine] in kept or (architecture + engine) % 5 == 0


@pytest.mark.parametrize(("architecture", "engine", "dtype"), cross(ARCHITECTURES, engine_names(), BOTH, plain=usual))
def test_engine_equals_reference(architecture: Architecture, engine: str, dtype: torch.dtype) -> None:
    job, right = known(architecture, dtype)
    if architecture.constant:
        with pytest.raises(ti.InputError, match="depend on none of the parameters to differentiate"):
            check(job, right, engine, dtype)
        return
    uncaptured = architecture.name in WITHOUT_RULE or architecture.coupled
    refusable = uncaptured if engine == "ghost" else architecture.refused != "never" and engine in ("pair", "item")
    refusal = ""
    try:
        found = check(job, right, engine, dtype)
    except ti.InputError as error:
        refusal = str(error)
    if refusal:
        assert refusable
        assert refusal.startswith(f'`engine="{engine}"` cannot differentiate this scorer: ')
        assert refusal.endswith(' Use `engine="auto"`.')
        return
    assert not (uncaptured if engine == "ghost" else architecture.refused == "always" and refusable)
    assert found.self_influence is not None
    run = found.self_influence.run
    if architecture.refused != "sometimes":
        item = ("loop" if architecture.refused == "always" else "item") if uncaptured else "ghost"
        assert run.engine["engine"] == (item if engine == "auto" else engine)
    assert any("scored alone" in notice for notice in run.notices) == architecture.coupled


@pytest.mark.parametrize("engine", ["pair", "item"])
@pytest.mark.parametrize("cell", ["GRU", "RNN"])
def test_a_refusal_names_its_cause(cell: str, engine: str) -> None:
    job, _ = known(BY_NAME[cell], torch.float64)
    with pytest.raises(ti.InputError, match=cell):
        scores(job.at(torch.float64), engine)


def test_references_are_not_all_zero() -> None:
    """A comparison of zeros proves nothing: only the rows that mean to are without gradients."""
    silent = [
        architecture.name
        for architecture in ARCHITECTURES
        if not bool((known(architecture, torch.float64)[1].own > 0).any())
    ]
    assert silent == ["a score that no parameter enters", "a constant score", "items of zeros"]


def test_auto_says_why_it_loops() -> None:
    job, _ = known(BY_NAME["GRU"], torch.float64)
    found = scores(job, "auto").self_influence
    assert found is not None
    (notice,) = [
        notice for notice in found.run.notices if notice.startswith("note: engine loop, the slowest, was chosen: ")
    ]
    assert "vmap(grad) cannot run this scorer" in notice


# Losses and pairs

SMALL = BY_NAME["linear on [items, positions, features]"]


def quadratic(s_a: Tensor, s_b: Tensor, y: Tensor) -> Tensor:
    """Not a function of the difference: u + v is not 0."""
    return s_a**2 - s_b * s_a + y * s_b


def one_sided(s_a: Tensor, s_b: Tensor, y: Tensor) -> Tensor:
    """Item b has no gradient at all."""
    return torch.exp(-y * s_a)


def margin_of_its_own(s_a: Tensor, s_b: Tensor, y: Tensor, margin: float | Tensor = 0.4) -> Tensor:
    return torch.nn.functional.softplus(margin - y * (s_a - s_b))


LOSSES: dict[str, Any] = {
    "hinge with some inactive pairs": ti.MarginRankingLoss(0.1),
    "hinge with all active": ti.MarginRankingLoss(10.0),
    "hinge with all inactive": ti.MarginRankingLoss(-10.0),
    "logistic with smoothing": ti.LogisticLoss(0.1),
    "GHM symmetric": ti.GHMRankingLoss(0.5, bins=6, batch_size=4),
    "GHM symmetric over all pairs": ti.GHMRankingLoss(0.5, bins=4, batch_size=None),
    "GHM lab": ti.GHMRankingLoss(0.5, bins=6, alpha=0.5, batch_size=3, variant="lab"),
    "GHM lab with a margin that rounds to 1": ti.GHMRankingLoss(16.8, bins=6, batch_size=3, variant="lab"),
    "not of the difference": quadratic,
    "of one score": one_sided,
    "a callable with a default margin": margin_of_its_own,
}


@pytest.mark.parametrize(
    ("loss", "engine", "dtype"),
    cross(
        tuple(LOSSES),
        engine_names(),
        BOTH,
        plain=lambda loss, engine, dtype: BOTH[dtype] == torch.float64 or (loss + engine) % 3 == 0,
    ),
)
def test_loss(loss: str, engine: str, dtype: torch.dtype) -> None:
    job = job_of(*SMALL(), loss=LOSSES[loss])
    right = reference(job.at(dtype))
    found = check(job, right, engine, dtype)
    assert found.self_influence is not None
    assert torch.equal(found.self_influence.inactive, right.train_norm == 0)
    share = float((right.train_norm == 0).double().mean())
    if "inactive" in loss:
        assert share == 1 if "all inactive" in loss else 0 < share < 1
    elif "rounds" not in loss and loss != "hinge with some inactive pairs":
        assert share < 1


def test_the_lab_variant_drops_pairs_that_round_to_one() -> None:
    loss = LOSSES["GHM lab with a margin that rounds to 1"]
    right = reference(job_of(*SMALL(), loss=loss))
    dropped = right.train_norm == 0
    assert bool(dropped.any())
    assert not bool(dropped.all())


RICH_TEST = ti.Pairs(TEST.first, TEST.second, TEST.target, weight=[0.5, 1.0, 2.0])


@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("loss", ["hinge with some inactive pairs", "logistic with smoothing", "GHM lab"])
@pytest.mark.parametrize("functional", ["loss", "score-margin"])
@pytest.mark.parametrize("weighted_test", [False, True], ids=["plain tests", "weighted tests"])
def test_pairs_with_weights_margins_and_counts(loss: str, engine: str, functional: str, weighted_test: bool) -> None:
    """Only the training pairs have margins here: the test pairs keep the loss's own."""
    job = job_of(*SMALL(), loss=LOSSES[loss], train=RICH_TRAIN, test=RICH_TEST)
    job = replace(job, test_functional=functional, weight_test_pairs=weighted_test)
    check(job, reference(job), engine, torch.float64)


@pytest.mark.parametrize("engine", engine_names())
def test_a_callable_that_needs_the_margin(engine: str) -> None:
    def loss(s_a: Tensor, s_b: Tensor, y: Tensor, margin: Tensor) -> Tensor:
        return F.softplus(margin - y * (s_a - s_b))

    both = RICH_TRAIN, replace_margin(TEST, [0.2, 0.4, 0.6])
    own = job_of(*SMALL(), loss=ti.LogisticLoss(), train=both[0], test=both[1])
    check(replace(own, loss=loss), reference(own), engine, torch.float64)


def replace_margin(pairs: ti.Pairs, margin: list[float]) -> ti.Pairs:
    return ti.Pairs(pairs.first, pairs.second, pairs.target, margin=margin)


@pytest.mark.parametrize("engine", engine_names())
def test_one_real_step_of_sgd_changes_the_loss_so(engine: str) -> None:
    """Sign and unit, from a real optimiser: (ℓ_q before − after)/h → influence as the rates h·η go to 0."""
    job = job_of(*SMALL())
    job = job.at(torch.float64)
    found = scores(job, engine).influence
    assert found is not None
    for t, checkpoint in enumerate(job.checkpoints):
        for p, q in ((0, 0), (3, 1), (7, 2)):
            predicted = float(found.per_checkpoint[t, p, q])
            errors = [abs(one_step_change(job, checkpoint, p, q, step) - predicted) for step in (1e-3, 1e-4, 1e-5)]
            assert abs(predicted) > 1e-5
            assert errors[1] < 0.2 * errors[0], "the error should fall with the step"
            assert errors[2] < 1e-4 * abs(predicted) + 1e-8


# Joint scorers


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("engine", ["pair", "loop", "auto"])
@pytest.mark.parametrize("loss", ["hinge with some inactive pairs", "logistic with smoothing", "GHM symmetric"])
def test_joint_scorer(loss: str, engine: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    job = job_of(JointScorer(), torch.randn(ITEMS, 4), loss=LOSSES[loss], joint=True)
    found = check(job, reference(job.at(dtype)), engine, dtype)
    assert found.self_influence is not None
    assert found.self_influence.run.engine["engine"] == ("pair" if engine == "auto" else engine)


def test_joint_scorer_refuses_items() -> None:
    job = job_of(JointScorer(), torch.randn(ITEMS, 4), joint=True)
    with pytest.raises(ti.UsageError, match='`engine="item"` needs a scorer of single items.*Use `engine="pair"`, '):
        scores(job, "item")


def test_joint_scorer_that_vmap_cannot_run() -> None:
    torch.manual_seed(3)
    job = job_of(JointGRU(), torch.randn(ITEMS, 4), joint=True)
    found = check(job, reference(job), "auto", torch.float64)
    assert found.self_influence is not None
    assert found.self_influence.run.engine["engine"] == "loop"
    with pytest.raises(ti.InputError, match='`engine="pair"` cannot .* Use `engine="auto"`'):
        scores(job, "pair")


# Working sizes


def any_two(engine: int, batch_size: int, rows: int, dtype: int) -> bool:
    """Rows that have any two values of two options together."""
    return (engine + batch_size + rows) % 3 == 0 and (engine // 3 + batch_size + dtype) % 2 == 0


@pytest.mark.parametrize(
    ("engine", "batch_size", "rows", "dtype"),
    cross(engine_names(), (1, 5, 64, "auto"), (1, 2, None), BOTH, plain=any_two),
)
def test_chunks_and_blocks_change_nothing(engine: str, batch_size: Any, rows: int | None, dtype: torch.dtype) -> None:
    """A memory budget of a few rows recomputes them; nothing but rounding may come of it."""
    job = job_of(*SMALL(), loss=LOSSES["not of the difference"])
    width = sum(parameter.numel() for parameter in job.module.parameters()) * dtype.itemsize
    budget = None if rows is None else 4 * rows * width  # half is for rows, of two blocks
    found = check(job, reference(job.at(dtype)), engine, dtype, batch_size=batch_size, memory_budget=budget)
    assert found.self_influence is not None
    if rows is not None:
        held = min(3, 2 * rows) if engine in ("pair", "loop") and rows > 1 else rows  # only those of the 3 test pairs
        assert found.self_influence.run.engine["rows_held"] == held


def test_repeated_calls_are_bit_equal() -> None:
    job = job_of(*BY_NAME["convolution in groups"]())
    first, second = scores(job, "item", batch_size=4), scores(job, "item", batch_size=4)
    assert first.influence is not None
    assert second.influence is not None
    assert torch.equal(first.influence.per_checkpoint, second.influence.per_checkpoint)


@pytest.mark.parametrize(
    ("architecture", "engine"),
    cross(
        [row for row in ARCHITECTURES if row.refused == "never" and row.on_meta],
        ("ghost", "item", "pair"),
        plain=lambda architecture, engine: engine == 0 or (architecture + engine) % 5 == 0,
    ),
)
def test_engines_run_on_meta_tensors(architecture: Architecture, engine: str) -> None:
    """No choice in an engine depends on data, and nothing is made on another device than the data's."""
    module, items = architecture()
    checkpoints = [ti.Checkpoint(module.state_dict(), 0.1)]
    task = ti.Task(module, items, TRAIN, checkpoints, TEST, ti.LogisticLoss())
    scorer = Scorer(module.eval())
    make = UnitMaker(task, scorer, as_loss(task.loss), ti.Method(), torch.device("meta"), None)
    state = scorer.state("meta", module.state_dict(), make.device, None)
    every = torch.arange(len(TRAIN) + len(TEST))
    units = make.pairs(torch.ones(len(every)), every) if engine == "pair" else make.items()
    rates = dict.fromkeys(state.parameters, 1.0)
    taken = ENGINES[engine].engine
    planner, reason = None, ""
    try:
        planner = taken.tried(units, state)
    except UnsuitableError as refusal:
        reason = str(refusal)
    if planner is None:
        if "this operator with Meta tensors" in reason:  # weight_norm before torch 2.7
            pytest.skip("this torch has no meta kernel for an operation of the scorer")
        assert engine == "ghost"
        assert "no rule" in reason
        return
    plan = planner(Need(batch_size=4, budget=10**9))
    gradients = keep(Work(taken, units, state, rates, plan))
    assert gradients.values.is_meta
    assert gradients.values.shape == (units.count,)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("convolutions in a row", True),
        ("few channels last: strides, dilation and groups", True),
        ("convolutions flattened by a view", False),
        ("low-rank adapters on frozen layers", False),
    ],
)
def test_channels_are_last_where_the_scorer_allows(name: str, last: bool) -> None:
    asked = {"channels_last": True, "convolutions": {}}
    found = scores(job_of(*BY_NAME[name]()), "auto", kernels=asked).self_influence
    assert found is not None
    assert found.run.engine["channels_last"] is last


def test_the_plan_tells_forms_and_bytes() -> None:
    """Factors where they cost less, as long as those of all units fit the budget."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Conv1d(3, 2, 3), nn.Flatten(), nn.Linear(56, 1))
    pairs = ti.Pairs([0, 1, 2, 3, 0, 1], [1, 2, 3, 4, 2, 3], [1, 1, 1, -1, -1, 1])
    job = job_of(module, torch.randn(6, 3, 40), train=pairs, test=pairs)
    for budget, form in ((None, "factors"), (4000, "built")):
        run = check(job, reference(job), "ghost", torch.float64, memory_budget=budget).self_influence
        assert run is not None
        parts = {part["parameter"]: part for part in run.run.engine["parts"]}
        assert list(parts) == [name for name, _ in module.named_parameters()]
        assert parts["0.weight"]["form"] == form
        assert parts["2.weight"]["form"] == "built"  # what its rule gives
        assert parts["4.weight"]["form"] == form
        # 56 by 1 from one position; entries a unit: with all five, as pairs are dense in them.
        assert parts["4.weight"]["multiply_adds"] == {"factors": 5 * (56 + 1), "built": (1 + 5) * 56}[form]
        if form == "built":
            assert "exceed the memory budget" in parts["4.weight"]["reason"]


@pytest.mark.parametrize("scale", [1e-23, 1e20])
def test_products_of_one_position_survive_float32(scale: float) -> None:
    """Squares of factors that float32 does not hold."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    with torch.no_grad():
        module[2].weight *= scale
    module[2].requires_grad_(False)
    items, checkpoints = torch.randn(6, 5), [ti.Checkpoint(module.state_dict(), 1.0)]
    job = job_of(module, items, loss=lambda a, b, y: -y * (a - b), checkpoints=checkpoints)
    found = calls.self_influence(module, items, TRAIN, job.checkpoints, loss=job.loss, engine="ghost")
    assert "factors" in {part["form"] for part in found.run.engine["parts"]}
    right = reference(job).own.sum(dim=0)
    assert bool(((found.scores - right).abs() <= 1e-4 * right).all())


def test_the_plan_counts_what_it_keeps() -> None:
    """Two factors of each `factors`, a row of all the others, and as many of the one as are planned of the other."""
    module = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 1)).double()
    pairs = ti.Pairs([0, 1, 2, 3, 0, 1], [1, 2, 3, 4, 2, 3], [1] * 6)
    checkpoints = [ti.Checkpoint(module.state_dict(), 1.0)]
    task = ti.Task(module, torch.randn(5, 40).double(), pairs, checkpoints, loss=ti.LogisticLoss())
    scorer = Scorer(module)
    units = UnitMaker(task, scorer, as_loss(task.loss), ti.Method(), torch.device("cpu"), None).items()
    state = scorer.state("first", module.state_dict(), torch.device("cpu"), None)
    engine = ENGINES["ghost"].engine
    plan = engine.tried(units, state)(Need(batch_size=1, budget=10**9))
    assert [part.form for part in plan.parts] == ["factors", "built", "factors", "built"]
    assert plan.bytes_held == 5 * 8 * ((40 + 30) + 30 + (30 + 1) + 1)
    found = keep(Work(engine, units, state, dict.fromkeys(state.parameters, 1.0), plan))
    assert isinstance(found, RowsAndFactors)
    assert len(found._factors) == 2


# Devices that not every machine has


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize(
    "name", ["convolution in groups", "attention with a mask", "batch normalisation of channels, eval"]
)
def test_other_devices(name: str, engine: str, device: str) -> None:
    job, right = known(BY_NAME[name], torch.float32)
    job = job.at(torch.float32)
    task = ti.Task(job.module, job.items, job.train, job.checkpoints, job.test, job.loss)
    found = calls.score(task, calls.how(engine=engine, device=device), influence=True)
    assert found.self_influence is not None
    assert found.influence is not None
    assert_same(found.self_influence.per_checkpoint, found.influence.per_checkpoint, right, 1e-4)


# What the user gets back


def fingerprint(module: nn.Module) -> bytes:
    """Everything of a module and of the global generators that a caller can see, as bytes."""
    state = {
        name: (tensor.shape, str(tensor.dtype), tensor.numpy().tobytes())
        for name, tensor in module.state_dict().items()
    }
    parts = [
        (
            path,
            part.training,
            sorted(part.__dict__),
            sorted((name, id(value), str(type(value))) for name, value in part._parameters.items()),
            sorted((name, id(value)) for name, value in part._buffers.items()),
            [len(value) for name, value in sorted(part.__dict__.items()) if name.endswith("_hooks")],
        )
        for path, part in module.named_modules(remove_duplicate=False)
    ]
    parameters = [
        (name, parameter.requires_grad, parameter.is_leaf, parameter.grad is None or parameter.grad.numpy().tobytes())
        for name, parameter in module.named_parameters(remove_duplicate=False)
    ]
    generators = torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate()
    return pickle.dumps((state, parts, parameters, generators, torch.is_grad_enabled()))


UNCHANGED = [
    "siamese: one module under two names",
    "tied weights: an embedding is also the output layer",
    "a scorer left in train() with dropout and batch normalisation",
    "frozen layers",
    "LSTM",
    "GRU",
    "weight norm by parametrisation",
    "normalisation by the whole batch",
]


@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("name", UNCHANGED)
def test_the_users_model_is_unchanged(name: str, engine: str) -> None:
    module, items = BY_NAME[name]()
    job = job_of(module, items)
    first = next(parameter for parameter in module.parameters() if parameter.requires_grad)
    first.grad = torch.full_like(first, 3.0)
    calls: list[int] = []
    list(module.modules())[-1].register_forward_hook(lambda *_: calls.append(1))
    before = fingerprint(module)
    output = copy.deepcopy(module).eval()(items)
    before = fingerprint(module)
    calls.clear()
    try:
        scores(job, engine)
    except ti.InputError:
        assert BY_NAME[name].refused != "never" or engine == "ghost"
    else:
        assert calls, "the user's own hooks still run"
    assert fingerprint(module) == before
    assert torch.equal(module.eval()(items), output), "caches beside the parameters are the user's again"


@pytest.mark.parametrize("budget", [None, 1], ids=["rows held", "rows recomputed"])
def test_the_users_model_is_unchanged_after_an_error(budget: int | None) -> None:
    """NaN in one item: found at the first checkpoint, or while rows are recomputed."""
    module, items = BY_NAME["a scorer left in train() with dropout and batch normalisation"]()
    items[4] = float("nan")
    job = job_of(module, items)
    before = fingerprint(module)
    with pytest.raises(ti.NumericalError, match="first: the (score|gradient) of item 4 .*is NaN or infinite"):
        scores(job, "item", memory_budget=budget)
    assert fingerprint(module) == before


@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("budget", [None, 1], ids=["rows held", "rows recomputed"])
def test_gradients_that_are_not_finite_are_named(engine: str, budget: int | None) -> None:
    items = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(0))
    items[3] = 0
    job = job_of(RootOfSquare(), items)
    what = "item 3" if engine in ("item", "ghost", "auto") else "train pair 2_3"
    with pytest.raises(ti.NumericalError, match=f"first: the gradient of {what} with respect to 'layer.weight' is NaN"):
        scores(job, engine, memory_budget=budget)


class BatchSized(nn.Module):
    """A layer times a factor that a batch of several items has otherwise than a batch of one."""

    def __init__(self, rounded: bool, alike: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.rounded = rounded
        self.alike = alike

    def forward(self, items: Tensor) -> Tensor:
        scores = self.layer(items)
        large = 1e9 if len(items) > self.alike else 1.0
        # float32 loses the score beside 1e9, float64 does not.
        factor = scores.detach() + large - large if self.rounded else 1 / large
        return (scores * factor).squeeze(-1)


@pytest.mark.parametrize(("rounded", "engine"), [(True, "ghost"), (False, "item")])
def test_only_what_float64_confirms_is_a_fault_of_the_capture(rounded: bool, engine: str) -> None:
    """Rounding that depends on the batch, as of a ReLU at 0 in another layout, is no reason to refuse; a factor is."""
    job = job_of(BatchSized(rounded), torch.randn(6, 3))
    found = scores(job.at(torch.float32), "auto").self_influence
    assert found is not None
    assert found.run.engine["engine"] == engine


def test_a_fault_of_larger_batches_is_found_at_the_first_of_them() -> None:
    """The few units that are tried before agree; another engine goes on."""
    job = job_of(BatchSized(False, alike=4), torch.randn(6, 3))
    found = check(job, reference(job.at(torch.float32)), "auto", torch.float32, batch_size=6)
    assert found.self_influence is not None
    assert found.self_influence.run.engine["engine"] == "item"
    assert any("engine ghost failed (" in notice for notice in found.self_influence.run.notices)


def test_a_same_padding_of_an_even_kernel() -> None:
    """One more at the end; torch warns that it has to copy."""
    layer = nn.Conv2d(2, 3, (2, 4), padding="same")
    job = job_of(nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(75, 1)), torch.randn(6, 2, 5, 5))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel")
        check(job, reference(job), "ghost", torch.float64)
