"""Figures against direct counts: AUC, precision, ranks, the datamodelling score and its intervals."""

import math

import pytest
import torch

from tracin_func.evaluation.measures import (
    auc,
    datamodelling_difference,
    datamodelling_intervals,
    datamodelling_score,
    highest,
    interval,
    noise_ceiling,
    precision,
    ranks,
    resampled,
    spearman,
    student,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_auc_and_precision_against_a_count() -> None:
    scores = torch.randint(6, (40,), generator=generator()).double()  # with ties
    marked = torch.rand(40, generator=generator(1)) < 0.3
    wins = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in scores[marked].tolist()
        for low in scores[~marked].tolist()
    ]
    assert auc(scores, marked) == pytest.approx(sum(wins) / len(wins), abs=1e-12)
    order = sorted(range(40), key=lambda row: (-scores[row].item(), row))
    assert highest(scores, 7).tolist() == order[:7]
    assert precision(scores, marked, 7) == sum(bool(marked[row]) for row in order[:7]) / 7
    assert math.isnan(auc(scores, torch.zeros(40, dtype=torch.bool)))


def test_ranks_and_spearman_against_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    first, second = torch.randint(5, (2, 30, 3), generator=generator()).double()
    assert ranks(first).tolist() == pandas.DataFrame(first.numpy()).rank().to_numpy().tolist()
    direct = [pandas.Series(first[:, q]).rank().corr(pandas.Series(second[:, q]).rank()) for q in range(3)]
    assert spearman(first, second).tolist() == pytest.approx(direct, abs=1e-12)
    assert math.isnan(float(spearman(torch.ones(30, 1), second[:, :1])))


def test_the_score_of_a_known_datamodel_is_one_and_falls_with_noise() -> None:
    effects = torch.randn(50, 6, generator=generator(), dtype=torch.float64)
    masks = (torch.rand(60, 50, generator=generator(1)) < 0.5).double()
    outcomes = masks @ effects
    assert datamodelling_score(masks @ effects * 3 + 1, outcomes) == pytest.approx(1.0)
    assert datamodelling_score(-masks @ effects, outcomes) == pytest.approx(-1.0)
    noise = torch.randn(60, 6, generator=generator(2), dtype=torch.float64)
    shares = [datamodelling_score(outcomes, outcomes + level * outcomes.std() * noise) for level in (0.5, 1.0, 4.0)]
    assert 1 > shares[0] > shares[1] > shares[2] > 0
    assert shares[1] == pytest.approx(6 / math.pi * math.asin(math.sqrt(0.5) / 2), abs=0.1)  # of a normal pair
    constant = torch.cat([outcomes[:, :1], torch.zeros(60, 5)], dim=1)
    assert datamodelling_score(constant, outcomes) == pytest.approx(1.0)  # queries without variation are left out


def test_intervals_against_a_direct_bootstrap() -> None:
    outcomes = torch.randn(20, 3, generator=generator(), dtype=torch.float64).round(decimals=1)
    good, poor = (outcomes + each * torch.randn(20, 3, generator=generator(2), dtype=torch.float64) for each in (1, 4))
    direct = [
        (datamodelling_score(good[rows], outcomes[rows]), datamodelling_score(poor[rows], outcomes[rows]))
        for rows in resampled(20, 3)
    ]
    own, other = torch.tensor(direct, dtype=torch.float64).T
    limits = torch.tensor([0.025, 0.975], dtype=torch.float64)
    found = datamodelling_intervals([good, poor], outcomes, seed=3)
    assert found[0][1:] == pytest.approx(torch.quantile(own, limits).tolist(), abs=1e-9)
    assert found[1][1:] == pytest.approx(torch.quantile(other, limits).tolist(), abs=1e-9)
    paired = datamodelling_difference(good, poor, outcomes, seed=3)
    assert paired.value == pytest.approx(found[0].value - found[1].value)
    assert paired[1:] == pytest.approx(torch.quantile(own - other, limits).tolist(), abs=1e-9)


def test_the_interval_of_a_mean_covers_it() -> None:
    for count in (3, 6, 20):
        draws = (torch.randn(count, generator=generator(seed), dtype=torch.float64) for seed in range(400))
        assert 0.92 <= sum(interval(each).holds(0.0) for each in draws) / 400 <= 0.98
    pair = interval(torch.tensor([0.5, 0.7]))
    assert pair.value == pytest.approx(0.6)
    assert pair.holds(0.0)  # two repetitions show nothing
    table = {(0.975, 2): 4.3027, (0.975, 5): 2.5706, (0.975, 19): 2.0930, (0.995, 9): 3.2498}
    for (probability, freedom), value in table.items():
        assert student(probability, freedom) == pytest.approx(value, rel=0.02 if freedom < 5 else 1e-3)


def test_the_interval_of_random_scores_holds_zero() -> None:
    outcomes = torch.randn(40, 10, generator=generator(), dtype=torch.float64)
    held = 0
    for seed in range(20):
        random = torch.randn(40, 10, generator=generator(seed + 1), dtype=torch.float64)
        held += datamodelling_intervals([random], outcomes)[0].holds(0.0)
    assert held >= 16


def test_the_ceiling_is_the_score_of_the_expectation() -> None:
    expected = torch.randn(80, 1, 20, generator=generator(), dtype=torch.float64)
    margins = expected + 1.5 * torch.randn(80, 3, 20, generator=generator(1), dtype=torch.float64)
    best = datamodelling_score(expected[:, 0], margins.mean(dim=1))
    assert noise_ceiling(margins) == pytest.approx(best, abs=0.04)
    assert noise_ceiling(expected.expand(-1, 3, -1)) == pytest.approx(1.0)
    assert math.isnan(noise_ceiling(expected))
