"""Items that hardly serve two pairs: the units are score differences, and gradients are not held."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import tracin_func as ti
from tests.support import calls
from tests.support.architectures import ARCHITECTURES, BY_NAME, WITHOUT_RULE, Architecture
from tests.support.jobs import DEVICES, RootOfSquare, check, job_of
from tests.support.pairs_alike import nearly_equal
from tests.support.reference import Job, assert_same, reference
from tests.support.rows import cross
from tracin_func.gradients.engines.registry import ENGINES
from tracin_func.gradients.factors import Factors

# Each item in one pair; with the fourth, an item is in two, and items are the units again.
TRAIN = ti.Pairs([0, 3], [1, 2], [1, -1])
TEST = ti.Pairs([5], [4], [1])
OVER = "score differences"


def apart(architecture: Architecture) -> Job:
    return job_of(*architecture(), train=TRAIN, test=TEST)


@pytest.mark.parametrize(
    ("architecture", "engine", "dtype"),
    cross(
        [row for row in ARCHITECTURES if not row.constant],
        ("auto", "loop"),
        (torch.float64, torch.float32),
        plain=lambda architecture, engine, dtype: engine == dtype == 0 or (architecture + engine + dtype) % 4 == 0,
    ),
)
def test_engine_equals_reference_on_disjoint_pairs(architecture: Architecture, engine: str, dtype: torch.dtype) -> None:
    job = apart(architecture)
    if architecture.refused == "always" and engine != "loop":
        pytest.skip("vmap cannot run it; `auto` takes the loop, tested with items")
    found = check(job, reference(job.at(dtype)), engine, dtype)
    assert found.self_influence is not None
    run = found.self_influence.run.engine
    assert run["gradients"].endswith("pairs" if engine == "loop" else OVER)
    if engine == "auto":
        captured = architecture.name not in WITHOUT_RULE and not architecture.coupled
        assert (run["engine"] == "ghost") == captured


@pytest.mark.parametrize("engine", ["ghost", "item"])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("budget", [None, 1])
def test_chunks_and_blocks_change_nothing(engine: str, batch_size: int, budget: int | None) -> None:
    job = apart(BY_NAME["convolution in groups"])
    check(job, reference(job), engine, torch.float64, batch_size=batch_size, memory_budget=budget)


def test_units_are_items_where_pairs_share_them_or_the_loss_sees_more_than_the_difference() -> None:
    shared = ti.Pairs([0, 3, 0], [1, 2, 2], [1, -1, 1])
    for changes in ({"train": shared}, {"loss": lambda a, b, y: torch.relu(1 - y * (a - 2 * b))}):
        job = job_of(*BY_NAME["convolution in groups"](), **({"train": TRAIN, "test": TEST} | changes))
        task = ti.Task(job.module, job.items, job.train, job.checkpoints, job.test, job.loss)
        found = calls.score(task, calls.how(engine="ghost"), self_influence=True, influence=True).self_influence
        assert found is not None
        assert found.run.engine["gradients"] == f"{ENGINES['ghost'].engine.name} over items"


class Tokens(nn.Module):
    """Embedding, a learnt position added, a layer at every token, and the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.position = nn.Parameter(torch.randn(6, 16))
        self.norm = nn.LayerNorm(16)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.Softplus(), nn.Linear(32, 1))

    def forward(self, items: dict[str, Tensor]) -> Tensor:
        x = self.norm(self.embedding(items["ids"]) + self.position + items["noise"])
        return self.layers(x).mean(dim=1).squeeze(-1)


@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4])
def test_nearly_equal_items_in_float32(gap: float) -> None:
    """Factors are aligned: the difference is exact where both texts have the same tokens."""
    torch.manual_seed(0)
    module = Tokens()
    ids = torch.randint(0, 50, (12, 6)).repeat_interleave(2, 0)
    noise = torch.randn(12, 6, 16).repeat_interleave(2, 0)
    noise[1::2] += gap * torch.randn(12, 6, 16)
    pairs = ti.Pairs(list(range(0, 24, 2)), list(range(1, 24, 2)), [1] * 12)
    checkpoint = ti.Checkpoint(module.state_dict(), 1.0)
    job = Job(module, {"ids": ids, "noise": noise}, pairs, pairs, [checkpoint], ti.MarginRankingLoss(5.0))
    right = reference(job).own[0]
    found = calls.self_influence(module, job.items, pairs, [checkpoint], loss=job.loss, engine="ghost")
    assert found.run.engine["gradients"].endswith(OVER)
    assert float(((found.scores - right) / right).abs().max()) < 0.01


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest result of an operation has."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.numbers = max(self.numbers, leaf.numel())
        return result


def test_gradients_of_large_tables_are_not_built() -> None:
    """Texts look up a few rows of them; the check of a few units alone builds its own."""
    torch.manual_seed(0)
    module, words = Tokens(), 5000
    module.embedding = nn.Embedding(words, 16)
    items = {"ids": torch.randint(0, words, (24, 6)), "noise": torch.zeros(24, 6, 16)}
    pairs = ti.Pairs(list(range(0, 24, 2)), list(range(1, 24, 2)), [1] * 12)
    checkpoint = ti.Checkpoint(module.state_dict(), 1.0)
    with Largest() as largest:
        found = calls.self_influence(module, items, pairs, [checkpoint], engine="ghost", batch_size=12)
    assert found.run.engine["gradients"].endswith(OVER)
    assert largest.numbers <= 4 * words * 16, "those of a batch would be three times as large"


@pytest.mark.parametrize("gap", [1e-2, 1e-3])
def test_norms_of_factors_of_nearly_equal_items(gap: float) -> None:
    """Products of the four factors of a difference, which nearly cancel, in float32."""
    job = nearly_equal(gap)
    once = job.train.select(torch.arange(12))  # each item in one pair
    right = reference(replace(job, train=once, test=once)).own[0]
    found = calls.self_influence(job.module, job.items, once, job.checkpoints, loss=job.loss, engine="ghost")
    assert found.run.engine["gradients"].endswith(OVER)
    assert found.run.engine["parts"][0]["form"] == "factors"
    assert float(((found.scores - right) / right).abs().max()) < 0.01


def test_built_differences_of_opposed_factors_subtract_first() -> None:
    torch.manual_seed(0)
    d, a = torch.randn(4, 6, 8), torch.randn(4, 6, 8)
    other = a * (1 + 1e-6 * torch.randn(4, 6, 8))
    part = Factors(torch.cat([d, -d], dim=1), torch.cat([a, other], dim=1), opposed=True)
    right = torch.bmm(part.rows.double().transpose(1, 2), part.columns.double())
    assert float((part.dense() - right).norm() / right.norm()) < 1e-5


@pytest.mark.parametrize("engine", ["ghost", "item", "loop"])
@pytest.mark.parametrize("asked", ["self_influence", "influence"])
def test_a_gradient_that_is_not_finite_is_told_whatever_is_asked(engine: str, asked: str) -> None:
    items = torch.randn(6, 3)
    items[1] = 0
    module = RootOfSquare()
    task = ti.Task(module, items, TRAIN, [ti.Checkpoint(module.state_dict(), 1.0, "first")], TEST, ti.LogisticLoss())
    only = {"self_influence": False, "influence": False, asked: True}
    with pytest.raises(ti.NumericalError, match=r"first: the gradient of .* with respect to 'layer.weight' is NaN"):
        calls.score(task, calls.how(engine=engine), **only)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["tokens", "convolution in groups"])
def test_other_devices(name: str, device: str) -> None:
    """Norms by factors, by rows and of tables, each made on its device, are added up on the CPU."""
    torch.manual_seed(0)
    items = torch.randint(0, 50, (6, 6))
    job = apart(BY_NAME[name]) if name in BY_NAME else job_of(Tokens(), items, train=TRAIN, test=TEST)
    job = job.at(torch.float32)
    task = ti.Task(job.module, job.items, job.train, job.checkpoints, job.test, job.loss)
    found = calls.score(task, calls.how(device=device), influence=True)
    assert found.self_influence is not None
    assert found.influence is not None
    assert_same(found.self_influence.per_checkpoint, found.influence.per_checkpoint, reference(job), 1e-4)
