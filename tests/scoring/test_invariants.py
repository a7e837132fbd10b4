"""What must hold between scores of related jobs, whatever the numbers: random small nets and pair graphs."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.series import several

settings.register_profile(
    "invariants",
    deadline=None,
    derandomize=True,
    max_examples=several(6, 20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
FIXED = settings.get_profile("invariants")

OF_THE_DIFFERENCE = [ti.MarginRankingLoss(0.5), ti.LogisticLoss(0.05), ti.GHMRankingLoss(0.5, bins=4, batch_size=3)]
ENGINES = ["pair", "item", "ghost"]


def quadratic(s_a: Tensor, s_b: Tensor, y: Tensor) -> Tensor:
    return s_a**2 - s_b * s_a + y * s_b


class Small:
    """A random net, its items and two or three states of it."""

    def __init__(self, seed: int, items: int, width: int, checkpoints: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1)).double()
        self.items = torch.randn(items, 3, generator=generator, dtype=torch.float64)
        self.checkpoints = []
        for t in range(checkpoints):
            weights = {
                name: tensor + 0.5 * t * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                for name, tensor in self.module.state_dict().items()
            }
            rates = {name: float(torch.rand((), generator=generator)) + 0.01 for name in weights}
            self.checkpoints.append(ti.Checkpoint(weights, rates, f"t{t}"))

    def own(self, pairs: ti.Pairs, **options: Any) -> ti.SelfInfluence:
        return calls.self_influence(
            self.module, self.items, pairs, options.pop("checkpoints", self.checkpoints), **options
        )

    def cross(self, train: ti.Pairs, test: ti.Pairs, **options: Any) -> ti.Influence:
        checkpoints = options.pop("checkpoints", self.checkpoints)
        return calls.influence(self.module, self.items, train, test, checkpoints, **options)


@st.composite
def nets(draw: st.DrawFn) -> Small:
    return Small(draw(st.integers(0, 1000)), draw(st.integers(3, 8)), draw(st.integers(1, 6)), draw(st.integers(1, 3)))


def graph(data: st.DataObject, net: Small, most: int = 12) -> ti.Pairs:
    """A random pair graph; pairs may repeat, also in reverse."""
    items = len(net.items)
    ordered = st.tuples(st.integers(0, items - 1), st.integers(1, items - 1), st.sampled_from([1, -1]))
    rows = data.draw(st.lists(ordered, min_size=1, max_size=most))
    return ti.Pairs([a for a, _, _ in rows], [(a + step) % items for a, step, _ in rows], [y for _, _, y in rows])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def swapped(pairs: ti.Pairs) -> ti.Pairs:
    return ti.Pairs(pairs.second, pairs.first, -pairs.target)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("loss", OF_THE_DIFFERENCE, ids=lambda loss: type(loss).__name__)
@FIXED
@given(net=nets(), data=st.data())
def test_swapping_a_pair_changes_nothing(loss: Any, engine: str, net: Small, data: st.DataObject) -> None:
    """(a, b, y) → (b, a, −y), for losses of y (s_a − s_b)."""
    train, test = graph(data, net), graph(data, net, 4)
    options = {"loss": loss, "engine": engine}
    close(net.own(swapped(train), **options).scores, net.own(train, **options).scores)
    close(net.cross(swapped(train), test, **options).scores, net.cross(train, test, **options).scores)
    close(net.cross(train, swapped(test), **options).scores, net.cross(train, test, **options).scores)


def test_swapping_a_pair_changes_the_labs_ghm() -> None:
    net = Small(3, 6, 4, 1)
    train = ti.Pairs([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0], [1, -1, 1, 1, -1, 1])
    for variant, changes in (("lab", True), ("symmetric", False)):
        loss = ti.GHMRankingLoss(0.5, bins=10, batch_size=3, variant=variant)
        before, after = net.own(train, loss=loss).scores, net.own(swapped(train), loss=loss).scores
        assert torch.allclose(before, after) != changes


@pytest.mark.parametrize("engine", ENGINES)
@FIXED
@given(net=nets(), data=st.data())
def test_order_of_pairs_is_only_an_order(engine: str, net: Small, data: st.DataObject) -> None:
    train, test = graph(data, net), graph(data, net, 4)
    order = torch.tensor(data.draw(st.permutations(range(len(train)))))
    loss = ti.GHMRankingLoss(0.5, bins=4, batch_size=3)
    right = net.own(train, loss=loss, engine=engine)
    found = net.own(train.select(order), loss=loss, engine=engine)
    close(found.per_checkpoint, right.per_checkpoint[:, order])
    assert found.ids == tuple(right.ids[row] for row in order.tolist())
    close(
        net.cross(train.select(order), test, loss=loss, engine=engine).scores,
        net.cross(train, test, loss=loss, engine=engine).scores[order],
    )


@pytest.mark.parametrize("engine", ENGINES)
@FIXED
@given(net=nets(), data=st.data(), size=st.integers(1, 9), budget=st.integers(1, 4000))
def test_working_sizes(engine: str, net: Small, data: st.DataObject, size: int, budget: int) -> None:
    train, test = graph(data, net), graph(data, net, 4)
    options = {"loss": quadratic, "engine": engine}
    few = {"batch_size": size, "memory_budget": budget}
    close(net.own(train, **options, **few).scores, net.own(train, **options).scores)
    close(net.cross(train, test, **options, **few).scores, net.cross(train, test, **options).scores)


@pytest.mark.parametrize("engine", ENGINES)
@FIXED
@given(net=nets(), data=st.data())
def test_transposition_and_diagonal(engine: str, net: Small, data: st.DataObject) -> None:
    """One loss for both tables: influence is symmetric, and self is its diagonal."""
    train, test = graph(data, net), graph(data, net)
    for loss in (ti.MarginRankingLoss(0.5), quadratic):
        options = {"loss": loss, "engine": engine}
        close(net.cross(train, test, **options).scores, net.cross(test, train, **options).scores.T)
        both = net.cross(train, train, **options).per_checkpoint
        close(net.own(train, **options).per_checkpoint, both.diagonal(dim1=1, dim2=2))


@FIXED
@given(net=nets(), data=st.data())
def test_checkpoints_add_up(net: Small, data: st.DataObject) -> None:
    train, test = graph(data, net), graph(data, net, 4)
    whole = net.cross(train, test)
    alone = [net.cross(train, test, checkpoints=[checkpoint]).scores for checkpoint in net.checkpoints]
    close(whole.scores, torch.stack(alone).sum(dim=0))
    close(whole.per_checkpoint, torch.stack(alone))


@FIXED
@given(net=nets(), data=st.data(), factor=st.floats(1e-3, 100))
def test_scores_scale_with_the_rates_and_add_over_parameters(net: Small, data: st.DataObject, factor: float) -> None:
    train, test = graph(data, net), graph(data, net, 4)
    checkpoint = net.checkpoints[-1]
    rates = dict(checkpoint.learning_rate)  # type: ignore[arg-type]

    def at(rate: Any) -> Tensor:
        return net.cross(train, test, checkpoints=[ti.Checkpoint(checkpoint.source, rate)], loss=quadratic).scores

    close(at({name: factor * rate for name, rate in rates.items()}), factor * at(rates))
    parts = [at({name: rate if name == only else 0.0 for name, rate in rates.items()}) for only in rates]
    close(torch.stack(parts).sum(dim=0), at(rates))
    close(at(dict.fromkeys(rates, 0.3)), at(0.3))


@pytest.mark.parametrize("variant", ["symmetric", "lab"])
@pytest.mark.parametrize("batch_size", [1, 4, None])
@FIXED
@given(net=nets(), data=st.data())
def test_count_k_is_k_single_pairs(variant: Any, batch_size: int | None, net: Small, data: st.DataObject) -> None:
    train = graph(data, net, 8)
    count = data.draw(st.lists(st.integers(1, 4), min_size=len(train), max_size=len(train)))
    loss = ti.GHMRankingLoss(0.5, bins=4, batch_size=batch_size, variant=variant)
    counted = ti.Pairs(train.first, train.second, train.target, count=count)
    single = torch.repeat_interleave(torch.arange(len(train)), torch.tensor(count))
    repeated = net.own(train.select(single), loss=loss)
    close(net.own(counted, loss=loss).scores[single], repeated.scores)


@FIXED
@given(net=nets(), data=st.data(), factor=st.floats(0, 10))
def test_weights_scale_pairs(net: Small, data: st.DataObject, factor: float) -> None:
    train = graph(data, net)
    weighted = ti.Pairs(train.first, train.second, train.target, weight=[factor] * len(train))
    close(net.own(weighted, loss=quadratic).scores, factor**2 * net.own(train, loss=quadratic).scores)
