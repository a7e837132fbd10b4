"""Where capture might go wrong unseen: rows in another order, layouts, ragged items, cancellation, devices."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.jobs import check, job_of, scores
from tests.support.reference import Job, reference
from tracin_func.gradients.engines.ghost.order import reorders
from tracin_func.gradients.factors import Factors
from tracin_func.gradients.protocol import Combination
from tracin_func.gradients.representations.factored import FactorGradients

ITEMS = 24


def pairs(count: int, items: int = ITEMS) -> ti.Pairs:
    generator = torch.Generator().manual_seed(count)
    first = torch.randint(items, (count,), generator=generator)
    second = (first + 1 + torch.randint(items - 1, (count,), generator=generator)) % items
    return ti.Pairs(first, second, torch.where(torch.rand(count, generator=generator) < 0.5, 1, -1))


class SortsByLength(nn.Module):
    """Texts, padded with 0, sorted by length before the layers and put back after them."""

    def __init__(self, tokens: int = 30) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, 6, padding_idx=0)
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        order = (tokens != 0).sum(dim=1).argsort(descending=True, stable=True)
        tokens = tokens[order]
        hidden = self.body(self.embedding(tokens)).tanh() * (tokens != 0)[..., None]
        return self.head(hidden.sum(dim=1))[order.argsort()]


class Experts(nn.Module):
    """Each row goes to one of two layers, by the sign of its last number."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        positive = x[:, -1] > 0
        hidden = x.new_zeros(len(x), 5)
        hidden[positive], hidden[~positive] = self.left(x[positive]), self.right(x[~positive])
        return self.head(hidden.tanh())


class LastToken(nn.Module):
    """Scores a text at its last token, as reward models do: an index along the items that moves none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 6)
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        last = (tokens != 0).sum(dim=1) - 1
        hidden = self.body(self.embedding(tokens)).tanh()
        return self.head(hidden[torch.arange(len(tokens)), last])


def texts(lengths: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 30, (len(lengths), 8), generator=generator) * (torch.arange(8) < lengths[:, None])


def engine_of(job: Job, dtype: torch.dtype = torch.float64, **compute: Any) -> str:
    found = check(job, reference(job), "auto", dtype, **compute).self_influence
    assert found is not None
    return str(found.run.engine["engine"])


@pytest.mark.parametrize("batch_size", [4, "auto"])
def test_texts_sorted_by_length_are_not_captured(batch_size: Any) -> None:
    torch.manual_seed(0)
    lengths = torch.full((ITEMS,), 5)  # what is probed is all of one length, and in order
    lengths[[3, 7, 8, 17]] = torch.tensor([2, 7, 1, 8])
    job = job_of(SortsByLength().double(), texts(lengths), train=pairs(40), test=pairs(5))
    assert engine_of(job, batch_size=batch_size) != "ghost"


def test_rows_that_go_to_different_layers_are_not_captured() -> None:
    torch.manual_seed(0)
    x = torch.randn(ITEMS, 6, dtype=torch.float64)
    x[:, -1] = torch.tensor([1.0, -1.0] * (ITEMS // 2))
    x[16:20, -1] = torch.tensor([1.0, 1.0, -1.0, -1.0])  # as many rows a layer as in the pairs before
    train = ti.Pairs(torch.arange(0, ITEMS - 4, 2), torch.arange(1, ITEMS - 4, 2), torch.ones(ITEMS // 2 - 2))
    test = ti.Pairs([ITEMS - 4, ITEMS - 2], [ITEMS - 3, ITEMS - 1], [1, 1])
    assert engine_of(job_of(Experts().double(), x, train=train, test=test), batch_size=4) != "ghost"


def test_the_last_token_is_captured() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(1, 9, (ITEMS,), generator=torch.Generator().manual_seed(2))
    tokens = texts(lengths)
    tokens[torch.arange(ITEMS), lengths - 1] = 1 + torch.arange(ITEMS)  # no two alike
    job = job_of(LastToken().double(), tokens, train=pairs(40), test=pairs(5))
    assert engine_of(job) == "ghost"


ROWS = torch.arange(4)
TURNED = ROWS.flip(0)
X = torch.randn(4, 4)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: X[TURNED],
        lambda: X[[0, 2, 1, 3]],
        lambda: X[::2],
        lambda: X[X[:, 0] > 0],
        lambda: X[TURNED, ROWS],
        lambda: torch.index_select(X, 0, TURNED),
        lambda: X.gather(0, TURNED[:, None]),
        lambda: X.take_along_dim(TURNED[:, None], dim=0),
        lambda: X.clone().index_copy_(0, TURNED, X),
        lambda: X.clone().__setitem__(TURNED, X),
        lambda: X.sort(dim=0),
        lambda: X.flip(0),
        lambda: X.flip(1, 0),
        lambda: torch.roll(X, 1),
        lambda: torch.topk(X, 2, dim=-2),
        lambda: X.masked_select(X > 0),
    ],
)
def test_operations_that_move_rows_are_told(operation: Any) -> None:
    assert seen(operation)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: X[ROWS],
        lambda: X[ROWS, TURNED],
        lambda: X[:, TURNED],
        lambda: X[:, ::2],
        lambda: X[0],
        lambda: X[..., 0],
        lambda: X[None],
        lambda: X.gather(1, TURNED[:, None]),
        lambda: X.sort(dim=1),
        lambda: X.flip(1),
        lambda: torch.topk(X, 2),
        lambda: X + X,
        lambda: torch.randn(3, 4)[[2, 1, 0]],
    ],
)
def test_operations_that_move_no_row_are_not(operation: Any) -> None:
    assert not seen(operation)


def seen(operation: Any) -> list[str]:
    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found.append(reorders(func, args, kwargs or {}, 4))
            return func(*args, **(kwargs or {}))

    found: list[str | None] = []
    with Watch():
        operation()
    return [name for name in found if name is not None]


class ViewsOneItem(nn.Module):
    """A `view` that stands channels last in a batch of one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.convolution(x)
        batch, channels, height, width = hidden.shape
        return self.head(hidden.view(batch * channels, height, width).mean(dim=(1, 2)).view(batch, channels))


def test_a_view_that_only_one_item_stands_channels_last() -> None:
    torch.manual_seed(0)
    job = job_of(ViewsOneItem().double(), torch.randn(ITEMS, 1, 6, 5, dtype=torch.float64), train=pairs(20))
    assert engine_of(job) == "ghost"


class Rearranged(nn.Module):
    """Cuts a batch into items, joins them in another order for its layer, and the scores in the first order again."""

    def __init__(self, order: Callable[[Tensor], list[int]]) -> None:
        super().__init__()
        self.layer, self.head, self.order = nn.Linear(3, 4), nn.Linear(4, 1), order

    def forward(self, items: Tensor) -> Tensor:
        order = self.order(items)
        hidden = self.layer(torch.cat([items[place : place + 1] for place in order])).tanh()
        every = self.head(hidden)[:, 0].unbind()
        return torch.stack([every[order.index(place)] for place in range(len(items))])


@pytest.mark.parametrize("sign", [1, -1], ids=["as they come", "the other way round"])
@pytest.mark.parametrize("count", [2, 3, ITEMS])
def test_items_that_are_sorted_by_cutting_and_joining(sign: int, count: int) -> None:
    torch.manual_seed(0)
    items = torch.randn(count, 3, dtype=torch.float64)
    items[:, 0] = torch.arange(count)

    module = Rearranged(lambda x: (sign * x[:, 0]).argsort(stable=True).tolist()).double()
    job = job_of(module, items, train=pairs(20, count), test=pairs(3, count))
    assert engine_of(job) == "loop"  # which alone runs `tolist`


def test_items_that_are_turned_by_cutting_and_joining() -> None:
    torch.manual_seed(0)
    module = Rearranged(lambda x: [*range(len(x))][::-1]).double()
    job = job_of(module, torch.randn(ITEMS, 3, dtype=torch.float64), train=pairs(20))
    assert engine_of(job) == "item"


class OfFourAxes(nn.Module):
    """A parameter of four axes that enters an operation without a rule, after a convolution or alone."""

    def __init__(self, convolved: bool) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(1, 2, 6, 5)), nn.Linear(60, 1)
        self.convolution = nn.Conv2d(1, 2, 7, padding=3) if convolved else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden, weight = torch.broadcast_tensors(self.convolution(x), self.weight)
        return self.head((hidden * weight).flatten(1))


@pytest.mark.parametrize("convolved", [False, True])
def test_channels_are_last_only_for_convolutions(convolved: bool) -> None:
    torch.manual_seed(0)
    job = job_of(OfFourAxes(convolved).double(), torch.randn(ITEMS, 1, 6, 5, dtype=torch.float64), train=pairs(20))
    asked = {"channels_last": True, "convolutions": {}}
    found = scores(job, "ghost", kernels=asked).self_influence
    assert found is not None
    assert found.run.engine["channels_last"] is convolved


def test_ragged_items_that_a_measurement_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracin_func.gradients.representations.chunks.MEASURING", 1e9)
    torch.manual_seed(0)
    # More positions than entries would be worth: factors are planned from the first item.
    items = [torch.randn(1 + position % 3, 60, dtype=torch.float64) for position in range(6)]

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(60, 50), nn.Linear(50, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).tanh().mean(dim=1))

    scorer = Pooled().double()
    checkpoint = ti.Checkpoint(scorer.state_dict(), 0.1)
    table = ti.Pairs([0, 1, 2, 3], [1, 2, 3, 4], [1, 1, -1, 1])
    told: list[str] = []
    task = ti.Task(scorer, items, table, [checkpoint])
    found = calls.score(task, calls.how(device="cpu", notice=told.append)).self_influence
    exact = calls.score(task, calls.how(device="cpu", engine="loop")).self_influence
    assert found is not None
    assert exact is not None
    torch.testing.assert_close(found.scores, exact.scores, rtol=1e-9, atol=0)
    assert found.run.engine["engine"] == "item"
    assert any("used at more positions in some items than in others" in sentence for sentence in told)


@pytest.mark.parametrize("relative", [1e-2, 1e-3, 1e-4])
def test_influence_of_pairs_that_hardly_differ(relative: float) -> None:
    """Influence by factors of differences in float32, beside the reference on what float32 holds of the items."""
    torch.manual_seed(0)
    scorer = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))
    rejected = torch.randn(ITEMS // 2, 16)
    chosen = rejected * (1 + relative * torch.randn(ITEMS // 2, 16))
    items = torch.stack([chosen, rejected], dim=1).flatten(0, 1)
    half = ITEMS // 2 - 3
    train = ti.Pairs(2 * torch.arange(half), 2 * torch.arange(half) + 1, torch.ones(half))
    test = ti.Pairs(2 * torch.arange(half, half + 3), 2 * torch.arange(half, half + 3) + 1, torch.ones(3))
    job = job_of(scorer, items, train=train, test=test)
    right = reference(job)
    found = scores_of(job)
    scale = (right.train_norm[:, :, None] * right.test_norm[:, None, :]).sum(dim=0)
    worst = float(((found - right.cross.sum(dim=0)).abs() / scale).max())
    assert worst < 1e-7 / relative * 10


def scores_of(job: Job) -> Tensor:
    task = ti.Task(job.module, job.items, job.train, job.checkpoints, job.test, job.loss)
    found = calls.score(task, calls.how(engine="ghost", device="cpu"), self_influence=False, influence=True).influence
    assert found is not None
    assert found.run.engine["gradients"].endswith("score differences")
    assert any(part["form"] == "factors" for part in found.run.engine["parts"])
    return found.scores


@pytest.mark.parametrize("size", [256, 20_000])
def test_norms_of_factors_of_one_position_in_float32(size: int) -> None:
    torch.manual_seed(0)
    shared = torch.randn(size, dtype=torch.float64)
    rows = torch.randn(20, 1, 3, dtype=torch.float64).abs()  # gradients that have much in common
    columns = (shared + 0.5 * torch.randn(20, size, dtype=torch.float64))[:, None]
    held = Factors(rows, columns).to(torch.float32)
    index = torch.combinations(torch.arange(20))
    combination = Combination(index, torch.tensor([1.0, -1.0], dtype=torch.float64).expand(len(index), 2))
    found = FactorGradients(held, str).squared_norm(combination)
    exact = held.to(torch.float64).dense().flatten(1)
    right = (exact[index[:, 0]] - exact[index[:, 1]]).square().sum(dim=1)
    torch.testing.assert_close(found, right, rtol=3e-6, atol=0)


def test_norms_of_factors_of_single_units() -> None:
    torch.manual_seed(0)
    part = Factors(torch.randn(9, 2, 3).double(), torch.randn(9, 2, 4).double())
    index, c = torch.tensor([[3], [8], [3]]), torch.tensor([[2.0], [-0.5], [0.0]]).double()
    found = FactorGradients(part, str).squared_norm(Combination(index, c))
    torch.testing.assert_close(found, (c * part.dense().flatten(1)[index[:, 0]]).square().sum(dim=1))


def test_blocks_of_kernel_entries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    factors = FactorGradients(Factors(torch.randn(9, 2, 3).double(), torch.randn(9, 2, 4).double()), str)
    index = torch.combinations(torch.arange(9))
    combination = Combination(index, torch.randn(len(index), 2, dtype=torch.float64))
    whole = factors.squared_norm(combination), factors.products(combination)
    monkeypatch.setattr("tracin_func.gradients.factors.FACTOR_RUN", 40)
    torch.testing.assert_close((factors.squared_norm(combination), factors.products(combination)), whole)
