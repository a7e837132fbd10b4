"""Procedures that are wrong on purpose, each in one of the ways that influence scores have gone wrong elsewhere.

Every one takes a `Job` and returns a `Trace` laid out as the reference's. `tests/gradients/engines/test_wrong.py` shows
that the comparison which our engines pass refuses it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

import tracin_func as ti
from tests.support.reference import (
    Job,
    PlainLoss,
    Trace,
    gradient_of,
    item_of,
    module_at,
    own_weights,
    plain_loss,
    root_rates,
    rows_of,
    trace,
    trainable,
    weights_of,
)

Rows = tuple[Tensor, Tensor]


def _plain(job: Job, checkpoint: ti.Checkpoint, loss: PlainLoss | None = None, weighted: bool = True) -> Rows:
    """Rows as they should be, but for `loss` and for weights left out."""
    module = module_at(job.module, checkpoint.source)
    loss = loss or plain_loss(job.loss)
    train_weight, test_weight = weights_of(job, module)
    if not weighted:
        train_weight, test_weight = [1.0] * len(train_weight), [1.0] * len(test_weight)
    train = [w * gradient_of(module, job, job.train, p, loss) for p, w in enumerate(train_weight)]
    test = [w * gradient_of(module, job, job.test, q, loss) for q, w in enumerate(test_weight)]
    root = root_rates(module, checkpoint.learning_rate)
    return torch.stack(train) * root, torch.stack(test) * root


def _at_rates(job: Job, rates: Sequence[float | Mapping[str, float]]) -> Trace:
    checkpoints = [replace(c, learning_rate=rate) for c, rate in zip(job.checkpoints, rates, strict=True)]
    return trace(job, [rows_of(job, checkpoint) for checkpoint in checkpoints])


def batch_mean_divided_by_the_batch_size(job: Job) -> Trace:
    """Every pair of a batch of four gets the gradient of the batch's mean loss, divided by four again."""
    rows = []
    for checkpoint in job.checkpoints:
        train, test = rows_of(job, checkpoint)
        means = [part.mean(dim=0, keepdim=True).expand_as(part) / len(part) for part in train.split(4)]
        rows.append((torch.cat(means), test))
    return trace(job, rows)


def rate_left_out(job: Job) -> Trace:
    return _at_rates(job, [1.0] * len(job.checkpoints))


def rate_squared(job: Job) -> Trace:
    def square(rate: float | Mapping[str, float]) -> float | dict[str, float]:
        return {name: value**2 for name, value in rate.items()} if isinstance(rate, Mapping) else rate**2

    return _at_rates(job, [square(checkpoint.learning_rate) for checkpoint in job.checkpoints])


def first_groups_rate_for_all(job: Job) -> Trace:
    def first(rate: float | Mapping[str, float]) -> float:
        return next(iter(rate.values())) if isinstance(rate, Mapping) else rate

    return _at_rates(job, [first(checkpoint.learning_rate) for checkpoint in job.checkpoints])


def checkpoints_in_lexicographic_order(job: Job) -> Trace:
    """epoch_10 before epoch_2: states meet the rates of others."""
    states = sorted(job.checkpoints, key=lambda checkpoint: checkpoint.name)
    pairs = zip(states, job.checkpoints, strict=True)
    mixed = [replace(state, learning_rate=at.learning_rate) for state, at in pairs]
    return trace(job, [rows_of(job, checkpoint) for checkpoint in mixed])


def last_state_for_all(job: Job) -> Trace:
    last = job.checkpoints[-1]
    return trace(job, [rows_of(job, replace(c, source=last.source)) for c in job.checkpoints])


def half_gradient_at_the_tie(job: Job) -> Trace:
    """torch.maximum shares the gradient of a tie between both sides."""

    def loss(s_a: Tensor, s_b: Tensor, y: int, margin: float | None) -> Tensor:
        excess = (job.loss.margin if margin is None else margin) - y * (s_a - s_b)
        return torch.maximum(torch.zeros_like(excess), excess)

    return trace(job, [_plain(job, checkpoint, loss) for checkpoint in job.checkpoints])


def ghm_over_one_pair(job: Job) -> Trace:
    """A histogram of one pair: each is alone in its bin, and every weight is 1."""
    standard = replace(job, loss=ti.MarginRankingLoss(job.loss.margin))
    return trace(job, [rows_of(standard, checkpoint) for checkpoint in job.checkpoints])


def tied_uses_counted_apart(job: Job) -> Trace:
    """‖∂left‖² + ‖∂right‖² in place of ‖∂left + ∂right‖²: the cross terms of a shared weight are lost."""
    return _untied(job, drop=False)


def one_use_of_a_tied_weight_dropped(job: Job) -> Trace:
    """As engines with hooks do that keep only the last call of a module."""
    return _untied(job, drop=True)


def _untied(job: Job, drop: bool) -> Trace:
    rows = []
    for checkpoint in job.checkpoints:
        module = copy.deepcopy(job.module)
        module.right = copy.deepcopy(module.left)
        rates = checkpoint.learning_rate
        if isinstance(rates, Mapping):
            rates = dict(rates) | {name: rates[name.replace("right", "left")] for name, _ in module.named_parameters()}
        train, test = rows_of(replace(job, module=module), replace(checkpoint, learning_rate=rates))
        kept = torch.cat(
            [
                torch.full((parameter.numel(),), not (drop and name.startswith("right")))
                for name, parameter in trainable(module).items()
            ]
        )
        rows.append((train * kept, test * kept))
    return trace(job, rows)


def gram_in_float32(job: Job) -> Trace:
    """u² K_aa + 2uv K_ab + v² K_bb from one float32 Gram matrix of items, for losses of s_a − s_b."""
    results = []
    for checkpoint in job.checkpoints:
        module = module_at(job.module, checkpoint.source)
        root = root_rates(module, checkpoint.learning_rate)

        def row(item: int, module: nn.Module = module, root: Tensor = root) -> Tensor:
            score = module(item_of(job.items, item)).reshape(())
            gradients = torch.autograd.grad(score, list(trainable(module).values()))
            return torch.cat([gradient.flatten() for gradient in gradients]) * root

        rows = torch.stack([row(item) for item in range(len(job.items))]).float()
        gram = (rows @ rows.T).double()
        a, b = job.train.first, job.train.second
        results.append(gram[a, a] - 2 * gram[a, b] + gram[b, b])
    right = trace(job, [rows_of(job, checkpoint) for checkpoint in job.checkpoints])
    return replace(right, own=torch.stack(results))


def train_mode_left_on(job: Job) -> Trace:
    """Dropout stays active, one mask a call."""
    rows = []
    for checkpoint in job.checkpoints:
        module = module_at(job.module, checkpoint.source)
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.train()
        root = root_rates(module, checkpoint.learning_rate)
        loss = plain_loss(job.loss)
        tables = [
            torch.stack([gradient_of(module, job, pairs, p, loss) for p in range(len(pairs))]) * root
            for pairs in (job.train, job.test)
        ]
        rows.append((tables[0], tables[1]))
    return trace(job, rows)


def coupled_scorer_in_one_batch(job: Job) -> Trace:
    """All items in one forward: every score depends on every item."""
    loss = plain_loss(job.loss)
    rows = []
    for checkpoint in job.checkpoints:
        module = module_at(job.module, checkpoint.source)
        root = root_rates(module, checkpoint.learning_rate)
        tables = []
        for pairs in (job.train, job.test):
            table = []
            for p in range(len(pairs)):
                scores = module(job.items.double()).flatten()
                value = loss(scores[pairs.first[p]], scores[pairs.second[p]], int(pairs.target[p]), None)
                gradients = torch.autograd.grad(value, list(trainable(module).values()), allow_unused=True)
                table.append(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]))
            tables.append(torch.stack(table) * root)
        rows.append((tables[0], tables[1]))
    return trace(job, rows)


def weights_normalised_in_every_batch(job: Job) -> Trace:
    """Gradients of each four pairs divided by their largest norm: scores then depend on the neighbours."""
    rows = []
    for checkpoint in job.checkpoints:
        train, test = rows_of(job, checkpoint)
        rows.append((torch.cat([part / part.norm(dim=1).max() for part in train.split(4)]), test))
    return trace(job, rows)


def sign_flipped(job: Job) -> Trace:
    right = trace(job, [rows_of(job, checkpoint) for checkpoint in job.checkpoints])
    return replace(right, cross=-right.cross)


def pair_weight_left_out(job: Job) -> Trace:
    return trace(job, [_plain(job, checkpoint, weighted=False) for checkpoint in job.checkpoints])


def test_pairs_weighted(job: Job) -> Trace:
    """GHM weights on the test pairs, which were not asked for."""
    assert own_weights(job.test) == [1.0] * len(job.test)
    weighted = replace(job, weight_test_pairs=True)
    return trace(job, [rows_of(weighted, checkpoint) for checkpoint in job.checkpoints])


test_pairs_weighted.__test__ = False  # type: ignore[attr-defined]
