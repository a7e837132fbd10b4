"""Self-influence: how hard each training pair is for the model."""

from dataclasses import replace

from torch import Tensor

from tracin_func.evaluation.methods.method import Scoring
from tracin_func.evaluation.methods.tracin import SILENT
from tracin_func.losses.custom import as_loss
from tracin_func.losses.margin import MarginRankingLoss
from tracin_func.scoring.score import self_influence
from tracin_func.task.task import Task


def self_scores(task: Task) -> Tensor:
    """self(p), float64 [train_pairs]."""
    return self_influence(task, observer=SILENT).scores


def without_weights(task: Task) -> Tensor:
    """self(p) with the margin ranking loss in place of a loss with weights such as GHM, which hide label errors."""
    loss = as_loss(task.loss)
    plain = MarginRankingLoss(getattr(loss, "margin", 1.0)) if loss.weighted else loss
    return self_scores(replace(task, loss=plain))


SELF_INFLUENCE = Scoring("self-influence", ranking=self_scores)
SELF_STANDARD = Scoring("self-influence with the standard margin loss, without GHM weights", ranking=without_weights)
