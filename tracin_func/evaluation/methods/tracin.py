"""TracIn: influence on the score margin of each query (arXiv 2002.08484)."""

from dataclasses import replace
from functools import partial

from torch import Tensor

from tracin_func.evaluation.methods.method import Scoring
from tracin_func.scoring.observer import Observer
from tracin_func.scoring.score import influence
from tracin_func.task.method import Method
from tracin_func.task.task import Task

SILENT = Observer(notice=lambda sentence: None)


def influence_scores(task: Task, test_functional: str = "score-margin", preconditioner: str = "none") -> Tensor:
    """Influence of each training pair, float64 [train_pairs, queries]."""
    method = Method(test_functional=test_functional, preconditioner=preconditioner)
    return influence(task, method=method, observer=SILENT).scores


def of_last(task: Task) -> Tensor:
    """Influence at the last checkpoint alone."""
    return influence_scores(replace(task, checkpoints=task.checkpoints[-1:]))


TRACIN = Scoring("TracIn, influence on the score margin of the queries", influence_scores)
TRACIN_LAST = Scoring("the same at the last checkpoint alone", of_last)
TRACIN_LOSS = Scoring("the same on the loss of the queries", partial(influence_scores, test_functional="loss"))
TRACIN_ADAM = Scoring(
    "the same with gradients scaled as Adam does (needs its moments)", partial(influence_scores, preconditioner="adam")
)
