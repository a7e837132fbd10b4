"""Figures of an evaluation: AUC, precision, linear datamodelling score, and their intervals."""

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from tracin_func.errors import UsageError

RESAMPLES = 2000
CONFIDENCE = 0.95
_LEAST_REPEATED = 3  # repetitions that show their spread


class Interval(NamedTuple):
    """A figure and its 95% interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether `value` lies within, or the interval is undefined."""
        return not (value < self.low or value > self.high)


def auc(scores: Tensor, marked: Tensor) -> float:
    """The chance that a marked pair has a higher score than an unmarked one; ties count one half, [pairs].

    AUC = (Σ ranks of marked − m (m + 1) / 2) / (m n),   m marked, n unmarked;   NaN without either.
    """
    marked_count, others = int(marked.sum()), int((~marked).sum())
    if not marked_count or not others:
        return math.nan
    ranked = float(ranks(scores)[marked].sum())
    return (ranked - marked_count * (marked_count + 1) / 2) / (marked_count * others)


def precision(scores: Tensor, marked: Tensor, k: int) -> float:
    """The share of marked pairs among the k highest scores, ties in the order of pairs; NaN for k = 0."""
    return float(marked[highest(scores, k)].double().mean()) if k else math.nan


def highest(scores: Tensor, k: int) -> Tensor:
    """Positions of the k highest scores, ties in the order of pairs, [k]."""
    return torch.sort(scores, descending=True, stable=True).indices[:k]


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the first axis, float64 as `values` [n, ...]; equal values share their mean rank."""
    rows = values.movedim(0, -1).contiguous()
    ordered = rows.sort(dim=-1).values
    below, upto = (torch.searchsorted(ordered, rows, right=right) for right in (False, True))
    return (below + upto + 1).double().movedim(-1, 0) / 2


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Rank correlation of two tables [n, ...] along the first axis, float64 [...]; NaN for a constant column."""
    left, right = (each - each.mean(dim=0) for each in (ranks(first), ranks(second)))
    scale = (left.square().sum(dim=0) * right.square().sum(dim=0)).sqrt()
    return torch.where(scale > 1e-9, (left * right).sum(dim=0) / scale, math.nan)


def datamodelling_score(predicted: Tensor, outcomes: Tensor) -> float:
    """LDS (arXiv 2303.14186): Spearman's correlation over subsets for each query, then the mean over queries.

    Args:
        predicted: Σ of the effects of the pairs in each subset, [subsets, queries].
        outcomes: score margins of the queries after retraining on each subset, [subsets, queries].

    Returns:
        The mean over queries whose margins and predictions both vary; NaN without such a query.
    """
    return float(spearman(predicted, outcomes).nanmean())


def resampled(count: int, seed: int = 0, resamples: int = RESAMPLES) -> Tensor:
    """Bootstrap samples: positions drawn with replacement, int64 [resamples, count]."""
    return torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed))


def interval(values: Tensor, confidence: float = CONFIDENCE) -> Interval:
    """The mean of repetitions, float64 [n], and Student's interval: mean ± t s / √n; NaN limits for fewer than 3.

    The quantile t of n − 1 degrees of freedom is the expansion 26.7.5 of Abramowitz and Stegun.
    """
    count, values = len(values), values.double()
    if count < _LEAST_REPEATED:
        return Interval(float(values.mean()) if count else math.nan, math.nan, math.nan)
    half = student((1 + confidence) / 2, count - 1) * float(values.std()) / math.sqrt(count)
    return Interval(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half)


def student(probability: float, freedom: int) -> float:
    """The quantile of Student's distribution, within 2% from 2 degrees of freedom on and 0.1% from 5."""
    z = NormalDist().inv_cdf(probability)
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom**power) for power, term in enumerate(terms, start=1))


def datamodelling_intervals(predicted: list[Tensor], outcomes: Tensor, seed: int = 0) -> list[Interval]:
    """The LDS of several methods, each with its interval over the SAME bootstrap samples of subsets."""
    samples = _datamodelling_samples(predicted, outcomes, seed)
    values = [datamodelling_score(each, outcomes) for each in predicted]
    return [Interval(value, *_limits(row)) for value, row in zip(values, samples, strict=True)]


def datamodelling_difference(first: Tensor, second: Tensor, outcomes: Tensor, seed: int = 0) -> Interval:
    """LDS of `first` − LDS of `second`, with the interval of a paired bootstrap over subsets."""
    own, other = _datamodelling_samples([first, second], outcomes, seed)
    value = datamodelling_score(first, outcomes) - datamodelling_score(second, outcomes)
    return Interval(value, *_limits(own - other))


def noise_ceiling(margins: Tensor) -> float:
    """The LDS that exact expected margins would have: √r of the mean over seeds, from split seeds.

    With ρ the mean LDS between single seeds, the mean of S seeds has reliability r = S ρ / (1 + (S − 1) ρ)
    (Spearman and Brown); its correlation with its own expectation is √r.

    Args:
        margins: float64 [subsets, seeds, queries].

    Returns:
        NaN with a single seed.
    """
    seeds = margins.shape[1]
    if seeds < 2:
        return math.nan
    found = [
        datamodelling_score(margins[:, first], margins[:, second]) for first in range(seeds) for second in range(first)
    ]
    single = max(sum(found) / len(found), 0.0)
    return math.sqrt(seeds * single / (1 + (seeds - 1) * single))


def _datamodelling_samples(predicted: list[Tensor], outcomes: Tensor, seed: int) -> Tensor:
    """LDS of each method in each bootstrap sample, float64 [methods, resamples]."""
    if any(each.shape != outcomes.shape for each in predicted):
        raise UsageError(f"predictions should have the shape of the outcomes, {tuple(outcomes.shape)}.")
    count, queries = outcomes.shape
    weights = torch.stack([torch.bincount(rows, minlength=count) for rows in resampled(count, seed)]).double()
    found = torch.full((len(predicted), queries, len(weights)), math.nan, dtype=torch.float64)
    for query in range(queries):
        wanted = _centred_ranks(outcomes[:, query], weights)
        for position, each in enumerate(predicted):
            own = _centred_ranks(each[:, query], weights)
            scale = ((weights * own * own).sum(dim=1) * (weights * wanted * wanted).sum(dim=1)).sqrt()
            found[position, query] = torch.where(scale > 1e-9, (weights * own * wanted).sum(dim=1) / scale, math.nan)
    return found.nanmean(dim=1)


def _centred_ranks(values: Tensor, weights: Tensor) -> Tensor:
    """Ranks within each bootstrap sample minus their mean, float64 [samples, n].

    A value's rank is the number of smaller ones in the sample and half the number of equal ones: a product with the
    matrix of comparisons, in place of a sort per sample.

    Args:
        values: [n].
        weights: how often each is in a sample, float64 [samples, n].
    """
    above = (values < values[:, None]).double() + (values == values[:, None]).double() / 2
    found = weights @ above.T
    return found - ((weights * found).sum(dim=1) / weights.sum(dim=1))[:, None]


def _limits(samples: Tensor) -> tuple[float, float]:
    """The bounds of the middle 95% of samples that are defined."""
    kept = samples[~samples.isnan()]
    if not len(kept):
        return math.nan, math.nan
    low, high = torch.quantile(
        kept, torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], dtype=torch.float64)
    ).tolist()
    return low, high
