"""Adam's part of the metric: against real steps of torch's optimisers, in every engine, and every state refused."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import tracin_func as ti
from tests.support import calls
from tests.support.architectures import BY_NAME, WITHOUT_RULE
from tests.support.jobs import TEST as ENGINE_TEST
from tests.support.jobs import TRAIN as ENGINE_TRAIN
from tests.support.jobs import job_of
from tests.support.jobs import scores as scores_of_engine
from tests.support.lab import Lab, refused
from tests.support.reference import TOLERANCE, Job, assert_same, gradient_of, module_at, plain_loss, rows_of, trace
from tracin_func.cli.app import app
from tracin_func.cli.options import in_flags
from tracin_func.gradients.batches import Work
from tracin_func.gradients.engines.registry import ENGINES, engine_names
from tracin_func.gradients.model import Scorer
from tracin_func.gradients.protocol import Need
from tracin_func.gradients.representations.keep import keep
from tracin_func.losses.custom import as_loss
from tracin_func.results.run import ADAM_UNIT, Run
from tracin_func.scoring.units import UnitMaker
from tracin_func.scoring.walk import ADAM_NOTICE
from tracin_func.task.checkpoints import LoadedCheckpoint, read
from tracin_func.task.optimizer_state import adam_preconditioner, holds_second_moments

TRAIN = ti.Pairs([0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2], [1, -1, 1, 1, -1, -1])
TEST = ti.Pairs([5, 1], [0, 5], [1, -1])
RATE, STEPS = 0.01, 7


def net() -> tuple[nn.Module, Tensor]:
    """A smooth scorer, so that no second moment is 0, and its items."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1, bias=False))
        return module.double(), 2 * torch.randn(6, 4, dtype=torch.float64)


def trained(module: nn.Module, items: Tensor, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> None:
    """Some steps on a loss that no test uses."""
    random = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        (module(items)[:, 0] * torch.randn(len(items), generator=random).to(items)).sum().backward()
        optimizer.step()


def saved(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    torch.save({"model_state_dict": module.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, path)
    return path


def scored(module: nn.Module, items: Tensor, path: Path, **compute: Any) -> calls.Scores:
    task = ti.Task(module, items, TRAIN, [ti.Checkpoint(path)], TEST, ti.LogisticLoss())
    settings = calls.how(device="cpu", notice=lambda _: None, **{"preconditioner": "adam", **compute})
    return calls.score(task, settings, self_influence=True, influence=True)


# Against real steps


def by_layer(module: nn.Module) -> list[dict[str, Any]]:
    """Two groups, each with a rate and a β2 of its own."""
    parameters = list(module.parameters())
    return [
        {"params": parameters[:3], "lr": RATE},
        {"params": parameters[3:], "lr": 3 * RATE, "betas": (0.9, 0.99)},
    ]


def with_names(module: nn.Module) -> list[dict[str, Any]]:
    """As `by_layer`, the parameters under the names that a wrapper gives them."""
    named = [(f"module.{name}", parameter) for name, parameter in module.named_parameters()]
    return [{"params": named[::2], "lr": RATE}, {"params": named[1::2], "lr": 3 * RATE, "betas": (0.9, 0.99)}]


Groups = Callable[[nn.Module], Any]
STEPPED: dict[str, tuple[type[torch.optim.Optimizer], Groups, dict[str, Any]]] = {
    "AdamW": (torch.optim.AdamW, lambda module: module.parameters(), {"weight_decay": 0.0}),
    "AdamW with decoupled weight decay": (torch.optim.AdamW, lambda module: module.parameters(), {"weight_decay": 0.1}),
    "Adam": (torch.optim.Adam, lambda module: module.parameters(), {"betas": (0.8, 0.95)}),
    "amsgrad": (torch.optim.AdamW, lambda module: module.parameters(), {"amsgrad": True}),
    "maximize": (torch.optim.AdamW, lambda module: module.parameters(), {"maximize": True}),
    "groups told by shapes": (torch.optim.AdamW, by_layer, {}),
    "groups with names": (torch.optim.AdamW, with_names, {}),
}


@pytest.mark.parametrize("name", STEPPED)
def test_scores_are_the_linear_part_of_a_real_step(name: str, tmp_path: Path) -> None:
    """½ (θ(+δ g_p) − θ(−δ g_p)) / δ is what the step does with g_p to first order: momentum and weight decay are the
    same both times, and v changes by δ² only. It is −η P' (1 − β1) / (1 − β1^(t+1)) g_p, and where ε is nothing
    beside √v̂, P' = P √((1 − β2^(t+1)) / ((1 − β2^t) b)): the step is taken with v of step t + 1, which is b v for a
    gradient of nearly nothing, b = β2, or with amsgrad its maximum, b = 1.
    """
    kind, groups, options = STEPPED[name]
    module, items = net()
    optimizer = kind(groups(module), lr=RATE, **options)
    trained(module, items, optimizer)
    path = saved(tmp_path / "model_epoch_1.pt", module, optimizer)
    state = read(path, "one").optimizer
    found = scored(module, items, path).influence
    assert found is not None
    job = Job(module, items, TRAIN, TEST, [], ti.LogisticLoss())
    expected = torch.zeros(len(TRAIN), len(TEST), dtype=torch.float64)
    for p in range(len(TRAIN)):
        change = odd_part(job, kind, groups, options, state, p)
        for q in range(len(TEST)):
            expected[p, q] = -change @ gradient_of(module, job, TEST, q, plain_loss(job.loss))
    torch.testing.assert_close(found.scores, expected, rtol=1e-6, atol=0)


def odd_part(
    job: Job, kind: type[torch.optim.Optimizer], groups: Groups, options: dict[str, Any], state: Any, p: int
) -> Tensor:
    """½ (θ(+δ g_p) − θ(−δ g_p)) / (δ c) by two real steps from `state`, c as above."""
    delta, moved = 1e-5, []
    for sign in (1, -1):
        module = module_at(job.module, job.module.state_dict())
        optimizer = kind(groups(module), lr=RATE, **options)
        optimizer.load_state_dict(copy.deepcopy(state))
        gradient = gradient_of(module, job, TRAIN, p, plain_loss(job.loss))
        # An optimiser that maximises is given the gradient of what it raises: of minus the loss.
        gradient = -gradient if options.get("maximize") else gradient
        parts = gradient.split([parameter.numel() for parameter in module.parameters()])
        for parameter, part in zip(module.parameters(), parts, strict=True):
            parameter.grad = sign * delta * part.view_as(parameter)
        optimizer.step()
        constants = {
            parameter: constant(group, amsgrad=options.get("amsgrad", False))
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        moved.append([parameter.detach() / constants[parameter] for parameter in module.parameters()])
    return torch.cat([(up - down).flatten() / (2 * delta) for up, down in zip(*moved, strict=True)])


def constant(group: dict[str, Any], *, amsgrad: bool) -> float:
    first, second = group["betas"]
    momentum = (1 - first) / (1 - first ** (STEPS + 1))
    return momentum * math.sqrt((1 - second ** (STEPS + 1)) / (1 - second**STEPS) / (1 if amsgrad else second))


# In every engine

ROWS = (
    "linear on [items, features]",
    "convolution padded circularly",
    "bilinear with itself",
    "layer normalisation",
    "tied weights: an embedding is also the output layer",
    "frozen layers",
    "a slice of a weight",
    "GRU",
)


def with_metric(job: Job, path: Path) -> tuple[list[ti.Checkpoint], list[Tensor]]:
    """Files of the job's checkpoints with second moments at random, and √P of each, flat."""
    random, files, roots = torch.Generator().manual_seed(3), [], []
    for t, checkpoint in enumerate(job.checkpoints):
        module = module_at(job.module, checkpoint.source)
        optimizer = torch.optim.Adam(module.named_parameters(), eps=1e-3)
        content = optimizer.state_dict()
        moments = [
            torch.randn(parameter.shape, generator=random, dtype=torch.float64) ** 2
            for parameter in module.parameters()
        ]
        content["state"] = {i: {"step": torch.tensor(4.0), "exp_avg_sq": v} for i, v in enumerate(moments)}
        weights = dict(checkpoint.source)
        torch.save({"model_state_dict": weights, "optimizer_state_dict": content}, path / f"{t}.pt")
        files.append(replace(checkpoint, source=path / f"{t}.pt"))
        of_trained = zip(moments, module.parameters(), strict=True)
        flat = torch.cat([v.flatten() for v, parameter in of_trained if parameter.requires_grad])
        roots.append(1 / ((flat / (1 - 0.999**4)).sqrt() + 1e-3).sqrt())
    return files, roots


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("name", ROWS)
def test_every_engine_applies_the_metric(name: str, engine: str, dtype: torch.dtype, tmp_path: Path) -> None:
    job = job_of(*BY_NAME[name]()).at(dtype)
    plain = [rows_of(job, checkpoint) for checkpoint in job.checkpoints]
    files, roots = with_metric(job, tmp_path)
    right = trace(job, [(train * root, test * root) for (train, test), root in zip(plain, roots, strict=True)])
    job = replace(job, checkpoints=files)
    if (name == "GRU" and engine in ("ghost", "item", "pair")) or (name in WITHOUT_RULE and engine == "ghost"):
        with pytest.raises(ti.InputError, match="cannot differentiate this scorer"):
            scores_of_engine(job, engine, preconditioner="adam")
        return
    found = scores_of_engine(job, engine, preconditioner="adam")
    assert found.self_influence is not None
    assert found.influence is not None
    own, cross = found.self_influence.per_checkpoint, found.influence.per_checkpoint
    assert_same(own, cross, right, TOLERANCE[dtype])
    with pytest.raises(AssertionError):  # the metric matters here
        assert_same(own, cross, trace(job, plain), 1e-2)


@pytest.mark.parametrize("need", ["influence alone", "differences"])
@pytest.mark.parametrize("engine", ["ghost", "item"])
def test_gradients_that_are_not_held_have_the_metric(need: str, engine: str, tmp_path: Path) -> None:
    job = job_of(*BY_NAME["tied weights: an embedding is also the output layer"]()).at(torch.float64)
    pairs = (ti.Pairs([0, 1], [2, 3], [1, -1]), ti.Pairs([4], [5], [1])) if need == "differences" else (TRAIN, TEST)
    job = replace(job, train=pairs[0], test=pairs[1])
    files, roots = with_metric(job, tmp_path)
    plain = [rows_of(job, checkpoint) for checkpoint in job.checkpoints]
    right = trace(job, [(train * root, test * root) for (train, test), root in zip(plain, roots, strict=True)])
    task = ti.Task(job.module, job.items, job.train, files, job.test, job.loss)
    settings = calls.how(engine=engine, device="cpu", preconditioner="adam")
    found = calls.score(task, settings, self_influence=False, influence=True).influence
    assert found is not None
    assert ("score differences" in found.run.engine["gradients"]) == (need == "differences")
    assert_same(None, found.per_checkpoint, right, 1e-9)


@pytest.mark.parametrize("engine", ["pair", "item", "ghost"])
def test_engines_scale_on_meta_tensors(engine: str) -> None:
    """And what would be kept as factors is built."""
    module, items = BY_NAME["linear on [items, features]"]()
    checkpoints = [ti.Checkpoint(module.state_dict(), 0.1)]
    task = ti.Task(module, items, ENGINE_TRAIN, checkpoints, ENGINE_TEST, ti.LogisticLoss())
    scorer = Scorer(module.eval())
    make = UnitMaker(task, scorer, as_loss(task.loss), ti.Method(), torch.device("meta"), None)
    scale = {name: torch.rand_like(tensor) for name, tensor in scorer.current().items()}
    state = scorer.state("meta", module.state_dict(), make.device, None, scale)
    every = torch.arange(len(ENGINE_TRAIN) + len(ENGINE_TEST))
    units = make.pairs(torch.ones(len(every)), every) if engine == "pair" else make.items()
    taken = ENGINES[engine].engine
    plan = taken.tried(units, state)(Need(batch_size=4, budget=10**9))
    gradients = keep(Work(taken, units, state, dict.fromkeys(state.parameters, 1.0), plan))
    assert gradients.values.is_meta
    assert {part.form for part in plan.parts} <= {"built", "vmap"}


@pytest.mark.parametrize("engine", ["loop", "item", "ghost"])
def test_half_precision_does_not_overflow(engine: str, tmp_path: Path) -> None:
    """√P is 1e4 where v is 0; a gradient of 40 times that is beyond float16."""
    module, items = nn.Linear(4, 1).double(), 40 * net()[1].half().double()
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    trained(module, items, optimizer)
    content = optimizer.state_dict()
    content["state"][0]["exp_avg_sq"].zero_()
    torch.save({"model_state_dict": module.state_dict(), "optimizer_state_dict": content}, tmp_path / "m.pt")
    task = ti.Task(module, items, TRAIN, [ti.Checkpoint(tmp_path / "m.pt")], loss=ti.MarginRankingLoss(1e4))
    compute = calls.how(engine=engine, device="cpu", preconditioner="adam")
    wide, half = (calls.score(task, calls.but(compute, dtype=dtype)).self_influence for dtype in (None, torch.float16))
    assert wide is not None
    assert half is not None
    assert half.scores.tolist() == pytest.approx(wide.scores.tolist(), rel=1e-2)


# State to parameters


def loaded(module: nn.Module, optimizer: torch.optim.Optimizer) -> LoadedCheckpoint:
    return LoadedCheckpoint("one.pt", module.state_dict(), optimizer.state_dict(), {}, {})


def preconditioners(module: nn.Module, checkpoint: LoadedCheckpoint, params: str | None = None) -> dict[str, Tensor]:
    scorer = Scorer(module, params=params)
    return adam_preconditioner(checkpoint, dict(module.named_parameters()), scorer.canonical())


def marked(module: nn.Module, groups: Any, **options: Any) -> LoadedCheckpoint:
    """A checkpoint of Adam over `groups` whose second moments tell which parameter each is of: k² for the k-th."""
    optimizer = torch.optim.Adam(groups, **{"lr": RATE, "betas": (0.0, 0.0), "eps": 0.0, **options})
    for k, parameter in enumerate(module.parameters(), start=1):
        moment = torch.full(parameter.shape, float(k * k))
        if parameter.requires_grad:
            optimizer.state[parameter] = {"step": torch.tensor(1.0), "exp_avg_sq": moment}
    return loaded(module, optimizer)


def positions(module: nn.Module, checkpoint: LoadedCheckpoint) -> list[int]:
    """The k of each parameter that is differentiated, in the order of the module."""
    found = preconditioners(module, checkpoint)
    assert list(found) == [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    for name, preconditioner in found.items():
        assert preconditioner.shape == module.get_parameter(name).shape
        assert len(preconditioner.unique()) == 1
    return [round(1 / float(preconditioner.flatten()[0])) for preconditioner in found.values()]


def twice() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))


def test_state_is_mapped_by_order_in_one_group() -> None:
    module = twice()
    assert positions(module, marked(module, module.parameters())) == [1, 2, 3, 4, 5, 6]


def test_state_is_mapped_by_order_in_groups_where_one_way_fits() -> None:
    """Weights and biases apart, and a head apart: no shape tells all, the order of both groups does."""
    module = twice()
    weights = [parameter for parameter in module.parameters() if parameter.ndim == 2]
    biases = [parameter for parameter in module.parameters() if parameter.ndim == 1]
    assert positions(module, marked(module, [{"params": biases}, {"params": weights}])) == [1, 2, 3, 4, 5, 6]
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    body, head = list(module.parameters())[:2], list(module.parameters())[2:]
    assert body[1].shape == head[1].shape
    assert positions(module, marked(module, [{"params": head}, {"params": body}])) == [1, 2, 3, 4, 5, 6]


def test_state_is_mapped_by_names_whatever_the_order() -> None:
    module = twice()
    named = [(f"_orig_mod.module.{name}", parameter) for name, parameter in module.named_parameters()]
    groups = [{"params": named[::-2]}, {"params": named[::2]}]
    assert positions(module, marked(module, groups)) == [1, 2, 3, 4, 5, 6]


def test_names_in_the_place_of_numbers_are_names() -> None:
    """As torch.distributed gathers the state of FSDP."""
    module = twice()
    checkpoint = marked(module, module.parameters())
    names = [name for name, _ in module.named_parameters()]
    state = {names[i]: value for i, value in checkpoint.optimizer["state"].items()}
    group = {**checkpoint.optimizer["param_groups"][0], "params": names[::-1]}
    gathered = replace(checkpoint, optimizer={"state": state, "param_groups": [group]})
    assert positions(module, gathered) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("held", ["all", "trained"])
def test_frozen_parameters_have_no_metric(held: str) -> None:
    module = twice()
    module[0].requires_grad_(False)
    parameters = list(module.parameters())
    assert positions(module, marked(module, parameters if held == "all" else parameters[2:])) == [3, 4, 5, 6]


def test_a_tied_parameter_is_known_by_either_name() -> None:
    module, _ = BY_NAME["tied weights: an embedding is also the output layer"]()
    names = Scorer(module).canonical()
    (one,) = [name for name, first in names.items() if first not in (None, name)]
    checkpoint = marked(module, module.parameters())
    group = {**checkpoint.optimizer["param_groups"][0]}
    group["param_names"] = [one if names[one] == name else name for name, _ in module.named_parameters()]
    renamed = replace(checkpoint, optimizer={**checkpoint.optimizer, "param_groups": [group]})
    assert positions(module, renamed) == positions(module, checkpoint)


def test_only_what_is_differentiated_needs_state(tmp_path: Path) -> None:
    module, items = net()
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    trained(module, items, optimizer)
    del optimizer.state[module[0].weight]
    assert set(preconditioners(module, loaded(module, optimizer), params="4")) == {"4.weight"}
    with pytest.raises(ti.InputError, match="no second moment of parameter '0.weight', which was never stepped"):
        preconditioners(module, loaded(module, optimizer))


def test_a_step_may_be_a_number() -> None:
    module = twice()
    checkpoint = marked(module, module.parameters())
    for state in checkpoint.optimizer["state"].values():
        state["step"] = 1
    assert positions(module, checkpoint) == [1, 2, 3, 4, 5, 6]


# What is refused


def changed(**values: Any) -> Callable[[dict[str, Any]], Any]:
    """The optimiser's state with other entries."""
    return lambda optimizer: {**optimizer, **values}


def in_state(**values: Any) -> Callable[[dict[str, Any]], Any]:
    """With other entries in the state of the first parameter; None takes one away."""

    def change(optimizer: dict[str, Any]) -> Any:
        state = {k: v for k, v in {**optimizer["state"][0], **values}.items() if v is not None}
        return {**optimizer, "state": {**optimizer["state"], 0: state}}

    return change


def in_groups(**values: Any) -> Callable[[dict[str, Any]], Any]:
    """With other entries in every group; None takes one away."""

    def change(optimizer: dict[str, Any]) -> Any:
        groups = [{**group, **values} for group in optimizer["param_groups"]]
        groups = [{k: v for k, v in group.items() if v is not None} for group in groups]
        return {**optimizer, "param_groups": groups}

    return change


class ShardedTensor:
    """As torch.distributed calls its own, which needs a process group."""


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no optimiser": (lambda _: None, "has no optimiser state, .* Save 'optimizer_state_dict' beside the weights"),
    "no groups": (changed(param_groups=[]), "its optimiser state is damaged"),
    "no state": (changed(state=None), "its optimiser state is damaged"),
    "numbers that are none": (in_groups(params=[[0], 1, 2, 3, 4, 5]), "its optimiser state is damaged"),
    "no list of numbers": (in_groups(params=6), "its optimiser state is damaged"),
    "no list of names": (in_groups(param_names=6), "has 6 parameters and another number of 'param_names'"),
    "names that are none": (in_groups(param_names=[1, 2, 3, 4, 5, 6]), "another number of 'param_names'"),
    "amsgrad that is none": (in_groups(amsgrad=torch.ones(2)), "is not torch's Adam or AdamW"),
    "a group without parameters": (changed(param_groups=[{"lr": 1.0}]), "its optimiser state is damaged"),
    "SGD": (in_groups(betas=None, amsgrad=None, eps=None), "is not torch's Adam or AdamW"),
    "RAdam": (in_groups(amsgrad=None), "is not torch's Adam or AdamW, .*: its groups lack 'amsgrad'"),
    "ZeRO": (changed(zero_stage=2), "is sharded .DeepSpeed ZeRO: 'zero_stage'., and .* needs that of all"),
    "ZeRO's base": (changed(single_partition_of_fp32_groups=[]), "DeepSpeed ZeRO: 'single_partition_of_fp32_groups'"),
    "ZeRO's count": (changed(partition_count=[2]), "DeepSpeed ZeRO: 'partition_count'"),
    "FSDP": (changed(state={"_fsdp_wrapped_module.flat_param": {}}), "FSDP: '_fsdp_wrapped_module.flat_param'"),
    "sharded tensors": (in_state(exp_avg_sq=ShardedTensor()), "is sharded .a ShardedTensor."),
    "a count that does not fit": (in_groups(params=[0, 1]), "has 2 parameters, the model has 6 trainable ones and 6"),
    "a shape that does not fit": (
        in_state(exp_avg_sq=torch.ones(3, 2)),
        "no entry of shape .3, 3. in the place of parameter '0.weight'",
    ),
    "a shape that does not fit a name": (
        lambda optimizer: in_state(exp_avg_sq=torch.ones(3, 2))(in_groups(param_names=NAMES_OF_TWICE)(optimizer)),
        "of parameter '0.weight' has the shape .3, 2., the parameter .3, 3.",
    ),
    "another model's names": (in_groups(param_names=list("abcdef")), "has no parameter '0.weight'"),
    "too few names": (in_groups(param_names=["0.weight"]), "has 6 parameters and another number of 'param_names'"),
    "a parameter never stepped": (changed(state={}), "parameter '0.weight', which was never stepped"),
    "amsgrad without its maximum": (in_groups(amsgrad=True), "no fitting 'max_exp_avg_sq' of parameter '0.weight'"),
    "no step": (in_state(step=None), "'betas', 'eps' or 'step' of parameter '0.weight'"),
    "no step made": (in_state(step=0), "at least one step"),
    "steps for each entry": (in_state(step=torch.ones(3)), "'betas', 'eps' or 'step'"),
    "a beta of 1": (in_groups(betas=(0.9, 1.0)), "Expected 0 <= beta < 1"),
    "one beta": (in_groups(betas=(0.9,)), "Expected 0 <= beta < 1"),
    "a negative eps": (in_groups(eps=-1.0), "eps >= 0"),
    "NaN": (in_state(exp_avg_sq=torch.full((3, 3), float("nan"))), "'exp_avg_sq' .* is NaN, infinite or negative"),
    "a negative square": (in_state(exp_avg_sq=-torch.ones(3, 3)), "'exp_avg_sq' .* is NaN, infinite or negative"),
    "zeros and no eps": (in_state(exp_avg_sq=torch.zeros(3, 3)), "has zeros and eps is 0.0, .* unbounded"),
}
NAMES_OF_TWICE = [name for name, _ in twice().named_parameters()]


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str) -> None:
    change, words = REFUSED[name]
    module = twice()
    checkpoint = marked(module, module.parameters())
    with pytest.raises(ti.InputError, match=words) as error:
        preconditioners(module, replace(checkpoint, optimizer=change(dict(checkpoint.optimizer))))
    assert str(error.value).startswith("one.pt: ")
    assert "\n" not in str(error.value)


def test_groups_that_cannot_be_told_are_refused() -> None:
    module = twice()
    layers = [{"params": list(layer.parameters())} for layer in module]
    with pytest.raises(
        ti.InputError, match="3 groups without 'param_names', and the shapes of parameter .* fit several"
    ):
        preconditioners(module, marked(module, layers))


def test_very_many_groups_are_refused_soon() -> None:
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(40)))
    layers = [{"params": list(layer.parameters())} for layer in module]
    with pytest.raises(ti.InputError, match="40 groups without 'param_names'"):
        preconditioners(module, marked(module, layers))


# The run as a whole


class ByClosure(nn.Module):
    """A private copy of it would read the weights of the original: the user's own module runs."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.weight, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))
        weight = self.weight
        self.product = lambda items: items @ weight

    def forward(self, items: Tensor) -> Tensor:
        return self.product(items) + (items @ (self.bias * self.frozen)).tanh()


def test_what_was_trained_is_known_while_the_users_module_runs() -> None:
    module, items = ByClosure(), torch.randn(5, 3)
    optimizer = torch.optim.Adam([module.weight, module.bias])
    module(items).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    state = {"model_state_dict": copy.deepcopy(module.state_dict()), "optimizer_state_dict": optimizer.state_dict()}
    checkpoints = [ti.Checkpoint(copy.deepcopy(state), name=name) for name in ("first", "second")]
    task = ti.Task(module, items, ti.Pairs([0, 1], [1, 2], [1, -1]), checkpoints, loss=ti.LogisticLoss())
    method = ti.Method(preconditioner="adam", params="^weight$")
    found = ti.self_influence(task, method=method)
    assert torch.equal(found.per_checkpoint[0], found.per_checkpoint[1])
    assert bool((found.per_checkpoint > 0).all())


def test_the_weights_alone_are_no_optimiser() -> None:
    module, items = net()
    task = ti.Task(module, items, TRAIN, [ti.Checkpoint(module.state_dict(), 0.1)])
    with pytest.raises(ti.InputError, match="checkpoint 1: has no optimiser state"):
        calls.score(task, calls.how(preconditioner="adam"))


def test_rates_left_out_leave_the_metric(tmp_path: Path) -> None:
    module, items = net()
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    trained(module, items, optimizer)
    path = saved(tmp_path / "m.pt", module, optimizer)
    rated, unrated = (
        scored(module, items, path, checkpoint_weights=weights).influence for weights in ("lr", "uniform")
    )
    assert rated is not None
    assert unrated is not None
    torch.testing.assert_close(unrated.scores * RATE, rated.scores)


@pytest.mark.parametrize("dtype", [None, torch.float32], ids=["float64", "float32"])
def test_verification_confirms_and_refutes(dtype: torch.dtype | None, tmp_path: Path) -> None:
    module, items = net()
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    trained(module, items, optimizer)
    checkpoints = [ti.Checkpoint(saved(tmp_path / "m.pt", module, optimizer))]
    task = ti.Task(module, items, TRAIN, checkpoints, TEST, ti.LogisticLoss())
    compute = calls.how(device="cpu", preconditioner="adam", dtype=dtype)
    found = calls.score(task, compute, self_influence=True, influence=True)
    checked = calls.verified(task, compute, found, 20)
    assert checked.passed, str(checked)
    plain = calls.score(task, calls.but(compute, preconditioner="none"), self_influence=True, influence=True)
    assert found.influence is not None
    assert plain.influence is not None
    mixed = replace(found, influence=replace(found.influence, per_checkpoint=plain.influence.per_checkpoint))
    assert not calls.verified(task, compute, mixed, 20).passed


def test_moments_that_are_not_used_are_told_once(tmp_path: Path) -> None:
    module, items = net()
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    trained(module, items, optimizer)
    checkpoints = [ti.Checkpoint(saved(tmp_path / f"{t}.pt", module, optimizer)) for t in range(3)]
    task = ti.Task(module, items, TRAIN, checkpoints)
    told: list[str] = []
    compute = calls.how(device="cpu", notice=told.append, evaluated=lambda _: None)
    calls.score(task, compute)
    assert told.count(ADAM_NOTICE) == 1
    told.clear()
    calls.score(task, calls.but(compute, preconditioner="adam"))
    assert ADAM_NOTICE not in told
    momentum = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    trained(module, items, momentum)
    assert not holds_second_moments(loaded(module, momentum))


def test_the_record_says_what_the_step_is() -> None:
    def record_of(score: str, **method: Any) -> dict[str, Any]:
        return Run((), {}, {}, {}, (), ti.Method(preconditioner="adam", **method)).provenance(score, {})

    for score, of in (("self", "self"), ("influence", "loss")):
        record = record_of(score)
        assert record["preconditioner"] == "adam"
        assert record["unit"] == ADAM_UNIT[of]
        assert "per visit with Adam's step, moments held fixed, momentum and weight decay left out" in record["unit"]
        assert "P = 1 / (√v̂ + ε)" in record["sign"]
        uniform = record_of(score, checkpoint_weights="uniform")
        assert "along Adam's step, without learning rates" in uniform["unit"]
    assert "preconditioned by √P" in record_of("influence", normalize="cosine")["unit"]


def test_a_word_that_is_none_is_refused() -> None:
    with pytest.raises(ti.UsageError, match="`preconditioner` should be one of none, adam. Got 'adamw'."):
        calls.how(preconditioner="adamw")  # type: ignore[arg-type]


# By the command line


def embedded_run(command: str, folder: Path, *more: str) -> tuple[str, str, dict[str, Any]]:
    result = CliRunner().invoke(app, [command, "--metadata-dir", str(folder), "--checkpoints", "last:2", *more])
    assert result.exit_code == 0, result.stderr
    (path,) = [path for path in folder.glob("*.json") if "provenance" not in path.name]
    return result.stdout, result.stderr, json.loads(path.read_text())


def test_the_embedded_default_by_adam(embedded_500hz: Any, tmp_path: Path) -> None:
    stdout, stderr, scores = embedded_run(
        "influence", tmp_path / "adam", "--preconditioner", "adam", "--verify", "4", "--num-test", "2"
    )
    assert "Verification passed" in stderr
    assert ADAM_NOTICE.partition(chr(96))[0] not in stderr
    words = " ".join(stdout.split())
    assert "(first order, per Adam visit)" in words
    (record,) = (tmp_path / "adam").glob("*.provenance.json")
    column = next(iter(json.loads(record.read_text())["columns"].values()))
    assert column["preconditioner"] == "adam"
    assert column["options"]["preconditioner"] == "adam"
    assert column["unit"] == ADAM_UNIT["loss"]
    stdout, stderr, plain = embedded_run("influence", tmp_path / "plain", "--num-test", "2", "--verbose")
    assert stderr.count(f"note: {in_flags(ADAM_NOTICE)}") == 1
    assert "per SGD visit" in " ".join(stdout.split())
    assert plain.keys() == scores.keys()
    assert plain != scores


def test_self_influence_of_the_embedded_default_by_adam(embedded_500hz: Any, tmp_path: Path) -> None:
    stdout, stderr, scores = embedded_run("self", tmp_path, "--preconditioner", "adam", "--verify", "3")
    assert "Verification passed" in stderr
    assert "per Adam visit" in " ".join(stdout.split())
    assert all(value >= 0 for values in scores.values() for value in values.values())


def test_mistakes_are_one_line(lab: Lab) -> None:
    assert "none, adam" in refused("self", lab, "--preconditioner", "sgd", code=2)
    line = refused("self", lab, "--preconditioner", "adam", code=3)
    assert "model_epoch_2.pt: its optimiser is not torch's Adam or AdamW" in line
