"""Projected gradients: what they cost beside a plain forward + backward, and how far off their products are."""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import Timed, alternate, best, plain_pass, ratio, synchronise
from benchmarks.workloads import conv, transformer
from tracin_func import Method, Projection, Task
from tracin_func.gradients.batches import Work
from tracin_func.gradients.engines.ghost.engine import GhostEngine
from tracin_func.gradients.model import Scorer, State
from tracin_func.gradients.projection.sparse import SparseProjector
from tracin_func.gradients.protocol import Combination, Need, Plan, Units
from tracin_func.gradients.representations.projected import ProjectedGradients, projected, projection_of
from tracin_func.losses.custom import as_loss
from tracin_func.scoring.units import UnitMaker

CHUNKS = (4, 8, 16, 32, 64, 128)
FEW = {  # for the table of errors, where the slow kinds are too
    "conv 24 × 129×126": (lambda: conv(24, (129, 126)), lambda: conv(7, (33, 30))),
    "transformer, 42 texts": (lambda: transformer(16), lambda: transformer(3)),
}
WORK = {
    "conv 54 × 129×126": (lambda: conv(54, (129, 126)), lambda: conv(7, (33, 30))),
    "transformer, 266 texts": (lambda: transformer(128), lambda: transformer(3)),
}
# The last of each kind is where the median standard error of an influence is about 5%, as `test_error_by_k` shows.
ROWS = [
    ("conv 54 × 129×126", Projection("kronecker", side=32)),
    ("conv 54 × 129×126", Projection("kronecker", side=24)),
    ("transformer, 266 texts", Projection("kronecker", side=32)),
    ("transformer, 266 texts", Projection("kronecker", side=12)),
    ("conv 54 × 129×126", Projection("sjlt", 4096)),
    ("transformer, 266 texts", Projection("sjlt", 4096)),
]
DIMENSIONS = (64, 256, 1024, 4096, 8192)
SIDES = (4, 8, 16, 32, 64)


@dataclass(frozen=True, eq=False)
class Job:
    """Gradients of all items of a task at its first checkpoint."""

    task: Task
    units: Units
    state: State
    rates: dict[str, float]
    plan: Plan

    def run(self, projection: Projection, chunk: int) -> ProjectedGradients:
        """Projected gradients of all items."""
        plan = replace(self.plan, chunk=chunk, block=self.units.count)
        return projected(Work(GhostEngine(), self.units, self.state, self.rates, plan), projection)

    def timed(self, projection: Projection, chunk: int) -> Timed:
        """Seconds of that."""
        device = next(iter(self.state.parameters.values())).device

        def run() -> float:
            synchronise(device)
            start = time.perf_counter()
            self.run(projection, chunk)
            synchronise(device)
            return time.perf_counter() - start

        return run


def job(task: Task, device: torch.device) -> Job:
    """Of the items of `task`."""
    scorer = Scorer(task.scorer)
    make = UnitMaker(task, scorer, as_loss(task.loss), Method(), device, None, every=True)
    source = task.checkpoints[0].source
    assert isinstance(source, dict)
    units, state = make.items(), scorer.state("epoch", source, device, None)
    plan = GhostEngine().tried(units, state)(Need(combined=False, batch_size=4, budget=1 << 32))
    return Job(task, units, state, dict.fromkeys(state.parameters, 1.0), plan)


def influences(work: Job, projection: Projection, chunk: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Products of training and test pairs by `projection`, their standard errors, and ‖g_p‖‖g_q‖."""
    train, test = work.task.train_pairs, work.task.test
    assert test is not None
    left, right = (
        Combination(torch.stack([pairs.first, pairs.second], 1), torch.tensor([[1.0, -1.0]]).expand(len(pairs), 2))
        for pairs in (train, test)
    )
    found = work.run(projection, chunk)
    columns = found.columns(right)
    products = columns[left.index[:, 0]] - columns[left.index[:, 1]]
    lengths = torch.outer(found.squared_norm(left).sqrt(), found.squared_norm(right).sqrt())
    return products, found.product_variance(left, right, products).sqrt(), lengths


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("name", "projection"), ROWS, ids=[f"{n}: {p.kind} {p.side or p.dim}" for n, p in ROWS])
def test_projection_against_the_yardstick(
    benchmark: BenchmarkFixture, device: torch.device, name: str, projection: Projection
) -> None:
    """Gradients and projection of all items against one plain forward + backward with all weight gradients."""
    full, tiny = WORK[name]
    task = full() if benchmark.enabled else tiny()
    if not benchmark.enabled and projection.side:
        projection = replace(projection, side=4)
    work, rounds, times = job(task, device), 9 if benchmark.enabled else 1, 2 if benchmark.enabled else 1
    plain = plain_pass(task, device, with_test=True)
    size = best(plain, times)
    chunks = {chunk: work.timed(projection, chunk) for chunk in CHUNKS if chunk <= max(4, work.units.count)}
    chunk = best(chunks, times + 2 if benchmark.enabled else 1)  # they differ by less than single runs do
    seconds = alternate({"plain pass": plain[size], "projected": chunks[chunk]}, rounds)
    of = ratio(seconds["projected"], seconds["plain pass"])
    products, errors, lengths = influences(work, projection, chunk)
    exact, _, exact_lengths = influences(work, Projection("none"), 4)
    off = (products - exact) / exact_lengths
    assert float(off.square().mean().sqrt()) < 3 * float((errors / lengths).square().mean().sqrt()) + 1e-3
    typical = float((errors / exact_lengths).median())
    benchmark.extra_info |= {"batch": size, "chunk": chunk, "ratio": str(of), "median standard error": typical}
    milliseconds = 1e3 * statistics.median(seconds["plain pass"])
    words = f"{projection.kind} {projection.side or projection.dim}"
    print(f"\n{name}, {words}: {of} of the plain pass ({milliseconds:.0f} ms), batch size {chunk};")
    print(f"  median standard error of an influence {typical:.1%} of ‖g_p‖‖g_q‖")
    benchmark.group = f"projection, {name}"
    benchmark.pedantic(chunks[chunk], rounds=1)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", FEW)
def test_error_by_k(benchmark: BenchmarkFixture, device: torch.device, name: str) -> None:
    """Error and cost of each kind of projection against its width."""
    full, tiny = FEW[name]
    work = job(full() if benchmark.enabled else tiny(), device)
    exact, _, lengths = influences(work, Projection("none"), 4)
    kinds = [Projection("kronecker", side=side) for side in SIDES]
    kinds += [Projection("sjlt", dim) for dim in DIMENSIONS]
    kinds += [Projection("rademacher", dim) for dim in DIMENSIONS[:2]]
    if not benchmark.enabled:
        kinds = [Projection("kronecker", side=4), Projection("sjlt", 64), Projection("rademacher", 64)]
    lines = []
    for projection in kinds:
        run = work.timed(projection, 16)
        seconds = run()
        products, errors, _ = influences(work, projection, 16)
        width = work_width(work, projection)
        off = float(((products - exact) / lengths).abs().median())
        estimated = float((errors / lengths).median())
        assert off < 3 * estimated + 1e-3
        lines.append(
            f"  {projection.kind:10} {projection.side or projection.dim:5} {width:7,} dimensions: error {off:6.2%}, "
            f"standard error {estimated:6.2%}, {1e3 * seconds:6.0f} ms"
        )
    benchmark.extra_info["table"] = lines
    print(f"\n{name}", *lines, sep="\n")
    benchmark.group = "projection, error"
    benchmark.pedantic(work.timed(kinds[0], 16), rounds=1)


def work_width(work: Job, projection: Projection) -> int:
    """Dimensions of a row."""
    return projection_of(projection, work.state).width


@pytest.mark.peers
def test_beside_other_projections(benchmark: BenchmarkFixture) -> None:
    """The same 32 gradients of the transformer to 512 numbers: ours by `sjlt`, theirs by what they have on a CPU."""
    projectors = pytest.importorskip("trak.projectors", reason="TRAK is not installed")
    projection = pytest.importorskip("dattri.func.projection", reason="dattri is not installed")
    dim = 512 if benchmark.enabled else 64
    model = transformer(3).scorer
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    size = sum(shape.numel() for shape in shapes.values())
    draw = torch.Generator().manual_seed(0)
    gradients = torch.randn(32 if benchmark.enabled else 2, size, generator=draw)
    parts = dict(zip(shapes, gradients.split([shape.numel() for shape in shapes.values()], dim=1), strict=True))

    def ours() -> torch.Tensor:
        into = SparseProjector(shapes, dim, 0, "epoch")  # drawn anew, as theirs
        return sum((into.sketch(name, part) for name, part in parts.items()), torch.zeros(1))

    def trak(kind: str) -> torch.Tensor:
        made = projectors.BasicProjector(size, dim, 0, projectors.ProjectionType(kind), torch.device("cpu"))
        found: torch.Tensor = made.project(gradients, model_id=0)
        return found * dim**-0.5  # which it leaves to its user

    def dattri(kind: str) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = projection.random_project(gradients, len(gradients), dim, 32, proj_type=kind, device="cpu")
            found: torch.Tensor = made(gradients)
        return found

    runs: dict[str, Callable[[], torch.Tensor]] = {"ours, sjlt": ours}
    for kind in ("normal", "rademacher"):
        runs[f"TRAK, {kind}"] = partial(trak, kind)
        runs[f"dattri, {kind}"] = partial(dattri, kind)
    exact = gradients @ gradients.T
    lines = []
    for name, run in runs.items():
        run()
        times = []
        for _ in range(3 if "ours" in name else 1):
            start = time.perf_counter()
            rows = run()
            times.append(time.perf_counter() - start)
        off = (rows @ rows.T - exact)[~torch.eye(len(rows), dtype=torch.bool)]
        relative = float(off.square().mean().sqrt()) / size
        lines.append(f"  {name:18} {min(times):7.3f} s, error {relative:.1%} of ‖x‖‖y‖ (1/√k is {dim**-0.5:.1%})")
    assert float((ours() @ ours().T - exact).diagonal().abs().mean()) < 0.3 * size
    print(f"\n32 gradients of {size:,} parameters to {dim} numbers", *lines, sep="\n")
    benchmark.extra_info["table"] = lines
    benchmark.pedantic(ours, rounds=1)
