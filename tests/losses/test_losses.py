"""The losses against their definitions, and the GHM weight against what training batches really do."""

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, margin_ranking_loss

import tracin_func as ti
from tests.support import calls
from tests.support.reference import ghm_bin
from tracin_func.losses.custom import CallableLoss, as_loss
from tracin_func.losses.ghm import batch_expectation
from tracin_func.losses.terms import loss_terms, scored_pairs, weigh_by


def gradient(loss: Any, s_a: Tensor, s_b: Tensor, y: Tensor, margin: Tensor | None = None) -> tuple[Tensor, Tensor]:
    s_a, s_b = s_a.clone().requires_grad_(), s_b.clone().requires_grad_()
    return torch.autograd.grad(loss(s_a, s_b, y, margin).sum(), (s_a, s_b))


def some_pairs(count: int = 200, seed: int = 0) -> tuple[Tensor, Tensor, ti.Pairs]:
    """Scores s_a, s_b [pairs] and the pairs they belong to."""
    generator = torch.Generator().manual_seed(seed)
    s_a, s_b = torch.randn(2, count, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    first = torch.arange(count)
    return s_a, s_b, ti.Pairs(first, first + 1, target)


def weights(loss: Any, s_a: Tensor, s_b: Tensor, pairs: ti.Pairs, trained: Tensor | None = None) -> Tensor:
    """The weights at scores s_a and s_b where training pairs have these scores, or `trained` and s_b."""
    weigh = weigh_by(loss, s_a if trained is None else trained, s_b, pairs)
    assert weigh is not None
    return weigh(*scored_pairs(s_a, s_b, pairs))


# Hinge and logistic


def test_hinge_is_torchs_and_exactly_flat_at_the_tie() -> None:
    s_a, s_b, pairs = some_pairs()
    y = pairs.target.double()
    found = ti.MarginRankingLoss(0.7)(s_a, s_b, y)
    torch.testing.assert_close(found, margin_ranking_loss(s_a, s_b, y, margin=0.7, reduction="none"))
    tie = torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    for part in gradient(ti.MarginRankingLoss(1.0), *tie):
        assert part.tolist() == [0.0, 0.0]
    wrong = torch.maximum(torch.zeros(2, requires_grad=True), 1 - tie[2] * (tie[0] - tie[1]).requires_grad_())
    assert wrong.grad_fn is not None, "torch.maximum would pass −1/2 on"


def test_a_margin_of_its_own_replaces_the_losss() -> None:
    s_a, s_b, pairs = some_pairs()
    y, margin = pairs.target.double(), torch.linspace(0, 3, len(pairs), dtype=torch.float64)
    found = ti.MarginRankingLoss(9.0)(s_a, s_b, y, margin)
    torch.testing.assert_close(found, (margin - y * (s_a - s_b)).clamp_min(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_logistic_is_cross_entropy(smoothing: float) -> None:
    s_a, s_b, pairs = some_pairs()
    y = pairs.target.double()
    label = (1 - smoothing) * (y + 1) / 2 + smoothing * (1 - y) / 2
    right = binary_cross_entropy_with_logits(s_a - s_b, label, reduction="none")
    torch.testing.assert_close(ti.LogisticLoss(smoothing)(s_a, s_b, y), right)
    margin = torch.full_like(s_a, 0.3)
    shifted = binary_cross_entropy_with_logits(
        y * (s_a - s_b) - 0.3, torch.full_like(y, 1 - smoothing), reduction="none"
    )
    torch.testing.assert_close(ti.LogisticLoss(smoothing)(s_a, s_b, y, margin), shifted)


def test_logistic_does_not_overflow() -> None:
    far = torch.tensor([1e4, -1e4])
    slopes, _ = gradient(ti.LogisticLoss(), far, -far, torch.ones(2))
    assert slopes.tolist() == [0.0, -1.0]
    assert bool(ti.LogisticLoss()(far, -far, torch.ones(2)).isfinite().all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ti.LogisticLoss(1.0), r"`label_smoothing` should lie in \[0, 1\). Got 1.0."),
        (lambda: ti.LogisticLoss(-0.1), r"`label_smoothing` should lie in \[0, 1\). Got -0.1."),
        (lambda: ti.GHMRankingLoss(bins=0), "`bins` should be at least 1. Got 0."),
        (lambda: ti.GHMRankingLoss(batch_size=0), "`batch_size` should be at least 1, or None for all. Got 0."),
        (lambda: ti.GHMRankingLoss(variant="other"), "`variant` should be one of symmetric, lab. Got 'other'."),
        (lambda: as_loss(3), r"`loss` should be callable as ℓ\(s_a, s_b, y\[, margin\]\). Got int."),
    ],
)
def test_wrong_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ti.UsageError, match=message):
        make()


# GHM


def plain_batch_ghm(bins: Tensor, alpha: float, batch_size: int, batches: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mean weight of every pair over the random batches that hold it, and its standard error: (R_k in batch)^−alpha."""
    generator = torch.Generator().manual_seed(seed)
    pairs, count = len(bins), int(bins.max()) + 1
    total, squares, seen = (torch.zeros(pairs, dtype=torch.float64) for _ in range(3))
    for _ in range(batches // 500):
        member = torch.rand(500, pairs, generator=generator).argsort(dim=1)[:, :batch_size]
        held = bins[member]
        sizes = torch.zeros(500, count).scatter_add_(1, held, torch.ones(held.shape))
        weight = sizes.gather(1, held).double() ** -alpha
        total.index_add_(0, member.flatten(), weight.flatten())
        squares.index_add_(0, member.flatten(), weight.flatten() ** 2)
        seen.index_add_(0, member.flatten(), torch.ones(member.numel(), dtype=torch.float64))
    mean = total / seen
    return mean, ((squares / seen - mean**2).clamp_min(0) / seen).sqrt()


def test_ghm_weight_is_the_mean_over_training_batches() -> None:
    start = time.perf_counter()
    s_a, s_b, pairs = some_pairs(120)
    loss = ti.GHMRankingLoss(1.0, bins=10, alpha=0.75, batch_size=32)
    found = weights(loss, s_a, s_b, pairs)
    bins = loss.bin(s_a, s_b, pairs.target.double())
    mean, error = plain_batch_ghm(bins, 0.75, 32, 20_000, seed=1)
    assert bool(((mean - found).abs() <= 5 * error + 1e-12).all())
    whole = weights(ti.GHMRankingLoss(1.0, bins=10, alpha=0.75, batch_size=None), s_a, s_b, pairs)
    assert not bool(((mean - whole).abs() <= 5 * error + 1e-12).all()), "the test should tell B = 32 from B = all"
    assert time.perf_counter() - start < 10


def test_ghm_over_one_pair_alone_would_be_the_standard_loss() -> None:
    """The trap: every pair is the only one of its bin. Bound to the population, the weights differ from 1."""
    s_a, s_b, pairs = some_pairs(60)
    loss = ti.GHMRankingLoss()
    alone = torch.cat([weights(loss, s_a[row], s_b[row], pairs.select(row)) for row in torch.arange(60).split(1)])
    assert alone.tolist() == [1.0] * 60
    together = weights(loss, s_a, s_b, pairs)
    assert float((together < 0.95).double().mean()) > 0.8
    assert len(together.unique()) > 3


def test_ghm_with_alpha_0_is_the_standard_loss() -> None:
    s_a, s_b, pairs = some_pairs()
    weight = weights(ti.GHMRankingLoss(alpha=0.0), s_a, s_b, pairs)
    torch.testing.assert_close(weight, torch.ones_like(weight))
    y = pairs.target.double()
    assert torch.equal(ti.GHMRankingLoss(0.4)(s_a, s_b, y), ti.MarginRankingLoss(0.4)(s_a, s_b, y))


def test_ghm_over_all_pairs_is_density_to_the_minus_alpha() -> None:
    s_a, s_b, pairs = some_pairs()
    loss = ti.GHMRankingLoss(alpha=0.6, batch_size=None)
    bins = loss.bin(s_a, s_b, pairs.target.double())
    sizes = torch.bincount(bins, minlength=10).double()
    torch.testing.assert_close(weights(loss, s_a, s_b, pairs), sizes[bins] ** -0.6)


def test_ghm_respects_counts() -> None:
    s_a, s_b, pairs = some_pairs(40)
    count = torch.arange(40) % 5 + 1
    counted = ti.Pairs(pairs.first, pairs.second, pairs.target, count=count)
    rows = torch.repeat_interleave(torch.arange(40), count)
    loss = ti.GHMRankingLoss(batch_size=7)
    once = weights(loss, s_a, s_b, counted)
    repeated = weights(loss, s_a[rows], s_b[rows], pairs.select(rows))
    torch.testing.assert_close(once[rows], repeated)
    plain = weights(loss, s_a, s_b, pairs)
    assert not torch.allclose(once, plain)


def test_bins_by_their_edges() -> None:
    loss = ti.GHMRankingLoss(margin=0.0, bins=4)

    def bin_of(difficulty: float) -> int:
        difference = torch.tensor([-math.log(difficulty / (1 - difficulty))], dtype=torch.float64)
        return int(loss.bin(difference, torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)))

    assert [bin_of(d) for d in (0.001, 0.2499, 0.2501, 0.4999, 0.5, 0.7499, 0.7501, 0.999)] == [0, 0, 1, 1, 2, 2, 3, 3]
    far = torch.tensor([1e4, -1e4], dtype=torch.float64)
    assert loss.bin(far, torch.zeros(2).double(), torch.ones(2).double()).tolist() == [0, 3], "the last bin is closed"


def test_one_bin_weighs_all_pairs_alike() -> None:
    loss = ti.GHMRankingLoss(bins=1, alpha=0.6, batch_size=None)
    pairs = ti.Pairs([0, 1, 2], [3, 4, 5], [1, -1, 1])
    s_a, s_b = torch.tensor([[3.0, 0.1, -2.0], [0.0, 0.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(weights(loss, s_a, s_b, pairs), torch.full((3,), 3**-0.6, dtype=torch.float64))


@pytest.mark.parametrize("margin", [1.0, 10.0, 16.7])
def test_labs_difficulty_by_its_formula(margin: float) -> None:
    """d = sigmoid(margin − c y (s_a − s_b)), c = 1 for y = +1 and 3 for y = −1; 1 in float32 is in no bin."""
    s_a, s_b, pairs = some_pairs()
    loss = ti.GHMRankingLoss(margin, bins=10, variant="lab")
    found = loss.bin(s_a, s_b, pairs.target.double())
    c = torch.where(pairs.target > 0, 1.0, 3.0)
    difficulty = torch.sigmoid((margin - c * pairs.target * (s_a - s_b)).float())
    right = torch.where(difficulty == 1, -1, (difficulty * 10).long())
    assert torch.equal(found, right)
    rows = zip((s_a - s_b).tolist(), pairs.target.tolist(), found.tolist(), strict=True)
    again = [(ghm_bin(loss, difference, y, margin), k) for difference, y, k in rows]
    assert all((-1 if mine is None else mine) == k for mine, k in again)
    weight = weights(loss, s_a, s_b, pairs)
    assert torch.equal(weight == 0, found == -1)
    assert bool((found == -1).any())
    symmetric = ti.GHMRankingLoss(margin, bins=10).bin(s_a, s_b, pairs.target.double())
    up = pairs.target > 0
    assert torch.equal(symmetric[up & (found >= 0)], found[up & (found >= 0)])
    assert not torch.equal(symmetric[~up], found[~up])


def test_an_empty_bin_takes_its_nearest_neighbours_weight() -> None:
    loss = ti.GHMRankingLoss(margin=0.0, bins=10, batch_size=None)
    train = ti.Pairs([0, 0, 0], [1, 1, 1], [1, 1, 1])
    zeros = torch.zeros(3, dtype=torch.float64)
    trained = torch.tensor([3.0, 3.0, -3.0], dtype=torch.float64)  # bins 0, 0 and 9
    at = torch.tensor([2.0, -2.0, 1.0], dtype=torch.float64)  # bins 1, 8 and 2
    assert weights(loss, at, zeros, train, trained).tolist() == pytest.approx([2**-0.75, 1.0, 2**-0.75])


def test_all_pairs_outside_every_bin_weigh_nothing() -> None:
    loss = ti.GHMRankingLoss(margin=100.0, variant="lab")
    pairs = ti.Pairs([0], [1], [1])
    zero = torch.zeros(1)
    assert weights(loss, zero, zero, pairs).tolist() == [0.0]


@pytest.mark.parametrize(("population", "members", "batch"), [(10, 3, 4), (50, 50, 8), (566, 100, 32), (7, 1, 5)])
def test_batch_expectation_is_the_exact_sum(population: int, members: int, batch: int) -> None:
    right = sum(
        math.comb(members - 1, hits) * math.comb(population - members, batch - 1 - hits) * (1 + hits) ** -0.75
        for hits in range(batch)
    ) / math.comb(population - 1, batch - 1)
    assert batch_expectation(population, members, batch, 0.75) == pytest.approx(right, rel=1e-10)


def test_batch_expectation_at_its_ends() -> None:
    assert batch_expectation(100, 30, 1, 0.75) == 1.0
    assert batch_expectation(100, 30, None, 0.75) == 30**-0.75
    assert batch_expectation(100, 30, 100, 0.75) == pytest.approx(30**-0.75)
    assert batch_expectation(60_000, 20_000, 32, 0.75) > 0


# Callables


def test_what_a_callable_takes() -> None:
    assert as_loss(ti.LogisticLoss()) == ti.LogisticLoss()
    three, four = as_loss(lambda a, b, y: a), as_loss(lambda a, b, y, margin: a)
    assert isinstance(three, CallableLoss)
    assert isinstance(four, CallableLoss)
    assert (three.takes_margin, four.takes_margin) == (False, True)
    assert as_loss(torch.sub) == CallableLoss(torch.sub, takes_margin=False), "a builtin without a signature"
    one = torch.ones(1)
    with pytest.raises(ti.UsageError, match="`pairs.margin` was given, and the loss takes no margin"):
        three(one, one, one, one)


def test_a_default_margin_of_the_callable_stays() -> None:
    loss = as_loss(lambda a, b, y, margin=0.25: torch.relu(margin - y * (a - b)))
    one = torch.ones(1)
    assert loss(one, one, one).tolist() == [0.25]
    assert loss(one, one, one, torch.tensor([2.0])).tolist() == [2.0]


def test_a_closed_derivative_serves_losses_of_the_difference_only() -> None:
    class Own(ti.PairLoss):
        def __init__(self, of_difference: bool) -> None:
            self.of_difference = of_difference  # type: ignore[misc]

        def __call__(self, first: Tensor, second: Tensor, target: Tensor, margin: Tensor | None = None) -> Tensor:
            return 3 * first - (3 if self.of_difference else 1) * second

        def derivative(self, first: Tensor, *_: Any) -> Tensor:
            return torch.full_like(first, 4)

    s_a, s_b, pairs = some_pairs(5)
    for of_difference, slopes in ((True, (4, -4)), (False, (3, -1))):
        terms = loss_terms(Own(of_difference), None, s_a, s_b, pairs)
        assert terms.first_slope.unique().tolist() == [slopes[0]]
        assert terms.second_slope.unique().tolist() == [slopes[1]]


def test_a_loss_of_one_number_for_all_pairs_is_refused() -> None:
    pairs, layer = ti.Pairs([0, 1], [1, 2], [1, 1]), nn.Linear(2, 1)
    with pytest.raises(
        ti.UsageError, match="`loss` MarginRankingLoss returned shape .*It should return one value per pair"
    ):
        calls.self_influence(
            layer, torch.randn(3, 2), pairs, [ti.Checkpoint(layer.state_dict(), 0.1)], loss=nn.MarginRankingLoss()
        )


def test_slopes_that_are_not_finite_stop_the_run() -> None:
    pairs, layer = ti.Pairs([0, 1], [1, 2], [1, 1]), nn.Linear(2, 1)

    def loss(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        return (y * (a - b) - 100) ** 0.5

    with pytest.raises(ti.NumericalError, match="pair 0_1"):
        calls.self_influence(
            layer, torch.randn(3, 2), pairs, [ti.Checkpoint(layer.state_dict(), 0.1)], loss=loss, engine="item"
        )
