"""Plain loss of each training pair, the baseline of every ranking: it takes scores alone, and no gradients."""

import torch
from torch import Tensor

from tracin_func.evaluation.methods.method import Scoring
from tracin_func.losses.custom import as_loss
from tracin_func.task.task import Task
from tracin_func.training.retrain import checkpoint_scores


def losses(task: Task) -> Tensor:
    """ℓ of each training pair without weights, float64 [checkpoints, train_pairs]."""
    pairs, loss = task.train_pairs, as_loss(task.loss)
    scored = [
        loss(scores[pairs.first], scores[pairs.second], pairs.target.double(), pairs.margin)
        for scores in checkpoint_scores(task)
    ]
    return torch.stack(scored)


MEAN_LOSS = Scoring(
    "plain loss, mean over checkpoints", ranking=lambda task: losses(task).mean(dim=0), is_baseline=True
)
LAST_LOSS = Scoring("plain loss at the last checkpoint", ranking=lambda task: losses(task)[-1], is_baseline=True)
