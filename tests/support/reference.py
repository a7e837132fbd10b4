"""What the scores should be: slow, obvious, and independent of the package's way of computing them.

One `torch.autograd.grad` of one weighted pair loss at a time, in float64, on a deep copy of the module that
`load_state_dict` filled; learning rates by parameter name. No functional_call, no vmap, no chain rule through
items, no Gram matrix. Only the data types (`Pairs`, `Checkpoint`, the losses' settings) are the package's.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tracin_func import Checkpoint, GHMRankingLoss, LogisticLoss, MarginRankingLoss, Pairs

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}

PlainLoss = Callable[[Tensor, Tensor, int, float | None], Tensor]


@dataclass(frozen=True)
class Job:
    """What is to be scored."""

    module: nn.Module
    items: Any
    train: Pairs
    test: Pairs
    checkpoints: Sequence[Checkpoint]
    loss: Any = MarginRankingLoss(1.0)
    joint: bool = False
    test_functional: str = "loss"
    weight_test_pairs: bool = False

    def at(self, dtype: torch.dtype) -> "Job":
        """The same job with weights and items rounded to `dtype`."""

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        checkpoints = [
            replace(checkpoint, source={name: cast(tensor) for name, tensor in checkpoint.source.items()})
            for checkpoint in self.checkpoints
        ]
        module = copy.deepcopy(self.module).to(dtype)
        return replace(self, module=module, items=pytree.tree_map(cast, self.items), checkpoints=checkpoints)


@dataclass(frozen=True)
class Trace:
    """Per checkpoint: `own` [checkpoints, train], `cross` [checkpoints, train, test], and ‖∇ℓ‖_M of both tables."""

    own: Tensor
    cross: Tensor
    train_norm: Tensor
    test_norm: Tensor


def reference(job: Job) -> Trace:
    """The right scores of `job`."""
    return trace(job, [rows_of(job, checkpoint) for checkpoint in job.checkpoints])


def rows_of(job: Job, checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    """√η ∇θ of every weighted pair loss at one checkpoint: [train, params] and [test, params]."""
    module = module_at(job.module, checkpoint.source)
    plain = plain_loss(job.loss)
    train_weight, test_weight = weights_of(job, module)
    test_loss = minus_margin if job.test_functional == "score-margin" else plain
    train = [weight * gradient_of(module, job, job.train, p, plain) for p, weight in enumerate(train_weight)]
    test = [weight * gradient_of(module, job, job.test, q, test_loss) for q, weight in enumerate(test_weight)]
    root = root_rates(module, checkpoint.learning_rate)
    return torch.stack(train) * root, torch.stack(test) * root


def trace(job: Job, rows: Sequence[tuple[Tensor, Tensor]]) -> Trace:
    """Scores from gradient rows, one pair of tables a checkpoint."""
    return Trace(
        own=torch.stack([train.square().sum(dim=1) for train, _ in rows]),
        cross=torch.stack([train @ test.T for train, test in rows]),
        train_norm=torch.stack([train.norm(dim=1) for train, _ in rows]),
        test_norm=torch.stack([test.norm(dim=1) for _, test in rows]),
    )


def assert_same(own: Tensor | None, cross: Tensor | None, right: Trace, tolerance: float) -> None:
    """|x − r| ≤ tolerance · ‖∇ℓ_p‖_M ‖∇ℓ_q‖_M at each checkpoint (and so for the sum over checkpoints)."""
    if own is not None:
        _assert_within(own, right.own, right.train_norm.square(), tolerance)
    if cross is not None:
        _assert_within(cross, right.cross, right.train_norm[:, :, None] * right.test_norm[:, None, :], tolerance)


def _assert_within(found: Tensor, right: Tensor, scale: Tensor, tolerance: float) -> None:
    assert found.dtype == torch.float64
    assert found.shape == right.shape
    assert bool(found.isfinite().all())
    excess = (found - right).abs() - tolerance * scale
    worst = int(excess.argmax())
    assert bool((excess <= 0).all()), (
        f"{int((excess > 0).sum())} of {excess.numel()} differ; worst at {worst}: {found.flatten()[worst]:.12g}, "
        f"should be {right.flatten()[worst]:.12g} ± {(tolerance * scale).flatten()[worst]:.2g}"
    )


def module_at(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A float64 copy of the module in eval mode with these weights."""
    own = copy.deepcopy(module).double().eval()
    own.load_state_dict(dict(weights))
    return own


def gradient_of(module: nn.Module, job: Job, pairs: Pairs, row: int, loss: PlainLoss) -> Tensor:
    """∇θ ℓ of one pair, unweighted, flat over the trainable parameters."""
    parameters = trainable(module)
    s_a, s_b = scores_of(module, job, int(pairs.first[row]), int(pairs.second[row]))
    value = loss(s_a, s_b, int(pairs.target[row]), None if pairs.margin is None else float(pairs.margin[row]))
    if not value.requires_grad:
        return torch.zeros(sum(parameter.numel() for parameter in parameters.values()), dtype=torch.float64)
    gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
            for parameter, gradient in zip(parameters.values(), gradients, strict=True)
        ]
    )


def scores_of(module: nn.Module, job: Job, first: int, second: int) -> tuple[Tensor, Tensor]:
    """s_a and s_b, each item alone in a batch of one; Δ and 0 of a joint scorer."""
    item_a, item_b = item_of(job.items, first), item_of(job.items, second)
    if job.joint:
        difference = module(item_a, item_b).reshape(())
        return difference, torch.zeros_like(difference)
    return module(item_a).reshape(()), module(item_b).reshape(())


def item_of(items: Any, position: int) -> Any:
    """One item as a float64 batch of one."""

    def alone(leaf: Tensor) -> Tensor:
        leaf = leaf[position : position + 1]
        return leaf.double() if leaf.is_floating_point() else leaf

    return pytree.tree_map(alone, items)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that gradients are of."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def root_rates(module: nn.Module, rate: float | Mapping[str, float]) -> Tensor:
    """√η of every entry of a row."""
    return torch.cat(
        [
            torch.full(
                (parameter.numel(),), math.sqrt(rate[name] if isinstance(rate, Mapping) else rate), dtype=torch.float64
            )
            for name, parameter in trainable(module).items()
        ]
    )


# Losses, written out for one pair


def plain_loss(loss: Any) -> PlainLoss:
    """The loss of one pair by its definition, no code shared."""
    if isinstance(loss, MarginRankingLoss | GHMRankingLoss):
        return lambda s_a, s_b, y, margin: hinge(s_a, s_b, y, loss.margin if margin is None else margin)
    if isinstance(loss, LogisticLoss):
        return lambda s_a, s_b, y, margin: logistic(s_a, s_b, y, margin or 0.0, loss.label_smoothing)
    return lambda s_a, s_b, y, margin: loss(s_a, s_b, torch.tensor(float(y), dtype=s_a.dtype))


def hinge(s_a: Tensor, s_b: Tensor, y: int, margin: float) -> Tensor:
    excess = margin - y * (s_a - s_b)
    return excess if excess.item() > 0 else 0 * excess


def logistic(s_a: Tensor, s_b: Tensor, y: int, margin: float, smoothing: float) -> Tensor:
    probability = torch.sigmoid(y * (s_a - s_b) - margin)
    return -(1 - smoothing) * torch.log(probability) - smoothing * torch.log(1 - probability)


def minus_margin(s_a: Tensor, s_b: Tensor, y: int, margin: float | None) -> Tensor:
    return -y * (s_a - s_b)


def weights_of(job: Job, module: nn.Module) -> tuple[list[float], list[float]]:
    """w_p of both tables: the pairs' own weight, times the GHM weight of training pairs."""

    def differences(pairs: Pairs) -> list[float]:
        with torch.no_grad():
            both = [scores_of(module, job, *ab) for ab in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)]
        return [float(s_a - s_b) for s_a, s_b in both]

    train, test = own_weights(job.train), own_weights(job.test)
    if job.test_functional == "score-margin":
        test = [1.0] * len(test)
    if isinstance(job.loss, GHMRankingLoss):
        bins = [ghm_bin(job.loss, *row) for row in _rows(job.loss, job.train, differences(job.train))]
        weight = ghm_weights(job.loss, bins, job.train.counts.tolist())
        train = [own * weight(k) for own, k in zip(train, bins, strict=True)]
        if job.weight_test_pairs and job.test_functional == "loss":
            rows = _rows(job.loss, job.test, differences(job.test))
            test = [own * weight(ghm_bin(job.loss, *row)) for own, row in zip(test, rows, strict=True)]
    return train, test


def own_weights(pairs: Pairs) -> list[float]:
    return [1.0] * len(pairs) if pairs.weight is None else pairs.weight.tolist()


def _rows(loss: GHMRankingLoss, pairs: Pairs, differences: list[float]) -> list[tuple[float, int, float]]:
    margins = [loss.margin] * len(pairs) if pairs.margin is None else pairs.margin.tolist()
    return list(zip(differences, pairs.target.tolist(), margins, strict=True))


def ghm_bin(loss: GHMRankingLoss, difference: float, y: int, margin: float) -> int | None:
    """The bin of a pair; None where the lab's variant has none."""
    factor = 3.0 if loss.variant == "lab" and y < 0 else 1.0
    excess = margin - factor * y * difference
    difficulty = 1 / (1 + math.exp(-excess))
    if loss.variant == "lab":  # as such models were trained: all of it in float32
        one = np.float32(1)
        difficulty = float(one / (one + np.exp(-np.float32(excess))))
        if difficulty >= 1.0:
            return None
    return min(int(difficulty * loss.bins), loss.bins - 1)


def ghm_weights(loss: GHMRankingLoss, bins: list[int | None], counts: list[int]) -> Callable[[int | None], float]:
    """E[(1 + H)^(−alpha)] of each bin, H hypergeometric(P − 1, R − 1, B − 1), by counting batches."""
    total = sum(counts)
    sizes: dict[int, int] = {}
    for k, count in zip(bins, counts, strict=True):
        if k is not None:
            sizes[k] = sizes.get(k, 0) + count
    batch = total if loss.batch_size is None else min(loss.batch_size, total)

    def weight(k: int | None) -> float:
        if k is None or not sizes:
            return 0.0
        size = sizes[min(sizes, key=lambda other: (abs(other - k), other))]
        return sum(
            math.comb(size - 1, hits) * math.comb(total - size, batch - 1 - hits) * (1 + hits) ** -loss.alpha
            for hits in range(min(size, batch))
        ) / math.comb(total - 1, batch - 1)

    return weight


# An oracle that does not know the formula


def one_step_change(job: Job, checkpoint: Checkpoint, train_row: int, test_row: int, step: float) -> float:
    """(ℓ_q before − ℓ_q after) / step, for one real SGD step on the loss of pair p at rates step · η."""
    module = module_at(job.module, checkpoint.source)
    plain = plain_loss(job.loss)
    train_weight, test_weight = weights_of(job, module)

    def loss_at(pairs: Pairs, row: int, weight: float) -> Tensor:
        s_a, s_b = scores_of(module, job, int(pairs.first[row]), int(pairs.second[row]))
        margin = None if pairs.margin is None else float(pairs.margin[row])
        return weight * plain(s_a, s_b, int(pairs.target[row]), margin)

    rate = checkpoint.learning_rate
    optimizer = torch.optim.SGD(
        [
            {"params": [parameter], "lr": step * (rate[name] if isinstance(rate, Mapping) else rate)}
            for name, parameter in trainable(module).items()
        ],
        lr=0.0,
    )
    before = float(loss_at(job.test, test_row, test_weight[test_row]).detach())
    loss_at(job.train, train_row, train_weight[train_row]).backward()
    optimizer.step()
    after = float(loss_at(job.test, test_row, test_weight[test_row]).detach())
    return (before - after) / step
