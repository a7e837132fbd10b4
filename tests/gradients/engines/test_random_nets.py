"""Ghost against the float64 loop on random small nets: layers of every kind that has a rule, used in any order."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.jobs import check
from tests.support.reference import Job, assert_same, reference
from tests.support.series import several

CHANNELS, LENGTH, ITEMS = 4, 5, 6

LAYERS = {
    "linear": lambda: nn.Linear(LENGTH, LENGTH),
    "linear without bias": lambda: nn.Linear(LENGTH, LENGTH, bias=False),
    "convolution": lambda: nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1),
    "groups": lambda: nn.Conv1d(CHANNELS, CHANNELS, 3, padding="same", groups=2),
    "dilated, circular": lambda: nn.Conv1d(CHANNELS, CHANNELS, 3, padding=2, dilation=2, padding_mode="circular"),
    "layer norm": lambda: nn.LayerNorm(LENGTH),
    "RMS norm": lambda: nn.RMSNorm([CHANNELS, LENGTH]),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "instance norm": lambda: nn.InstanceNorm1d(CHANNELS, affine=True),
    "batch norm": lambda: nn.BatchNorm1d(CHANNELS),
    "added": lambda: Added(),
    "scaled, no rule": lambda: Scaled(),
}


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.randn(CHANNELS, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Net(nn.Module):
    """An embedding and `layers` in turn, some of them again, with residuals and activations; the last is a mean."""

    def __init__(self, kinds: list[str], again: list[int], residual: list[bool]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, LENGTH, padding_idx=0)
        self.layers = nn.ModuleList([LAYERS[kind]() for kind in kinds])
        self.order = [*range(len(kinds)), *(place % len(kinds) for place in again)]
        self.residual = residual

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for step, place in enumerate(self.order):
            y = F.softplus(self.layers[place](x))
            x = x + y if self.residual[step % len(self.residual)] else y
        return x.square().mean(dim=(1, 2))


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    kinds = draw(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=5))
    again = draw(st.lists(st.integers(0, 4), max_size=2))
    residual = draw(st.lists(st.booleans(), min_size=1, max_size=3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 1000)))
        module = Net(kinds, again, residual).eval()
        for tensor in module.state_dict().values():  # running statistics and affine weights of no special value
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.1)
        tokens = torch.randint(0, 7, (ITEMS, CHANNELS))
        tokens[:, 0] = torch.arange(1, ITEMS + 1)
    # Items that hold the same tokens differ by rounding alone, as some nets do not see their order.
    assume(len({tuple(row) for row in tokens.sort(dim=1).values.tolist()}) == ITEMS)
    apart = draw(st.booleans())  # each item in one pair: the units are score differences
    rows = st.tuples(st.integers(0, ITEMS - 1), st.integers(1, ITEMS - 1), st.sampled_from([1, -1]))
    drawn = [(0, 1, 1), (2, 1, -1)] if apart else draw(st.lists(rows, min_size=4, max_size=12))
    train = ti.Pairs([a for a, _, _ in drawn], [(a + step) % ITEMS for a, step, _ in drawn], [y for *_, y in drawn])
    test = ti.Pairs([4], [5], [1]) if apart else train.select(torch.arange(2))
    checkpoint = ti.Checkpoint(module.state_dict(), 0.5)
    return Job(module, tokens, train, test, [checkpoint], ti.MarginRankingLoss(100.0))


@settings(deadline=None, derandomize=True, max_examples=several(40, 150), suppress_health_check=[HealthCheck.too_slow])
@given(job=jobs(), size=st.integers(1, 7), budget=st.sampled_from([None, 1, 3000]))
def test_ghost_equals_the_float64_loop(job: Job, size: int, budget: int | None) -> None:
    job = job.at(torch.float64)
    right = reference(job)
    options: dict[str, Any] = {"batch_size": size, "memory_budget": budget}
    found = check(job, right, "ghost", torch.float64, **options)
    assert found.self_influence is not None
    assert found.self_influence.run.engine["engine"] == "ghost"
    alone = calls.influence(  # norms are not asked for: gradients are not held
        job.module, job.items, job.train, job.test, job.checkpoints, loss=job.loss, engine="ghost", **options
    )
    assert_same(None, alone.per_checkpoint, right, 1e-9)
