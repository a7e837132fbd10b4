"""A run: a retrained model as a task whose training pairs are scored for queries."""

from dataclasses import replace

from tracin_func.task.pairs import Pairs
from tracin_func.task.task import Task
from tracin_func.training.retrain import Retrained


def run_of(task: Task, pairs: Pairs, trained: Retrained, queries: Pairs) -> Task:
    """The task of `trained`: its checkpoints, the pairs it was trained on, and `queries` as test pairs."""
    return replace(task, train=pairs, checkpoints=trained.checkpoints(), test=queries, held_out=None, trained_loss=None)
