"""The two functions of the Python API: thin faces of `Task` and `score`."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tracin_func.gradients.compute import Compute
from tracin_func.losses.registry import DEFAULT
from tracin_func.results.influence import Influence, SelfInfluence
from tracin_func.scoring.score import score
from tracin_func.task.checkpoints import Checkpoint
from tracin_func.task.loss import PairLoss
from tracin_func.task.method import NONE, Projection
from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task

Loss = PairLoss | Callable[..., Tensor]


def self_influence(
    scorer: nn.Module,
    items: Any,
    pairs: Pairs,
    checkpoints: Sequence[Checkpoint],
    *,
    loss: Loss = DEFAULT,
    item_ids: Sequence[str] | None = None,
    joint: bool = False,
    engine: str = "auto",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory_budget: int | None = None,
    projection: Projection | None = None,
) -> SelfInfluence:
    """How hard each training pair is: self(p) = Σ_t ‖∇ℓ_p‖²_M, M_t = diag η_t (arXiv 2002.08484, section 3.2).

    Args:
        scorer: an nn.Module, batch of items [items, ...] -> scores [items] or [items, 1]. It is not changed.
        items: a tensor [items, ...], a dict or tuple of tensors with a common first axis, or a map-style dataset.
        pairs: who was compared with whom, [pairs].
        checkpoints: the saved states to sum over.
        loss: one of ours, or any element-wise torch callable ℓ(s_a, s_b, y[, margin]).
        item_ids: one name an item.
        joint: the scorer takes two batches and returns score differences [pairs].
        engine: `loop`, `pair`, `item` or `auto`.
        device: a torch device; the first there is of cuda, mps and cpu when None.
        dtype: floating-point type of weights and items; their own when None.
        batch_size: units differentiated together; measured within the memory budget when "auto".
        memory_budget: bytes; half of what is free when None.
        projection: scores are estimates from gradients projected so; None: exact.

    Returns:
        Scores [pairs], at least 0, and what is needed to read them.

    Raises:
        UsageError: an argument wrong in itself. InputError: checkpoints, items, pairs and scorer do not fit.
        NumericalError: a score or a gradient is NaN or infinite.
    """
    task = Task(scorer, items, pairs, checkpoints, loss=loss, item_ids=item_ids, joint=joint)
    compute = Compute(engine, device, dtype, batch_size, memory_budget, projection=projection or NONE)
    result = score(task, compute, self_influence=True).self_influence
    assert result is not None
    return result


def influence(
    scorer: nn.Module,
    items: Any,
    train_pairs: Pairs,
    test_pairs: Pairs,
    checkpoints: Sequence[Checkpoint],
    *,
    loss: Loss = DEFAULT,
    test_functional: str = "loss",
    weight_test_pairs: bool = False,
    item_ids: Sequence[str] | None = None,
    joint: bool = False,
    engine: str = "auto",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory_budget: int | None = None,
    projection: Projection | None = None,
) -> Influence:
    """What each training pair did to each test pair: Σ_t ⟨∇ℓ_p, M_t ∇ℓ_q⟩ (arXiv 2002.08484, section 3.2).

    Args:
        train_pairs: the pairs the model was trained on.
        test_pairs: the pairs whose loss is explained.
        test_functional: `loss`; or `score-margin`, −y (s_a − s_b), which does not saturate: positive then means
            that training on p raised the margin of q.
        weight_test_pairs: test pairs get the loss's population weights too (GHM); they are unweighted otherwise.
        scorer, items, checkpoints and the rest: as for `self_influence`.

    Returns:
        Scores [train_pairs, test_pairs]; positive: training on p lowered the loss of q (proponent).

    Raises:
        As `self_influence`.
    """
    task = Task(scorer, items, train_pairs, checkpoints, test_pairs, loss, item_ids, joint)
    compute = Compute(
        engine,
        device,
        dtype,
        batch_size,
        memory_budget,
        test_functional,
        weight_test_pairs,
        projection=projection or NONE,
    )
    result = score(task, compute, self_influence=False, influence=True).influence
    assert result is not None
    return result
