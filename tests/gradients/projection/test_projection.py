"""Random projections: unbiased, of the variance that the books give, and the same whatever the circumstances."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support import calls
from tests.support.series import several
from tracin_func.gradients.factors import Contribution, Factors, Lookup
from tracin_func.gradients.projection.dense import DenseProjector
from tracin_func.gradients.projection.kronecker import KroneckerProjector
from tracin_func.gradients.projection.layout import blocks, row_width, widest_side
from tracin_func.gradients.projection.random import generator, orthonormal, signs
from tracin_func.gradients.projection.registry import Projector, projector
from tracin_func.gradients.projection.sparse import SparseProjector
from tracin_func.results.verification import TOLERANCE

SEEDS = 2000
SCORED_SEEDS = several(30, 60)
STANDARD_ERRORS = 4.0  # of the mean of so many seeds
VARIANCE = 0.15  # relative

SHAPES = {
    "embedding.weight": torch.Size([40, 6]),
    "square.weight": torch.Size([12, 12]),
    "square.bias": torch.Size([12]),
    "conv.weight": torch.Size([5, 3, 3, 3]),
    "norm.weight": torch.Size([9]),
}


def gradients() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two gradients that have something in common, and of which one matrix is nearly of rank one."""
    draw = torch.Generator().manual_seed(3)
    found = []
    for _ in range(2):
        own = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in SHAPES.items()}
        rank_one = torch.outer(torch.randn(12, generator=draw), torch.linspace(-1, 2, 12)).double()
        own["square.weight"] = 2 * rank_one + 0.2 * own["square.weight"]
        found.append(own)
    return found[0], {name: part + 0.8 * found[0][name] for name, part in found[1].items()}


def estimates(make: Callable[[int], Projector]) -> Tensor:
    """⟨Πx, Πy⟩ of the two gradients for every seed, [seeds]."""
    both = gradients()
    found = []
    for seed in range(SEEDS):
        into = make(seed)
        rows = torch.zeros(2, into.width, dtype=torch.float64)
        for name in SHAPES:
            rows[:, into.place(name)] += into.sketch(name, torch.stack([own[name] for own in both]))
        found.append(rows[0] @ rows[1])
    return torch.stack(found)


def exact() -> float:
    """⟨x, y⟩."""
    x, y = gradients()
    return sum(float((x[name] * y[name]).sum()) for name in SHAPES)


def as_expected(found: Tensor, variance: float) -> bool:
    """Whether the mean is within four standard errors of the truth, and the variance that of the formula."""
    right_mean = abs(float(found.mean()) - exact()) <= STANDARD_ERRORS * (variance / len(found)) ** 0.5
    return right_mean and abs(float(found.var()) / variance - 1) <= VARIANCE


def dense_variance(width: int, kind: str) -> float:
    """(‖x‖²‖y‖² + ⟨x, y⟩² − c Σ x_i² y_i²) / k."""
    x, y = (torch.cat([part.flatten() for part in own.values()]) for own in gradients())
    fourth = {"gaussian": 0.0, "rademacher": 2.0}[kind] * (x**2 * y**2).sum()
    return float((x @ x * (y @ y) + (x @ y) ** 2 - fourth) / width)


def sparse_variance(width: int) -> float:
    """(‖x‖²‖y‖² + ⟨x, y⟩² − the same of every block) / k."""
    x, y = gradients()
    parts = [
        pair
        for name in SHAPES
        for pair in zip(x[name].flatten().split(width), y[name].flatten().split(width), strict=True)
    ]

    def both(u: Tensor, v: Tensor) -> Tensor:
        return u @ u * (v @ v) + (u @ v) ** 2

    whole = both(torch.cat([u for u, _ in parts]), torch.cat([v for _, v in parts]))
    return float((whole - sum(both(u, v) for u, v in parts)) / width)


def moments(size: int, columns: int) -> tuple[float, float]:
    """α and β of E[P_ab P_cd] = α δ_ab δ_cd + β (δ_ac δ_bd + δ_ad δ_bc)."""
    if size == columns:
        return 1.0, 0.0
    a = (columns**2 * (size + 1) - 2 * columns) / (size * (size + 2) * (size - 1))
    b = (columns / size - a) / (size + 1)
    return a * size**2 / columns**2, b * size**2 / columns**2


def kronecker_variance(side: int) -> float:
    """That of the mean of two halves, of every matrix that is projected."""
    x, y = gradients()
    total = 0.0
    for block in blocks(SHAPES, side):
        if block.exact:
            continue
        big_x, big_y = (
            torch.cat(
                [own[block.weight].flatten(1)] + ([own[block.bias][:, None]] if block.bias is not None else []), dim=1
            )
            for own in (x, y)
        )
        (a_o, b_o), (a_i, b_i) = moments(block.d_out, block.k_out), moments(block.d_in, block.k_in)
        inner, left, right = (big_x * big_y).sum(), big_x.T @ big_y, big_x @ big_y.T
        second = a_o * a_i * inner**2
        second += a_o * b_i * ((left**2).sum() + (left * left.T).sum())
        second += b_o * a_i * ((right**2).sum() + (right * right.T).sum())
        gram_in = ((big_x.T @ big_x) * (big_y.T @ big_y)).sum()
        gram_out = ((big_x @ big_x.T) * (big_y @ big_y.T)).sum()
        second += b_o * b_i * ((big_x**2).sum() * (big_y**2).sum() + inner**2 + gram_in + gram_out)
        total += float(second - inner**2) / 2
    return total


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_dense_projections_are_unbiased_and_vary_as_they_should(kind: str) -> None:
    found = estimates(lambda seed: DenseProjector(kind, SHAPES, 24, seed, "epoch"))
    assert as_expected(found, dense_variance(24, kind))
    assert not as_expected(found * 24, dense_variance(24, kind))  # without 1/√k on either side


def test_the_sparse_projection_is_unbiased_and_varies_as_it_should() -> None:
    assert as_expected(estimates(lambda seed: SparseProjector(SHAPES, 24, seed, "epoch")), sparse_variance(24))


@pytest.mark.parametrize("side", [4, 6, 8])
def test_the_kronecker_projection_is_unbiased_and_varies_as_it_should(side: int) -> None:
    assert any(not block.exact and block.bias is not None for block in blocks(SHAPES, side))
    found = estimates(lambda seed: KroneckerProjector(SHAPES, 4096, seed, "epoch", side))
    assert as_expected(found, kronecker_variance(side))


def test_one_seed_for_both_sides_is_caught() -> None:
    x, y = (own["square.weight"] for own in gradients())
    total, correct = float((x * y).sum()), exact()
    rest = correct - total
    found = []
    for seed in range(SEEDS):
        same = orthonormal(12, 4, generator(seed, "square.weight", "side"))
        found.append(((same.T @ x @ same) * (same.T @ y @ same)).sum() + rest)
    assert abs(float(torch.stack(found).mean()) - correct) > 0.1 * abs(total)


def test_of_an_orthonormal_matrix_the_columns_are_and_none_is_lost_on_average() -> None:
    drawn = torch.stack([orthonormal(6, 4, generator(seed)) for seed in range(400)])
    assert torch.allclose(drawn.transpose(1, 2) @ drawn, torch.eye(4, dtype=torch.float64) * 1.5)
    assert torch.allclose((drawn @ drawn.transpose(1, 2)).mean(dim=0), torch.eye(6, dtype=torch.float64), atol=0.1)


def test_signs_are_of_equal_number_and_independent() -> None:
    drawn = signs((200, 999), generator(0, "signs"), torch.float64)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(drawn.mean())) < 4 / drawn.numel() ** 0.5
    assert float((drawn @ drawn.T / 999).fill_diagonal_(0).abs().max()) < 0.2


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "sjlt", "kronecker"])
def test_all_forms_of_a_gradient_are_projected_alike(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = {
        "linear.weight": torch.Size([20, 31]),
        "linear.bias": torch.Size([20]),
        "table.weight": torch.Size([50, 7]),
        "long": torch.Size([700]),
    }
    rows, columns = torch.randn(3, 5, 20, generator=draw), torch.randn(3, 5, 31, generator=draw)
    lookup = Lookup(torch.randint(50, (3, 5), generator=draw), torch.randn(3, 5, 7, generator=draw), 50)
    forms: dict[str, list[Contribution]] = {
        "linear.weight": [Factors(rows, columns), Factors(rows, columns).dense()],
        "table.weight": [lookup, lookup.dense()],
    }
    dim = 200 if kind != "kronecker" else 500
    into = projector(ti.Projection(kind, dim), shapes, "epoch")
    for name, (factored, built) in forms.items():
        assert torch.allclose(into.sketch(name, factored), into.sketch(name, built), atol=2e-4), name


def test_few_positions_are_projected_as_factors_and_many_as_they_are_built() -> None:
    shapes = {"linear.weight": torch.Size([64, 64])}
    into = KroneckerProjector(shapes, 4096, 0, "epoch", 8)
    draw = torch.Generator().manual_seed(0)
    for positions in (1, 4, 2000):
        factors = Factors(torch.randn(2, positions, 64, generator=draw), torch.randn(2, positions, 64, generator=draw))
        expected = into.sketch("linear.weight", factors.dense())
        assert torch.allclose(into.sketch("linear.weight", factors), expected, rtol=1e-3, atol=1e-2)


def test_a_row_of_kronecker_is_no_wider_than_asked() -> None:
    for dim in (200, 300, 600, 10_000):
        side = widest_side(SHAPES, dim)
        assert row_width(blocks(SHAPES, side)) <= dim
        assert side == 40 or row_width(blocks(SHAPES, side + 1)) > dim
    with pytest.raises(
        ti.UsageError, match=r"`dim` should be at least \d+ with .* for the 5 parameters of this model. Got 4"
    ):
        widest_side(SHAPES, 4)


def test_parameters_share_no_numbers_of_a_kronecker_row() -> None:
    into = KroneckerProjector(SHAPES, 4096, 0, "epoch", 3)
    taken = np.zeros(into.width, dtype=int)
    for name in SHAPES:
        if name != "square.bias":  # lies where its weight does, as one more column
            taken[into.place(name)] += 1
    assert (taken == 1).all()


class Ranker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(12, 24), nn.LayerNorm(24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh())
        self.head = nn.Linear(24, 1)

    def forward(self, items: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(items))[:, 0]
        return scores


def job(checkpoints: int = 2) -> ti.Task:
    """Thirty items, all comparisons of neighbours and some more."""
    draw = torch.Generator().manual_seed(1)
    model = Ranker()
    states = []
    for position in range(checkpoints):
        states.append(
            ti.Checkpoint(
                {name: tensor + 0.02 * position for name, tensor in model.state_dict().items()},
                0.1,
                f"epoch {position}",
            )
        )
    first, second = torch.arange(29), torch.arange(1, 30)
    train = ti.Pairs(torch.cat([first, first[:20]]), torch.cat([second, second[:20] + 9]), [1] * 49)
    test = ti.Pairs([0, 5, 9], [20, 21, 22], [1, -1, 1])
    items = torch.randn(30, 12, generator=draw)
    return ti.Task(model, items, train, states, test, ti.LogisticLoss())


def scored(projection: ti.Projection, task: ti.Task | None = None, **settings: object) -> calls.Scores:
    compute = calls.how(projection=projection, device="cpu", **settings)  # type: ignore[arg-type]
    return calls.score(task or job(), compute, self_influence=True, influence=True)


@pytest.mark.parametrize("kind", ["rademacher", "sjlt", "kronecker"])
def test_rows_are_the_same_for_every_engine_and_chunk(kind: str) -> None:
    projection = ti.Projection(kind, 120 if kind != "kronecker" else 400, seed=5)
    reference = scored(projection, engine="item", batch_size=30)
    assert reference.influence is not None
    for engine, batch in (("item", 1), ("item", 7), ("ghost", 1), ("ghost", 4), ("ghost", "auto")):
        found = scored(projection, engine=engine, batch_size=batch)
        assert found.influence is not None
        assert torch.allclose(found.influence.scores, reference.influence.scores, rtol=1e-4, atol=1e-6)
        assert found.influence.standard_error is not None
        assert reference.influence.standard_error is not None
        assert torch.allclose(found.influence.standard_error, reference.influence.standard_error, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "sjlt", "kronecker"])
@pytest.mark.parametrize("aggregate", [None, "mean"])
def test_scores_are_right_on_average_and_the_standard_error_tells_how_far_off(kind: str, aggregate: str | None) -> None:
    dim = 100 if kind != "kronecker" else 350
    plain = scored(ti.Projection("none"), engine="item", aggregate=aggregate)
    assert plain.influence is not None
    assert plain.self_influence is not None
    assert plain.influence.standard_error is None
    deviations, errors = {"self": [], "influence": []}, {"self": [], "influence": []}  # type: ignore[var-annotated]
    for seed in range(SCORED_SEEDS):
        found = scored(ti.Projection(kind, dim, seed=seed), engine="item", batch_size=30, aggregate=aggregate)
        for name, estimate, truth in (
            ("self", found.self_influence, plain.self_influence),
            ("influence", found.influence, plain.influence),
        ):
            assert estimate is not None
            assert estimate.standard_error is not None
            deviations[name].append(estimate.scores - truth.scores)
            errors[name].append(estimate.standard_error)
    for name in deviations:
        off, told = torch.stack(deviations[name]), torch.stack(errors[name])
        z = off.mean(dim=0) / (off.std(dim=0) / SCORED_SEEDS**0.5)
        assert float(z.abs().mean()) < 1.2, "biased"  # 0.8 where it is not
        ratio = float(((told**2).mean(dim=0) / off.var(dim=0)).median())
        assert 0.7 < ratio < 1.5, f"{name}: the variance told is {ratio} of what it is"


def test_two_checkpoints_are_projected_independently() -> None:
    shapes = {"weight": torch.Size([30, 30])}
    part = torch.randn(2, 30, 30, generator=torch.Generator().manual_seed(0))
    for kind in ("rademacher", "gaussian", "sjlt", "kronecker"):
        rows = [projector(ti.Projection(kind, 64), shapes, name).sketch("weight", part) for name in ("a", "b", "a")]
        assert torch.equal(rows[0], rows[2])
        assert not torch.allclose(rows[0], rows[1])


def test_the_callers_random_numbers_are_left_alone() -> None:
    task = job()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    scored(ti.Projection("kronecker", 350), task)
    scored(ti.Projection("rademacher", 60), task)
    assert torch.equal(torch.get_rng_state(), before)


def test_auto_stays_exact_where_that_is_cheaper_and_says_so() -> None:
    found = scored(ti.Projection("auto"), engine="ghost").influence
    assert found is not None
    assert found.standard_error is None
    assert found.run.method.projection.kind == "none"
    assert any("fit in memory and are no more than 4,096 proj" in notice for notice in found.run.notices)


def test_auto_stays_exact_where_a_projected_row_would_be_no_shorter() -> None:
    task = job()
    numbers = sum(parameter.numel() for parameter in task.scorer.parameters())
    found = calls.score(
        task, calls.how(projection=ti.Projection("auto", numbers), engine="item", memory_budget=100_000)
    )
    assert found.self_influence is not None
    assert found.self_influence.standard_error is None
    assert any(f"({numbers:,} parameters are no more than" in notice for notice in found.self_influence.run.notices)


def test_auto_projects_where_there_are_more_units_than_numbers() -> None:
    for engine, kind in (("ghost", "kronecker"), ("item", "sjlt")):
        found = calls.score(
            job(), calls.how(projection=ti.Projection("auto", 400 if kind == "kronecker" else 20), engine=engine)
        )
        assert found.self_influence is not None
        if kind == "kronecker":  # 30 items are no more than 400 numbers
            assert found.self_influence.standard_error is None
            continue
        assert found.self_influence.run.method.projection.kind != "none"
        assert found.self_influence.run.method.projection.kind == kind
        assert "more than the 20 numbers of a row" in found.self_influence.run.engine["reason"]


def test_standard_errors_stand_beside_the_scores_in_every_file(tmp_path: Path) -> None:
    found = scored(ti.Projection("sjlt", 64))
    assert found.influence is not None
    assert found.self_influence is not None
    own, errors = found.self_influence, found.self_influence.standard_error
    assert errors is not None
    document = json.loads(own.save(tmp_path / "self.json").read_text(encoding="utf-8"))
    row = document[own.ids[3]]
    assert row["tracin_self_influence"] == float(own.scores[3])
    assert row["standard_error_tracin_self_influence"] == float(errors[3])
    table = found.influence.to_arrow(long=True).to_pydict()
    assert found.influence.standard_error is not None
    assert table["standard_error"] == found.influence.standard_error.flatten().tolist()
    lines = found.influence.save(tmp_path / "influence.csv").read_text(encoding="utf-8").splitlines()
    assert "standard_error" in lines[0].split(",")
    record = json.loads((tmp_path / "self.json.provenance.json").read_text(encoding="utf-8"))
    assert record["columns"]["tracin_self_influence"]["projection"]["kind"] == "sjlt"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "fourier"}, "`projection` should be one of none, auto, rademacher"),
        ({"kind": "sjlt", "dim": 1}, "`dim` of a projection should be at least 2. Got 1"),
        ({"kind": "sjlt", "side": 8}, "`side` needs `projection=.kronecker.`"),
        ({"kind": "kronecker", "side": 8, "dim": 100}, "`dim` and `side` both set the dimension of rows"),
        ({"kind": "sjlt", "seed": -1}, "`seed` of a projection should be from 0"),
    ],
)
def test_a_projection_that_cannot_be_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ti.UsageError, match=words):
        scored(ti.Projection(**arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sjlt", "kronecker"])
def test_estimates_are_verified_within_their_standard_errors(kind: str) -> None:
    task, projection = job(), ti.Projection(kind, 64 if kind == "sjlt" else 350)
    compute = calls.how(projection=projection, device="cpu")
    found = calls.score(task, compute, self_influence=True, influence=True)
    checked = calls.verified(task, compute, found, 20)
    assert checked.passed
    assert checked.tolerance > 100 * TOLERANCE
    assert "six standard errors of the projection" in str(checked)
    assert found.influence is not None
    assert found.influence.variance is not None
    wrong = replace(found.influence, per_checkpoint=found.influence.per_checkpoint * 20)
    assert not calls.verified(task, compute, replace(found, influence=wrong), 20).passed


class Rotating(Ranker):
    """Puts the items in another order inside, and back, where its buffer says so; by cutting and joining alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turned", torch.tensor(0.0))

    def forward(self, items: Tensor) -> Tensor:
        if not bool(self.turned > 0):
            return super().forward(items)
        hidden = self.body(torch.cat([items[1:], items[:1]]))
        scores: Tensor = self.head(torch.cat([hidden[-1:], hidden[:-1]]))[:, 0]
        return scores


@pytest.mark.parametrize("kind", ["none", "kronecker", "sjlt", "rademacher"])
def test_a_capture_that_becomes_wrong_is_found_at_its_checkpoint(kind: str) -> None:
    task, model = job(), Rotating()
    states = [{**model.state_dict(), "turned": torch.tensor(turned)} for turned in (0.0, 1.0)]
    task = replace(task, scorer=model, checkpoints=[ti.Checkpoint(s, 0.1, f"{t}") for t, s in enumerate(states)])
    dim = {"none": None, "kronecker": 400}.get(kind, 64)
    found = scored(ti.Projection(kind, dim), task, batch_size=5).self_influence
    exact = scored(ti.Projection(kind, dim), task, engine="item").self_influence
    assert found is not None
    assert exact is not None
    assert any("engine ghost failed (the captured gradient of" in notice for notice in found.run.notices)
    assert torch.allclose(found.scores, exact.scores, rtol=1e-4)
