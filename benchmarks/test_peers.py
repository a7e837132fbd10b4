"""The same pairs by captum's TracInCP and dattri's TracInAttributor: equal scores, and how long each takes.

Each at its best batch size: captum differentiates every pair through its whole batch, and is fastest with batches of 1.
Neither knows pairs: both get a module of whole pairs, f(x_a) − f(x_b). `pip install -e ".[peers]"`.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Timed, best, facts, plain_pass
from benchmarks.workloads import ConvRanker, StridedRanker, conv
from tracin_func import Compute, Pairs, Task
from tracin_func.scoring.score import score
from tracin_func.task.checkpoints import load

MARGIN, RATE = 1e4, 0.1
EQUAL = 1e-6  # of the largest score, in float64; dattri rounds its own to float32
OURS_IN_FLOAT32 = 1e-4  # of the largest, from the loop in float64
EQUAL_IN_FLOAT32 = 1e-3  # where rounding decides a ReLU of millions otherwise, on either side
CHECKED = 8  # pairs again in float64, by the peer and by the loop
SIZES, TRIED = (1, 2, 4, 8, 16, 32), 32  # batch sizes of the peers, and the pairs on which they are tried
Peer = Callable[[Task, TensorDataset, TensorDataset, int], tuple[Tensor, Tensor]]


class Differences(nn.Module):
    """Pairs [n, 2, ...] -> f(x_a) − f(x_b), [n]."""

    def __init__(self, scorer: nn.Module) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, pairs: Tensor) -> Tensor:
        """[n]."""
        difference: Tensor = self.scorer(pairs[:, 0]) - self.scorer(pairs[:, 1])
        return difference


def by_captum(task: Task, train: TensorDataset, test: TensorDataset, batch_size: int) -> tuple[Tensor, Tensor]:
    """Self-influence [train] and influence [train, test] by one autograd call a pair."""
    influence = pytest.importorskip("captum.influence", reason="captum is not installed")
    model = Differences(task.scorer)

    def load_rate(_: nn.Module, name: str) -> float:
        task.scorer.load_state_dict(load(task.checkpoints[int(name)], 1).weights)
        return RATE

    def loss(difference: Tensor, target: Tensor) -> Tensor:
        return torch.relu(MARGIN - target * difference)

    names = [str(position) for position in range(len(task.checkpoints))]
    tracin = influence.TracInCP(model, train, names, load_rate, loss_fn=loss, batch_size=batch_size)
    own = tracin.self_influence()
    return own, tracin.influence(tuple(test.tensors)).T


def by_dattri(task: Task, train: TensorDataset, test: TensorDataset, batch_size: int) -> tuple[Tensor, Tensor]:
    """The same by vmap(grad) over pairs."""
    tracin = pytest.importorskip("dattri.algorithm.tracin", reason="dattri is not installed")
    attribution = pytest.importorskip("dattri.task")
    model = Differences(task.scorer).eval()

    def loss(parameters: dict[str, Tensor], pair: tuple[Tensor, Tensor]) -> Tensor:
        items, target = pair
        difference = torch.func.functional_call(model, parameters, (items.unsqueeze(0),))
        return torch.relu(MARGIN - target * difference).sum()

    states = [{f"scorer.{name}": tensor for name, tensor in load(c, 1).weights.items()} for c in task.checkpoints]

    def load_state(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
        model.load_state_dict(state)
        return model.eval()

    work = attribution.AttributionTask(loss, model, states, checkpoints_load_func=load_state)
    attributor = tracin.TracInAttributor(work, weight_list=torch.full((len(states),), RATE), normalized_grad=False)
    attributor.projector_kwargs = None  # else it projects, whatever it is given
    loaders = DataLoader(train, batch_size=batch_size), DataLoader(test, batch_size=batch_size)
    own = attributor.self_attribute(loaders[0])
    return own, attributor.attribute(*loaders)


@pytest.mark.peers
@pytest.mark.benchmark(group="peers: 40 items, 666 pairs, 5 test pairs, 2 checkpoints, 129×126")
@pytest.mark.parametrize("peer", [by_captum, by_dattri], ids=["captum", "dattri"])
@pytest.mark.parametrize("model", [ConvRanker, StridedRanker])
def test_peer(benchmark: BenchmarkFixture, peer: Peer, model: type[nn.Module]) -> None:
    """Self-influence and influence end to end, and equal scores."""
    enabled = benchmark.enabled
    items = 40 if enabled else 6
    torch.manual_seed(0)
    task = conv(items, (129, 126), checkpoints=2, model=model())
    pairs = task.train_pairs
    train = pairs.select(torch.arange(666 if enabled else 8))
    test = pairs.select(torch.arange(len(pairs) - 5, len(pairs)))
    task = replace(task, train=train, test=test)
    taken = []
    for _ in range(3 if enabled else 1):
        start = time.perf_counter()
        ours = score(task, self_influence=True, influence=True)
        taken.append(time.perf_counter() - start)

    def run(batch_size: int, pairs: Pairs = train, task: Task = task) -> tuple[Tensor, Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return peer(task, _dataset(task, pairs), _dataset(task, test), batch_size)

    def tried(batch_size: int) -> Timed:
        def once() -> float:
            start = time.perf_counter()
            run(batch_size, train.select(torch.arange(TRIED)))
            return time.perf_counter() - start

        return once

    plain = plain_pass(task, torch.device("cpu"), with_test=True)
    one_pass = min(plain[best(plain)]() for _ in range(3)) if enabled else 1.0
    batch_size = best({size: tried(size) for size in SIZES}, times=1) if enabled else 4
    start = time.perf_counter()
    own, influence = benchmark.pedantic(run, args=(batch_size,), rounds=1)
    seconds = time.perf_counter() - start
    assert ours.self_influence is not None
    assert ours.influence is not None
    in_float32 = [_deviation(own, ours.self_influence.scores), _deviation(influence, ours.influence.scores)]
    assert max(in_float32) < EQUAL_IN_FLOAT32
    few = _doubled(replace(task, train=train.select(torch.arange(CHECKED))))
    exact = score(few, compute=Compute(engine="loop", dtype=torch.float64), self_influence=True, influence=True)
    assert exact.self_influence is not None
    assert exact.influence is not None
    assert _deviation(ours.self_influence.scores[:CHECKED], exact.self_influence.scores) < OURS_IN_FLOAT32
    own, influence = run(batch_size, few.train_pairs, few)
    assert _deviation(own, exact.self_influence.scores) < EQUAL
    assert _deviation(influence, exact.influence.scores) < EQUAL
    benchmark.extra_info |= {**facts(task, torch.device("cpu")), "engine": ours.self_influence.run.engine["engine"]}
    found = {"seconds": seconds, "ours": min(taken), "ratio": seconds / min(taken), "plain pass": one_pass}
    benchmark.extra_info |= {**found, "batch_size": batch_size, "deviations_in_float32": in_float32}
    own_passes, passes = min(taken) / one_pass, seconds / one_pass
    print(
        f"\n{model.__name__}, {peer.__name__[3:]}: {seconds:.1f} s in batches of {batch_size}, {passes:.0f} plain "
        f"passes; ours {min(taken):.3f} s, {own_passes:.2f} plain passes: {seconds / min(taken):.0f} times less; "
        f"differences of the largest in float32: self {in_float32[0]:.1e}, influence {in_float32[1]:.1e}"
    )


def _deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest score."""
    return float((found.detach().double() - expected).abs().max() / expected.abs().max())


def _dataset(task: Task, pairs: Pairs) -> TensorDataset:
    items = torch.stack([task.items.take(pairs.first), task.items.take(pairs.second)], dim=1)
    return TensorDataset(items, pairs.target.to(items.dtype))


def _doubled(task: Task) -> Task:
    """The same in float64."""
    states = [{name: tensor.double() for name, tensor in load(one, 1).weights.items()} for one in task.checkpoints]
    checkpoints = [replace(one, source=state) for one, state in zip(task.checkpoints, states, strict=True)]
    items = task.items.take(torch.arange(len(task.items))).double()
    return replace(task, scorer=task.scorer.double(), items=items, checkpoints=checkpoints)
